"""What the tiny runs train: decoder and selector of the model that is served, and the heads of their lessons.

Many questions about a clip share its prefix (system prompt and video tokens): it is computed once, with gradients, and
every question goes on from its keys and values. No question sees another one.

Legend: S clips, B questions, P prefix tokens, L tokens of a question (padded), D width.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import DynamicCache

from models import checkpoint
from models.config import ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder
from models.rope import text_positions
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from training.lessons.looking import LookingHead
from training.lessons.reading import TOKEN_SIZE, ReadingHeads, Told
from training.loop import states
from training.tokenizer import save_tokenizer
from training.untrained import random_decoder
from training.vocabulary import LATEST_TENTH


@dataclass(frozen=True)
class Prefix:
    """Keys and values [S, heads, P, size] of every layer. The clips' video tokens stand at `places` [3, S, V] after
    `text` tokens; None without video."""

    layers: list[tuple[Tensor, Tensor]]
    text: int
    places: Tensor | None


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

    def geometry(self, features: Tensor, rows: int, places: Tensor, clip: Tensor, seen: Tensor, text: Tensor,
                 real: Tensor, even: bool = False) -> Tensor:  # fmt: skip
        """Geometry tokens [B, Q, D]. Features [S, F, P, C] with `rows` of merged tokens, which stand at `places`
        [3, S, M]; of each question its `clip`, how many of the clip's tokens are `seen`, its text [B, T] and which of
        that is `real`. `even`: as `_own` has it."""
        merged = self.selector.merger(rearrange(features, "s f p c -> (s f) p c"), rows)
        geometry = rearrange(merged, "(s m) d -> s m d", s=len(features))
        keys, values = self.selector.keys_and_values(geometry, places)
        there = torch.arange(geometry.shape[1], device=seen.device) < seen[:, None]
        queries = self.selector.ask_padded(F.embedding(text, self.embeddings), real)
        return self.selector.look(queries, _own(keys, clip, even), _own(values, clip, even), there)[0]

    @torch.no_grad()
    def videos(self, frames: Tensor) -> Tensor:
        """Video tokens [S, V, D] of clips [S, F, H, W, 3]; no frame sees another one, so all go through at once.

        The vision tower is frozen, as in the published recipe.
        """
        return rearrange(
            self.decoder.see(rearrange(frames, "s f h w c -> (s f) h w c")), "(s v) d -> s v d", s=len(frames)
        )

    def prefix(self, before: Sequence[int], videos: Tensor | None = None, places: Tensor | None = None) -> Prefix:
        """The prefix of every clip, its video tokens [S, V, D] at `places` [3, S, V], or of the system prompt alone."""
        rows = self.decoder.embed(before)[None]
        positions = text_positions(len(before), device=rows.device)[:, None]
        if videos is not None and places is not None:
            rows = torch.cat([rows.expand(len(videos), -1, -1), videos.to(rows.dtype)], dim=1)
            positions = torch.cat([positions.expand(-1, len(videos), -1), places + len(before)], dim=2)
        cache = DynamicCache()
        self.decoder.model.model.language_model(
            inputs_embeds=rows, position_ids=positions, past_key_values=cache, use_cache=True
        )
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return Prefix(layers, len(before), places if videos is not None else None)

    def read(
        self, prefix: Prefix, clip: Tensor, seen: Tensor, geometry: Tensor, ids: Tensor, real: Tensor,
        even: bool = False,
    ) -> list[Tensor]:  # fmt: skip
        """Hidden states [B, L, D] of the questions' tokens: before the first layer, after each, and normed at the end.

        Each question goes on from the prefix of its `clip`, of which it sees the first `seen` video tokens. `even`: as
        `_own` has it.
        """
        owner, even = (torch.zeros_like(clip), True) if prefix.places is None else (clip, even)
        cache = DynamicCache()
        for index, (keys, values) in enumerate(prefix.layers):
            cache.update(_own(keys, owner, even), _own(values, owner, even), index)
        length, known = geometry.shape[1] + ids.shape[1], prefix.layers[0][0].shape[2]
        visible, starts = self._visible(prefix, clip, seen, known)
        embeds = torch.cat([geometry, F.embedding(ids, self.embeddings).to(geometry.dtype)], dim=1)
        places = starts[:, None] + torch.arange(length, device=ids.device)
        out = self.decoder.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=places.expand(3, -1, -1),
            attention_mask={"full_attention": _mask(visible, real, geometry.shape[1], embeds.dtype)},
            past_key_values=cache,
            output_hidden_states=True,
        )
        states = [*out.hidden_states[:-1], out.last_hidden_state]
        return [state[:, geometry.shape[1] :] for state in states]

    def _visible(self, prefix: Prefix, clip: Tensor, seen: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """Which prefix tokens each question sees [B, P], and the position of its first own token [B]."""
        if prefix.places is None:
            return seen.new_ones((len(clip), known), dtype=torch.bool), torch.full_like(clip, prefix.text)
        visible = torch.arange(known, device=seen.device) < prefix.text + seen[:, None]
        # The last token that is seen is the last one of its time, at the largest row and column.
        return visible, prefix.text + prefix.places[:, clip, seen - 1].amax(dim=0) + 1


def _own(values: Tensor, clip: Tensor, even: bool) -> Tensor:
    """[S, …] -> [B, …], that of the clip of each question. `even`: every clip has as many, one clip after the other,
    which makes the way back a sum in place of a scatter."""
    if not even:
        return values[clip]
    each = len(clip) // len(values)
    return values[:, None].expand(-1, each, *values.shape[1:]).flatten(0, 1)


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


def tokenizer_in(cache: Path, vocab_size: int) -> Path:
    """The directory of the embedded checkpoint's tokenizer, made in a folder of the cache if it is not there."""
    directory = cache / f"tokenizer-{vocab_size}"
    if not (directory / "tokenizer.json").exists():
        save_tokenizer(directory, vocab_size)
    return directory


def is_checkpoint(init: str) -> bool:
    """And no run, whose directory has a `config.json` too."""
    return (Path(init) / "config.json").is_file() and not states.states(Path(init))


def weights_of(init: str) -> Mapping[str, Tensor]:
    """The module's state; of a checkpoint, decoder and selector alone."""
    if not is_checkpoint(init):
        return states.weights(Path(init))
    layout = checkpoint.open_layout(init)
    parts = {"decoder.model.": checkpoint.load_decoder(layout).model, "selector.": checkpoint.load_selector(layout)}
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}


def exported(directory: Path, model: TinyModel, encoder: ImageEncoder, manifest: Mapping[str, Any]) -> None:
    """The directory that `serve/` loads, in bfloat16: half the bytes, and loading gives any dtype."""
    save_tokenizer(directory / "decoder", model.config.decoder.vocab_size)
    _write_sample(directory / "sample")
    for module in (model.decoder.model, encoder, model.selector):
        module.to(torch.bfloat16)
    facts = {"model": model.config.name, **manifest, "licence": "Apache-2.0"}
    checkpoint.write(directory, model.config, model.decoder.model, encoder, model.selector, facts)


def _write_sample(directory: Path) -> None:
    try:
        from training.sample import write_sample
    except ImportError as error:  # a machine that trains may have no PyAV
        sys.stderr.write(f"no sample ({error}): python -m training.sample {directory}\n")
        return
    write_sample(directory)
