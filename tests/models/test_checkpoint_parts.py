"""Each stage reads its own part of a checkpoint, all of it and nothing else; every mismatch has a name."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import load_decoder, load_embeddings, load_encoder, load_selector
from models.errors import CheckpointError
from models.layout import Layout, recognise
from tests.models.releases import Weights, save, shard, stage_of

MIB = 2**20

Load = Callable[[Layout], nn.Module | Tensor]


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """A safetensors file of float32 zeros that take no space on disk; returns where the tensors begin."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * int(torch.tensor(shape).prod())
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return 8 + len(text)


def status(entry: str) -> int:
    """Bytes of an entry of this process's /proc status."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry)]
    return 1024 * int(line.split()[1])


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which resident memory, mapped pages of files included, grew at most during the work."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.mark.parametrize(
    ("load", "own"),
    [
        (load_encoder, "encoder.safetensors"),
        (load_selector, "selector.safetensors"),
        (load_decoder, "decoder/model.safetensors"),
        (load_embeddings, "decoder/model.safetensors"),
    ],
)
def test_a_stage_of_our_layout_needs_no_weights_but_its_own(small: Path, tmp_path: Path, load: Load, own: str) -> None:
    directory = Path(shutil.copytree(small, tmp_path / "copy"))
    for path in directory.rglob("*.safetensors"):
        if path.relative_to(directory).as_posix() != own:
            path.unlink()
    load(recognise(directory))
    (directory / own).unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load(recognise(directory))


@pytest.mark.parametrize(("stage", "load"), [("encoder", load_encoder), ("selector", load_selector)])
def test_a_geometry_stage_of_a_sharded_release_opens_its_own_shards_only(
    weights: Weights, other: Path, stage: str, load: Callable[[Layout], nn.Module]
) -> None:
    shard(weights, other, stage_of)
    layout = recognise(other)
    for path in other.glob("model-*.safetensors"):
        if path.name != f"model-{stage}.safetensors":
            path.write_bytes(path.read_bytes()[:100])
    found = sum(parameter.numel() for parameter in load(layout).parameters())
    assert found == sum(tensor.numel() for key, tensor in weights.items() if stage_of(key) == stage)


@pytest.mark.parametrize(
    ("stage", "load"), [("encoder", load_encoder), ("selector", load_selector), ("decoder", load_decoder)]
)
def test_a_stage_of_the_release_reads_no_bytes_of_the_others(
    weights: Weights, other: Path, stage: str, load: Load
) -> None:
    """The other stages' tensors are 512 MiB each time; reading them would show in the memory of this process."""
    strangers = [key for key in weights if stage_of(key) != stage]
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    shapes |= dict.fromkeys(strangers, (32, 4 * MIB // len(strangers)))
    write_sparse(other / "model.safetensors", shapes)
    assert (other / "model.safetensors").stat().st_size > 511 * MIB
    layout = recognise(other)
    assert peak_growth(lambda: load(layout)) < 64 * MIB


def test_embeddings_are_mapped_and_cost_the_rows_that_are_read(small: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(small, tmp_path / "copy"))
    path, key, width = directory / "decoder" / "model.safetensors", "model.language_model.embed_tokens.weight", 512
    start = write_sparse(path, {key: (100_000, width), "lm_head.weight": (3, width)})
    with path.open("r+b") as file:
        file.seek(start + 4 * width * 70_000)
        file.write(struct.pack(f"<{width}f", *range(width)))
    layout = recognise(directory)
    rows: list[Tensor] = []
    growth = peak_growth(lambda: rows.append(load_embeddings(layout)[[5, 70_000, 99_999]]))
    assert path.stat().st_size > 195 * MIB
    assert growth < 32 * MIB
    assert rows[0][1].tolist() == list(range(width))
    assert not rows[0][[0, 2]].any()


STRICT = [
    # of each stage: its loader, a tensor in the release's names, and the name in the message
    (load_encoder, "visual.spatial_encoder.norm.weight", "norm.weight"),
    (load_selector, "visual.q_former_2.norm1.weight", "q_former_2.norm1.weight"),
    (load_decoder, "model.layers.1.mlp.up_proj.weight", "model.language_model.layers.1.mlp.up_proj.weight"),
    (load_decoder, "visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"),
]


def refuse(load: Load, layout: Layout, message: str) -> None:
    stage = load.__name__.removeprefix("load_")
    with pytest.raises(CheckpointError, match=re.escape(f"{layout.path}: the {stage} {message}")):
        load(layout)


@pytest.mark.parametrize(("load", "key", "name"), STRICT)
def test_a_missing_tensor_is_named(weights: Weights, other: Path, load: Load, key: str, name: str) -> None:
    del weights[key]
    refuse(load, save(weights, other), f"lacks 1 tensors: {name}")


@pytest.mark.parametrize(("load", "key", "name"), STRICT)
def test_an_unexpected_tensor_is_named(weights: Weights, other: Path, load: Load, key: str, name: str) -> None:
    weights[key.replace("weight", "gate")] = torch.zeros(2)
    refuse(load, save(weights, other), f"has unexpected 1 tensors: {name.replace('weight', 'gate')}")


@pytest.mark.parametrize(("load", "key", "name"), STRICT)
def test_a_misshapen_tensor_is_named_with_both_shapes(
    weights: Weights, other: Path, load: Load, key: str, name: str
) -> None:
    shape = tuple(weights[key].shape)
    larger = tuple(size + 1 for size in shape)
    weights[key] = torch.zeros(larger)
    refuse(load, save(weights, other), f"has {name} of shape {larger}, expected {shape}")


def test_a_geometry_tensor_that_no_stage_knows_is_refused(weights: Weights, other: Path) -> None:
    """A later system's gate beside the Q-Formers belongs to no stage; the one that reads all keys names it."""
    weights["visual.q_former_gate.weight"] = torch.zeros(2)
    refuse(load_decoder, save(weights, other), "has unexpected 1 tensors: model.visual.q_former_gate.weight")


def test_an_embedding_table_that_is_not_there_is_named(weights: Weights, other: Path) -> None:
    del weights["model.embed_tokens.weight"]
    layout = save(weights, other)
    with pytest.raises(CheckpointError, match=r"has no embed_tokens\.weight"):
        load_embeddings(layout)


def test_a_shard_that_is_missing_or_damaged_is_named(weights: Weights, other: Path) -> None:
    shard(weights, other, stage_of)
    layout = recognise(other)
    for load, stage in ((load_encoder, "encoder"), (load_decoder, "decoder"), (load_embeddings, "decoder")):
        path = other / f"model-{stage}.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(CheckpointError, match=str(other)):
            load(layout)
        path.unlink()
        with pytest.raises(CheckpointError, match=path.name):
            load(layout)
        shard(weights, other, stage_of)
