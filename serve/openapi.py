"""What FastAPI cannot read off a route whose body has two forms: the bodies, and the errors that all routes share."""

from __future__ import annotations

from typing import Any

from serve.chat_schemas import ChatRequest, OpenAIError
from serve.schemas import AnswerParameters, AnswerRequest, Problem

_FILE = {"type": "string", "format": "binary", "description": "the video file"}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"video": _FILE, **properties}, "required": ["video", *required]}
    return {"schema": schema}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema without `$defs`: OpenAPI would look for them in another place."""
    definitions = schema.pop("$defs", {})

    def put_in(part: Any) -> Any:
        if isinstance(part, list):
            return [put_in(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return put_in(definitions[part["$ref"].rpartition("/")[2]])
        return {name: put_in(value) for name, value in part.items()}

    found: dict[str, Any] = put_in(schema)
    return found


ANSWER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": inlined(AnswerRequest.model_json_schema())},
            "multipart/form-data": _form(AnswerParameters.model_json_schema()["properties"], ["question"]),
        },
    }
}
ANSWER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: token\ndata: {"text": "It grows"}\n\nevent: answer\ndata: {"id": "ans_5f0c", …}\n\n',
            }
        }
    }
}
CHAT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": inlined(ChatRequest.model_json_schema())}},
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
OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {**answer, "model": OpenAIError} for status, answer in PROBLEMS.items()
}
