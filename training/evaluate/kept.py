"""Answers that have been given, line by line in a file, so that a stopped evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.evaluate.answers import Answered
from training.whole import replacing


class Kept:
    """The first line says what was asked whom. ValueError when a file has another one, with what differs."""

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self._answers: dict[tuple[str, str], Answered] = {}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        if whole:
            _check(path, whole[0], setup)
        for line in whole[1:]:
            answer = Answered(line["row"], line["id"], tuple(line.get("probabilities", ())), line.get("text", ""))
            self._answers[answer.row, answer.id] = answer
        # A line that was cut short is asked again.
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            text = "".join(json.dumps(line) + "\n" for line in whole or [dict(setup)])
            unfinished.write_text(text, encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def of(self, row: str) -> dict[str, Answered]:
        """The answers of a row, by the samples' ids."""
        return {id_: answer for (name, id_), answer in self._answers.items() if name == row}

    def has(self, row: str, id_: str) -> bool:
        return (row, id_) in self._answers

    def add(self, answer: Answered) -> None:
        self._answers[answer.row, answer.id] = answer
        said = {"probabilities": answer.probabilities} if answer.probabilities else {"text": answer.text}
        line = {"row": answer.row, "id": answer.id, **said}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _check(path: Path, was: Mapping[str, Any], setup: Mapping[str, Any]) -> None:
    differs = [
        f"{name} was {was.get(name)}, is {setup.get(name)}"
        for name in sorted({*was, *setup})
        if was.get(name) != setup.get(name)
    ]
    if differs:
        raise ValueError(
            f"{path} has the answers of another evaluation ({'; '.join(differs)}); remove it or give another --json"
        )
