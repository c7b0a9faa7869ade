"""The chat routes by OpenAI's own client, over a backend that speaks on demand."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from models.prompt import Turn
from serve import metrics
from serve.chat import data_of
from serve.errors import Malformed, StageLost
from serve.messages import Ask
from tests.serve.backends import VIDEO, BrokenBackend, SpeakingBackend, client

DATA_URL = "data:video/mp4;base64," + base64.b64encode(b"some bytes").decode()


def about(url: str, text: str = "Does it grow?") -> list[dict[str, Any]]:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def post(backend: BrokenBackend, store: Path, **body: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with client(backend, store) as http:
            return await http.post("/v1/chat/completions", json={"model": "dsr-tiny", **body})

    return asyncio.run(send())


def openai_client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    """It is annotated for httpx2, and takes httpx as well."""
    client: Any = http
    return openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=client, max_retries=0)


def by_openai(backend: BrokenBackend, store: Path, **body: Any) -> Any:
    """What OpenAI's client makes of it; of a stream, its chunks."""

    async def ask() -> Any:
        http = client(backend, store)
        async with openai_client(http) as asked:
            found: Any = await asked.chat.completions.create(model="dsr-tiny", **body)
            return [chunk async for chunk in found] if body.get("stream") else found

    return asyncio.run(ask())


def test_a_completion_has_text_usage_finish_and_log_probabilities(tmp_path: Path) -> None:
    found = by_openai(SpeakingBackend(), tmp_path, messages=about(DATA_URL), logprobs=True, top_logprobs=2)
    [choice] = found.choices
    assert (choice.message.content, choice.finish_reason, found.usage.total_tokens) == ("It grows.", "stop", 63)
    first = choice.logprobs.content[0]
    assert (first.token, first.logprob, bytes(first.bytes)) == ("It ", -0.1, b"It ")
    assert bytes(first.top_logprobs[1].bytes) == b"\xc3", "half a character has its bytes"
    assert by_openai(SpeakingBackend(), tmp_path, messages=about(DATA_URL)).choices[0].logprobs is None


def test_a_stream_is_role_words_finish_and_usage(tmp_path: Path) -> None:
    chunks = by_openai(
        SpeakingBackend(), tmp_path, messages=about(DATA_URL), stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It grows."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_counted_as_every_answer_is(tmp_path: Path, stream: bool) -> None:
    def written() -> float:
        return metrics.TOKENS.labels("completion")._value.get()

    before = written()
    assert post(SpeakingBackend(), tmp_path, messages=about(DATA_URL), stream=stream).status_code == 200
    assert written() == before + 3


def test_every_parameter_arrives_at_the_decoder(tmp_path: Path) -> None:
    def asked(**body: Any) -> Ask:
        backend = SpeakingBackend()
        assert post(backend, tmp_path, messages=about(f"dsr://{VIDEO}"), **body).status_code == 200
        return backend.asks[0]

    plain = asked()
    assert (plain.clip.video, plain.max_tokens, plain.temperature, plain.seed, plain.logprobs) == (
        VIDEO,
        64,
        0,
        None,
        None,
    )
    assert plain.turns == (Turn("user", "Does it grow?", video=True),)
    full = asked(
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        stop="x",
        seed=3,
        logprobs=True,
        frames=4,
        geometry="off",
        user="me",
        n=1,
    )
    assert (full.max_tokens, full.temperature, full.top_p, full.stop, full.seed) == (7, 0.5, 0.9, ("x",), 3)
    assert (full.logprobs, full.geometry) == (0, False)
    assert full.clip.sampling != plain.clip.sampling
    assert asked(max_completion_tokens=5, stop=["a", "b"]).stop == ("a", "b")
    assert asked(temperature=1.0).seed is not None


def test_several_turns_keep_their_order_and_the_video_its_place(tmp_path: Path) -> None:
    backend = SpeakingBackend()
    messages = [
        {"role": "developer", "content": "Be brief."},
        *about(f"dsr://{VIDEO}"),
        {"role": "assistant", "content": "It grows."},
        {"role": "user", "content": "And then?"},
    ]
    assert post(backend, tmp_path, messages=messages).status_code == 200
    assert backend.asks[0].turns == (
        Turn("system", "Be brief."),
        Turn("user", "Does it grow?", video=True),
        Turn("assistant", "It grows."),
        Turn("user", "And then?"),
    )


TWO = [*about(DATA_URL), *about(DATA_URL)]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"messages": [{"role": "user", "content": "hello"}]}, 400, "messages", "not_supported"),
        ({"messages": TWO}, 400, "messages", "not_supported"),
        ({"messages": IMAGE}, 400, "messages", "not_supported"),
        ({"messages": []}, 422, "messages", "out_of_limits"),
        ({"messages": about(DATA_URL), "n": 2}, 400, "n", "not_supported"),
        ({"messages": about(DATA_URL), "tools": [{"type": "function"}]}, 400, "tools", "not_supported"),
        ({"messages": about(DATA_URL), "temperature": 3}, 422, "temperature", "out_of_limits"),
        ({"messages": about(DATA_URL), "top_logprobs": 3}, 400, "top_logprobs", "malformed_request"),
        ({"messages": about(DATA_URL), "max_tokens": "many"}, 400, "max_tokens", "malformed_request"),
        ({"messages": about("https://example.org/a.mp4")}, 400, "video_url", "not_supported"),
        ({"messages": about("file:///etc/passwd")}, 400, "video_url", "not_supported"),
        ({"messages": about("dsr://../../etc/passwd")}, 404, "video_url", "unknown_video"),
        ({"messages": about("data:video/mp4;base64,%%%")}, 400, "video_url", "malformed_request"),
    ],
)
def test_what_cannot_be_done_is_said_in_openais_form(
    tmp_path: Path, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    response = post(SpeakingBackend(), tmp_path, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), response.text
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert response.headers["x-request-id"]


def test_openais_client_raises_its_own_errors(tmp_path: Path) -> None:
    with pytest.raises(openai.BadRequestError, match="exactly one"):
        by_openai(SpeakingBackend(), tmp_path, messages=TWO)
    with pytest.raises(openai.InternalServerError, match="lost its replica"):
        by_openai(
            SpeakingBackend(before=StageLost("decoder lost its replica 3 times")), tmp_path, messages=about(DATA_URL)
        )
    lost = SpeakingBackend(after=StageLost("decoder lost its replica 3 times"))
    with pytest.raises(openai.APIError, match="lost its replica"):
        by_openai(lost, tmp_path, messages=about(DATA_URL), stream=True)
    hung = post(BrokenBackend(), tmp_path, messages=about(DATA_URL))
    assert (hung.status_code, hung.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_the_one_model_is_listed(tmp_path: Path) -> None:
    async def models() -> list[str]:
        http = client(SpeakingBackend(), tmp_path)
        async with openai_client(http) as asked:
            return [model.id async for model in asked.models.list()]

    assert asyncio.run(models()) == ["dsr-tiny"]


def test_data_urls_are_read_as_rfc_2397_has_them() -> None:
    assert data_of(DATA_URL) == b"some bytes"
    assert data_of("data:video/mp4,a%00b") == b"a\x00b"
    assert data_of("data:;base64,QUI=") == b"AB"
    for wrong in ("data:video/mp4;base64", "data:video/mp4;base64,Q", "data:video/mp4;base64,Q Q=", "data:\n,x"):
        with pytest.raises(Malformed):
            data_of(wrong)
