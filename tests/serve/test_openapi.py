"""The OpenAPI document: valid, what it was, and true. Requests made from it find no answer that it does not tell of.

`python -m tests.serve.test_openapi` writes `openapi.json` anew when the contract has changed on purpose.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.checks import CheckContext, not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models.errors import NotAVideo
from models.layout import recognise
from models.video import VideoFacts
from serve.api import create_app
from serve.messages import Ask, Reply
from serve.reconstructions import Reconstructing
from serve.scene_schemas import MEDIA_TYPES
from serve.settings import Access, Ingress, ReconstructorStage
from serve.store import VideoStore
from serve.trace import Made, Work
from tests.serve.backends import REPLY
from tests.serve.scenes import Shaping

SNAPSHOT = Path(__file__).with_name("openapi.json")
RENEW = "changed on purpose? python -m tests.serve.test_openapi"
EXAMPLES, MANY_EXAMPLES = 20, 2000


class Healthy(Shaping):
    """All that the document tells of, without the hanging and failing of its parents."""

    async def answer(self, ask: Ask) -> Made[Reply]:
        return Made(REPLY, {"decoder": Work(0.5, "miss")})

    async def ready(self) -> Sequence[str]:
        return ["frames", "encoder", "selector", "decoder"]


def application(store: Path, backend: Healthy | None = None) -> FastAPI:
    model = recognise(Path("models/tiny")).model
    settings = Ingress(max_body_bytes=10_000_000, allow_flush=True, access=Access(open=True))
    backend = backend or Healthy()
    held, stage = VideoStore(str(store), 10_000_000, 3600), ReconstructorStage(checkpoint="tests/golden/pi3")
    return create_app(backend, held, model, settings, reconstructor=Reconstructing(backend, stage))


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as store:
        return application(Path(store)).openapi()


DOCUMENT = document()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_the_document_is_the_committed_one() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == json.loads(SNAPSHOT.read_text()), RENEW


def loaded(store: Path, backend: Healthy | None = None) -> BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", application(store, backend))


@schemathesis.check
def what_is_well_formed_is_not_malformed(_: CheckContext, response: Response, case: schemathesis.Case[Any]) -> None:
    """Chat is left out: which of OpenAI's parameters go together, the document says in words. Other refusals (no such
    video, no video at all, a question without a word) are no matter of form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or case.path.startswith("/v1/chat"):
        return
    assert response.status_code != 400 or response.json()["code"] != "malformed_request", response.text


@schemathesis.check
def what_is_ill_formed_is_refused(context: CheckContext, response: Response, case: schemathesis.Case[Any]) -> None:
    """Forms are left out: all that is in one is text, so that null where text should be arrives as the text `null`."""
    if case.media_type != "multipart/form-data":
        negative_data_rejection(context, response, case)


# Off: `positive_data_acceptance`, for the same reason; what follows requests upon each other (`use_after_free` and the
# like), because the id of a video is the hash of its bytes, and `test_api` walks through its life; `ignored_auth`,
# because there is none; `unsupported_method`, which is about the framework.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    what_is_ill_formed_is_refused,
    what_is_well_formed_is_not_malformed,
]


def requested(store: Path, method: str, path: str, examples: int) -> None:
    """Well-formed and malformed requests of one operation, always the same for the same number of them."""
    operation = loaded(store)[path][method]
    requests = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=requests)
    def run(case: schemathesis.Case[Any]) -> None:
        response = case.call()
        case.validate_response(response, checks=CHECKS)

    run()


def answered(store: Path, method: str, path: str, backend: Healthy | None = None, **how: Any) -> Response:
    """A request of our own, checked as those that are made up."""
    case = loaded(store, backend)[path][method].Case(**how)
    response = case.call()
    case.validate_response(response, checks=CHECKS)
    return response


def bodies() -> list[tuple[str, str, Any]]:
    """Path, media type and body of every example of the document."""
    found = []
    for path, methods in DOCUMENT["paths"].items():
        for kind, content in methods.get("post", {}).get("requestBody", {}).get("content", {}).items():
            examples = content.get("examples") or {"": {"value": content["example"]}}
            found += [(path, kind, example["value"]) for example in examples.values()]
    return found


@pytest.mark.parametrize(("path", "kind", "body"), bodies())
@pytest.mark.parametrize("stream", [False, True])
def test_every_example_of_a_body_is_answered(tmp_path: Path, path: str, kind: str, body: Any, stream: bool) -> None:
    may_stream = path in ("/v1/answers", "/v1/chat/completions")
    asked = {**body, "stream": stream} if may_stream else body
    response = answered(tmp_path, "POST", path, body=asked, media_type=kind)
    assert response.status_code in (200, 201)
    expected = "text/event-stream" if stream and may_stream else MEDIA_TYPES[body.get("format", "json")]
    assert response.headers["content-type"][0].startswith(expected)


def test_a_video_that_is_held_is_told_of_and_deleted_as_the_document_says(tmp_path: Path) -> None:
    upload = answered(tmp_path, "POST", "/v1/videos", body={"video": b"anything"}, media_type="multipart/form-data")
    held: dict[str, Any] = {"path_parameters": {"video": upload.json()["id"]}}
    assert answered(tmp_path, "GET", "/v1/videos/{video}", **held).status_code == 200
    assert answered(tmp_path, "GET", "/v1/videos").json()["videos"] == [upload.json()]
    assert answered(tmp_path, "DELETE", "/v1/videos/{video}", **held).status_code == 204


def test_a_file_that_nobody_can_ask_about_is_no_part_of_the_list(tmp_path: Path) -> None:
    class Choosy(Healthy):
        async def probe(self, video: str) -> VideoFacts:
            if video == no_video:
                raise NotAVideo("no video")
            return await super().probe(video)

    store = VideoStore(str(tmp_path), 10_000_000, 3600)
    no_video, good = store.put(BytesIO(b"under way to be discarded")), store.put(BytesIO(b"good"))
    response = answered(tmp_path, "GET", "/v1/videos", backend=Choosy())
    assert [video["id"] for video in response.json()["videos"]] == [good]


@pytest.mark.parametrize(("number", "status"), [(4, 200), (4.0, 200), (4.5, 400), (True, 400), ("4", 400)])
def test_an_integer_is_what_json_schema_calls_one(tmp_path: Path, number: Any, status: int) -> None:
    asked = next(body for path, kind, body in bodies() if kind == "application/json")
    numbers = dict.fromkeys(("frames", "max_tokens", "seed"), number)
    body = {**asked, **numbers}
    assert answered(tmp_path, "POST", "/v1/answers", body=body, media_type="application/json").status_code == status


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_tells_of(tmp_path: Path, method: str, path: str) -> None:
    requested(tmp_path, method, path, EXAMPLES)


@pytest.mark.fuzz
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_tells_of_for_long(tmp_path: Path, method: str, path: str) -> None:
    requested(tmp_path, method, path, MANY_EXAMPLES)


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(DOCUMENT, indent=1, ensure_ascii=False) + "\n")
