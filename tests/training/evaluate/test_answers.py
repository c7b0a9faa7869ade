"""What an answer is worth: by the strict rule, by the public ones, and as a number."""

from __future__ import annotations

import pytest

from training.data.formats import Numeric
from training.evaluate.answers import Answered, first_letter, mean_relative_accuracy, number, only_letter, strict
from training.questions.records import Record

RECORD = Record("v", "?", ("left", "right", "up", "down"), "B", "abs_dir")


def said(text: str) -> Answered:
    return Answered("row", "1", text=text)


@pytest.mark.parametrize(
    ("text", "first", "only"),
    [
        ("B", 1, 1),
        (" B\n", 1, 1),
        ("B. right", 1, 0),
        ("(B)", 1, 0),
        ("The best answer is: B", 1, 0),
        ("Best answer: C", 0, 0),
        ("The answer is B, not A.", 1, 0),
        ("A or B", 0, 0),
        ("right", 0, 0),
        ("b", 0, 0),
        ("E", 0, 0),
        ("", 0, 0),
        ("BEFORE", 1, 0),  # generous, as the public rule is
    ],
)
def test_the_first_letter_counts_by_the_public_rule_and_a_letter_alone_by_ours(
    text: str, first: int, only: int
) -> None:
    assert first_letter(RECORD, said(text)) == first
    assert only_letter(RECORD, said(text)) == only


def test_a_fifth_letter_counts_where_there_are_five_options() -> None:
    five = Record("v", "?", ("a", "b", "c", "d", "e"), "E", "Pose Estimation")
    assert first_letter(five, said("E")) == 1


def test_the_strict_rule_takes_the_most_probable_option() -> None:
    assert strict(RECORD, Answered("row", "1", (0.1, 0.5, 0.3, 0.1))) == 1
    assert strict(RECORD, Answered("row", "1", (0.5, 0.1, 0.3, 0.1))) == 0


@pytest.mark.parametrize(
    ("answer", "true", "points"),
    # of the tolerances 0.50, 0.45, … 0.05 those that the relative error does not exceed, by hand
    [(10, 10, 1.0), (9.6, 10, 1.0), (9.4, 10, 0.9), (11.9, 10, 0.7), (7.3, 10, 0.5), (4.9, 10, 0.0), (0, 10, 0.0),
     (16, 10, 0.0), (0, 0, 1.0), (1, 0, 0.0), (None, 10, 0.0), (float("nan"), 10, 0.0), (float("inf"), 10, 0.0)],
)  # fmt: skip
def test_a_number_earns_the_share_of_tolerances_within_which_it_lies(
    answer: float | None, true: float, points: float
) -> None:
    assert mean_relative_accuracy(answer, true) == pytest.approx(points)


def test_an_error_as_large_as_a_tolerance_counts_as_it_does_in_the_public_code() -> None:
    """In floating point 1 - 0.8 is less than 0.2, and 1 - 0.5 is not less than 0.5: so it is there."""
    assert mean_relative_accuracy(12, 10) == pytest.approx(0.6)
    assert mean_relative_accuracy(3, 2) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3.0), ("3.5 metres", 3.5), ("3.", 3.0), ("about 3", None), ("", None), ("-2", -2.0)]
)
def test_the_first_word_is_the_number(text: str, value: float | None) -> None:
    assert number(text) == value


def test_a_number_is_scored_by_its_text() -> None:
    record = Numeric("v", "How many?", (), "4", "object_counting")
    assert strict(record, said("4 chairs")) == 1
    assert strict(record, said("many")) == 0


@pytest.mark.parametrize("answer", ["", "many", "nan"])
def test_a_question_without_options_needs_a_number(answer: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - float's own words, or ours
        Numeric("v", "?", (), answer, "object_counting")
