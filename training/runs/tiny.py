"""`tiny-read`, `tiny-look`, `tiny`: the embedded checkpoint learns to answer, one half at a time and then both.

    tiny-read   the language model answers from geometry tokens that are made of the truth
    tiny-look   the selector learns to make such tokens from the frozen encoder's features and the question
    tiny        merger, Q-Formers and language model together on questions about clips, as in the published recipe

Each starts from the run before it (`init`); only the last one writes a checkpoint that can be served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import load_encoder, open_layout
from models.config import ModelConfig
from models.rope import Grid, grid_positions
from models.tokenizer import QwenTokenizer
from training.data.book import Book
from training.data.scenes import CHUNK, GROUP, SceneStore
from training.lessons import looking, reading
from training.lessons.pages import Page, Printer
from training.loop.loop import LoopConfig
from training.loop.metrics import summed
from training.loop.task import Metrics, Outcome, Rate, Share, moved
from training.runs.features import Features
from training.runs.model import Prefix, TinyModel, exported, is_checkpoint, tokenizer_in, weights_of
from training.runs.stores import prepared
from training.scenes.config import SceneConfig

FRAMES_PER_TIME = 2
SIGHTS = ("who", "times", "cells", "places", "moments")
HELD_OUT = 1  # groups of 256 scenes, the last ones, that are measured on
MEASURED = 240  # questions of them


@dataclass(frozen=True)
class TinyConfig:
    """`lesson`: "read", "look" or "answer". Groups of 256 scenes with `per_scene` questions each are made
    first. A step has `scenes` clips with `questions` each; the share `text` of the
    pages has no options. `noise`: most that the true samples are off by in "read", in their own units. `guided`: share
    of the questions whose heads are pointed at their things while looking is learned. `video`: share of the steps, the
    last ones, in which video tokens stand before geometry tokens: they tell this model little, and double its work.
    `pi3`: a π³ or any checkpoint with an encoder; "read" needs none. `init`: what to go on from, the run before this
    one or a checkpoint, which has no heads of the lessons: these start anew then, and should learn what it says before
    it learns from them ("look" with `selector_lr` 0). `heads_lr`: theirs; none: that of what they are read off.
    """

    lesson: str
    groups: int = 15
    per_scene: int = 48
    scenes: int = 4
    questions: int = 16
    text: float = 0.3
    noise: float = 0.2
    guided: float = 0.0
    lr: float = 2e-3
    selector_lr: float = 2e-3
    heads_lr: float | None = None
    video: float = 0.1
    pi3: str = "runs/tiny-pi3/checkpoint"
    init: str | None = None
    cache: str = "runs/cache"
    processes: int = 2
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("runs/tiny", 2000, precision="auto"))

    def __post_init__(self) -> None:
        for name in ("text", "guided", "video"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        if self.lesson not in ("read", "look", "answer"):
            raise ValueError(f"lesson is {self.lesson!r}, expected 'read', 'look' or 'answer'")


def config(lesson: str, out: str, steps: int, **settings: Any) -> TinyConfig:
    loop = LoopConfig(out, steps, precision="auto", evaluate_every=500, floor=0.02)
    return replace(TinyConfig(lesson, loop=loop), **settings)


@dataclass(frozen=True)
class Batch:
    """Questions, grouped by clip: `clip` [B] says for each which of `clips` it is about, and `seen` [B] how many of the
    clip's merged tokens may be seen; these stand at `places` [3, S, M]. `even`: every clip has as many questions."""

    names: list[str]
    clips: list[int]
    clip: Tensor
    seen: Tensor
    places: Tensor
    page: Page
    samples: Tensor
    types: Tensor
    sights: looking.Sights
    even: bool
    video: bool


Tell = Callable[[Tensor, Batch], Tensor]


