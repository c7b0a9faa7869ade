"""Who answers: a checkpoint in this process, or a running service. Both see the same files and say the same.

A `Job` may differ from its question in what is looked at: that is how the blind rows and the ablations are made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import torch
from torch import Tensor

from models.prompt import build_prompt, letter_ids
from models.rope import Grid
from models.video import Sampling, read
from models.vlm import VisionLanguageModel, clip_frames, clip_grid

TOGETHER = 32  # questions of a forward pass
AT_ONCE = 4  # requests
PATIENCE = 600.0  # seconds that a busy service is asked again


@dataclass(frozen=True)
class Job:
    """Ask `question` about `frames` of the video `path`. `geometry`: "gsm", "off", or that of another video."""

    id: str
    path: Path
    frames: int
    question: str
    options: tuple[str, ...]
    geometry: str = "gsm"
    geometry_path: Path | None = None


@dataclass(frozen=True)
class Answered:
    id: str
    probabilities: tuple[float, ...]

    @property
    def choice(self) -> int:
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


class Answerer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def sampling(self) -> Sampling: ...

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered]:
        """One answer for each job, in any order, as they come."""
        ...


class InProcess:
    """A checkpoint. What depends on the video alone is computed once for the questions that follow each other."""

    def __init__(self, location: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.model = VisionLanguageModel.load(location, device, dtype)
        self.name = location
        self.sampling = self.model.sampling
        self._looked = lru_cache(maxsize=8)(self._look)

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered]:
        def looked_at(job: Job) -> tuple[str, int, str, str]:
            return str(job.path), job.frames, job.geometry, str(job.geometry_path)

        # Questions of a set are mixed: a clip's come together here, and it is looked at once.
        for _, same in groupby(sorted(jobs, key=looked_at), key=looked_at):
            waiting = list(same)
            for start in range(0, len(waiting), TOGETHER):
                yield from self._batch(waiting[start : start + TOGETHER])

    @torch.inference_mode()
    def _batch(self, jobs: Sequence[Job]) -> Iterator[Answered]:
        """All about one video."""
        model, first = self.model, jobs[0]
        video, memory, grid = self._looked(first.path, first.frames)
        if first.geometry_path is not None:
            _, memory, other = self._looked(first.geometry_path, first.frames)
        else:
            other = grid
        prompts = [build_prompt(model.tokenizer, job.question, job.options) for job in jobs]
        tokens: Sequence[Tensor | None] = [None] * len(jobs)
        if first.geometry != "off" and model.selector is not None and memory is not None:
            text = [model.decoder.embed(prompt.text_ids) for prompt in prompts]
            tokens = list(model.selector.select(text, [memory] * len(jobs), [other] * len(jobs)).tokens)
        inputs = [model.decoder.compose(p, grid, video, t) for p, t in zip(prompts, tokens, strict=True)]
        letters = [letter_ids(model.tokenizer, len(job.options)) for job in jobs]
        for job, chances in zip(jobs, model.decoder.choose(inputs, letters), strict=True):
            yield Answered(job.id, tuple(chances.tolist()))

    def _look(self, path: Path, frames: int) -> tuple[Tensor, Tensor | None, Grid]:
        """Video tokens, geometry memory and grid of a clip."""
        model, sizes = self.model, self.model.config.frames
        clip = read(path, Sampling.of(sizes, count=frames))
        pictures, grid = clip_frames(clip), clip_grid(clip)
        memory = None
        if model.encoder is not None and model.selector is not None:
            memory = model.selector.remember(model.encoder(pictures.to(model.decoder.model.device)), grid)
        return model.decoder.see(pictures), memory, grid


@dataclass
class Service:
    """A running service, by its URL. Videos are uploaded once; a busy service is asked again, as it says."""

    endpoint: str
    key: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    _ids: dict[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.endpoint
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx.Timeout(30, read=PATIENCE)
        self.client = httpx.Client(base_url=self.endpoint, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for path in dict.fromkeys(job.path for job in jobs):
                self._upload(path)
            yield from pool.map(self._ask, jobs)

    def _ask(self, job: Job) -> Answered:
        if job.geometry_path is not None:
            raise ValueError("a service takes no other clip's geometry: this row is measured in process only")
        body = {
            "video": {"id": self._ids[job.path]},
            "question": job.question,
            "options": job.options,
            "frames": job.frames,
            "geometry": job.geometry,
        }
        chances = self._send("POST", "/v1/answers", json=body)["probabilities"]
        return Answered(job.id, tuple(chances[letter] for letter in sorted(chances)))

    def _upload(self, path: Path) -> None:
        if path not in self._ids:
            self._ids[path] = self._send("POST", "/v1/videos", files={"video": (path.name, path.read_bytes())})["id"]

    def _send(self, method: str, route: str, **content: Any) -> dict[str, Any]:
        """The JSON of a reply. 429 and 503 are asked again after `Retry-After`; RuntimeError with what went wrong."""
        until = time.monotonic() + PATIENCE
        while True:
            reply = self.client.request(method, route, **content)
            if reply.status_code not in (429, 503) or time.monotonic() > until:
                break
            time.sleep(min(30.0, float(reply.headers.get("Retry-After", 1))))
        if reply.is_error:
            raise RuntimeError(f"{method} {self.endpoint}{route}: {reply.status_code} {reply.text[:500]}")
        return reply.json()
