"""`dsr ask`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .._client import Client
from .._errors import CannotDraw
from .._models import Answer
from .._source import Link, source_of
from ._progress import shown
from ._tables import answer_table

__all__ = ["ask", "parameters_of"]


def ask(arguments: argparse.Namespace) -> int:
    source = source_of(arguments.video)
    if arguments.explain:
        _refuse_undrawable(source)
    asked = {"explain": bool(arguments.explain), **parameters_of(arguments)}
    with Client(arguments.url, timeout=arguments.timeout) as client:
        if isinstance(source, Path):
            with shown(source.name) as progress:
                client.upload(source, progress=progress)
        streamed = arguments.stream and not arguments.json
        if streamed:
            answer = _streamed(client, arguments, asked)
        else:
            answer = client.ask(arguments.video, arguments.question, arguments.options, **asked)
    if arguments.explain and isinstance(source, Path):
        if answer.explanation is None:
            raise CannotDraw("the service sent no explanation")
        answer.explanation.save_strip(source, arguments.explain)
    if arguments.json:
        print(json.dumps(answer.raw, ensure_ascii=False))
    else:
        print(("\n" if streamed else "") + answer_table(answer, arguments.options, with_text=not streamed))
    return 0


def parameters_of(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("frames", "max_tokens", "temperature", "top_p", "stop", "seed", "geometry")
    return {name: getattr(arguments, name) for name in names}


def _refuse_undrawable(source: object) -> None:
    """Before the question is asked rather than after it."""
    if isinstance(source, Link):
        raise ValueError("--explain draws on the frames of a file: give the video as a file, not by its id")
    from .. import _strip  # noqa: F401  CannotDraw without Pillow
    from .._frames import reader

    reader()


def _streamed(client: Client, arguments: argparse.Namespace, asked: dict[str, Any]) -> Answer:
    """Prints the tokens as they come, and ends their line also when an error cuts them off."""
    with client.stream(arguments.video, arguments.question, arguments.options, **asked) as events:
        said = ""
        try:
            for event in events:
                if isinstance(event, Answer):
                    if not said and event.choice is None:
                        said = event.text
                        print(said, end="")
                    return event
                print(event.text, end="", flush=True)
                said += event.text
        finally:
            if said:
                print()
    raise AssertionError("a stream ends with an answer or an error")
