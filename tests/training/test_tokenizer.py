"""The small tokenizer: a Qwen2.5-VL directory in every respect but its vocabulary."""

from __future__ import annotations

import json
import re
import string
import threading
import unicodedata
from pathlib import Path
from random import Random

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, Qwen2Tokenizer

from models.tokenizer import QwenTokenizer
from training.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from training.vocabulary import COMPARISONS, DIRECTIONS, QUESTIONS, TRENDS, TYPES, corpus, items, phrases

TEXTS = [
    "",
    " ",
    "\n\n  \tHow\r\nfar?  ",
    "(1) Front|Left. (2) Behind|Right|Below.",
    "the red car [12, 40, 88, 120] at 20.5 s",
    "naïve café 日本語 العربية हिन्दी 👩‍👩‍👧 \u0000 \ufffd ﬁ ½ ٣٤",
    "a\u0301 = á",  # two spellings of one letter; the first is not NFC
    "ends with <|im_end|> and <|video_pad|>",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    save_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def qwen(directory: Path) -> Qwen2Tokenizer:
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("size", [1024, 1280])
def test_vocabulary_has_exactly_the_size_asked_for_with_special_tokens_last(size: int) -> None:
    tokenizer = train_tokenizer(size)
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert [tokenizer.id_to_token(i) for i in range(size - len(SPECIAL_TOKENS), size)] == list(SPECIAL_TOKENS)


@pytest.mark.parametrize(
    ("size", "reason"), [(1000, "multiple of 64"), (704, "too small.*one token"), (4096, "larger than the corpus")]
)
def test_sizes_that_cannot_be_made_are_refused(size: int, reason: str) -> None:
    with pytest.raises(ValueError, match=f"vocab_size {size}.*{reason}"):
        train_tokenizer(size)


def test_training_twice_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    names = sorted(path.name for path in directory.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert all((tmp_path / name).read_bytes() == (directory / name).read_bytes() for name in names)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_in_its_composed_form(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_random_characters_of_every_plane_come_back(tokenizer: Tokenizer) -> None:
    random = Random(0)
    points = [p for p in (random.randrange(0x110000) for _ in range(5000)) if not 0xD800 <= p < 0xE000]
    text = "".join(map(chr, points))
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_every_option_letter_is_one_token_with_and_without_a_space(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.encode(f"{space}{letter}").ids for space in ("", " ") for letter in string.ascii_uppercase]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == 52


def test_no_token_but_a_phrase_joins_a_digit_to_anything(tokenizer: Tokenizer) -> None:
    joined = [token for token in tokenizer.get_vocab() if len(token) > 1 and any(c in string.digits for c in token)]
    assert set(joined) <= set(phrases())
    assert tokenizer.encode("2048").tokens == ["2", "0", "4", "8"]


def test_what_questions_say_again_and_again_is_one_token(tokenizer: Tokenizer) -> None:
    text = "the car [12, 40, 88, 112] at 10.3 s?\nOptions:\nA (1) Front|Left. (2) Keep nearly constant.\n"
    expected = ["the", " car", " [12", ", 40", ", 88", ", 112", "]", " at", " 10.3", " s", "?", "\nOptions:\n"]
    expected += ["A", " (1)", " Front|Left.", " (2)", " Keep nearly constant.", "\n"]
    assert [tokenizer.decode([i]) for i in tokenizer.encode(text).ids] == expected


def test_a_word_keeps_the_space_before_it(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("the camera  moves").ids] == [
        "the",
        " camera",
        " ",
        " moves",
    ]


def test_each_word_of_the_question_templates_is_one_token(tokenizer: Tokenizer) -> None:
    templates = " ".join(template for forms in QUESTIONS.values() for template in forms)
    words = set(re.findall(r"[A-Za-z]+", re.sub(r"{\w+}", "", templates) + " ".join(TRENDS + COMPARISONS + DIRECTIONS)))
    assert [word for word in sorted(words) if len(tokenizer.encode(f" {word}").ids) > 1] == []


def test_directory_has_the_tokenizer_files_of_a_qwen_directory_and_they_are_small(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.json"}
    assert (directory / "tokenizer.json").stat().st_size < 150_000


def test_transformers_loads_qwens_class_with_qwens_ends(qwen: Qwen2Tokenizer) -> None:
    assert type(qwen) is Qwen2Tokenizer
    assert (qwen.eos_token, qwen.pad_token, qwen.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert set(qwen.all_special_tokens) == set(SPECIAL_TOKENS)
    assert len(qwen) == 1280


def test_transformers_loads_it_beside_a_model_configuration(directory: Path, tmp_path: Path) -> None:
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is Qwen2Tokenizer
    assert loaded.get_vocab() == AutoTokenizer.from_pretrained(directory).get_vocab()


def test_all_files_of_the_directory_split_text_alike(directory: Path, qwen: Qwen2Tokenizer) -> None:
    raw = Tokenizer.from_file(str(directory / "tokenizer.json"))
    pair = Tokenizer(BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt")))
    pair.normalizer, pair.pre_tokenizer = raw.normalizer, raw.pre_tokenizer
    pair.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases()])
    pair.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    for text in [*TEXTS, *corpus(50, seed=7)]:
        assert raw.encode(text).ids == qwen(text).input_ids == pair.encode(text).ids


VIDEO = {"type": "video", "video": "clip.mp4"}
ASKED = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|> Where \n?<|im_end|>\n"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": [VIDEO, {"type": "text", "text": " Where \n?"}]}], SYSTEM + ASKED),
        (
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": " Where \n?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Left."}]},
                {"role": "user", "content": "Sure?"},
            ],
            f"<|im_start|>system\nBe brief.<|im_end|>\n{ASKED}<|im_start|>assistant\nLeft.<|im_end|>\n"
            "<|im_start|>user\nSure?<|im_end|>\n",
        ),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            SYSTEM + "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n",
        ),
    ],
)
def test_chat_template_writes_qwens_prompt(qwen: Qwen2Tokenizer, messages: list[object], expected: str) -> None:
    render = qwen.apply_chat_template
    assert render(messages, tokenize=False) == expected
    assert render(messages, tokenize=False, add_generation_prompt=True) == expected + "<|im_start|>assistant\n"


