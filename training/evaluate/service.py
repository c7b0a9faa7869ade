"""A running service that answers, over HTTP. A busy one is asked again, when it says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import httpx

from training.evaluate.answerers import TEXT_TOKENS
from training.evaluate.answers import Answered, Refused
from training.evaluate.rows import Job

AT_ONCE = 4  # requests
PATIENCE = 600.0  # seconds that a busy or silent service is asked again
LONGEST_WAIT = 30.0  # seconds from one try to the next
BUSY = (429, 502, 503, 504)
BEYOND = (413, 415, 422)  # what is wrong is wrong with this question or this video alone
FRAMES = 32


class Service:
    """Each file is uploaded once, when it is first asked about, and again if the service has forgotten it."""

    over_http = True
    geometry = True  # when there is none, switching it off changes nothing

    def __init__(
        self, endpoint: str, key: str | None = None, frames: int = FRAMES, client: httpx.Client | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(30, read=PATIENCE)
        self.name, self.frames = endpoint, frames
        self._client = client or httpx.Client(base_url=endpoint, headers=headers, timeout=timeout)
        self._ids: dict[Path, str] = {}
        self._uploading = Lock()

    def __enter__(self) -> Self:
        """RuntimeError when there is no service that is ready."""
        self.model = str(_content(self._send("GET", "/readyz", tries=3))["model"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered | Refused]:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            yield from pool.map(self._answer, jobs)
        finally:  # whoever stops waits for the requests under way, and for no others
            pool.shutdown(cancel_futures=True)

    def _answer(self, job: Job) -> Answered | Refused:
        if job.geometry not in (None, job.view):
            raise ValueError(f"{job.row}: a service takes no other clip's geometry")
        try:
            reply = self._ask(job)
            if reply.status_code == 404:
                with self._uploading:
                    self._ids.pop(job.view.path, None)
                reply = self._ask(job)
            content = _content(reply)
        except _Beyond as why:
            return Refused(job.row, job.id, str(why))
        if not job.options:
            return Answered(job.row, job.id, text=content["text"])
        chances = content["probabilities"]
        return Answered(job.row, job.id, tuple(chances[letter] for letter in sorted(chances)))

    def _ask(self, job: Job) -> httpx.Response:
        body: dict[str, Any] = {
            "video": {"id": self._upload(job.view.path)},
            "question": job.question,
            "frames": job.view.frames,
            **({"options": job.options} if job.options else {"max_tokens": TEXT_TOKENS}),
        }
        if job.geometry is None:
            body["geometry"] = "off"  # to ask for it by name is an error where there is none
        return self._send("POST", "/v1/answers", json=body)

    def _upload(self, path: Path) -> str:
        """The video's id."""
        with self._uploading:
            if path not in self._ids:
                reply = self._send("POST", "/v1/videos", files={"video": (path.name, path.read_bytes())})
                self._ids[path] = _content(reply)["id"]
            return self._ids[path]

    def _send(self, method: str, route: str, tries: int | None = None, **content: Any) -> httpx.Response:
        """Every request may be repeated without harm. RuntimeError when there is no reply in `tries` or `PATIENCE`."""
        until, tried = time.monotonic() + PATIENCE, 0
        while True:
            tried += 1
            wait = min(LONGEST_WAIT, 0.5 * 2**tried)
            try:
                reply = self._client.request(method, route, **content)
            except httpx.TransportError as error:
                if time.monotonic() + wait > until or tried == tries:
                    raise RuntimeError(f"{method} {self.name}{route}: no reply ({error})") from None
            else:
                if reply.status_code not in BUSY or time.monotonic() > until:
                    return reply
                wait = min(LONGEST_WAIT, _seconds(reply.headers.get("Retry-After"), wait))
            time.sleep(wait)


class _Beyond(Exception):
    """The service does not take this question or this video, whatever it thinks of others."""


def _content(reply: httpx.Response) -> dict[str, Any]:
    """The JSON of a reply. _Beyond, or RuntimeError with what the service says."""
    if reply.status_code in BEYOND:
        raise _Beyond(f"{reply.status_code} {_detail(reply)}")
    if reply.is_error:
        raise RuntimeError(f"{reply.request.method} {reply.request.url}: {reply.status_code} {_detail(reply)}")
    return reply.json()


def _seconds(header: str | None, default: float) -> float:
    """`Retry-After` in seconds; its other form, a date, is not waited for exactly."""
    try:
        return float(header) if header else default
    except ValueError:
        return default


def _detail(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:300]
