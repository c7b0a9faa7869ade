"""What the page is told of a question: which tracks it speaks of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.review.conftest import cues, record
from training.review.items import items
from training.scenes.clips import read_cues


def test_of_two_things_of_one_name_the_one_with_the_box_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(cues("one")))
    known = {"one": read_cues(tmp_path / "one.json")}
    [item] = items([record(0, group="g")], known)
    [place] = item["named"]
    assert known["one"].tracks[place].boxes[1].tolist() == [61, 10, 81, 40]


def test_cues_of_another_sampling_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(cues("one")))
    asked = record(0, group="g")
    assert asked.extras is not None
    late = replace(asked, extras=replace(asked.extras, frames=(8, 12)))
    with pytest.raises(ValueError, match="one: a question is about frame 8, its cues have 8 frames"):
        items([late], {"one": read_cues(tmp_path / "one.json")})