def test_chat_template_refuses_a_part_that_it_would_lose(qwen: Qwen2Tokenizer) -> None:
    with pytest.raises(Exception, match="unknown part of a message: audio"):
        qwen.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)


def test_both_files_hold_the_same_chat_template(directory: Path) -> None:
    of_config, of_file = (
        json.loads((directory / name).read_text())["chat_template"]
        for name in ("tokenizer_config.json", "chat_template.json")
    )
    assert of_config == of_file


def test_text_that_spells_special_tokens_stays_text_when_they_are_switched_off(directory: Path) -> None:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    text = "".join(SPECIAL_TOKENS) + "".join(f" {token}\n" for token in SPECIAL_TOKENS)
    special = set(map(tokenizer.token_to_id, SPECIAL_TOKENS))
    assert special <= set(tokenizer.encode(text).ids)
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text).ids
    assert not special & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_services_tokenizer_gives_the_same_plain_ids(directory: Path) -> None:
    switched = Tokenizer.from_file(str(directory / "tokenizer.json"))
    switched.encode_special_tokens = True
    plain = QwenTokenizer(directory)
    for text in [*TEXTS, *corpus(50, seed=3)]:
        assert plain.encode(text) == switched.encode(text, add_special_tokens=False).ids


def test_plain_encoding_holds_while_other_threads_use_the_transformers_tokenizer(
    directory: Path, qwen: Qwen2Tokenizer
) -> None:
    plain = Tokenizer.from_file(str(directory / "tokenizer.json"))
    plain.encode_special_tokens = True
    end = plain.token_to_id("<|im_end|>")
    done = threading.Event()

    def use_both_settings() -> None:
        while not done.is_set():
            qwen("text <|im_end|>", split_special_tokens=False)
            plain.encode("text")

    threads = [threading.Thread(target=use_both_settings) for _ in range(2)]
    for thread in threads:
        thread.start()
    leaks = sum(end in plain.encode("text <|im_end|>").ids for _ in range(300))
    done.set()
    for thread in threads:
        thread.join()
    assert leaks == 0


def test_the_same_seed_asks_the_same_questions_and_another_seed_others() -> None:
    assert list(items(200, seed=1)) == list(items(200, seed=1))
    assert list(items(200, seed=1)) != list(items(200, seed=2))


def test_corpus_has_every_question_type_and_keeps_to_the_limits_of_questions() -> None:
    asked = list(items(1500, seed=5))
    assert {item.type for item in asked} == {*TYPES, "plain"}
    for item in asked:
        assert len(item.options) == (0 if item.type == "plain" else 4)
        assert all(1 <= option.count("(") <= 15 for option in item.options)
        assert "{" not in item.question
        for box in re.findall(r"\[(.*?)\]", item.question):
            left, top, right, bottom = map(int, box.split(", "))
            assert left <= right
            assert top <= bottom
