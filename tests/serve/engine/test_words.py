from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from models.tokenizer import QwenTokenizer
from serve.engine.words import Words

TEXTS = ["日本語 é 🎥 x", "What is left? A ball.\n", "🎥🎥 ends in half a character: é"]


def said(words: Words, ids: Sequence[int]) -> list[str]:
    pieces = []
    for token in ids:
        pieces.append(words.add(token))
        if words.stopped:
            break
    return [*pieces, words.end()]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_add_up_to_the_decoded_whole_even_for_bytes_that_are_no_text(
    tokenizer: QwenTokenizer, seed: int
) -> None:
    rng = random.Random(seed)
    ids = [*(rng.randrange(len(tokenizer)) for _ in range(30)), *tokenizer.encode(rng.choice(TEXTS))]
    ids = ids[: rng.randrange(1, len(ids))]
    assert "".join(said(Words(tokenizer.decode), ids)) == tokenizer.decode(ids)


def test_no_piece_ends_within_a_character(tokenizer: QwenTokenizer) -> None:
    pieces = said(Words(tokenizer.decode), tokenizer.encode(TEXTS[0]))
    assert len([piece for piece in pieces if piece]) > 3
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("seed", range(40))
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut(seed: int) -> None:
    """Tokens are runs of up to three letters; each piece must be text that no later token can take back."""
    rng = random.Random(seed)
    whole = "".join(rng.choice("ab") for _ in range(30))
    cuts = sorted({0, 30, *(rng.randrange(30) for _ in range(15))})
    tokens = [whole[a:b] for a, b in pairwise(cuts)]
    stops = ["".join(rng.choice("abc") for _ in range(rng.randrange(1, 6))) for _ in range(3)]
    words = Words(lambda ids: "".join(tokens[i] for i in ids), stops)
    text = "".join(said(words, range(len(tokens))))
    if not words.stopped:
        assert text == whole
        assert not any(stop in whole for stop in stops)
        return
    assert any(whole.startswith(text + stop) for stop in stops)
    assert not any(stop in text for stop in stops)


def test_what_may_begin_a_stop_string_is_held_back_and_no_more() -> None:
    words = Words(lambda ids: "".join(map(chr, ids)), ["END"])
    assert [words.add(ord(letter)) for letter in "xEENx"] == ["x", "", "E", "", "ENx"]
    assert [words.add(ord(letter)) for letter in "EN"] == ["", ""]
    assert (words.end(), words.stopped) == ("EN", False)
