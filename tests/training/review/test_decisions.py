"""Decisions on disk, and what is left of a set when they are applied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.review.conftest import RECORDS
from training.questions.records import read as read_records
from training.review.__main__ import main
from training.review.decisions import Decision, apply, read
from training.review.items import id_of

IDS = [id_of(record) for record in RECORDS]


def said(**decisions: str) -> dict[str, Decision]:
    return {IDS[int(number[1:])]: Decision(IDS[int(number[1:])], decision) for number, decision in decisions.items()}


def test_the_last_decision_counts_and_a_line_that_was_cut_short_does_not(tmp_path: Path) -> None:
    lines = [Decision("a", "keep"), Decision("b", "drop", "blurred"), Decision("a", "drop"), Decision("b", "undecided")]
    path = tmp_path / "decisions.jsonl"
    path.write_text("".join(decision.line() for decision in lines) + '{"id": "c", "decis')
    assert read(path) == {"a": Decision("a", "drop")}
    assert read(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}", "an object with id and decision"),
        ("[]", "an object with id and decision"),
        ('{"id": "a", "decision": "maybe"}', "'maybe' is none of keep, drop, undecided"),
        ('{"id": 3, "decision": "keep"}', "must be text"),
        (json.dumps({"id": "a", "decision": "keep", "note": "x" * 501}), "501 characters, at most 500"),
        ("no JSON", "Expecting value"),
    ],
)
def test_a_line_that_is_no_decision_is_told_by_its_number(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(f'{{"id": "a", "decision": "keep"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"decisions\.jsonl, line 2: ") as raised:
        read(path)
    assert why in str(raised.value)


def test_a_question_is_known_by_its_words() -> None:
    assert len(set(IDS)) == len(IDS)
    assert id_of(RECORDS[0]) == IDS[0]
    assert all(len(id_) == 16 for id_ in IDS)


def test_the_group_of_a_dropped_question_goes_with_it() -> None:
    made = apply(RECORDS, said(_1="drop", _4="keep"))
    assert made.records == RECORDS[4:]
    assert (made.counts["with their group"], made.counts["undecided"], made.unknown) == (3, 5, 0)
    alone = apply(RECORDS, said(_1="drop") | {"of another set": Decision("x", "drop")}, groups=False)
    assert alone.records == (RECORDS[0], *RECORDS[2:])
    assert alone.unknown == 1


def test_what_nobody_decided_stays_or_goes_as_is_said() -> None:
    decisions = said(_0="keep", _1="keep", _2="keep", _3="keep", _5="drop")
    assert apply(RECORDS, decisions).records == (*RECORDS[:5], RECORDS[6])
    assert apply(RECORDS, decisions, undecided="drop").records == RECORDS[:4]


def test_the_command_writes_the_set_that_is_left(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions, out = tmp_path / "decisions.jsonl", tmp_path / "left.json"
    decisions.write_text("".join(decision.line() for decision in said(_0="drop", _5="keep").values()))
    assert main(["apply", str(asked), str(decisions), "--out", str(out)]) == 0
    assert tuple(read_records(out)) == RECORDS[4:]
    assert "3 questions in" in capsys.readouterr().out
    assert main(["apply", str(asked), str(tmp_path / "none"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("review: there is no ")
