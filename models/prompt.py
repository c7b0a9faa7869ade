"""The prompt: one function for training and serving builds it, one rule says which of its text the selector reads.

before: <|im_start|>system … user\n<|vision_start|>     then the video tokens
after:  [geometry tokens]<|vision_end|>\n{question} … <|im_start|>assistant\n
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from models.errors import InvalidQuestion

SYSTEM = "You are a helpful assistant."
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of Qwen's special tokens. The selector reads none of them."""

    endoftext: int = 151643
    im_start: int = 151644
    im_end: int = 151645
    vision_start: int = 151652
    vision_end: int = 151653
    vision_pad: int = 151654
    image_pad: int = 151655
    video_pad: int = 151656

    @classmethod
    def from_vocabulary(cls, ids: Mapping[str, int]) -> Self:
        """From token text to id, as a tokenizer's `get_vocab()` gives it."""
        return cls(**{name: ids[f"<|{name}|>"] for name in cls.__dataclass_fields__})

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(self.__dict__.values())


class Tokenizer(Protocol):
    """What we need of a tokenizer: plain text to ids (never special ones) and back, and the special ids."""

    special: SpecialTokens

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the video's place. The number of video tokens is known only when the clip is."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    special: SpecialTokens

    @classmethod
    def from_ids(cls, ids: Sequence[int], special: SpecialTokens) -> Self:
        """Cuts out the one run of video placeholders of a finished sequence (video and geometry tokens alike)."""
        places = [i for i, token in enumerate(ids) if token == special.video_pad]
        if not places or places != list(range(places[0], places[-1] + 1)):
            raise ValueError(f"expected one unbroken run of video placeholders, got {len(places)} at {places[:3]}…")
        return cls(tuple(ids[: places[0]]), tuple(ids[places[-1] + 1 :]), special)

    @property
    def text_ids(self) -> tuple[int, ...]:
        """What the selector reads: all text of the prompt, before and after the video, without special tokens."""
        return tuple(token for token in self.before + self.after if token not in self.special.ids)

    def input_ids(self, video_tokens: int, geometry_tokens: int) -> list[int]:
        """The whole sequence: geometry tokens follow the last video token and share its placeholder id."""
        return [*self.before, *[self.special.video_pad] * (video_tokens + geometry_tokens), *self.after]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. Of one user turn the video is a part: it stands before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    video: bool = False


def build_prompt(tokenizer: Tokenizer, question: str, options: Sequence[str] = ()) -> Prompt:
    """The prompt of the published recipe, ready for the answer.

    Raises:
        InvalidQuestion: the question is empty; one option; more than 26 options; an option that is empty, repeated or
            of several lines (it could pose as the next option).
    """
    return build_chat(tokenizer, asking(question, options))


def asking(question: str, options: Sequence[str] = ()) -> tuple[Turn, ...]:
    """The conversation of one question. Raises as `build_prompt`."""
    return (Turn("user", question_text(question, options), video=True),)


def build_chat(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Prompt:
    """The prompt of a conversation, ready for the next answer.

    Text is encoded as plain text: a turn that spells `<|im_end|>` cannot end it.

    Raises:
        InvalidQuestion: a system turn that is not the first, a first turn of the assistant, a last one that is not the
            user's, a user's without text, or another number of videos than one.
    """
    _check_turns(turns)
    special, newline = tokenizer.special, tokenizer.encode("\n")
    ids: list[int] = []
    before: tuple[int, ...] = ()
    for turn in turns if turns[0].role == "system" else [Turn("system", SYSTEM), *turns]:
        if turn.video:
            before = (*ids, special.im_start, *tokenizer.encode(f"{turn.role}\n"), special.vision_start)
            ids = [special.vision_end, *tokenizer.encode(f"\n{turn.text}"), special.im_end, *newline]
        else:
            ids += [special.im_start, *tokenizer.encode(f"{turn.role}\n{turn.text}"), special.im_end, *newline]
    return Prompt(before, (*ids, special.im_start, *tokenizer.encode("assistant\n")), special)


def question_text(question: str, options: Sequence[str] = ()) -> str:
    """`{question}` or `{question}\\nOptions:\\nA {first}\\nB {second}…`."""
    question = question.strip()
    options = [option.strip() for option in options]
    _check(question, options)
    if not options:
        return question
    lines = [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, "Options:", *lines])


def letter_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the bare letters A, B, … as they stand at the start of an answer; each must be one token."""
    ids = []
    for letter in LETTERS[:count]:
        token = tokenizer.encode(letter)
        if len(token) != 1:
            raise ValueError(f"the tokenizer splits the option letter {letter!r} into {len(token)} tokens")
        ids += token
    return ids


def _check_turns(turns: Sequence[Turn]) -> None:
    roles = [turn.role for turn in turns]
    if not turns or roles[-1] != "user":
        last = roles[-1] if roles else "none"
        raise InvalidQuestion("the last message must be the user's", field="messages", value=last)
    if "system" in roles[1:]:
        raise InvalidQuestion(
            "a system message may only be the first", field="messages", value=roles.index("system", 1)
        )
    if next(role for role in roles if role != "system") != "user":
        raise InvalidQuestion("the user must speak before the assistant", field="messages", value=roles[0])
    if any(turn.role == "user" and not turn.text.strip() for turn in turns):
        raise InvalidQuestion("a message of the user has no text", field="messages", value="")
    videos = sum(turn.video for turn in turns)
    if videos != 1 or any(turn.video and turn.role != "user" for turn in turns):
        message = f"{videos} videos; a conversation is about exactly one, in a message of the user"
        raise InvalidQuestion(message, field="messages", value=videos, limit=1)


def _check(question: str, options: Sequence[str]) -> None:
    if not question:
        raise InvalidQuestion("the question is empty", field="question", value="")
    if len(options) == 1 or len(options) > len(LETTERS):
        raise InvalidQuestion(
            f"{len(options)} options; give none, or 2 to {len(LETTERS)}",
            field="options", value=len(options), limit=len(LETTERS),
        )  # fmt: skip
    for index, option in enumerate(options):
        if not option:
            raise InvalidQuestion(f"option {LETTERS[index]} is empty", field="options", value=option)
        if "\n" in option:
            raise InvalidQuestion(f"option {LETTERS[index]} has more than one line", field="options", value=option)
        if option in options[:index]:
            raise InvalidQuestion(f"option {LETTERS[index]} repeats an earlier one", field="options", value=option)
