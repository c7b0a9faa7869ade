"""Who answers, as the evaluation sees it; and a checkpoint in this process, which does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from models.checkpoint import open_layout
from models.errors import InputError
from models.prompt import Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.selector import Memory
from models.video import Sampling, read
from models.vlm import VisionLanguageModel, clip_frames, clip_grid
from training.data.seen import View
from training.evaluate.answers import Answered, Refused
from training.evaluate.rows import Job

PROMPT_TOKENS = {"cpu": 4_096, "cuda": 32_768}  # of a forward pass; on a CPU more are not faster
QUESTION_TOKENS = 256  # about, with its options and the geometry tokens
TEXT_TOKENS = 16  # the longest answer that is written: a letter or a number, and what a model says around it
LOOKED = 8  # views whose video tokens and geometry memory are kept


class Answerer(Protocol):
    """`name` and `model` tell who answered: the same pair, the same answers."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def frames(self) -> int:
        """That are sampled of a video."""
        ...

    @property
    def over_http(self) -> bool: ...

    @property
    def geometry(self) -> bool:
        """It can be switched off."""
        ...

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered | Refused]:
        """One for each job, in any order, as they come."""
        ...


@dataclass(frozen=True)
class Looked:
    """Video tokens [V, D], the selector's memory and the grid of a view."""

    video: Tensor
    memory: Memory | None
    grid: Grid


class InProcess:
    """What depends on a view alone is computed once for all questions about it; these go through together."""

    over_http = False

    def __init__(
        self, location: str, device: str = "cpu", dtype: torch.dtype = torch.float32, frames: int | None = None
    ) -> None:
        self._vlm = VisionLanguageModel.load(location, device, dtype)
        self.name = location
        self.model = f"{self._vlm.config.name} {fingerprint(open_layout(location).path)}"
        self.frames = frames or self._vlm.config.frames.count
        self.geometry = self._vlm.selector is not None
        self._room = PROMPT_TOKENS["cpu" if torch.device(device).type == "cpu" else "cuda"]
        self._looked = lru_cache(maxsize=LOOKED)(self._look)

    def answer(self, jobs: Sequence[Job]) -> Iterator[Answered | Refused]:
        # The questions of a set are mixed, and so are the rows: here all about one view come together.
        by_view: dict[View, list[Job]] = {}
        for job in jobs:
            by_view.setdefault(job.view, []).append(job)
        for view, about in by_view.items():
            try:
                together = max(1, self._room // (len(self._looked(view).video) + QUESTION_TOKENS))
            except InputError as error:
                yield from (Refused(job.row, job.id, str(error)) for job in about)
                continue
            for alike in ([job for job in about if job.options], [job for job in about if not job.options]):
                for start in range(0, len(alike), together):
                    yield from self._batch(alike[start : start + together])

    @torch.inference_mode()
    def _batch(self, jobs: Sequence[Job]) -> list[Answered]:
        """All about one view, and all with options or all without."""
        decoder, looked = self._vlm.decoder, self._looked(jobs[0].view)
        prompts = [build_prompt(self._vlm.tokenizer, job.question, job.options) for job in jobs]
        geometry = self._geometry(jobs, prompts)
        inputs = [
            decoder.compose(prompt, looked.grid, looked.video, tokens)
            for prompt, tokens in zip(prompts, geometry, strict=True)
        ]
        if not jobs[0].options:
            written = decoder.generate(inputs, TEXT_TOKENS)
            return [
                Answered(job.row, job.id, text=self._vlm.tokenizer.decode(ids).strip())
                for job, ids in zip(jobs, written, strict=True)
            ]
        letters = [letter_ids(self._vlm.tokenizer, len(job.options)) for job in jobs]
        chosen = decoder.choose(inputs, letters)
        return [Answered(job.row, job.id, tuple(p.tolist())) for job, p in zip(jobs, chosen, strict=True)]

    def _geometry(self, jobs: Sequence[Job], prompts: Sequence[Prompt]) -> list[Tensor | None]:
        """Geometry tokens [Q, D] of each job; None where they are off."""
        selector, found = self._vlm.selector, dict[int, Tensor]()
        with_it = [place for place, job in enumerate(jobs) if job.geometry is not None]
        if selector is not None and with_it:
            looked = [self._looked(view) for place in with_it if (view := jobs[place].geometry)]
            text = [self._vlm.decoder.embed(prompts[place].text_ids) for place in with_it]
            memories = [one.memory for one in looked if one.memory is not None]
            tokens = selector.select(text, memories).tokens
            found = dict(zip(with_it, tokens, strict=True))
        return [found.get(place) for place in range(len(jobs))]

    @torch.inference_mode()
    def _look(self, view: View) -> Looked:
        vlm = self._vlm
        clip = read(view.path, Sampling.of(vlm.config.frames, count=view.frames))
        pictures, grid = clip_frames(clip), clip_grid(clip)
        memory = None
        if vlm.encoder is not None and vlm.selector is not None:
            memory = vlm.selector.project(vlm.selector.remember(vlm.encoder(pictures), grid), grid)
        return Looked(vlm.decoder.see(pictures), memory, grid)


def fingerprint(checkpoint: Path) -> str:
    """Changes with the weights: from the manifest, which has the hashes of all files, or else from the files' dates."""
    manifest = checkpoint / "manifest.json"
    if manifest.is_file():
        said = manifest.read_bytes()
    else:
        files = sorted(checkpoint.rglob("*.safetensors"))
        said = "".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n" for file in files).encode()
    return hashlib.sha256(said).hexdigest()[:12]
