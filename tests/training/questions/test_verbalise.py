"""Every branch of the words, worked out by hand from the specification."""

from __future__ import annotations

import numpy as np
import pytest

from training.questions.verbalise import comparisons, directions, numbered, place, trends

CONSTANT = "Keep nearly constant"
TO_SMALLER, TO_LARGER = f"{CONSTANT} and then become smaller", f"{CONSTANT} and then become larger"
LARGER, SMALLER = "Become larger", "Become smaller"
SAME, FORMER, LATTER = "Nearly the same", "The former is faster", "The latter is faster"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        # (a) to the end; every sample is compared with the first, 0.8 and 1.2 belong to it
        ([1, 1.1, 0.9, 1.2, 0.8], [CONSTANT]),
        ([5, 4, 6], [CONSTANT]),
        # (a) broken: 1.25 is beyond 1.2 of the first, though each step is small; nothing comes after the break
        ([1, 1.1, 1.18, 1.25], [TO_LARGER]),
        ([1, 0.9, 0.81, 0.73], [TO_SMALLER]),
        # the next segment starts at the breaking sample: 1.25 to 1.3 is constant for it
        ([1, 1.1, 1.25, 1.3], [TO_LARGER, CONSTANT]),
        # broken down at 0.7, and from there 0.5 is another step down (0.71)
        ([1, 1, 0.7, 0.5], [TO_SMALLER, SMALLER]),
        # (b) each step above 1.2 of the one before; the last sample of the run starts the next segment
        ([1, 1.3, 1.7, 2.3], [LARGER]),
        ([1, 1.3, 1.7, 1.8, 1.9], [LARGER, CONSTANT]),
        ([1, 1.3, 1.7, 1.2], [LARGER, SMALLER]),
        # (b) ends because the step is small, and then breaks away from the last sample of the run: 2.1 / 1.7
        ([1, 1.3, 1.7, 1.9, 2.1], [LARGER, TO_LARGER]),
        # (c) likewise, each step below 0.8 of the one before
        ([8, 6, 4, 3], [SMALLER]),
        ([8, 6, 4, 3.9, 4.1], [SMALLER, CONSTANT]),
        ([8, 6, 9, 6], [SMALLER, LARGER, SMALLER]),
        # two samples only
        ([1, 1], [CONSTANT]),
        ([1, 2], [LARGER]),
        ([2, 1], [SMALLER]),
        # both below 0.1 count as alike, whatever their ratio; 0.1 itself is not below
        ([0.01, 0.09, 0.0, 0.05], [CONSTANT]),
        ([0.01, 0.09, 0.1], [TO_LARGER]),
        ([0.05, 0.1], [LARGER]),
        ([0.0, 0.0, 0.5, 0.5], [TO_LARGER, CONSTANT]),
        # from 0.12 to 0.05 is down; from 0.05 on all is below 0.1
        ([0.12, 0.05, 0.09], [SMALLER, CONSTANT]),
        # but a run that goes down is not stopped by smallness: 0.09 to 0.05 is still below 0.8
        ([0.2, 0.09, 0.05, 0.05], [SMALLER, CONSTANT]),
        # 0.0 is below every positive length, and nothing is below 0.8 of it
        ([0.5, 0.0, 0.0], [SMALLER, CONSTANT]),
        # one of each
        ([1, 1, 2, 3, 3, 1, 1], [TO_LARGER, LARGER, TO_SMALLER, CONSTANT]),
    ],
)
def test_trend_words_follow_the_state_machine(samples: list[float], said: list[str]) -> None:
    assert trends(np.array(samples, float)) == tuple(said)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ((1, 0, 0), "Front"),
        ((-2, 0, 0), "Behind"),
        ((0, 0.5, 0), "Left"),
        ((0, -1, 0), "Right"),
        ((0, 0, 3), "Above"),
        ((0, 0, -1), "Below"),
        ((1, 1, 0), "Front|Left"),
        ((-1, -1, -1), "Behind|Right|Below"),
        # 0.29 and 0.31 of a unit vector, with the rest to the front
        ((0.957, 0.29, 0), "Front"),
        ((0.951, 0.31, 0), "Front|Left"),
        ((0.957, 0, -0.29), "Front"),
        ((0.951, 0, -0.31), "Front|Below"),
    ],
)
def test_direction_words_name_every_axis_above_three_tenths(vector: tuple[float, float, float], said: str) -> None:
    assert directions(np.array([vector], float)) == (said,)


def test_length_does_not_matter_for_directions() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 3))
    assert directions(vectors) == directions(vectors * np.linspace(0.01, 100, 50)[:, None])


def test_equal_neighbours_are_one_direction_and_a_return_is_told_again() -> None:
    vectors = np.array([(1, 0, 0), (1, 0.1, 0), (1, 1, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0)], float)
    said = directions(vectors)
    assert said == ("Front", "Front|Left", "Left", "Front|Left")
    assert numbered(said) == "(1) Front. (2) Front|Left. (3) Left. (4) Front|Left."


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (np.nan, 1.0, 0.0)])
def test_no_direction_is_an_error(vector: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        directions(np.array([vector]))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(1, 1), (1, 1.1)], [SAME]),
        ([(1.2, 1), (1, 1.2)], [SAME]),  # 1.2 itself is not above 1.2
        ([(1.21, 1)], [FORMER]),
        ([(1, 1.21)], [LATTER]),
        ([(0.09, 0.01), (0.0, 0.0)], [SAME]),  # both below 0.1
        ([(0.1, 0.01)], [FORMER]),  # one of them is not
        ([(0.0, 0.2)], [LATTER]),
        ([(2, 1), (3, 1), (1, 1), (1, 2), (2, 1)], [FORMER, SAME, LATTER, FORMER]),
    ],
)
def test_speeds_are_compared_step_by_step_and_equal_runs_merge(
    steps: list[tuple[float, float]], said: list[str]
) -> None:
    assert comparisons(np.array(steps, float)) == tuple(said)


def test_place_puts_opposite_words_on_opposite_sides() -> None:
    assert np.allclose(place("Front|Left"), [0.5**0.5, 0.5**0.5, 0])
    for one, other in (("Front|Left", "Behind|Right"), (LARGER, SMALLER), (TO_LARGER, TO_SMALLER), (FORMER, LATTER)):
        assert np.allclose(place(one), -place(other))
        assert np.abs(place(one)).max() > 0
    assert not place("free text").any()
