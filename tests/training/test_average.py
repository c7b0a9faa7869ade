"""The mean of checkpoints is one that is served: its weights, its hashes, and what it says when there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import hashes, load_selector, open_layout
from models.config import ModelConfig
from models.errors import CheckpointError
from models.layout import read_json
from training import embedded
from training.average import average, main

FILES = ("decoder/model.safetensors", "encoder.safetensors", "selector.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and one with all weights three times as large and bfloat16 in place of float32."""
    folder = tmp_path_factory.mktemp("checkpoints")
    one, other = folder / "one", folder / "other"
    embedded.make(one, ModelConfig.preset("tiny"))
    shutil.copytree(one, other)
    for file in FILES:
        save_file({name: (3 * tensor).bfloat16() for name, tensor in load_file(other / file).items()}, other / file)
    return one, other


def test_every_tensor_is_the_mean_by_shares(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    out = tmp_path / "mean"
    assert main([str(out), f"{one}=1", f"{other}=3"]) == 0
    for file in FILES:
        before, after = load_file(one / file), load_file(out / file)
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype
            torch.testing.assert_close(after[name], 2.5 * tensor, rtol=1e-2, atol=1e-6)


def test_it_can_be_served_and_says_what_it_is(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    average(out, {two[0]: 0.5, two[1]: 0.5})
    load_selector(open_layout(out))
    manifest = read_json(out / "manifest.json")
    assert manifest["files"] == hashes(out)
    assert manifest["mean of"] == {str(two[0]): 0.5, str(two[1]): 0.5}
    assert not out.with_name("mean.part").exists()


def test_what_does_not_fit_is_named_and_nothing_is_left(two: tuple[Path, Path], tmp_path: Path) -> None:
    odd, out = tmp_path / "odd", tmp_path / "mean"
    shutil.copytree(two[1], odd)
    weights = load_file(odd / FILES[2])
    save_file({**weights, "queries": weights["queries"][1:]}, odd / FILES[2])
    with pytest.raises(CheckpointError, match=r"queries of .*selector.safetensors has not one shape"):
        average(out, {two[0]: 1.0, odd: 1.0})
    save_file({name: tensor for name, tensor in weights.items() if name != "queries"}, odd / FILES[2])
    with pytest.raises(CheckpointError, match=r"hold other tensors: \['queries'\]"):
        average(out, {two[0]: 1.0, odd: 1.0})
    assert not list(tmp_path.glob("mean*"))


def test_a_checkpoint_is_not_written_over(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(two[1]), f"{two[0]}=1"]) == 1
    assert f"{two[1]} is there already" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["runs/tiny", "runs/tiny=0", "runs/tiny=-1", "runs/tiny=half"])
def test_a_share_is_above_0(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out"), text])
    assert f"'{text}' is not DIRECTORY=SHARE" in capsys.readouterr().err
