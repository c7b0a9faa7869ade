"""The audit passes our questions, and catches what it is there to catch."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.training.questions.conftest import Asked
from tests.training.questions.motions import scenes
from tests.training.questions.noise import noisy
from training.questions.audit import CLASSIFIER, LEAST_ITEMS, LIMIT, Report, Row, audit, main
from training.questions.classifier import held_out_points, split
from training.questions.heuristics import RULES, likeness, points, roughness, statements
from training.questions.records import Extras, Record, write

FOUR_WAYS = ("(1) Left.", "(1) Right.", "(1) Front.", "(1) Behind.")


def of(report: Report, name: str, type_: str = "all") -> Row:
    return next(row for row in report.rows if (row.row, row.of) == (name, type_))


def record(options: tuple[str, ...], answer: str = "A", video: str = "clip", question: str = "?") -> Record:
    return Record(video, question, options, answer, "rel_dir")


def test_generated_questions_pass(asked: Asked) -> None:
    report = audit(asked.records)
    print(report.as_markdown())
    assert len(asked.records) >= LEAST_ITEMS
    assert report.exit_code == 0
    for name in RULES:
        assert of(report, name).accuracy == pytest.approx(0.25, abs=1e-9), name  # by construction, not on average
    assert of(report, CLASSIFIER).accuracy < LIMIT


def test_white_noise_is_caught() -> None:
    report = audit(noisy(scenes(24, seed=5), 3, Random(0)), least=600)
    assert report.exit_code == 1
    assert 0.65 < of(report, "smoothest").accuracy < 0.95
    assert of(report, "least smooth").accuracy < 0.1
    assert of(report, CLASSIFIER).accuracy > 0.65


def test_classifier_learns_what_a_box_tells() -> None:
    """Options that are balanced in themselves; only box and class together tell which is right."""
    random, records = Random(0), []
    for number in range(600):
        left, quick = random.random() < 0.5, random.random() < 0.5
        x = random.randrange(0, 200) if left else random.randrange(400, 600)
        right = FOUR_WAYS[0 if left else 1] if quick else FOUR_WAYS[2 if left else 3]
        text = f"Following the camera, where is the red {'car' if quick else 'bench'} [{x}, 40, {x + 50}, 90] at 1.0 s?"
        options = tuple(random.sample(FOUR_WAYS, 4))
        records.append(record(options, "ABCD"[options.index(right)], f"clip-{number // 6}", text))
    assert np.mean(held_out_points(records)) > 0.9


def test_classifier_learns_the_place_of_the_right_letter() -> None:
    random = Random(0)
    records = [
        record(tuple(random.sample(FOUR_WAYS, 4)), random.choice("AAAB"), f"clip-{n // 6}", "?") for n in range(600)
    ]
    assert np.mean(held_out_points(records)) > 0.6


def test_classifier_finds_nothing_where_there_is_nothing() -> None:
    """600 coin tosses of one in four: 0.25 ± 0.018, so that 0.32 is four deviations away."""
    random = Random(0)
    records = [
        record(tuple(random.sample(FOUR_WAYS, 4)), random.choice("ABCD"), f"clip-{n // 6}", "?") for n in range(600)
    ]
    assert np.mean(held_out_points(records)) < 0.32


def test_folds_share_neither_videos_nor_sets(asked: Asked) -> None:
    folds = split(asked.records)
    assert len(set(folds.tolist())) == 3  # as many as blocks
    for same in ("videoID", "group"):
        seen: dict[str, int] = {}
        for fold, item in zip(folds.tolist(), asked.records, strict=True):
            assert item.extras is not None
            key = item.videoID if same == "videoID" else item.extras.group
            assert seen.setdefault(key, fold) == fold


def test_one_video_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match="one video"):
        held_out_points([record(FOUR_WAYS)] * 3)


def test_rules_by_hand() -> None:
    smooth, rough = "(1) Front. (2) Front|Left. (3) Left.", "(1) Front. (2) Behind. (3) Front."
    middle, other = "(1) Front. (2) Left. (3) Behind|Left.", "(1) Right. (2) Front. (3) Behind."
    options = (rough, smooth, middle, other)
    assert statements(smooth) == ["Front", "Front|Left", "Left"]
    assert roughness(rough) == 2  # from one unit vector to its opposite
    assert roughness("(1) Front.") == 0
    assert roughness("(1) Become larger. (2) Keep nearly constant.") == 2
    earned = {name: points(rule, [record(options, "B")])[0] for name, rule in RULES.items()}
    assert earned["smoothest"] == 1
    assert earned["least smooth"] == 0
    assert earned["longest"] == 0
    assert earned["most common first word"] == pytest.approx(1 / 3)  # three begin with Front
    twins = likeness(("(1) Front.", "(1) Front.", "(1) Left."))
    assert twins[0] == twins[1] > twins[2] == 0


def test_rule_that_cannot_decide_earns_exactly_chance() -> None:
    same = record(("(1) Left.", "(1) Left!", "(1) Left?", "(1) Left;"), "C")
    assert points(RULES["smoothest"], [same]) == [0.25]


def test_interval_is_wilsons() -> None:
    """Half of 100, from the tables: 40.4 to 59.6 %."""
    low, high = Row("r", "all", 0.5, 100).interval
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert Row("r", "all", 0.0, 100).interval[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("accuracy", "items", "code"),
    [(0.28, 2000, 0), (0.2801, 2000, 1), (0.9, 1999, 2), (0.25, 1999, 2), (0.1, 5000, 0)],
)
def test_verdict(accuracy: float, items: int, code: int) -> None:
    assert Report((Row("r", "all", accuracy, items),)).exit_code == code


def test_type_with_few_items_is_shown_and_not_judged() -> None:
    report = Report((Row("r", "all", 0.25, 2000), Row("r", "abs_dis", 0.9, 100)))
    assert report.exit_code == 0
    assert "abs_dis" in report.as_markdown()
    assert Report((Row("r", "all", 0.25, 4000), Row("r", "abs_dis", 0.9, 2000))).exit_code == 1


def test_command_writes_reports_and_takes_rows_of_a_model(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    # Parts of the first and the last block, so that there are folds.
    some = asked.records[:300], asked.records[-300:]
    for number, records in enumerate(some):
        write(tmp_path / f"{number}.json", records)
    rows = [{"row": "video of another scene", "of": "all", "accuracy": 0.31, "items": 2500}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    files = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    report = ["--report", str(tmp_path / "report")]
    assert main([*files, *report]) == 2
    assert main([*files, *report, "--least", "600", "--rows", str(tmp_path / "rows.json")]) == 1
    written = json.loads((tmp_path / "report.json").read_text())
    assert not written["passed"]
    assert [row["row"] for row in written["rows"] if row["verdict"] == "leak"] == ["video of another scene"]
    assert written["rows"][0]["items"] == sum(map(len, some))
    table = (tmp_path / "report.md").read_text()
    assert "| video of another scene | 31.0 | 29.2 to 32.8 | 2500 | leak |" in table
    assert table in capsys.readouterr().out


def test_sets_without_extras_can_be_audited(asked: Asked) -> None:
    bare = [Record(r.videoID, r.question, r.options, r.answer, r.type) for r in asked.records[:250]]
    assert len(set(split(bare).tolist())) == 5
    assert 0.1 < np.mean(held_out_points(bare)) < 0.4


def test_nothing_to_audit_is_an_error() -> None:
    with pytest.raises(ValueError, match="no questions"):
        audit([])


def test_shared_sets_tie_videos_together() -> None:
    def in_group(video: str, group: str) -> Record:
        return Record(video, "?", FOUR_WAYS, "A", "rel_dir", Extras(("Left",), (0, 1), (0, 9), "v", 32, group, ()))

    records = [in_group("a", "1"), in_group("b", "1"), in_group("b", "2"), in_group("c", "2"), in_group("d", "3")]
    folds = split(records).tolist()
    assert len(set(folds[:4])) == 1
    assert folds[4] != folds[0]


@pytest.mark.parametrize("text", [None, "[3]", '{"videoID": "v"}', "no JSON", "[]"])
def test_what_cannot_be_audited_is_said(tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        (tmp_path / "set.json").write_text(text)
    assert main([str(tmp_path / "set.json"), "--report", str(tmp_path / "report")]) == 2
    assert capsys.readouterr().err.startswith("audit: ")
    assert not (tmp_path / "report.json").exists()
