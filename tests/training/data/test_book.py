"""Questions as tables: printed once, in the order of the scenes, each row what it was."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from models.tokenizer import QwenTokenizer
from training.data import scenes
from training.data.book import Book
from training.data.scenes import SceneStore
from training.lessons.pages import Asked, Page, Printer
from training.runs.model import tokenizer_in
from training.scenes.config import SceneConfig

GROUPS = 2


class Made(NamedTuple):
    store: SceneStore
    book: Book
    tokenizer: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CHUNK": 8, "GROUP": 1, "DRAWN": 20, "LEARNED": 120}.items():  # few scenes, few questions
            patch.setattr(scenes, name, value)
        store = SceneStore(cache, SceneConfig(size=(56, 56)), per_scene=12)
        tokenizer = tokenizer_in(cache, 1280)
        return Made(store, Book.of(store, GROUPS, tokenizer), tokenizer)


def test_rows_are_in_the_order_of_their_scenes(made: Made) -> None:
    scenes_of_rows = made.book.scene
    assert (scenes_of_rows[1:] >= scenes_of_rows[:-1]).all()
    rows = made.book.of_scenes()
    assert sum(map(len, rows.values())) == len(scenes_of_rows)
    for scene, own in rows.items():
        assert set(scenes_of_rows[list(own)].tolist()) == {scene}


def test_a_row_is_the_question_that_was_asked(made: Made) -> None:
    book, found, printer = made.book, made.store.questions(1), Printer(QwenTokenizer(made.tokenizer))
    row = len(book.scene) - 1
    last = Asked(found["question"][-1], found["options"][-1], int(found["right"][-1]), found["statements"][-1])
    both = (book.lettered, printer.with_options([last])), (book.written, printer.without_options([last]))
    for sheet, again in both:
        page, alone = Page.of(sheet, torch.tensor([row])), Page.of(again, torch.tensor([0]))
        for name, value in vars(alone).items():
            other = getattr(page, name)
            assert (value is None) == (other is None), name
            assert value is None or value.tolist() == other.tolist(), name
    assert book.samples[row].tolist() == found["samples"][-1].tolist()


def test_what_was_made_is_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it is in a file")

    monkeypatch.setattr(scenes, "_questions", never)
    monkeypatch.setattr(Printer, "with_options", never)
    again = Book.of(made.store, GROUPS, made.tokenizer)
    assert again.lettered.ids.tolist() == made.book.lettered.ids.tolist()
