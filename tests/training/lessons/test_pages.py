"""What each position of a page should know."""

from __future__ import annotations

import pytest
import torch

from models.prompt import build_prompt
from models.tokenizer import QwenTokenizer
from training.lessons.pages import NOTHING, Asked, Page, Printer, Sheet
from training.tokenizer import save_tokenizer


def asked(options: tuple[str, ...], right: int, statements: tuple[str, ...]) -> Asked:
    question = "How does the distance between the red car [1, 2, 30, 40] and the camera change?"
    return Asked(question, options, right, statements)


LARGER, SMALLER = "Become larger", "Become smaller"
ONE = asked(
    tuple(
        f"(1) {a}. (2) {b}." for a, b in ((LARGER, SMALLER), (SMALLER, LARGER), (LARGER, LARGER), (SMALLER, SMALLER))
    ),
    2,
    (LARGER, LARGER),
)
OTHER = asked(("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind."), 3, ("Behind",))


@pytest.fixture(scope="module")
def printer(tmp_path_factory: pytest.TempPathFactory) -> Printer:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(directory)
    return Printer(QwenTokenizer(directory))


def test_numbers_know_the_true_statement_and_statements_whether_they_are_true(printer: Printer) -> None:
    page = printer.with_options([ONE, OTHER])
    say = printer.tokenizer.decode
    row = page.ids[0].tolist()
    taught = [(say([row[n]]), say([int(t)])) for n, t in enumerate(page.say[0]) if t != NOTHING]
    assert taught == [(f" ({n})", " Become larger.") for _ in range(4) for n in (1, 2)]
    assert page.same is not None
    judged = [(say([row[n]]).strip(), int(t)) for n, t in enumerate(page.same[0]) if t != NOTHING]
    assert judged == [
        (f"{s}.", int(s == LARGER)) for s in (LARGER, SMALLER, SMALLER, LARGER, LARGER, LARGER, SMALLER, SMALLER)
    ]


def test_every_option_has_an_end_and_the_last_place_is_that_of_the_letter(printer: Printer) -> None:
    page = printer.with_options([ONE, OTHER])
    assert page.ends is not None
    assert page.right is not None
    assert page.right.tolist() == [2, 3]
    for row, ends, last, told in zip(page.ids, page.ends, page.length - 1, page.told, strict=True):
        assert [printer.tokenizer.decode([int(row[end])]) for end in ends[:3]] == ["\n"] * 3
        assert int(row[ends[3]]) == printer.end
        assert printer.tokenizer.decode([int(row[told])]) == "\nOptions:\n"
        assert printer.tokenizer.decode([int(row[last - 1])]) == "assistant"


def test_without_options_the_answer_is_said_token_by_token(printer: Printer) -> None:
    page = printer.without_options([OTHER])
    target = page.say[0][page.say[0] != NOTHING].tolist()
    assert printer.tokenizer.decode(target) == "(1) Behind."
    assert target[-1] == printer.end
    places = torch.nonzero(page.say[0] != NOTHING).flatten()
    assert page.ids[0][places[1:]].tolist() == target[:-1]
    assert int(places[0]) == int(page.told[0])


def test_the_selector_reads_the_text_of_the_served_prompt(printer: Printer) -> None:
    page = printer.with_options([ONE])
    assert page.text[0, : page.text_length[0]].tolist() == list(
        build_prompt(printer.tokenizer, ONE.question, ONE.options).text_ids
    )


def test_a_page_has_the_rows_of_its_sheets_and_no_more(printer: Printer) -> None:
    sheets = [printer.with_options([OTHER]), printer.with_options([ONE])]
    assert sheets[0].ids.shape[1] < sheets[1].ids.shape[1]
    joined = Sheet.joined(sheets)
    page, alone = Page.of(joined, torch.tensor([0, 0])), Page.of(sheets[0], torch.tensor([0]))
    assert page.ids.shape == (2, sheets[0].ids.shape[1])
    assert page.ids[1].tolist() == alone.ids[0].tolist()
    assert int(page.real.sum()) == 2 * int(sheets[0].length[0])
    assert page.ids.flatten()[page.known].tolist() == 2 * alone.ids.flatten()[alone.known].tolist()
    assert page.said.tolist() == 2 * alone.said.tolist()
    assert page.same is not None
    assert alone.same is not None
    assert page.same.tolist() == 2 * alone.same.tolist()
    assert page.last.tolist() == [int(joined.length[0]) - 1] * 2
