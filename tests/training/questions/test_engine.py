"""Cues in, records out."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from tests.training.questions.conftest import PLAN, Asked
from tests.training.questions.motions import scenes
from training.questions.engine import Plan, generate
from training.questions.templates import HIDDEN, TYPES
from training.vocabulary import TYPES as TAUGHT

SMALL = Plan(per_scene=12, drawn=30, block=12, learned=300)


def test_types_are_those_that_the_tokenizer_is_taught() -> None:
    assert set(TYPES) == set(TAUGHT)


def test_types_are_balanced(asked: Asked) -> None:
    each = len(asked.scenes) * PLAN.per_scene // len(TYPES)
    assert Counter(record.type for record in asked.records) == dict.fromkeys(TYPES, each)
    assert not [reason for reason in asked.dropped if reason.startswith("missing")]


def test_every_scene_is_asked_and_none_too_often(asked: Asked) -> None:
    counts = Counter(record.videoID for record in asked.records)
    assert set(counts) == set(asked.scenes)
    assert max(counts.values()) < 4 * 24


def test_questions_are_not_repeated(asked: Asked) -> None:
    assert len({(record.videoID, record.question) for record in asked.records}) == len(asked.records)


def test_both_kinds_of_viewers_look(asked: Asked) -> None:
    viewers = Counter(record.extras.viewer == "the camera" for record in asked.records if record.extras)
    assert min(viewers.values()) > 0.3 * len(asked.records)


def test_extras_say_what_the_question_says(asked: Asked) -> None:
    for record in asked.records:
        assert record.extras is not None
        times, extras = asked.scenes[record.videoID].times, record.extras
        start, end = extras.frames
        assert extras.interval == (times[start], times[end])
        assert end - start >= 4
        assert end <= 29
        for time in extras.interval:
            assert re.search(rf"\b{time:.1f} s", record.question)
        assert f"{extras.viewer}" in record.question
        assert record.options[record.right].count("(") == len(extras.statements)


def test_predictions_hide_the_two_frames_they_ask_for_and_all_later_ones(asked: Asked) -> None:
    for record in asked.records:
        assert record.extras is not None
        frames = len(asked.scenes[record.videoID].times)
        if not record.type.endswith("dir_pred"):
            assert record.extras.visible_frames == frames
            continue
        visible = record.extras.visible_frames
        assert visible == record.extras.frames[1] + 1
        assert visible + HIDDEN <= frames
        last = asked.scenes[record.videoID].times[visible - 1]
        assert all(float(time) <= last for time in re.findall(r"(\d+\.\d) s", record.question))


def test_same_seed_gives_the_same_records_and_another_seed_others() -> None:
    some = scenes(12, seed=3)
    plan = Plan(per_scene=4, drawn=30, block=12, types=("rel_ori", "abs_spd"))
    first, second, third = (list(generate(some, Random(seed), plan)) for seed in (1, 1, 2))
    assert first
    assert first == second
    assert first != third


def test_only_scenes_of_one_block_share_options() -> None:
    some = scenes(24, seed=3)
    block = {cues.video: number // 12 for number, cues in enumerate(some)}
    blocks: dict[str, set[int]] = {}
    for record in generate(some, Random(0), SMALL):
        assert record.extras is not None
        blocks.setdefault(record.extras.group, set()).add(block[record.videoID])
    assert all(len(own) == 1 for own in blocks.values())
    assert {number for own in blocks.values() for number in own} == {0, 1}


def test_chosen_types_only() -> None:
    records = list(generate(scenes(12, seed=3), Random(0), Plan(4, 40, 12, types=("rel_ori",))))
    assert Counter(record.type for record in records) == {"rel_ori": 48}


def test_what_is_missing_is_counted() -> None:
    """Three scenes are too few to learn from: nothing is asked, rather than something that might leak."""
    dropped = Counter[str]()
    assert list(generate(scenes(3), Random(0), Plan(4, 10, 12, types=("rel_ori",)), dropped)) == []
    assert dropped["missing: rel_ori"] == 12
    assert dropped["too few videos to learn what the text foretells"] > 0


def test_scenes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same video name"):
        list(generate(scenes(2) + scenes(2), Random(0)))
