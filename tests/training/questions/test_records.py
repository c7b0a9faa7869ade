"""Question files: ours read by others, others' read by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.questions.conftest import Asked
from training.questions.records import PUBLIC, Extras, Record, as_json, from_json, read, write

EXTRAS = Extras(("Front", "Left"), (0.4, 3.2), (2, 16), "the camera", 32, "a/abs_dir/0", ("truth", "b", "c", "d"))
RECORD = Record("clip", "Which way?", ("(1) Front. (2) Left.", "b", "c", "d"), "A", "abs_dir", EXTRAS)


def test_records_survive_a_file(tmp_path: Path, asked: Asked) -> None:
    write(tmp_path / "set.json", asked.records[:50])
    assert read(tmp_path / "set.json") == asked.records[:50]


def test_public_fields_have_the_public_form(tmp_path: Path) -> None:
    """A reader that knows five fields, four of them text, finds them as it expects them."""
    write(tmp_path / "set.json", [RECORD])
    (item,) = json.loads((tmp_path / "set.json").read_text())
    assert tuple(item)[:5] == PUBLIC
    assert {name: item[name] for name in PUBLIC} == {
        "videoID": "clip",
        "question": "Which way?",
        "options": ["(1) Front. (2) Left.", "b", "c", "d"],
        "answer": "A",
        "type": "abs_dir",
    }
    assert not set(item) & {"id", "video", "image", "conversations"}


def test_extras_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "set.json", [RECORD], extras=False)
    assert tuple(json.loads((tmp_path / "set.json").read_text())[0]) == PUBLIC
    (record,) = read(tmp_path / "set.json")
    assert record.extras is None
    assert record.right == 0


def test_unknown_fields_are_ignored() -> None:
    assert from_json(as_json(RECORD) | {"difficulty": 3}) == RECORD


def test_missing_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"clip has no options, answer"):
        from_json({"videoID": "clip", "question": "?", "type": "abs_dir"})


@pytest.mark.parametrize("answer", ["E", "a", "", "AB"])
def test_answer_must_be_a_letter_of_an_option(answer: str) -> None:
    with pytest.raises(ValueError, match="is none of ABCD"):
        Record("clip", "?", ("a", "b", "c", "d"), answer, "abs_dir")


@pytest.mark.parametrize("count", [1, 6])
def test_two_to_five_options(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} options"):
        Record("clip", "?", tuple("abcdef"[:count]), "A", "abs_dir")


def test_file_must_hold_a_list(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text('{"videoID": "clip"}')
    with pytest.raises(ValueError, match=r"set\.json holds a dict"):
        read(tmp_path / "set.json")


def test_what_is_no_object_is_no_record() -> None:
    with pytest.raises(ValueError, match="a record is a int, expected an object"):
        from_json(3)
