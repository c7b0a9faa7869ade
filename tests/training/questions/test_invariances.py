"""What may change a scene without changing the answers, and what changes them in a known way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from tests.training.questions.motions import backwards, mirrored, moved, scenes, turned
from training.questions.candidates import Refused, candidate, draw
from training.questions.cues import Cues, FloatArray
from training.questions.templates import HIDDEN, KINDS, TYPES, Ask, quantity, question
from training.questions.verbalise import SMALL, Statements, trends
from training.questions.viewpoints import bodies

DIRECTED = ("dir", "ori", "dir_pred")
LAST = 31
SWAPPED = {"Left": "Right", "Right": "Left"}


def asks(kinds: tuple[str, ...] = tuple(KINDS), count: int = 20) -> Iterator[tuple[Cues, Ask]]:
    random = Random(1)
    for cues in scenes(4, seed=2):
        for type_ in TYPES:
            for _ in range(count):
                ask = draw(bodies(cues), type_, len(cues.times), random)
                if ask.kind in kinds and np.linalg.norm(quantity(bodies(cues), ask)[0]) > 1e-6:
                    yield cues, ask


def answer(cues: Cues, ask: Ask) -> Statements:
    return KINDS[ask.kind].say(quantity(bodies(cues), ask))


def test_mirrored_scene_swaps_left_and_right_and_nothing_else() -> None:
    swaps = 0
    for cues, ask in asks():
        said = answer(cues, ask)
        swapped = tuple("|".join(SWAPPED.get(word, word) for word in label.split("|")) for label in said)
        assert answer(mirrored(cues), ask) == swapped
        swaps += swapped != said
    assert swaps > 200


@pytest.mark.parametrize("angle", [0.5, 2.0, -1.3])
def test_turned_and_shifted_world_changes_nothing(angle: float) -> None:
    """For agents' eyes the vertical must stay what it is: their left is level."""
    for cues, ask in asks():
        other = moved(cues, turned(angle), np.array([50.0, -7, 3]))
        assert answer(other, ask) == answer(cues, ask)


def test_camera_sees_the_same_in_a_world_that_is_tilted() -> None:
    tilted = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]) @ turned(0.4)
    for cues, ask in asks(("dis", "dir", "spd", "spd_comp", "dir_pred")):
        if ask.viewer == 0:
            assert answer(moved(cues, tilted, np.ones(3)), ask) == answer(cues, ask)


@pytest.mark.parametrize("scale", [0.02, 30.0])
def test_scaled_world_changes_no_direction(scale: float) -> None:
    for cues, ask in asks(DIRECTED):
        assert answer(moved(cues, np.eye(3), np.zeros(3), scale), ask) == answer(cues, ask)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_scaled_world_changes_no_trend_as_long_as_lengths_stay_on_their_side_of_a_tenth(scale: float) -> None:
    """All above before and after: then only ratios count."""
    compared = 0
    for cues, ask in asks(("dis", "spd", "spd_comp")):
        if quantity(bodies(cues), ask).min() * min(scale, 1) >= SMALL:
            assert answer(moved(cues, np.eye(3), np.zeros(3), scale), ask) == answer(cues, ask)
            compared += 1
    assert compared > 60


def test_scale_matters_at_a_tenth() -> None:
    lengths = np.array([0.05, 0.09])
    assert trends(lengths) == ("Keep nearly constant",)
    assert trends(2 * lengths) == ("Become larger",)


def test_reversed_time_reverses_directions_orientations_and_comparisons() -> None:
    compared = 0
    for cues, ask in asks(("dir", "ori", "spd_comp")):
        at = None if ask.at is None else LAST - ask.at
        other = replace(ask, start=LAST - ask.end, end=LAST - ask.start, at=at)
        assert answer(backwards(cues), other) == answer(cues, ask)[::-1]
        compared += len(answer(cues, ask)) > 1
    assert compared > 120


def test_reversed_time_reverses_trends_whose_every_step_is_large_both_ways() -> None:
    """A step of 1.22 is large one way and, as 0.82, small the other way; above 1.25 it is large both ways."""
    back = {"Become larger": "Become smaller", "Become smaller": "Become larger"}
    random = np.random.default_rng(0)
    for _ in range(50):
        steps = random.uniform(1.26, 2, 12) ** random.choice([-1, 1], 12)
        lengths = 5 * np.cumprod(steps)
        lengths *= SMALL / min(lengths.min(), SMALL)
        assert trends(lengths[::-1]) == tuple(back[said] for said in trends(lengths)[::-1])
    small_one_way = np.array([1, 1.22])
    assert trends(small_one_way) == ("Become larger",)
    assert trends(small_one_way[::-1]) == ("Keep nearly constant",)


def test_frames_after_the_last_visible_one_do_not_reach_the_question_of_a_prediction() -> None:
    """They may change the answer, or refuse the question because there is none, but never a word of the text."""
    texts = refused = 0
    for cues, ask in asks(("dir_pred",), count=60):
        try:
            text = asked(cues, ask)
        except Refused:
            continue
        other = _disturbed(cues, ask.end + 1)
        try:
            found = asked(other, ask)
        except Refused:
            refused += 1
            continue
        assert found == text
        texts += 1
    assert texts > 150
    assert refused < texts / 10


def test_prediction_is_drawn_without_hidden_frames() -> None:
    for _, ask in asks(("dir_pred",)):
        assert ask.end + HIDDEN <= LAST
        assert ask.at is None or ask.at <= ask.end


def asked(cues: Cues, ask: Ask) -> str:
    found = candidate(cues, bodies(cues), ask)
    return question(cues, found.around, found.ask, Random(0))


def _disturbed(cues: Cues, first: int) -> Cues:
    """From frame `first` on everything moves elsewhere, and nothing is seen."""
    noise = np.random.default_rng(first)

    def shaken(values: FloatArray) -> FloatArray:
        return np.concatenate([values[:first], values[first:] + noise.normal(size=values[first:].shape)])

    tracks = []
    for track in cues.tracks:
        visible = np.where(np.arange(len(cues.times)) < first, track.visible, False)
        boxes = np.where(np.arange(len(cues.times))[:, None] < first, track.boxes, np.nan)
        tracks.append(replace(track, centres=shaken(track.centres), boxes=boxes, visible=visible))
    poses = cues.camera_to_world.copy()
    poses[:, :3, 3] = shaken(poses[:, :3, 3])
    times = np.where(np.arange(len(cues.times)) < first, cues.times, cues.times + 5)
    return replace(cues, times=times, camera_to_world=poses, tracks=tuple(tracks))
