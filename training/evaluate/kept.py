"""Answers that have been given, line by line in a file, so that a stopped evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.evaluate.answerers import Answered


class Kept:
    """The first line says what was asked whom; a file of another setup is refused."""

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self.answers: dict[tuple[str, str], Answered] = {}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        if whole and whole[0] != dict(setup):
            differs = sorted(name for name in setup if whole[0].get(name) != setup[name])
            was = ", ".join(f"{name} was {whole[0].get(name)}, is {setup[name]}" for name in differs)
            raise ValueError(f"{path} has the answers of another evaluation ({was}); remove it or give another --json")
        for line in whole[1:]:
            self.answers[line["row"], line["id"]] = Answered(line["id"], tuple(line["probabilities"]))
        # A line that was cut short is written again.
        path.write_text("".join(json.dumps(line) + "\n" for line in whole or [dict(setup)]), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def has(self, row: str, id_: str) -> bool:
        return (row, id_) in self.answers

    def choice(self, row: str, id_: str) -> int:
        return self.answers[row, id_].choice

    def add(self, row: str, answer: Answered) -> None:
        self.answers[row, answer.id] = answer
        line = {"row": row, "id": answer.id, "probabilities": answer.probabilities}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
