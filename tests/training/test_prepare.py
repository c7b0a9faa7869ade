"""Scenes made ahead are those that the runs look for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training import prepare
from training.data.scenes import SceneStore
from training.runs import stores
from training.runs.tiny import TinyConfig, TinyTask
from training.scenes.config import SceneConfig


def test_they_are_where_a_run_with_the_same_settings_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Enough(Exception):
        """Nothing is made here."""

    def noted(store: SceneStore, groups: int, processes: int, tokenizer: Path | None = None) -> None:
        asked.append((store.directory, store.per_scene, groups, processes, tokenizer))
        raise Enough

    monkeypatch.setattr(prepare, "prepared", noted)
    monkeypatch.setattr("training.runs.tiny.prepared", noted)
    settings = ["--cache", str(tmp_path), "--groups", "3", "--per-scene", "24", "--processes", "2"]
    with pytest.raises(Enough):
        prepare.main(settings)
    with pytest.raises(Enough):
        TinyTask(TinyConfig("read", groups=3, per_scene=24, cache=str(tmp_path), processes=2), torch.device("cpu"))
    assert asked[0] == asked[1]
    assert asked[0][1:4] == (24, 3, 2)


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("no process is needed")

    monkeypatch.setattr(stores, "process_pool", never)
    store = SceneStore(tmp_path, SceneConfig())
    tokenizer = tmp_path / "tokenizer-1280"
    for group in range(2):
        (store.directory / f"{tokenizer.name}-{group:05d}.pt").touch()
    stores.prepared(store, 2, 4, tokenizer)
    with pytest.raises(AssertionError):
        stores.prepared(store, 3, 4, tokenizer)
