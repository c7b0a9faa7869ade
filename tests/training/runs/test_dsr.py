"""The published recipe at the tiny sizes: real videos, the public format, one process and two workers."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import ModelConfig
from models.vlm import VisionLanguageModel
from tests.clips import make_clip
from training.embedded import make
from training.loop import journal
from training.loop.loop import LoopConfig, as_facts, train
from training.loop.workers import World, launch
from training.runs.dsr import DsrTask
from training.runs.recipe import DsrConfig

CPU = torch.device("cpu")
OPTIONS = ["(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind."]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, three videos, one file that is none, and questions in the public form."""
    folder = tmp_path_factory.mktemp("dsr")
    make(folder / "base", ModelConfig.tiny())
    (folder / "videos").mkdir()
    for number in range(3):
        make_clip(folder / "videos" / f"{number}.mp4", seconds=2 + number, fps=8)
    (folder / "videos" / "broken.mp4").write_bytes(b"no video" * 100)
    names = ["0", "1", "2", "broken", "0", "1", "2", "gone", "0"]
    rows = [
        {"videoID": name, "question": f"Where is it, {place}?", "options": OPTIONS, "answer": "ABCD"[place % 4],
         "type": "abs_dir"}
        for place, name in enumerate(names)
    ]  # fmt: skip
    (folder / "questions.json").write_text(json.dumps(rows))
    return folder


def config(data: Path, out: Path, **loop: Any) -> DsrConfig:
    settings: dict[str, Any] = {"steps": 2, "log_every": 1, **loop}
    return DsrConfig(
        base=str(data / "base"), questions=str(data / "questions.json"), videos=str(data / "videos"), batch=4, held=2,
        lr=1e-3, selector_lr=1e-3, loop=LoopConfig(str(out), **settings),
    )  # fmt: skip


def run(world: World, config: DsrConfig) -> None:
    train(DsrTask(config, world.device), config.loop, world, as_facts("dsr-7b", "test", config))


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in journal.read(out / "log.jsonl")]


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    run(World.alone("cpu"), config(data, data / "alone"))
    return data / "alone"


def test_the_result_is_what_is_served_and_has_learned(data: Path, trained: Path) -> None:
    before, after = (VisionLanguageModel.load(str(place)) for place in (data / "base", trained / "checkpoint"))
    manifest = json.loads((trained / "checkpoint" / "manifest.json").read_text())
    assert manifest["data"] == {"questions": str(data / "questions.json"), "used": 6, "missing": 1}
    assert after.selector is not None
    assert before.selector is not None
    changed = [
        name
        for (name, old), new in zip(
            before.decoder.model.named_parameters(), after.decoder.model.parameters(), strict=True
        )
        if not torch.equal(old, new)
    ]
    assert any("language_model" in name for name in changed)
    assert any("visual.merger" in name for name in changed)
    assert not [name for name in changed if "visual" in name and "merger" not in name]
    assert not torch.equal(before.selector.queries, after.selector.queries)


def test_what_is_missing_and_unreadable_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = DsrTask(config(data, tmp_path), CPU)
    assert "8 questions; 1 videos missing (gone), with 1 questions" in capsys.readouterr().err
    broken = next(place for place, sample in enumerate(task.samples) if sample.record.videoID == "broken")
    outcome = task.loss([broken])
    assert outcome.metrics["unreadable"] == (1.0, 1.0)
    assert outcome.ids == [task.samples[broken + 1].id]
    assert "broken" in capsys.readouterr().err


def test_neighbours_in_a_batch_change_nothing(data: Path, tmp_path: Path) -> None:
    task = DsrTask(config(data, tmp_path), CPU)
    with torch.no_grad():
        together = float(task.loss([0, 1, 2]).loss)
        alone = sum(float(task.loss([place]).loss) for place in (0, 1, 2))
    assert together == pytest.approx(alone, rel=1e-5)


def test_an_epoch_has_every_sample_once(data: Path, tmp_path: Path) -> None:
    task = DsrTask(config(data, tmp_path), CPU)
    order = [task._place(number) for number in range(12)]
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
    assert order[:6] != order[6:]


def test_two_workers_give_what_one_gives(data: Path, trained: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "two", checkpoint_blocks=True)
    launch(partial(run, config=settings), workers=2, launcher="local", out=tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(trained), abs=1e-4)


def test_a_base_without_geometry_needs_pi3(data: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(data / "base" / "decoder", plain)
    settings = config(data, tmp_path)
    with pytest.raises(ValueError, match="has no encoder: give pi3"):
        DsrTask(DsrConfig(**{**settings.__dict__, "base": str(plain), "pi3": None}), CPU)
