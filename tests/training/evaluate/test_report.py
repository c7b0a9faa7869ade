"""Figures from points; answers that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.sets import Missing, QuestionSet, Sample
from training.evaluate.answers import Answered
from training.evaluate.kept import Kept
from training.evaluate.published import ORDER, PUBLISHED, PUBLISHED_ITEMS
from training.evaluate.report import Measured, Report, text_rows
from training.evaluate.subset import READABLE, Subset
from training.questions.records import Record

OPTIONS = ("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind.")


def samples(count: int, of: str = "abs_dis", answer: str = "B") -> list[Sample]:
    return [Sample(f"{of}{n}", Record(f"v{n}", "?", OPTIONS, answer, of), Path("v")) for n in range(count)]


def report(asked: list[Sample], right: dict[str, float], *more: Measured) -> Report:
    questions = QuestionSet(tuple(asked), {"gone": Missing("there is no such file", 7)})
    rows = [Measured("answers", "accuracy", right), *more]
    return Report(questions, rows, {}, {}, {}, Subset.of(questions, READABLE))


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    # Wilson's interval by hand: (p + z²/2n ± z√(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964
    [(3, 4, 0.3006, 0.9544), (0, 10, 0.0, 0.2775), (50, 100, 0.4038, 0.5962), (10, 10, 0.7225, 1.0)],
)
def test_the_interval_is_wilson_s(right: int, of: int, low: float, high: float) -> None:
    asked = samples(of)
    figures = report(asked, {sample.id: float(n < right) for n, sample in enumerate(asked)}).as_dict()
    assert figures["accuracy"] == right / of
    assert figures["interval"] == pytest.approx([low, high], abs=1e-4)


def test_the_average_is_over_items_and_unanswered_ones_are_not_wrong() -> None:
    asked = samples(3) + samples(2, "rel_dir") + samples(1, "made_up")
    right = {"abs_dis0": 1.0, "abs_dis1": 1.0, "abs_dis2": 0.0, "rel_dir0": 0.0}
    made = report(asked, right, Measured("grey video", "blind", {"abs_dis0": 1.0}))
    figures = made.as_dict()
    assert (figures["accuracy"], figures["items"]) == (0.5, 4)
    assert figures["types"]["abs_dis"] == {"accuracy": pytest.approx(2 / 3), "items": 3}
    assert figures["types"]["rel_dir"]["items"] == 1
    assert list(figures["types"]) == ["abs_dis", "rel_dir", "made_up"]
    assert figures["blind"] == {"grey video": 1.0}
    assert "1 videos are missing or unreadable, 7 questions with them: gone." in made.as_table()


def test_a_blind_row_that_knows_too_much_is_named() -> None:
    asked = samples(2000)
    blind = Measured("rule: longest", "blind", {sample.id: float(n % 3 == 0) for n, sample in enumerate(asked)})
    fair = Measured("rule: shortest", "blind", {sample.id: float(n % 4 == 0) for n, sample in enumerate(asked)})
    shown = report(asked, dict.fromkeys((sample.id for sample in asked), 1.0), blind, fair).as_table()
    assert "Above that, without having seen the video: rule: longest." in shown


def test_text_rows_need_no_answers() -> None:
    asked = samples(30, answer="B") + samples(10, "abs_ori", answer="C")
    rows = {row.name: row for row in text_rows(asked, classifier=False)}
    letter = rows["commonest letter"]
    assert sum(letter.points.values()) == 30
    assert all(row.group == "blind" and row.points.keys() == {sample.id for sample in asked} for row in rows.values())


def test_published_figures_are_of_every_type_and_average_to_their_sum() -> None:
    assert all(len(values) == len(ORDER) + 1 for values in (*PUBLISHED.values(), PUBLISHED_ITEMS))
    *items, total = PUBLISHED_ITEMS
    assert sum(items) == total
    for *own, overall in PUBLISHED.values():
        average = sum(value * count for value, count in zip(own, items, strict=True)) / total
        assert average == pytest.approx(overall, abs=0.5)


def test_kept_answers_survive_a_cut_line_and_another_setup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    with Kept(path, {"x": 1}) as kept:
        kept.add(Answered("answers", "1", (0.2, 0.8)))
    with path.open("a") as file:
        file.write('{"row": "answers", "id"')
    with Kept(path, {"x": 1}) as kept:
        assert kept.has("answers", "1")
        assert not kept.has("grey video", "1")
        assert kept.of("answers") == {"1": Answered("answers", "1", (0.2, 0.8))}
    assert path.read_text().count("\n") == 2
    with pytest.raises(ValueError, match="x was 1, is 2; y was None, is 3"):
        Kept(path, {"x": 2, "y": 3})
