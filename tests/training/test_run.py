"""The command line of the runs: typed overrides, and errors that help."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from training.loop.loop import LoopConfig
from training.run import fields, main, overridden
from training.runs import RUNS


@dataclass(frozen=True)
class Config:
    count: int = 3
    rate: float = 0.1
    on: bool = False
    size: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    path: str | None = None
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("out", 5))


def test_overrides_have_the_types_of_their_fields() -> None:
    changes = ["count=4", "rate=1e-3", "on=true", "size=5,6", "names=a,b", "path=x=y", "loop.steps=9"]
    config = overridden(Config(), changes)
    assert config == Config(4, 1e-3, True, (5, 6), ("a", "b"), "x=y", LoopConfig("out", 9))
    assert overridden(config, ["path=none", "names="]) == Config(4, 1e-3, True, (5, 6), (), None, LoopConfig("out", 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cuont=4", "cuont: there is no such field, did you mean count"),
        ("loop.step=4", "did you mean loop.steps"),
        ("loop=4", "loop: there is no such field"),
        ("count.x=4", "no such field"),
        ("count=4.5", "count: '4.5' is no int"),
        ("on=yes", "on: 'yes' is neither true nor false"),
        ("size=1,2,3", "size: '1,2,3' has 3 values, expected 2"),
        ("count", "'count' is no field=value"),
        ("loop.steps=0", "loop.steps is 0; it must be at least 1"),
        ("loop.precision=fp8", "loop.precision is 'fp8'"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overridden(Config(), [change])


def test_a_run_leaves_config_log_and_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", f"loop.out={tmp_path}", "loop.steps=2", "items=4"]) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "log.jsonl", "checkpoint", "state-00000002.pt"}
    assert json.loads((tmp_path / "config.json").read_text())["items"] == 4
    assert "2 steps" in capsys.readouterr().out


def test_a_typo_on_the_command_line_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "itmes=4"]) == 2
    assert "did you mean items" in capsys.readouterr().err


def test_every_run_shows_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for name, run in RUNS.items():
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(f"  {key} = " in shown for key in fields(run.config))
    assert main(["--list"]) == 0
