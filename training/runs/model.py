"""What the tiny runs train: decoder and selector of the model that is served, and the heads of their lessons.

Many questions about a clip share its prefix (system prompt and video tokens): it is computed once, with gradients, and
every question goes on from its keys and values. No question sees another one.

Legend: S clips, B questions, P prefix tokens, L tokens of a question (padded), D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from models import checkpoint
from models.config import ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder
from models.rope import Grid, prompt_positions
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from training.lessons.looking import LookingHead
from training.lessons.reading import TOKEN_SIZE, ReadingHeads, Told
from training.sample import write_sample
from training.tokenizer import save_tokenizer
from training.untrained import random_decoder
from training.vocabulary import LATEST_TENTH


@dataclass(frozen=True)
class Prefix:
    """Keys and values [S, heads, P, size] of every layer. `grids` are the clips', none without video tokens."""

    layers: list[tuple[Tensor, Tensor]]
    text: int
    grids: Sequence[Grid]


class TinyModel(nn.Module):
    def __init__(self, config: ModelConfig, tokenizer: QwenTokenizer) -> None:
        super().__init__()
        if config.selector is None:
            raise ValueError(f"{config.name} has no selector")
        width = config.decoder.hidden_size
        self.config, self.tokenizer = config, tokenizer
        self.decoder = Decoder(random_decoder(config, tokenizer.special), config.decoder.tokens_per_second)
        self.selector = Selector(config.selector)
        nn.init.constant_(self.selector.norm.weight, TOKEN_SIZE)
        self._know_numbers()
        self.told, self.reading, self.looking = Told(width), ReadingHeads(width), LookingHead(width)

    @torch.no_grad()
    def _know_numbers(self) -> None:
        """Times, and the order of the queries, start as waves of their values: neighbours are alike from the start."""
        times = {tenth: self.tokenizer.encode(f" {tenth / 10:.1f}") for tenth in range(LATEST_TENTH + 1)}
        rows = torch.tensor([ids[0] for ids in times.values()])
        self.embeddings[rows] = 0.03 * _waves(torch.tensor(list(times)) / 10, 0.8, 60.0, self.embeddings.shape[1])
        order = torch.arange(len(self.selector.queries))
        self.selector.queries.add_(0.7 * _waves(order, 3.0, 120.0, self.embeddings.shape[1]))

    @property
    def embeddings(self) -> Tensor:
        return self.decoder.embeddings

    def geometry(self, features: Sequence[Tensor], grids: Sequence[Grid], clip: Sequence[int], seen: Sequence[int],
                 text: Sequence[Tensor]) -> Tensor:  # fmt: skip
        """Geometry tokens [B, Q, D]. features [F, P, C] and grid of each clip; of each question its `clip`, how many
        grid times of it may be `seen`, and the ids of its text."""
        memories = [
            self.selector.project(self.selector.remember(one.float(), grid), grid)
            for one, grid in zip(features, grids, strict=True)
        ]
        own = [memories[c].until(n) for c, n in zip(clip, seen, strict=True)]
        return self.selector.select([self.embeddings[ids] for ids in text], own).tokens

    def prefix(self, before: Sequence[int], frames: Sequence[Tensor] = (), grids: Sequence[Grid] = ()) -> Prefix:
        """The prefix of every clip, or of the system prompt alone. Clips must have the same number of tokens."""
        text = self.decoder.embed(before)
        with torch.no_grad():  # the vision tower is frozen, as in the published recipe
            videos = [self.decoder.see(clip) for clip in frames]
        rows = torch.stack([torch.cat([text, video.to(text.dtype)]) for video in videos]) if videos else text[None]
        parts: list[list[int | Grid]] = [[len(before), grid] for grid in grids] or [[len(before)]]
        places = [prompt_positions(part, self.decoder.tokens_per_second, rows.device) for part in parts]
        cache = DynamicCache()
        self.decoder.model.model.language_model(
            inputs_embeds=rows, position_ids=torch.stack(places, dim=1), past_key_values=cache, use_cache=True
        )
        return Prefix([(layer.keys, layer.values) for layer in cache.layers], len(before), grids)

    def read(self, prefix: Prefix, clip: Sequence[int], seen: Sequence[int], geometry: Tensor, ids: Tensor,
             real: Tensor) -> list[Tensor]:  # fmt: skip
        """Hidden states [B, L, D] of the questions' tokens: before the first layer, after each, and normed at the end.

        Each question goes on from the prefix of its `clip`, of which it sees the first `seen` grid times.
        """
        owner = torch.tensor(clip if prefix.grids else [0] * len(clip), device=ids.device)
        cache = DynamicCache()
        for index, (keys, values) in enumerate(prefix.layers):
            cache.update(keys[owner], values[owner], index)
        length, known = geometry.shape[1] + ids.shape[1], prefix.layers[0][0].shape[2]
        visible, starts = self._visible(prefix, clip, seen, known)
        embeds = torch.cat([geometry, self.embeddings[ids].to(geometry.dtype)], dim=1)
        places = torch.tensor(starts, device=ids.device)[:, None] + torch.arange(length, device=ids.device)
        out = self.decoder.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=places.expand(3, -1, -1),
            attention_mask={"full_attention": _mask(visible.to(ids.device), real, geometry.shape[1], embeds.dtype)},
            past_key_values=cache,
            output_hidden_states=True,
        )
        states = [*out.hidden_states[:-1], out.last_hidden_state]
        return [state[:, geometry.shape[1] :] for state in states]

    def _visible(
        self, prefix: Prefix, clip: Sequence[int], seen: Sequence[int], known: int
    ) -> tuple[Tensor, list[int]]:
        """Which prefix tokens each question sees [B, P], and the position of its first own token."""
        if not prefix.grids:
            return torch.ones(len(clip), known, dtype=torch.bool), [prefix.text] * len(clip)
        counts, starts = [], []
        for c, times in zip(clip, seen, strict=True):
            grid = prefix.grids[c]
            cut = Grid(times, grid.rows, grid.columns, grid.seconds_per_time)
            counts.append(prefix.text + cut.size)
            starts.append(int(prompt_positions([prefix.text, cut], self.decoder.tokens_per_second).max()) + 1)
        return torch.arange(known) < torch.tensor(counts)[:, None], starts


