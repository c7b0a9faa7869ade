"""An application with the service's API and canned answers, for what a healthy service never says, or says too fast."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from serve.playground.routes import playground
from serve.reconstructions import as_reconstruction
from serve.scene_files import ply
from serve.trace import Made
from tests.serve.scenes import sphere

SAMPLE = Path("models/tiny/sample")
VIDEO = {
    "id": "vid_" + "0" * 64,
    "duration": 6.0,
    "fps": 15.0,
    "width": 448,
    "height": 252,
    "frames": 90,
    "bytes": 151_938,
}
TIMES, ROWS, COLUMNS = 16, 9, 16


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def problem(status: int, code: str, title: str, detail: str, **facts: Any) -> dict[str, Any]:
    """As serve.schemas.Problem."""
    given = {"field": None, "value": None, "limit": None, **facts}
    said = {"title": title, "status": status, "code": code, "detail": detail, "request_id": "req_1"}
    return {"type": f"urn:dsr:problem:{code}", **said, **given}


def refused(body: dict[str, Any], **headers: str) -> Response:
    return JSONResponse(body, body["status"], headers, "application/problem+json")


def explanation(question: str) -> dict[str, Any]:
    """A bright spot that wanders over the clip, on a path of the question's own; sums to 1."""
    seed = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big")
    start, end, (focus,) = (np.random.default_rng(seed + i).uniform(0.15, 0.85, n) for i, n in enumerate((2, 2, 1)))
    time = np.linspace(0, 1, TIMES)[:, None, None]
    row, column = np.mgrid[0:ROWS, 0:COLUMNS]
    across = (column + 0.5) / COLUMNS - (start[0] + (end[0] - start[0]) * time)
    down = (row + 0.5) / ROWS - (start[1] + (end[1] - start[1]) * time)
    heat = np.exp(-(across**2 + down**2) / 0.02) * (0.2 + np.exp(-((time - focus) ** 2) / 0.05)) + 0.02
    times = [(i + 0.5) * 6.0 / TIMES for i in range(TIMES)]  # the middles of the moments
    return {"times": times, "grid": [TIMES, ROWS, COLUMNS], "attention": (heat / heat.sum()).tolist()}


def answer(asked: dict[str, Any], text: str = "Behind, then left.", warm: bool = False) -> dict[str, Any]:
    """The whole answer to a request body: 64 % for the second option, or a text."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(asked["options"])]
    shares = {letter: 0.64 if letter == "B" else 0.36 / (len(letters) - 1) for letter in letters}
    ends = {"frames": (0.01, 0.19), "encoder": (0.2, 0.52), "selector": (0.53, 0.58), "decoder": (0.01, 0.84)}
    if warm:
        ends = {"selector": (0.004, 0.021), "decoder": (0.003, 0.066)}
    made: dict[str, Any] = {
        "id": "ans_1",
        "model": "dsr-canned",
        "text": "B" if letters else text,
        "choice": {"letter": "B", "text": asked["options"][1], "probability": 0.64} if letters else None,
        "probabilities": shares,
        "usage": {"video_tokens": 2304, "geometry_tokens": 32, "prompt_tokens": 2431, "completion_tokens": 1},
        "timings": {stage: (end - start) * 0.8 for stage, (start, end) in ends.items()},
        "cache": {stage: "hit" if warm and stage == "selector" else "miss" for stage in ends},
        "spans": {stage: {"start": start, "end": end} for stage, (start, end) in ends.items()},
        "video": {key: value for key, value in VIDEO.items() if key != "bytes"},
    }
    if asked["geometry"] == "gsm":
        made["explanation"] = explanation(asked["question"])
    return made


@dataclass
class Canned:
    """What the application answers, which a test may change, and what it was asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[int] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    refusals: list[Response] = field(default_factory=list)
    """Answers to the next questions, in place of an answer."""
    upload_refusals: list[Response] = field(default_factory=list)
    chunks: list[bytes] | None = None
    """The stream's bytes as they are sent; None: the tokens of an answer, then the answer."""
    pause: float = 0.0
    """Seconds between two chunks."""
    unready: int = 0
    """How often /readyz says 503 first."""
    stages: tuple[str, ...] = ("frames", "encoder", "selector", "decoder")
    scenes: list[dict[str, Any]] = field(default_factory=list)
    """What was asked to be reconstructed."""
    scene_refusals: list[Response] = field(default_factory=list)
    cancelled: int = 0
    """Streams that ended because nobody listened any more."""

    def app(self, sample: Path | None = SAMPLE) -> FastAPI:
        app = FastAPI()
        app.add_route("/readyz", self._ready)
        app.add_route("/v1/videos", self._upload, methods=["POST"])
        app.add_route("/v1/answers", self._answer, methods=["POST"])
        app.add_route("/v1/reconstructions", self._reconstruct, methods=["POST"])
        playground(app, sample)
        return app

    async def _ready(self, request: Request) -> Response:
        if self.unready:
            self.unready -= 1
            return refused(problem(503, "not_ready", "Not ready", "not ready: decoder"))
        return JSONResponse({"status": "ready", "model": "dsr-canned", "stages": list(self.stages)})

    async def _upload(self, request: Request) -> Response:
        self.uploads.append(len(await request.body()))
        self.keys.append(request.headers.get("authorization"))
        return self.upload_refusals.pop(0) if self.upload_refusals else JSONResponse(VIDEO, 201)

    async def _answer(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        if self.refusals:
            return self.refusals.pop(0)
        return StreamingResponse(self._stream(self.asked[-1]), media_type="text/event-stream")

    async def _reconstruct(self, request: Request) -> Response:
        """A sphere, seen by eight cameras on an arc around it."""
        self.scenes.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        await asyncio.sleep(self.pause)
        if self.scene_refusals:
            return self.scene_refusals.pop(0)
        scene = sphere(frames=8, points=20_000)
        if self.scenes[-1].get("format") == "ply":
            return Response(ply(scene), media_type="model/ply")
        told = as_reconstruction(str(VIDEO["id"]), Made(scene.sample(20_000)), 0.0)
        return Response(told.model_dump_json(), media_type="application/json")

    async def _stream(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        whole = answer(asked, warm=len(self.asked) > 1)
        pieces = [whole["text"]] if asked["options"] else [f"{word} " for word in whole["text"].split()]
        chunks = self.chunks or [*(event("token", {"text": piece}) for piece in pieces), event("answer", whole)]
        try:
            for chunk in chunks:
                yield chunk
                await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application over real HTTP on loopback, at the URL that is yielded."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
