"""`python -m models.verify DIR`: does a checkpoint load strictly, match its hashes, and compute what it should?

With `inputs.safetensors` and `outputs.safetensors` beside the weights (a golden fixture), prints the largest deviation
per tensor, relative to the tensor's largest magnitude, and whether the greedy tokens are identical. Prints JSON; exits
with 1 when a tensor is out of tolerance or a file not as in the manifest, and 2 when the checkpoint cannot be loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint import hashes, load_decoder, load_encoder, load_pi3, load_selector, locate
from models.errors import CheckpointError
from models.layout import Layout, read_json, recognise
from models.prompt import Prompt
from models.rope import Grid

PREPARED = ("pixel_values_videos",)  # inputs that we compute ourselves, from the frames
TOLERANCE = 1e-4  # float32 on the CPU; two correct implementations differ by rounding, about 1e-6

Report = dict[str, Any]


def verify(path: Path) -> Report:
    """The report on one directory; `ok` says whether everything in it is within tolerance.

    Raises:
        CheckpointError: the directory does not load.
    """
    layout = recognise(path)
    report: Report = {"checkpoint": str(path), "layout": layout.kind, "ok": True}
    if (path / "manifest.json").is_file():
        report["files"] = _check_hashes(path)
        report["ok"] &= set(report["files"].values()) <= {"ok"}
    if (path / "outputs.safetensors").is_file():
        inputs, expected = _read(path / "inputs.safetensors"), _read(path / "outputs.safetensors")
        expected |= {name: inputs[name] for name in PREPARED if name in inputs}
        computed = _pi3(path, inputs) if layout.kind == "pi3" else _gsm(layout, inputs, expected)
        report |= compare(computed, expected)
        report["ok"] &= report["within_tolerance"]
    else:
        report["parameters"] = _load_every_stage(layout)
    return report


def compare(computed: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Report:
    """Deviation of every expected tensor: max |difference| / max |expected|. Integers must be identical."""
    deviations = {name: _deviation(computed.get(name), want) for name, want in expected.items()}
    limits = {name: TOLERANCE if want.is_floating_point() else 0.0 for name, want in expected.items()}
    wrong = sorted(name for name, deviation in deviations.items() if deviation is None or deviation > limits[name])
    return {"tolerance": TOLERANCE, "deviation": deviations, "out_of_tolerance": wrong, "within_tolerance": not wrong}


def _deviation(got: Tensor | None, want: Tensor) -> float | None:
    """None when there is nothing to compare: another shape, or something that is no number."""
    if got is None or got.shape != want.shape or not got.isfinite().all():
        return None
    largest = want.double().abs().max().item()
    return (got.double() - want.double()).abs().max().item() / (largest or 1.0)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None


@torch.inference_mode()
def _gsm(layout: Layout, inputs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of a fixture of the whole model, computed stage by stage from its frames and token ids."""
    if layout.special is None:
        raise CheckpointError(f"{layout.path} states no special tokens")
    lacking = {"frames", "second_per_grid_ts", "input_ids"} - inputs.keys()
    if lacking or "generated_ids" not in expected:
        raise CheckpointError(f"the fixture in {layout.path} lacks {sorted(lacking) or 'generated_ids'}")
    encoder, selector, decoder = load_encoder(layout), load_selector(layout), load_decoder(layout)
    frames = inputs["frames"]
    pixels, patches = decoder.patchify(frames)
    times, height, width = patches[0].tolist()
    merge = selector.config.spatial_merge
    grid = Grid(times, height // merge, width // merge, float(inputs["second_per_grid_ts"][0]))
    prompt = Prompt.from_ids(inputs["input_ids"][0].tolist(), layout.special)
    text = decoder.embed(prompt.text_ids)

    features = encoder(frames)
    merged = selector.remember(features, grid)
    geometry = selector.select([text], [selector.project(merged, grid)]).tokens[0]
    video = decoder.see(frames)
    composed = decoder.compose(prompt, grid, video, geometry)
    [generated] = decoder.generate([composed], max_tokens=len(expected["generated_ids"]))
    return {
        "pixel_values_videos": pixels,
        "geometry_patch_tokens": features,
        "merged_geometry": merged,
        "question_queries": selector.ask([text])[0],
        "geometry_tokens": geometry,
        "video_and_geometry_embeds": torch.cat([video, geometry]),
        "position_ids": composed.positions[:, None],
        "logits": decoder.logits([composed])[0][None],
        "generated_ids": torch.tensor(generated),
    }


@torch.inference_mode()
def _pi3(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = load_pi3(path)(inputs["images"])
    return {
        "local_points": out.local_points,
        "points": out.points,
        "conf": out.confidence[..., None],
        "camera_poses": out.camera_poses,
    }


def _check_hashes(path: Path) -> dict[str, str]:
    """Every file of the manifest and every file beside it: "ok", "changed", "missing" or "not in the manifest"."""
    stated, found = read_json(path / "manifest.json").get("files"), hashes(path)
    if stated is None:
        raise CheckpointError(f"{path / 'manifest.json'} lacks 'files'")
    verdict = {name: "changed" if name in found else "missing" for name in stated if found.get(name) != stated[name]}
    extra = dict.fromkeys(found.keys() - stated.keys(), "not in the manifest")
    return dict.fromkeys(stated, "ok") | verdict | extra


def _load_every_stage(layout: Layout) -> dict[str, int]:
    """Parameters of each stage, loaded strictly: one after the other and in 16 bits, which spares a laptop at 7B."""
    if layout.kind == "pi3":
        return {"pi3": _count(load_pi3(layout.path, dtype=torch.bfloat16))}
    counts = {"decoder": _count(load_decoder(layout, dtype=torch.bfloat16))}
    if layout.model.encoder is not None:
        counts["encoder"] = _count(load_encoder(layout, dtype=torch.bfloat16))
        counts["selector"] = _count(load_selector(layout, dtype=torch.bfloat16))
    return counts


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.verify", description=__doc__)
    parser.add_argument("checkpoint", help="a directory in any layout that dsr-serve loads, or a hub id")
    try:
        report = verify(locate(parser.parse_args().checkpoint))
    except CheckpointError as error:
        sys.stdout.write(json.dumps({"ok": False, "error": str(error)}, indent=1) + "\n")
        return 2
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
