"""A question with its parameters, in the two shapes in which the service takes it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["Geometry", "Question"]

Geometry = Literal["gsm", "off"]


@dataclass(frozen=True)
class Question:
    """None and empty mean "not said": the service's own default, which this client does not repeat."""

    question: str
    options: tuple[str, ...] = ()
    frames: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    geometry: Geometry | None = None
    explain: bool = False
    stream: bool = False

    @classmethod
    def of(cls, question: str, options: Sequence[str], stop: Sequence[str], **parameters: Any) -> Question:
        """TypeError for one text where a list of texts is meant: its letters would become the options."""
        for name, texts in (("options", options), ("stop", stop)):
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"{name}: expected a list of texts, got {texts!r:.80}")
        return cls(question=question, options=tuple(options), stop=tuple(stop), **parameters)

    def repeatable(self) -> Question:
        """A drawn answer gets a seed, so that it is the same when it is asked for again."""
        if not self.temperature or self.seed is not None:
            return self
        return replace(self, seed=secrets.randbits(53))  # JSON numbers have no more

    def json(self) -> dict[str, Any]:
        return {"question": self.question} | {name: value for name, value in vars(self).items() if _said(value)}

    def form(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        for name, value in self.json().items():
            values = value if isinstance(value, tuple) else (value,)
            fields += [(name, "true" if one is True else str(one)) for one in values]
        return fields


def _said(value: Any) -> bool:
    return value is not None and value is not False and value != () and value != ""
