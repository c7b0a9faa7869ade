"""What FastAPI cannot read off a route whose body has two forms: the bodies, and the errors that all routes share."""

from __future__ import annotations

from typing import Any

from serve.schemas import AnswerParameters, AnswerRequest, Problem

_FILE = {"type": "string", "format": "binary", "description": "the video file"}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"video": _FILE, **properties}, "required": ["video", *required]}
    return {"schema": schema}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema without `$defs`: OpenAPI would look for them in another place."""
    definitions = schema.pop("$defs", {})
    for name, field in schema["properties"].items():
        if "$ref" in field:
            schema["properties"][name] = definitions[field["$ref"].rpartition("/")[2]]
    return schema


ANSWER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _inlined(AnswerRequest.model_json_schema())},
            "multipart/form-data": _form(AnswerParameters.model_json_schema()["properties"], ["question"]),
        },
    }
}
VIDEO_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": _form({}, [])}}}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "malformed, or not supported in this version",
        404: "no video of this id",
        413: "too large",
        415: "not a video",
        422: "undecodable, or out of limits",
        429: "too busy: see Retry-After",
        503: "not ready: see Retry-After",
        504: "no answer within the deadline",
    }.items()
}
