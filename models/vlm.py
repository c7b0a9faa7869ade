"""The model in one process: frames and a question in, logits, text or choice probabilities out.

This is the plain composition that everything else is measured against: every call encodes the clip, selects geometry,
sees the video and prefills the whole prompt again. `serve/` does the same work behind caches, with the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from models.checkpoint import load_decoder, load_encoder, load_selector, open_layout
from models.config import ModelConfig
from models.decoder import Decoder, Inputs
from models.encoder import ImageEncoder
from models.prompt import LETTERS, Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.selector import Selection, Selector
from models.tokenizer import QwenTokenizer
from models.video import Clip, Sampling


@dataclass(frozen=True)
class Answer:
    """`text` is what the model says: with options the most probable letter, and `probabilities` has them all."""

    text: str
    probabilities: dict[str, float] | None
    prompt_tokens: int
    completion_tokens: int


class VisionLanguageModel:
    """Encoder, selector and decoder of one checkpoint. Without encoder and selector it is the base model."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: QwenTokenizer,
        decoder: Decoder,
        encoder: ImageEncoder | None = None,
        selector: Selector | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.encoder = encoder
        self.selector = selector

    @classmethod
    def load(cls, location: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """Reads any layout of `models.layout`; `location` is a directory or a hub id."""
        layout = open_layout(location)
        geometry = layout.model.encoder is not None
        return cls(
            layout.model,
            QwenTokenizer(layout.decoder),
            load_decoder(layout, device, dtype),
            load_encoder(layout, device, dtype) if geometry else None,
            load_selector(layout, device, dtype) if geometry else None,
        )

    @property
    def sampling(self) -> Sampling:
        """How this checkpoint wants its frames."""
        return Sampling.of(self.config.frames)

    @torch.inference_mode()
    def answer(
        self, clip: Clip, question: str, options: Sequence[str] = (), *, geometry: bool = True, max_tokens: int = 64
    ) -> Answer:
        """With options: the probabilities of the letters from one forward pass. Without: greedy text."""
        prompt = build_prompt(self.tokenizer, question, options)
        inputs = self.compose(clip, prompt, geometry)
        if options:
            letters = letter_ids(self.tokenizer, len(options))
            return choice_answer(self.decoder.choose([inputs], [letters])[0], len(inputs.embeds))
        [ids] = self.decoder.generate([inputs], max_tokens)
        return Answer(self.tokenizer.decode(ids).strip(), None, len(inputs.embeds), len(ids))

    @torch.inference_mode()
    def compose(self, clip: Clip, prompt: Prompt, geometry: bool = True) -> Inputs:
        """The decoder's input for a clip and a prompt, with or without geometry tokens."""
        frames, grid = clip_frames(clip), clip_grid(clip)
        video = self.decoder.see(frames)
        tokens = self.select(frames, grid, prompt).tokens[0] if geometry and self.selector is not None else None
        return self.decoder.compose(prompt, grid, video, tokens)

    @torch.inference_mode()
    def select(self, frames: Tensor, grid: Grid, prompt: Prompt, attention: bool = False) -> Selection:
        """Geometry tokens of one clip and prompt, from the frames.

        Raises:
            ValueError: this is a base model, which has no geometry.
        """
        if self.encoder is None or self.selector is None:
            raise ValueError(f"{self.config.name} has neither encoder nor selector")
        geometry = self.selector.remember(self.encoder(frames.to(self.decoder.model.device)), grid)
        memory = self.selector.project(geometry, grid)
        return self.selector.select([self.decoder.embed(prompt.text_ids)], [memory], attention)


def choice_answer(probabilities: Tensor, prompt_tokens: int) -> Answer:
    """The answer to a question with options, from the probabilities of its letters."""
    by_letter = dict(zip(LETTERS, probabilities.tolist(), strict=False))
    return Answer(max(by_letter, key=by_letter.__getitem__), by_letter, prompt_tokens, 1)


def clip_frames(clip: Clip) -> Tensor:
    """The frames of a clip [F, H, W, 3], sharing its memory: for reading only, as they may lie in Ray's object store.

    Through DLPack, because `torch.from_numpy` warns of arrays that are read-only.
    """
    return from_dlpack(clip.frames)


def clip_grid(clip: Clip) -> Grid:
    """The grid of merged tokens of a clip."""
    return Grid(*clip.grid_thw, clip.seconds_per_time)
