"""What is read off features, where it is known what they tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training.probe import NAMES, explained, main


def test_what_features_tell_is_found_and_what_they_do_not_is_not() -> None:
    torch.manual_seed(1)
    truths = [torch.randn(400, len(NAMES)) for _ in range(8)]
    cells = [
        torch.cat([truth[:, :3] @ torch.randn(3, 16, generator=torch.Generator().manual_seed(2))], 1)
        for truth in truths
    ]
    found = explained(cells, truths, 600)["new"]
    assert min(found[name] for name in NAMES[:3]) > 0.95
    assert max(found[name] for name in NAMES[3:]) < 0.1


def test_the_command_measures_a_checkpoint_on_rendered_scenes(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.scenes.CHUNK", 8)  # scenes of a file: enough for a few hundred samples
    assert main(["--checkpoint", str(small), "--cache", str(tmp_path), "--chunks", "2", "--steps", "20"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] > 200
    assert set(result["seen"]) == set(result["new"]) == set(NAMES)