def _waves(values: Tensor, shortest: float, longest: float, width: int) -> Tensor:
    """[N] -> [N, width]: cosines and sines of the values, with wavelengths from the longest to the shortest."""
    lengths = torch.exp(torch.linspace(math.log(longest), math.log(shortest), width // 2))
    phases = values.float()[:, None] * (2 * math.pi / lengths)
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def _mask(visible: Tensor, real: Tensor, geometry: int, dtype: torch.dtype) -> Tensor:
    """[B, 1, L, P + L] to be added to attention scores: own prefix, then one's own earlier tokens."""
    length = geometry + real.shape[1]
    own = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    there = torch.cat([real.new_ones(len(real), geometry), real], dim=1)
    seen = torch.cat([visible[:, None].expand(-1, length, -1), own & there[:, None]], dim=2)
    return torch.zeros(seen.shape, dtype=dtype, device=real.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def tokenizer_in(cache: Path, vocab_size: int) -> QwenTokenizer:
    """The embedded checkpoint's tokenizer, made in a folder of the cache if it is not there."""
    directory = cache / f"tokenizer-{vocab_size}"
    if not (directory / "tokenizer.json").exists():
        save_tokenizer(directory, vocab_size)
    return QwenTokenizer(directory)


def exported(directory: Path, model: TinyModel, encoder: ImageEncoder, manifest: Mapping[str, Any]) -> None:
    """The directory that `serve/` loads, in bfloat16: half the bytes, and loading gives any dtype."""
    save_tokenizer(directory / "decoder", model.config.decoder.vocab_size)
    write_sample(directory / "sample")
    for module in (model.decoder.model, encoder, model.selector):
        module.to(torch.bfloat16)
    facts = {"model": model.config.name, **manifest, "licence": "Apache-2.0"}
    checkpoint.write(directory, model.config, model.decoder.model, encoder, model.selector, facts)