class TinyTask:
    """One of the three lessons; `module` has all parts of the model but the frozen encoder."""

    def __init__(self, config: TinyConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        sizes = ModelConfig.tiny()
        directory = tokenizer_in(Path(config.cache), sizes.decoder.vocab_size)
        torch.manual_seed(config.loop.seed)
        self.module = TinyModel(sizes, QwenTokenizer(directory)).to(device)
        if device.type == "cpu":
            # torch's unfused attention computes bfloat16 in float32 there; transformers' own does not.
            self.module.decoder.model.set_attn_implementation("eager")
        self.fresh_heads = config.init is None or is_checkpoint(config.init)
        if config.init is not None:
            kept = self.module.state_dict() if self.fresh_heads else {}
            self.module.load_state_dict({**kept, **weights_of(config.init)})
        self.printer = Printer(self.module.tokenizer)
        self.scene = SceneConfig()
        store = SceneStore(Path(config.cache), self.scene, config.per_scene)
        prepared(store, config.groups, config.processes, directory)
        self.book = Book.of(store, config.groups, directory)
        self.questions = self.book.of_scenes()
        first_held = (config.groups - HELD_OUT) * GROUP * CHUNK
        asked = [scene for scene, rows in self.questions.items() if len(rows) >= config.questions]
        self.scenes = [scene for scene in asked if scene < first_held]
        self.held = [scene for scene in asked if scene >= first_held]
        if not self.scenes:
            raise ValueError(
                f"groups is {config.groups}, of which {HELD_OUT} is measured on: no scene of the others is asked "
                f"{config.questions} questions"
            )
        self.features = None
        if config.lesson != "read":
            self.features = Features(load_encoder(open_layout(config.pi3), str(device)), store, config.groups * GROUP)
        self.videos: dict[int, Tensor] = {}

    def rates(self) -> Sequence[Rate]:
        lesson, lr, selector = self.config.lesson, self.config.lr, self.config.selector_lr
        reads, looks = lesson in ("read", "answer"), lesson in ("look", "answer")
        read_lr, look_lr = (rate if self.config.heads_lr is None else self.config.heads_lr for rate in (lr, selector))
        told = {"read": read_lr, "look": look_lr}.get(lesson, 0.0) * self.fresh_heads
        return [
            Rate("vision tower", r"^decoder\.model\.model\.visual\.", 0),
            Rate("language", r"^decoder\.", lr * reads, 0.02),
            Rate("selector", r"^selector\.", selector * looks, 0.02),
            # What others have learned to say or to hear stays as it is.
            Rate("told", r"^told\.", told, 0.02),
            Rate("reading", r"^reading\.", read_lr * reads, 0.02),
            Rate("looking", r"^looking\.", look_lr * looks, 0.02),
        ]

    def batch(self, step: int, share: Share) -> Batch:
        random = Random(f"{self.config.loop.seed}/{self.config.lesson}/{step}")
        chosen = [(scene, self._some(scene, random)) for scene in random.sample(self.scenes, self.config.scenes)]
        return self._batch(share.of(chosen), random.random() >= self.config.text, self._has_video(step))

    def _some(self, scene: int, random: Random) -> list[int]:
        return random.sample(self.questions[scene], self.config.questions)

    def loss(self, batch: Batch) -> Outcome:
        loss, metrics = {"read": self._read, "look": self._look, "answer": self._answer}[self.config.lesson](batch)
        return Outcome(loss * len(batch.clip), len(batch.clip), metrics, batch.names)

    def evaluate(self, step: int) -> Metrics:
        random = Random(0)
        count = max(1, MEASURED // (self.config.scenes * self.config.questions)) if self.held else 0
        return summed(self._measured(random, self._has_video(step)) for _ in range(count))

    def _measured(self, random: Random, video: bool) -> Metrics:
        scenes = random.sample(self.held, min(self.config.scenes, len(self.held)))
        chosen = [(scene, list(self.questions[scene][: self.config.questions])) for scene in scenes]
        return self.loss(self._batch(chosen, True, video)).metrics

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.module.decoder.model.model.language_model.layers)

    def export(self, directory: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """After "answer" the directory that `serve/` loads; before, there is nothing to serve but the state."""
        if self.config.lesson == "answer":
            model = TinyModel(self.module.config, self.module.tokenizer)
            model.load_state_dict(state)
            exported(directory, model, load_encoder(open_layout(self.config.pi3)), manifest)

    def _has_video(self, step: int) -> bool:
        return step >= (1 - self.config.video) * self.config.loop.steps

    def _batch(self, chosen: Sequence[tuple[int, list[int]]], with_options: bool, video: bool) -> Batch:
        book = self.book
        rows = torch.tensor([row for _, own in chosen for row in own])
        places = self._places([float(book.seconds[own[0]]) for _, own in chosen])
        grid_times = book.seen[rows].long() // FRAMES_PER_TIME
        batch = Batch(
            names=[f"scene {scene} row {row}" for scene, own in chosen for row in own],
            clips=[scene for scene, _ in chosen],
            clip=torch.tensor([number for number, (_, own) in enumerate(chosen) for _ in own]),
            seen=grid_times * (places.shape[2] // (self.scene.frames // FRAMES_PER_TIME)),
            places=places,
            page=Page.of(book.lettered if with_options else book.written, rows),
            samples=book.samples[rows].float(),
            types=book.type[rows].long(),
            even=len({len(own) for _, own in chosen}) == 1,
            sights=looking.Sights(*(_wide(getattr(book, name)[rows]) for name in SIGHTS)),
            video=video,
        )
        return moved(batch, self.device)

    def _places(self, seconds: Sequence[float]) -> Tensor:
        """[3, S, M] of clips of these lengths."""
        rate = self.module.config.decoder.tokens_per_second
        return torch.stack([grid_positions(self._grid(one), rate) for one in seconds], dim=1)

    def _grid(self, seconds: float) -> Grid:
        """As `models.video` gives it for a clip of this length."""
        frames, (width, height) = self.scene.frames, self.scene.size
        side = self.module.config.frames.side_multiple
        return Grid(frames // FRAMES_PER_TIME, height // side, width // side, FRAMES_PER_TIME * seconds / (frames - 1))

    def _read(self, batch: Batch) -> tuple[Tensor, Metrics]:
        samples = batch.samples
        if self.module.training:
            strength = self.config.noise * torch.rand(len(samples), 1, 1, device=self.device)
            drift, jitter = torch.randn_like(samples[:, :1]), torch.randn_like(samples)
            samples = samples + strength * (drift + 0.7 * jitter) * (samples != 0)
        tokens = self.module.told(samples, batch.types)
        return self._reading(batch, tokens, self.module.prefix(self.printer.before))

    def _look(self, batch: Batch) -> tuple[Tensor, Metrics]:
        return self._looking(batch, self._told)[1:]

    def _told(self, tokens: Tensor, batch: Batch) -> Tensor:
        """What the tokens should be: of the true samples, as the language model reads them. Of a checkpoint nobody
        knows how: it is learned from the selector's own tokens and from what these say, true or not."""
        if not self.fresh_heads:
            with torch.no_grad():
                return self.module.told(batch.samples, batch.types)
        said = self.module.looking.sample(tokens / reading.TOKEN_SIZE).float()
        return self.module.told(said.detach(), batch.types)

    def _answer(self, batch: Batch) -> tuple[Tensor, Metrics]:
        tokens, looked, more = self._looking(batch)
        videos = self._videos(batch.clips) if batch.video else None
        prefix = self.module.prefix(self.printer.before, videos, batch.places)
        loss, metrics = self._reading(batch, tokens, prefix)
        return loss + looked, {**metrics, **more}

    def _looking(self, batch: Batch, tell: Tell | None = None) -> tuple[Tensor, Tensor, Metrics]:
        """Geometry tokens [B, Q, D] from the encoder's features of the batch's clips, and the lesson about them.

        `tell`: what they should be."""
        features = self._features.of(batch.clips).to(self.device).float()
        guided = self.config.guided if self.module.training else 0.0
        page, rows = batch.page, self.scene.size[1] // self.module.config.frames.side_multiple
        with looking.overhearing(self.module.selector, batch.sights, guided) as heard:
            tokens = self.module.geometry(
                features, rows, batch.places, batch.clip, batch.seen, page.text, page.text_real, batch.even
            )
        head, known = self.module.looking, (batch.sights, batch.samples, batch.types)
        return tokens, *looking.lesson(head, heard[0], tokens, *known, tell(tokens, batch) if tell else None)

    def _videos(self, clips: Sequence[int]) -> Tensor:
        """[S, V, D]: what the frozen vision tower makes of a clip is kept."""
        new = [clip for clip in clips if clip not in self.videos]
        if new:
            made = self.module.videos(self._features.frames(new).to(self.device)).to(torch.bfloat16)
            self.videos |= dict(zip(new, made, strict=True))
        return torch.stack([self.videos[clip] for clip in clips])

    def _reading(self, batch: Batch, tokens: Tensor, prefix: Prefix) -> tuple[Tensor, Metrics]:
        page = batch.page
        hidden = self.module.read(prefix, batch.clip, batch.seen, tokens, page.ids, page.real, batch.even)
        letters, table = self.printer.letters.to(self.device), self.module.embeddings
        return reading.lesson(self.module.reading, page, hidden, table, letters, batch.samples, batch.types)

    @property
    def _features(self) -> Features:
        if self.features is None:
            raise ValueError(f"the lesson {self.config.lesson!r} looks at no clips")
        return self.features


def _wide(tensor: Tensor) -> Tensor:
    """Numbers that are kept small, as they are computed with."""
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.float() if tensor.is_floating_point() else tensor.long()
