"""What the wrong options may be made of, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.questions.counterfactuals import counterfactuals, step_change
from training.questions.verbalise import (
    CONSTANT,
    FORMER,
    LARGER,
    LATTER,
    SAME,
    SMALLER,
    THEN_LARGER,
    THEN_SMALLER,
    directions,
)  # fmt: skip

TURN = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0)], float)


@pytest.mark.parametrize(
    ("answer", "change"),
    [
        (("Front", "Front|Right", "Right"), "mirrored left/right"),
        (("Behind", "Behind|Left", "Left"), "mirrored front/behind"),
        (("Behind", "Behind|Right", "Right"), "mirrored front/behind, mirrored left/right"),
        (("Left", "Front|Left", "Front"), "time reversed"),
        (("Right", "Front|Right", "Front"), "mirrored left/right, time reversed"),
    ],
)
def test_directions_are_mirrored_and_reversed(answer: tuple[str, ...], change: str) -> None:
    assert directions(TURN) == ("Front", "Front|Left", "Left")
    assert counterfactuals("dir", TURN)[answer] == change


def test_what_changes_nothing_is_no_counterfactual() -> None:
    """A level turn looks the same upside down."""
    answers = counterfactuals("ori", TURN)
    assert directions(TURN) not in answers
    assert not any("up/down" in change for change in answers.values())
    assert len(answers) == 7


def test_displacement_backwards_points_the_other_way() -> None:
    answers = counterfactuals("dir_pred", np.array([(1.0, 1, 1)]))
    assert answers["Front|Left|Below",] == "mirrored up/down"
    assert answers["Behind|Right|Below",] == "time reversed"
    assert len(answers) == 7


def test_lengths_rise_where_they_fell_and_run_backwards() -> None:
    """4, 4, 4, 3, 2, 1 becomes 1, 1, 1, 2, 3, 4 upside down and 1, 2, 3, 4, 4, 4 backwards."""
    answers = counterfactuals("dis", np.array([4.0, 4, 4, 3, 2, 1]))
    assert answers == {
        (THEN_LARGER, LARGER): "rising where it fell",
        (LARGER, CONSTANT): "time reversed",
        (SMALLER, CONSTANT): "rising where it fell, time reversed",
    }


def test_speeds_are_exchanged() -> None:
    steps = np.array([(2.0, 1), (1, 1)])
    answers = counterfactuals("spd_comp", steps)
    assert answers == {
        (LATTER, SAME): "speeds exchanged",
        (SAME, FORMER): "time reversed",
        (SAME, LATTER): "speeds exchanged, time reversed",
    }


@pytest.mark.parametrize(
    ("other", "change"),
    [
        ("abdc", "two steps swapped"),
        ("dbca", "two steps swapped"),
        ("abcx", "a step replaced"),
        ("bcda", "a step removed, one added"),
        ("xabc", "a step removed, one added"),
        ("dcba", None),
        ("axyd", None),
    ],
)
def test_step_changes(other: str, change: str | None) -> None:
    assert step_change(tuple("abcd"), tuple(other)) == change


def test_single_statement_has_no_steps_to_change() -> None:
    assert step_change((LARGER,), (SMALLER,)) is None
    assert step_change((LARGER, SMALLER), (THEN_SMALLER, LARGER)) is None
