"""`python -m models.fetch`: whole or not at all, as stated, and again without harm. The hub is a folder here."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from models import fetch as command
from models.errors import CheckpointError
from models.fetch import STAMP, fetch
from models.layout import sha256
from models.verify import verify


@pytest.fixture
def bucket(small: Path, tmp_path: Path) -> Path:
    """A folder as of a bucket, with things in it that are not for us."""
    folder = Path(shutil.copytree(small, tmp_path / "bucket"))
    (folder / "train.log").write_text("step 1")
    return folder


def _names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_a_bucket_is_fetched_and_can_be_served(bucket: Path, small: Path, tmp_path: Path) -> None:
    target = tmp_path / "weights" / "ours"
    assert fetch(f"file://{bucket}", target)
    assert _names(target) == _names(small) | {STAMP}
    assert verify(target)["ok"]


def test_it_is_fetched_once(bucket: Path, tmp_path: Path) -> None:
    assert fetch(str(bucket), tmp_path / "ours")
    before = (tmp_path / "ours" / "encoder.safetensors").stat()
    shutil.rmtree(bucket)
    assert not fetch(str(bucket), tmp_path / "ours")
    assert (tmp_path / "ours" / "encoder.safetensors").stat() == before


def test_a_directory_with_something_else_is_left_alone(bucket: Path, tmp_path: Path) -> None:
    fetch(str(bucket), tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"ours holds .*bucket, not owner/other: name another one$"):
        fetch("owner/other", tmp_path / "ours")


def test_a_flipped_bit_is_found_and_leaves_no_directory(bucket: Path, tmp_path: Path) -> None:
    file = bucket / "selector.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"^selector\.safetensors: its sha256 is [0-9a-f]{64}, stated is [0-9a-f]{64}$"
    ):
        fetch(str(bucket), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_what_an_interrupted_run_left_is_not_used(bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.partial").mkdir()
    (tmp_path / "ours.partial" / "model.safetensors").write_bytes(b"half")
    fetch(str(bucket), tmp_path / "ours")
    assert not (tmp_path / "ours" / "model.safetensors").exists()
    assert not (tmp_path / "ours.partial").exists()


@pytest.mark.parametrize("source", ["file:///no/such/folder", "no-such-scheme://x/y"])
def test_a_source_that_is_not_there_is_named(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fetch", source, str(tmp_path / "ours")])
    assert command.main() == 1
    assert source in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("name", ["../config.json", "decoder/../../config.json", "/etc/config.json", "notes.md"])
def test_a_key_that_is_no_file_of_a_checkpoint_is_not_fetched(name: str) -> None:
    assert not command._wanted(name)


class _Hub:
    """What of the hub's client is used, over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str | None] = []

    def model_info(self, name: str, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        self.asked.append(revision)
        large = [
            SimpleNamespace(rfilename=path.name, lfs=SimpleNamespace(sha256=sha256(path)))
            for path in self.folder.glob("*.safetensors")
        ]
        return SimpleNamespace(sha="c0ffee", siblings=[*large, SimpleNamespace(rfilename="config.json", lfs=None)])

    def download(self, name: str, revision: str, allow_patterns: list[str], local_dir: Path) -> None:
        self.asked.append(revision)
        shutil.copytree(self.folder, local_dir, dirs_exist_ok=True)
        (local_dir / ".cache").mkdir()


@pytest.fixture
def hub(gsm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Hub:
    """With the released layout, which has no manifest."""
    made = _Hub(Path(shutil.copytree(gsm, tmp_path / "hub")))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    return made


def test_from_the_hub_one_commit_is_fetched(hub: _Hub, tmp_path: Path) -> None:
    assert fetch("owner/name@v1", tmp_path / "ours")
    assert hub.asked == ["v1", "c0ffee"]
    assert not (tmp_path / "ours" / ".cache").exists()
    assert verify(tmp_path / "ours")["ok"]


def test_what_differs_from_what_the_hub_states_is_refused(
    hub: _Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*args: Any, local_dir: Path, **kwargs: Any) -> None:
        hub.download("owner/name", "c0ffee", [], local_dir)
        for path in local_dir.glob("*.safetensors"):
            path.write_bytes(path.read_bytes() + b"\0")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", damaged)
    with pytest.raises(CheckpointError, match=r"safetensors: its sha256 is"):
        fetch("owner/name", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
