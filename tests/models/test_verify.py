"""`python -m models.verify`: parity with the public release, and what makes it fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import verify
from models.verify import compare

PI3 = Path(__file__).parents[1] / "golden" / "pi3"

Run = Callable[[Path], tuple[int, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on one directory: its exit status and what it prints, which is JSON and nothing else."""

    def run(path: Path) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["verify", str(path)])
        capsys.readouterr()
        status = verify.main()
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def golden(gsm: Path, tmp_path: Path) -> Path:
    """A copy of the fixture to be damaged."""
    return Path(shutil.copytree(gsm, tmp_path / "golden"))


@pytest.fixture
def checkpoint(small: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint in our layout, with its manifest, to be damaged."""
    return Path(shutil.copytree(small, tmp_path / "checkpoint"))


def scale(file: Path, key: str, factor: float) -> None:
    tensors = load_file(file)
    tensors[key] = tensors[key] * factor
    save_file(tensors, file, metadata={"format": "pt"})


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_golden_model_agrees_with_the_release_in_every_stage(run: Run, gsm: Path) -> None:
    status, report = run(gsm)
    assert (status, report["ok"], report["layout"], report["out_of_tolerance"]) == (0, True, "released", [])
    assert set(report["deviation"]) == {*load_file(gsm / "outputs.safetensors"), "pixel_values_videos"}
    assert report["deviation"]["generated_ids"] == report["deviation"]["position_ids"] == 0
    # Agreement is 1e-4; two correct float32 implementations (eps 1.2e-7) differ less. Measured 7e-7.
    assert max(report["deviation"].values()) < 1e-5


def test_the_golden_reconstruction_agrees_with_the_release(run: Run) -> None:
    status, report = run(PI3)
    assert (status, report["ok"], report["layout"]) == (0, True, "pi3")
    assert set(report["deviation"]) == {"local_points", "points", "conf", "camera_poses"}
    assert max(report["deviation"].values()) < 1e-5  # as above; measured 9e-7


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("visual.spatial_encoder.norm.weight", {"geometry_patch_tokens", "geometry_tokens", "logits"}),
        ("visual.spatial_merger.mlp.2.weight", {"merged_geometry", "geometry_tokens", "logits"}),
        ("visual.q_former_1.mlp.down_proj.weight", {"question_queries", "geometry_tokens", "logits"}),
        ("visual.q_former_norm.weight", {"geometry_tokens", "logits"}),
        ("visual.merger.mlp.2.weight", {"video_and_geometry_embeds", "logits"}),
        ("lm_head.weight", {"logits"}),
    ],
)
def test_a_perturbed_weight_fails_and_names_what_follows_from_it(
    run: Run, golden: Path, key: str, wrong: set[str]
) -> None:
    """One part in a thousand: ten times the tolerance."""
    scale(golden / "model.safetensors", key, 1.001)
    status, report = run(golden)
    assert (status, report["ok"], report["within_tolerance"]) == (1, False, False)
    named = set(report["out_of_tolerance"]) - {"generated_ids"}
    assert wrong <= named
    before = {
        "geometry_patch_tokens": ["visual.spatial_encoder"],
        "merged_geometry": ["visual.spatial_encoder", "visual.spatial_merger"],
        "question_queries": ["visual.q_former_1"],
    }
    for tensor, makers in before.items():
        assert (tensor in named) == any(key.startswith(maker) for maker in makers)


def test_greedy_tokens_must_be_identical(run: Run, golden: Path) -> None:
    outputs = load_file(golden / "outputs.safetensors")
    outputs["generated_ids"][-1] += 1
    save_file(outputs, golden / "outputs.safetensors")
    status, report = run(golden)
    assert (status, report["out_of_tolerance"]) == (1, ["generated_ids"])


def test_an_expected_tensor_that_is_not_computed_fails(run: Run, golden: Path) -> None:
    outputs = load_file(golden / "outputs.safetensors")
    save_file({**outputs, "gate": torch.ones(2)}, golden / "outputs.safetensors")
    status, report = run(golden)
    assert (status, report["out_of_tolerance"], report["deviation"]["gate"]) == (1, ["gate"], None)


@pytest.mark.parametrize(
    ("got", "within"),
    [
        (torch.tensor([1.0, -2.0]), True),
        (torch.tensor([1.0, -2.0001]), True),  # 5e-5 of the largest magnitude
        (torch.tensor([1.0, -2.001]), False),
        (torch.tensor([1.0, float("nan")]), False),
        (torch.tensor([[1.0, -2.0]]), False),
    ],
)
def test_deviation_is_relative_to_the_largest_magnitude(got: torch.Tensor, within: bool) -> None:
    report = compare({"x": got}, {"x": torch.tensor([1.0, -2.0])})
    assert report["within_tolerance"] == within
    assert report["out_of_tolerance"] == ([] if within else ["x"])


def test_whole_numbers_must_be_identical() -> None:
    """Neighbours among Qwen's ids differ by less than the tolerance of a float."""
    assert not compare({"ids": torch.tensor([151_644])}, {"ids": torch.tensor([151_645])})["within_tolerance"]


def test_a_checkpoint_of_ours_loads_and_matches_its_manifest(run: Run, checkpoint: Path) -> None:
    status, report = run(checkpoint)
    assert (status, report["ok"], report["layout"]) == (0, True, "ours")
    assert report["parameters"] == {"decoder": 3_931_136, "encoder": 2_798_400, "selector": 3_306_112}
    assert set(report["files"].values()) == {"ok"}


@pytest.mark.parametrize("name", ["encoder.safetensors", "decoder/model.safetensors", "decoder/tokenizer_config.json"])
def test_a_flipped_bit_in_a_file_of_the_manifest_fails(run: Run, checkpoint: Path, name: str) -> None:
    flip_last_byte(checkpoint / name)
    status, report = run(checkpoint)
    assert (status, report["ok"]) == (1, False)
    assert [file for file, verdict in report["files"].items() if verdict != "ok"] == [name]
    assert report["files"][name] == "changed"


def test_missing_and_added_files_fail(run: Run, checkpoint: Path) -> None:
    (checkpoint / "decoder" / "merges.txt").unlink()
    (checkpoint / "decoder" / "added_tokens.json").write_text("{}")
    status, report = run(checkpoint)
    assert status == 1
    assert report["files"]["decoder/merges.txt"] == "missing"
    assert report["files"]["decoder/added_tokens.json"] == "not in the manifest"


def remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "config.json is missing: not a checkpoint directory"),
        (remove("encoder.safetensors"), "encoder.safetensors is missing or damaged"),
        (write("selector.safetensors", "no weights"), "selector.safetensors is missing or damaged"),
        (write("decoder/model.safetensors", "no weights"), "cannot be loaded"),
        (write("manifest.json", "{}"), "manifest.json lacks 'files'"),
        (write("outputs.safetensors", ""), "inputs.safetensors is missing or damaged"),
    ],
)
def test_a_checkpoint_that_does_not_load_exits_with_2_and_says_why(
    run: Run, checkpoint: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(checkpoint)
    status, report = run(checkpoint)
    assert (status, report["ok"]) == (2, False)
    assert message in report["error"]


def test_no_checkpoint_at_all_exits_with_2(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 2
    status, report = run(tmp_path / "nowhere")
    assert status == 2
    assert "no such directory" in report["error"]


def test_a_fixture_that_lacks_an_input_exits_with_2(run: Run, golden: Path) -> None:
    inputs = load_file(golden / "inputs.safetensors")
    del inputs["frames"]
    save_file(inputs, golden / "inputs.safetensors")
    status, report = run(golden)
    assert status == 2
    assert "lacks ['frames']" in report["error"]
