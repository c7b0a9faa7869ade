"""The error tree: every status and code has its place, and an error tells all that the service told."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import dsr_client
import pytest
from dsr_client import Client, DsrError, NotReady, ServiceError
from dsr_client import _errors as tree

from tests.clients.wire import VIDEO_ID, Reply, Wire, problem


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed_request", tree.BadRequest),
        (400, "not_supported", tree.BadRequest),
        (401, "unauthorized", tree.Unauthorized),
        (403, "http_403", tree.Unauthorized),
        (404, "not_found", tree.NotFound),
        (404, "unknown_video", tree.UnknownVideo),
        (405, "method_not_allowed", tree.ServiceError),
        (408, "http_408", tree.DeadlineExceeded),
        (413, "too_large", tree.TooLarge),
        (415, "not_a_video", tree.NotAVideo),
        (422, "out_of_limits", tree.Unprocessable),
        (429, "busy", tree.Busy),
        (500, "internal_error", tree.InternalError),
        (503, "stage_lost", tree.NotReady),
        (504, "deadline_exceeded", tree.DeadlineExceeded),
        (599, "from_a_later_version", tree.InternalError),
    ],
)
def test_a_problem_becomes_its_error_with_all_that_it_says(
    client: Client, wire: Wire, status: int, code: str, kind: type[ServiceError]
) -> None:
    wire.script(*[problem(status, code, "frames is 1000; at most 256", field="frames", value=1000, limit=256)] * 3)
    with pytest.raises(kind) as caught:
        client.ask(VIDEO_ID, "How?")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, "req_of_the_service")
    assert (error.field, error.value, error.limit) == ("frames", 1000, 256)
    assert error.title == code.title()
    assert str(error) == f"frames is 1000; at most 256 [{code}, request req_of_the_service]"


def test_what_a_proxy_says_is_an_error_too(client: Client, wire: Wire) -> None:
    page = b"<html>\n<h1>Bad   gateway</h1>" + b"x" * 5000
    wire.script(Reply(page, 502, {"content-type": "text/html"}), Reply(b"", 307, {"location": "/elsewhere"}))
    with pytest.raises(tree.InternalError, match="HTTP 502: <html> <h1>Bad gateway</h1>") as caught:
        client.ask(VIDEO_ID, "How?")
    assert caught.value.code == "http_502"
    assert caught.value.request_id == wire.seen[0].headers["x-request-id"]
    assert len(caught.value.message) < 300
    with pytest.raises(ServiceError, match="HTTP 307"):
        client.ask(VIDEO_ID, "How?")


def test_a_request_id_that_comes_twice_is_one(client: Client, wire: Wire) -> None:
    wire.script(Reply(b"no", 500, {"x-request-id": "req_1, req_1"}))
    with pytest.raises(ServiceError) as caught:
        client.ask(VIDEO_ID, "How?")
    assert caught.value.request_id == "req_1"


def test_a_service_that_refuses_a_large_body_early_is_heard(client: Client, wire: Wire, tmp_path: Path) -> None:
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(20_000_000)
    refusal = problem(413, "too_large", "the limit is 1000", field="body", limit=1000)
    refusal.early = True
    wire.script(*[refusal] * 3)
    with pytest.raises((tree.TooLarge, tree.ConnectionFailed)) as caught:
        client.upload(big)
    # The connection may be reset before the answer was read, each time: then it is a broken one, and never a hang.
    assert isinstance(caught.value, tree.ConnectionFailed) or caught.value.limit == 1000


def test_every_error_hangs_in_the_tree_that_the_docstring_draws() -> None:
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", tree.__doc__ or "", re.M)
    made = {name for name, what in vars(tree).items() if isinstance(what, type) and issubclass(what, DsrError)}
    assert {"DsrError", *drawn} == made
    assert made <= set(dsr_client.__all__)
    depth = {"DsrError": 0} | {
        name: len(indent) // 4 + 1 for indent, name in re.findall(r"^([│ ]*)[├└]── (\w+)", tree.__doc__ or "", re.M)
    }
    for name in made:
        inheritance = [kind for kind in getattr(tree, name).__mro__ if issubclass(kind, DsrError)]
        assert depth[name] == len(inheritance) - 1, name


def test_an_error_survives_pickling_with_all_its_facts() -> None:
    error = tree.problem_error({"status": 503, "code": "stage_lost", "detail": "lost", "request_id": "req_1"})
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NotReady
    assert (str(again), again.code, again.problem) == (str(error), "stage_lost", error.problem)


def test_health_is_an_answer_also_when_the_service_is_not_ready(client: Client, wire: Wire) -> None:
    wire.script(
        problem(503, "not_ready", "the encoder is still loading"),
        Reply({"status": "ready", "model": "dsr-tiny", "stages": ["frames", "encoder"]}),
    )
    waiting = client.health()
    assert (waiting.ready, waiting.detail) == (False, "the encoder is still loading")
    ready = client.health()
    assert (ready.ready, ready.model, ready.stages) == (True, "dsr-tiny", ("frames", "encoder"))
    assert [request.path for request in wire.seen] == ["/readyz"] * 2
