"""Data sets: what is asked twice, splits without a common video, balance, and the folder that the command makes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from training.data.__main__ import main
from training.data.duplicates import NEARLY, THE_SAME, TWO_ANSWERS, duplicates, near
from training.data.groups import without
from training.data.sets import of_records
from training.data.splits import capped, relettered, shared_groups, split
from training.questions.records import LETTERS, PUBLIC, Extras, Record, read, write

OPTIONS = ("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind.")
CAR = "how does the direction of the red car [12, 40, 88, 120] change"


def one(question: str = "?", video: str = "v", answer: str = "B", type_: str = "abs_dir", group: str = "") -> Record:
    extras = Extras(("Left",), (0.4, 3.2), (2, 16), "the camera", 32, group, ("a", "truth", "c", "d"))
    return Record(video, question, OPTIONS, answer, type_, extras if group else None)


def many(videos: int, each: int = 4, types: Sequence[str] = ("abs_dir",), block: int = 4) -> list[Record]:
    """Questions of the engine's kind: in groups of four about four videos, each letter right once."""
    return [
        one(
            f"question {10 * number} of {type_}?",
            f"v{video}",
            LETTERS[video % 4],
            type_,
            f"{type_}/{video // block}/{number}",
        )
        for type_ in types
        for number in range(each)
        for video in range(videos)
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit's classifier learns for two rounds: here it only has to be there."""
    monkeypatch.setattr("training.questions.classifier.ROUNDS", 2)


@pytest.mark.parametrize(
    ("question", "other", "same"),
    [
        (f"{CAR} between 1.2 s and 3.4 s?", f"And {CAR} from 1.2 seconds to 3.4 seconds?", True),
        (f"{CAR} between 1.2 s and 3.4 s?", f"{CAR.replace('88', '91')} between 1.2 s and 3.5 s?", True),
        (f"{CAR} between 1.2 s and 3.4 s?", f"{CAR.replace('88', '92')} between 1.2 s and 3.4 s?", False),
        (f"{CAR} between 1.2 s and 3.4 s?", f"{CAR} between 1.2 s and 3.7 s?", False),
        (f"{CAR} between 1.2 s and 3.4 s?", f"{CAR} between 1.2 s and 3.4 s, and 5.6 s?", False),
        (f"{CAR} between 1.2 s and 3.4 s?", f"{CAR.replace('car', 'dog')} between 1.2 s and 3.4 s?", False),
        ("at 3.0 s", "at 3 s", False),
        ("who runs first to the door", "who runs first to that door", False),
        ("who of the two people runs first to the door", "who of the two people runs first to a door", True),
    ],
)
def test_nearly_the_same_question_has_the_same_names_boxes_and_times(question: str, other: str, same: bool) -> None:
    assert near(question, other) is same
    assert near(other, question) is same


def test_of_equal_questions_the_first_stays_and_of_contradictory_ones_none() -> None:
    question = f"{CAR} between 1.2 s and 3.4 s?"
    records = [
        one(question),
        one(question.upper()),
        one(question.replace("between", "from")),
        one(question, video="another"),
        one(question.replace("between", "from"), answer="C", type_="rel_dir"),
        one("which way?"),
        one("Which  way?", answer="C"),
        one(question.replace("88", "89"), answer="C"),
    ]
    assert duplicates(records) == {
        1: THE_SAME, 2: TWO_ANSWERS, 4: TWO_ANSWERS, 5: TWO_ANSWERS, 6: TWO_ANSWERS,
    }  # fmt: skip
    assert duplicates([records[0], records[2], records[7]]) == {1: NEARLY}, "another answer is another question"


def test_what_shares_options_goes_together() -> None:
    records = [*many(4, each=2), one("alone?")]
    assert without(records, {0}) == records[4:]
    assert without(records, {8}) == records[:8]
    assert without(records, {0}, groups=False) == records[1:]


def test_no_video_and_no_group_of_options_is_in_both_parts() -> None:
    records = many(40)
    train, benchmark = split(records, 0.2)
    assert len(train) + len(benchmark) == len(records)
    assert not {record.videoID for record in train} & {record.videoID for record in benchmark}
    assert shared_groups(train, benchmark) == 0
    assert len(benchmark) == pytest.approx(0.2 * len(records), abs=16)
    again = split(list(reversed(records)), 0.2)
    assert {record.videoID for record in again[1]} == {record.videoID for record in benchmark}
    assert {r.videoID for r in split(records, 0.2, seed=1)[1]} != {r.videoID for r in benchmark}


def test_videos_are_split_even_when_all_share_options_and_one_video_cannot_be() -> None:
    records = many(8, block=8)
    train, benchmark = split(records, 0.25)
    assert len({record.videoID for record in benchmark}) == 2
    assert shared_groups(train, benchmark) > 0
    with pytest.raises(ValueError, match="1 videos cannot be split"):
        split([one()], 0.5)


def test_no_type_has_more_than_its_share_and_groups_stay_whole() -> None:
    records = [*many(8, 2), *many(8, 4, ["abs_ori"]), *many(8, 9, ["rel_spd"])]
    assert Counter(record.type for record in capped(records)) == {"abs_dir": 16, "abs_ori": 32, "rel_spd": 32}
    least = capped(records, 10)
    assert Counter(record.type for record in least) == {"abs_dir": 8, "abs_ori": 8, "rel_spd": 8}
    assert all(count == 4 for count in Counter(record.extras.group for record in least if record.extras).values())
    assert capped([]) == []


def test_letters_are_even_afterwards_and_the_right_option_stays_right() -> None:
    skewed = [one(f"{n}?", answer="B", group=f"g{n}") for n in range(9)]
    even, moved = relettered(skewed)
    letters = Counter(record.answer for record in even)
    assert max(letters.values()) - min(letters[letter] for letter in "ABCD") <= 1
    assert moved == sum(record.answer != "B" for record in even) > 5
    for record in even:
        assert record.options[record.right] == "(1) Left."
        assert record.extras is not None
        assert record.extras.sources[record.right] == "truth"
        assert sorted(record.options) == sorted(OPTIONS)
    engine = many(8)
    assert relettered(engine) == (engine, 0)


def test_the_command_makes_both_parts_in_both_formats_with_audit_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    records = many(40, 3, ("abs_dir", "rel_spd"))
    again = one(records[0].question.upper(), "v0", records[0].answer, records[0].type, "another group")
    write(tmp_path / "q.json", [*records, records[0], again, replace(again, question="and?", videoID="v1")])
    (tmp_path / "bad.json").write_text(json.dumps([{"videoID": "v"}]))
    (tmp_path / "facts.json").write_text(json.dumps({"detector box threshold": 0.35}))
    out = tmp_path / "set"
    files = [
        str(tmp_path / "q.json"),
        str(tmp_path / "bad.json"),
        "--out",
        str(out),
        "--facts",
        str(tmp_path / "facts.json"),
    ]
    told = ["--name", "A | set", "--license", "apache-2.0", "--source", "rendered scenes", "--date", "2026-01-31"]
    assert main([*files, *told, "--commit", "abc123", "--benchmark", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "1 were there twice, in every field; 1 were the same question of the same video; 1 were in a group" in said
    parts = {name: read(out / f"{name}.json") for name in ("train", "benchmark")}
    assert sum(map(len, parts.values())) == len(records)
    for name, part in parts.items():
        rows = pyarrow.parquet.read_table(out / f"{name}.parquet").to_pylist()
        assert [tuple(row) for row in rows] == [PUBLIC] * len(part)
        assert [row["question"] for row in rows] == [record.question for record in part]
        assert json.loads((out / f"audit-{name}.json").read_text())["rows"]
    assert not of_records(out / "benchmark.parquet", tmp_path).unusable

    card = (out / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"\n')
    assert "# A \\| set" in card
    assert "Made on 2026-01-31 at commit `abc123`" in card
    videos = {name: len({record.videoID for record in part}) for name, part in parts.items()}
    assert f"| videos | {videos['train']} | {videos['benchmark']} |" in card
    for label, count in (("type abs_dir", "abs_dir"), ("type rel_spd", "rel_spd")):
        counts = [sum(record.type == count for record in part) for part in parts.values()]
        assert f"| {label} | {counts[0]} | {counts[1]} |" in card
    assert "| viewpoint absolute, the camera's |" in card
    assert "* rendered scenes\n* q.json, sha256 " in card
    assert "* 1 questions: no questions that can be asked" in card
    assert "| detector box threshold | 0.35 |" in card
    assert "| smoothest |" in card
    assert "text-only classifier" in card
    assert "0 groups of options are. 0 groups are not whole." in card


def test_a_leak_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None) -> None:
    """The right option is always the longest."""
    options = ("(1) Left.", "(1) Left. (2) Front.", "(1) Right.", "(1) Behind.")
    write(tmp_path / "q.json", [Record(f"v{n}", f"{n}?", options, "B", "abs_dir") for n in range(60)])
    arguments = [str(tmp_path / "q.json"), "--out", str(tmp_path / "set"), "--name", "n", "--license", "l"]
    assert main([*arguments, "--least", "20"]) == 1
    assert "above the limit without the video: train: longest (all)" in capsys.readouterr().err


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "q.json", [one()])
    arguments = [str(tmp_path / "q.json"), "--out", str(tmp_path / "set"), "--name", "n", "--license", "l"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "data: 1 videos cannot be split by video; at least 2\n"
    assert not (tmp_path / "set").exists()
