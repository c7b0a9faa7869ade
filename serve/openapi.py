"""What FastAPI cannot read off the routes: bodies in two forms, errors and their media types, events, headers."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI

from serve.chat_schemas import ChatChunk, ChatRequest, OpenAIError
from serve.guard import REQUEST_ID_HEADER
from serve.problems import MEDIA_TYPE
from serve.scene_schemas import MEDIA_TYPES, ReconstructionParameters, ReconstructionRequest
from serve.schemas import AnswerParameters, AnswerRequest, Problem

Responses = dict[int | str, dict[str, Any]]

_ERRORS = {
    400: "malformed, or not supported in this version",
    401: "no API key, or none that is known",
    403: "not allowed from there",
    404: "no video of this id",
    413: "too large",
    415: "not a video",
    422: "undecodable, or out of limits",
    429: "too busy: see Retry-After",
    500: "an error of the service's own; its log knows more by the request's id",
    503: "not ready, or lost: see Retry-After",
    504: "no answer within the deadline",
    507: "the disk that keeps the videos is full",
}
_WITH_RETRY_AFTER = ("429", "503")
_REQUEST_ID = {
    "name": REQUEST_ID_HEADER,
    "in": "header",
    "description": "kept when it has at most 128 letters, digits and `._:-` and begins with one of the first two; "
    "else the service makes one",
    "schema": {"type": "string"},
}
_HEADERS = {
    "RequestId": {
        "description": "by which the service's log knows the request",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
    },
    "RetryAfter": {
        "description": "seconds until a new attempt makes sense",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
}


def problems(*statuses: int) -> Responses:
    """The errors of a route, which 500 always is one of."""
    return {status: {"model": Problem, "description": _ERRORS[status]} for status in sorted({*statuses, 500})}


def guarded(*statuses: int) -> Responses:
    """The errors of a route that needs a key: of all but two."""
    return problems(401, 403, 429, *statuses)


def openai_errors(*statuses: int) -> Responses:
    return {status: {**answer, "model": OpenAIError} for status, answer in guarded(*statuses).items()}


def events(description: str, example: str, *kinds: dict[str, Any]) -> Responses:
    """The 200 that a route has besides its JSON: a stream of events, each of one of these kinds."""
    content = {"schema": {"description": description, "anyOf": list(kinds)}, "example": example}
    return {200: {"content": {"text/event-stream": content}}}


def _event(schema: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """One event, whose `data` is JSON of that `schema`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    properties = {"data": data} if name is None else {"event": {"const": name}, "data": data}
    return {"type": "object", "properties": properties, "required": list(properties)}


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


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A form and a URL have no null: what may be one may be absent."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        return schema
    [kind] = kinds
    return {**kind, **{name: value for name, value in schema.items() if name not in ("anyOf", "default")}}


def _form(properties: dict[str, Any], required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "description": "the video file"}
    fields = {name: _without_null(schema) for name, schema in properties.items()}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"video": file, **fields},
        "required": ["video", *required],
    }
    if fields:
        schema["additionalProperties"] = False
    return {"schema": schema, "example": {"video": "(the bytes of clip.mp4)", **example}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


_QUESTION = "How does the distance between the red car and the camera change?"
_CHOICES = {"question": _QUESTION, "options": ["It becomes larger.", "It becomes smaller."]}
_BY_ID = {"video": {"id": "vid_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}}
_URL = {"type": "video_url", "video_url": {"url": f"dsr://{_BY_ID['video']['id']}"}}
_MESSAGE = {"role": "user", "content": [_URL, {"type": "text", "text": _QUESTION}]}

ANSWER_BODY = _body(
    {
        "application/json": {
            "schema": inlined(AnswerRequest.model_json_schema()),
            "examples": {
                "choice": {"summary": "the probabilities of options", "value": {**_BY_ID, **_CHOICES}},
                "text": {
                    "summary": "free text, as it is written",
                    "value": {**_BY_ID, "question": _QUESTION, "max_tokens": 128, "stream": True},
                },
            },
        },
        "multipart/form-data": _form(AnswerParameters.model_json_schema()["properties"], ["question"], _CHOICES),
    }
)
CHAT_BODY = _body(
    {
        "application/json": {
            "schema": inlined(ChatRequest.model_json_schema()),
            "example": {"model": "dsr-tiny", "messages": [_MESSAGE], "max_tokens": 64},
        }
    }
)
_FEW = {"frames": 16, "points": 20_000}
RECONSTRUCTION_BODY = _body(
    {
        "application/json": {
            "schema": inlined(ReconstructionRequest.model_json_schema()),
            "examples": {
                "json": {"summary": "cameras and packed points", "value": {**_BY_ID, **_FEW}},
                "glb": {"summary": "a file for viewers", "value": {**_BY_ID, "format": "glb"}},
            },
        },
        "multipart/form-data": _form(
            ReconstructionParameters.model_json_schema()["properties"], [], {**_FEW, "format": "ply"}
        ),
    }
)
VIDEO_BODY = _body({"multipart/form-data": _form({}, [], {})})

_WORDS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
ANSWER_EVENTS = events(
    "with `stream`, one event: `token` has the next part of the text; last comes `answer`, or `error`",
    'event: token\ndata: {"text": "It grows"}\n\nevent: answer\ndata: {"id": "ans_5f0c", …}\n\n',
    _event(_WORDS, "token"),
    _event({"$ref": "#/components/schemas/Answer"}, "answer"),
    _event({"$ref": "#/components/schemas/Problem"}, "error"),
)
CHAT_EVENTS = events(
    "with `stream`, one event: OpenAI's chunks, then `[DONE]`; or an error",
    'data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "It grows"}}], …}\n\n'
    "data: [DONE]\n\n",
    _event(inlined(ChatChunk.model_json_schema())),
    _event({"$ref": "#/components/schemas/OpenAIError"}),
    {"type": "object", "properties": {"data": {"const": "[DONE]"}}, "required": ["data"]},
)
_FILE = {"schema": {"type": "string", "format": "binary"}}
RECONSTRUCTION_FILES: Responses = {200: {"content": {MEDIA_TYPES["ply"]: _FILE, MEDIA_TYPES["glb"]: _FILE}}}


class Documented(FastAPI):
    """An application whose document says, too, what every response has: its media type and its headers."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi())
        return self.openapi_schema


def completed(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    components = document.setdefault("components", {})
    components["headers"] = _HEADERS
    components["parameters"] = {"RequestId": _REQUEST_ID}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}}
    for path in document["paths"].values():
        for operation in path.values():
            if "401" in operation["responses"]:
                operation["security"] = [{"key": []}, {}]  # a service without keys is for its own machine, or open
            parameters = operation.get("parameters", [])
            given = [{**parameter, "schema": _without_null(parameter["schema"])} for parameter in parameters]
            operation["parameters"] = [*given, {"$ref": "#/components/parameters/RequestId"}]
            for status, response in operation["responses"].items():
                _complete(status, response)
    return document


def _complete(status: str, response: dict[str, Any]) -> None:
    headers = response["headers"] = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
    if status in _WITH_RETRY_AFTER:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    content = response.get("content", {})
    if content.get("application/json", {}).get("schema") == {"$ref": "#/components/schemas/Problem"}:
        content[MEDIA_TYPE] = content.pop("application/json")
