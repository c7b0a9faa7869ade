"""Videos spread over Ray's workers: as many records as videos, and failures told."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cues import record
from training.cues.extract import extract_all, videos
from training.cues.loading import Choice
from training.cues.settings import Settings
from training.scenes import SceneConfig, Seeds
from training.scenes.clips import write_clips


@pytest.mark.soak  # Ray takes longer to start than all the other tests here
def test_workers_share_the_videos(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    list(write_clips(clips, [Seeds.train(seed) for seed in range(3)], SceneConfig(size=(56, 56))))
    (clips / "no-scene.mp4").write_bytes(sorted(clips.glob("*.mp4"))[0].read_bytes())
    make = Choice("oracle", {}).load
    done = {one.name: one.error for one in extract_all(videos(clips), out, make, Settings(), workers=2)}
    assert len(done) == 4
    assert [name for name, error in done.items() if error] == ["no-scene"]
    assert "no rendered clip" in str(done["no-scene"])
    assert len(list(record.read_all(out))) == 3
