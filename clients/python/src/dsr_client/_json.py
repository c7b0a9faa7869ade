"""Reading fields of JSON objects with their types. Every failure is a BrokenResponse that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ._errors import BrokenResponse

__all__ = ["Json", "mapping", "number", "optional", "parse", "text", "whole"]

Json = Mapping[str, Any]
T = TypeVar("T")


def parse(body: bytes | str, what: str, request_id: str | None = None) -> Json:
    """The JSON object in `body`; `what` names it in the error."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BrokenResponse(f"{what} is not JSON: {error}", request_id=request_id) from None
    if not isinstance(value, dict):
        raise BrokenResponse(f"{what} is no JSON object but {type(value).__name__}", request_id=request_id)
    return value


def text(raw: Json, name: str) -> str:
    value: str = _typed(raw, name, str, "text")
    return value


def number(raw: Json, name: str) -> float:
    return float(_typed(raw, name, (int, float), "a number"))


def whole(raw: Json, name: str) -> int:
    return int(_typed(raw, name, int, "a whole number"))


def mapping(raw: Json, name: str) -> Json:
    value: Json = _typed(raw, name, dict, "an object")
    return value


def optional(read: Callable[[Json, str], T], raw: Json, name: str) -> T | None:
    """None when the field is null or missing."""
    return None if raw.get(name) is None else read(raw, name)


def _typed(raw: Json, name: str, kind: type | tuple[type, ...], said: str) -> Any:
    value = raw.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        got = "nothing" if name not in raw else f"{value!r:.80}"
        raise BrokenResponse(f"the service's answer: {name}: expected {said}, got {got}", field=name)
    return value
