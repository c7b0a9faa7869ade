"""One forward pass over packed tokens of many sequences, on the modules of transformers' Qwen2.5-VL.

Legend: N tokens of the pass, H query heads, G key/value heads, D head size, W model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from models.decoder import Decoder
from models.rope import rotate
from serve.engine.attention import Part, attend, attend_causal, merge


class KeysValues:
    """Room for the keys and values of `capacity` tokens in every layer, each [layers, G, capacity, D]."""

    def __init__(self, layers: int, heads: int, capacity: int, size: int, like: Tensor) -> None:
        self.keys = like.new_empty(layers, heads, capacity, size)
        self.values = torch.empty_like(self.keys)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Keys and values [n, G, D] of the tokens from `start` on."""
        place = slice(start, start + len(keys))
        self.keys[layer, :, place] = keys.transpose(0, 1)
        self.values[layer, :, place] = values.transpose(0, 1)

    def read(self, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values [G, stop - start, D]."""
        return self.keys[layer, :, start:stop], self.values[layer, :, start:stop]


@dataclass(frozen=True, eq=False)
class Segment:
    """The next tokens of one sequence, which see `shared[:shared_length]`, `own[:start]` and each other, causally.

    `parts`: token ids, or embeddings [n, W]; `positions` [3, n]; `wanted`: the logits after its last token are needed.
    """

    parts: tuple[Sequence[int] | Tensor, ...]
    positions: Tensor
    own: KeysValues
    start: int
    shared: KeysValues | None = None
    wanted: bool = True

    @property
    def count(self) -> int:
        return self.positions.shape[1]


@dataclass(frozen=True)
class _Span:
    """Where a segment's queries stand in the packed pass; `before`: how many own tokens precede them."""

    segment: Segment
    first: int
    count: int
    before: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.count)


class Transformer:
    """The language model and its head. `wrap` may compile the two token-wise halves of a layer."""

    def __init__(self, decoder: Decoder, wrap: Callable[[Any], Any] = lambda function: function) -> None:
        self._decoder = decoder
        text = decoder.model.model.language_model
        kinds = set(text.config.layer_types)
        if kinds != {"full_attention"}:
            raise ValueError(f"layer_types: {sorted(kinds)}; this engine computes full attention alone")
        self._text = text
        self._head = decoder.model.lm_head
        self._query_heads: int = text.config.num_attention_heads
        self._heads: int = text.config.num_key_value_heads
        self._size: int = text.config.hidden_size // self._query_heads
        self._project = wrap(_project)
        self._finish = wrap(_finish)

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * len(self._text.layers) * self._heads * self._size * self._decoder.embeddings.element_size()

    def room(self, capacity: int) -> KeysValues:
        return KeysValues(len(self._text.layers), self._heads, capacity, self._size, self._decoder.embeddings)

    def forward(self, segments: Sequence[Segment]) -> list[Tensor | None]:
        """The logits [V] after each segment's last token, where wanted. Fills the segments' own keys and values.

        The same segments may be passed again after a failure: it writes the same places.
        """
        order = sorted(range(len(segments)), key=lambda index: id(segments[index].shared))
        packed = [segments[index] for index in order]
        hidden = self._embed(packed)
        positions = torch.cat([segment.positions for segment in packed], dim=1).to(hidden.device)
        cos, sin = (rearrange(x, "1 n d -> n 1 d") for x in self._text.rotary_emb(hidden[None], positions[:, None]))
        spans = list(_spans(packed))
        last = len(self._text.layers) - 1
        for index, layer in enumerate(self._text.layers):
            q, k, v = self._project(layer, hidden, cos, sin, self._size)
            for span in spans:
                span.segment.own.write(index, span.segment.start, k[span.rows], v[span.rows])
            if index == last:
                # After its keys and values, the last layer serves only the tokens whose logits are wanted.
                rows = [span.first + span.count - 1 for span in spans if span.segment.wanted]
                spans = list(_last_tokens(spans))
                q, hidden = q[rows], hidden[rows]
            if spans:
                hidden = self._finish(layer, hidden, _attention(index, q, spans))
        if not spans:
            return [None] * len(segments)
        logits = iter(self._head(self._text.norm(hidden)))
        by_index = {index: next(logits) if segments[index].wanted else None for index in order}
        return [by_index[index] for index in range(len(segments))]

    def _embed(self, segments: Sequence[Segment]) -> Tensor:
        """[N, W], with one look-up for all ids."""
        parts = [part for segment in segments for part in segment.parts]
        ids = [part for part in parts if not isinstance(part, Tensor)]
        looked_up = iter(
            torch.split(self._decoder.embed([i for part in ids for i in part]), [len(part) for part in ids])
        )
        return torch.cat([part if isinstance(part, Tensor) else next(looked_up) for part in parts])


def _project(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [N, H, D], rotated keys [N, G, D] and values [N, G, D]."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    q, k, v = (
        rearrange(linear(normed), "n (h d) -> n h d", d=size)
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def _finish(layer: Any, hidden: Tensor, seen: Tensor) -> Tensor:
    """The rest of a layer, from what attention saw [N, H, D]."""
    hidden = hidden + layer.self_attn.o_proj(rearrange(seen, "n h d -> n (h d)"))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _spans(segments: Sequence[Segment]) -> Iterator[_Span]:
    first = 0
    for segment in segments:
        yield _Span(segment, first, segment.count, segment.start)
        first += segment.count


def _last_tokens(spans: Sequence[_Span]) -> Iterator[_Span]:
    """The wanted spans, narrowed to their last token and moved together."""
    wanted = (span for span in spans if span.segment.wanted)
    for first, span in enumerate(wanted):
        yield replace(span, first=first, count=1, before=span.before + span.count - 1)


def _attention(layer: int, q: Tensor, spans: Sequence[_Span]) -> Tensor:
    """[N, H, D]. Sequences that share a prefix stand together and read it in one product."""
    parts = [_own(layer, q[span.rows], span) for span in spans]
    own = Part(torch.cat([part.out for part in parts]), torch.cat([part.lse for part in parts]))
    seen = own.out
    for _, group in groupby(spans, key=lambda span: id(span.segment.shared)):
        members = list(group)
        shared = members[0].segment.shared
        if shared is not None:
            rows = slice(members[0].first, members[-1].rows.stop)
            prefix = attend(q[rows], *shared.read(layer, 0, shared.keys.shape[2]))
            seen[rows] = merge(prefix, Part(own.out[rows], own.lse[rows])).out
    return seen


def _own(layer: int, q: Tensor, span: _Span) -> Part:
    own = span.segment.own
    if span.count == 1:
        return attend(q, *own.read(layer, 0, span.before + 1))
    present = attend_causal(q, *own.read(layer, span.before, span.before + span.count))
    if not span.before:
        return present
    return merge(attend(q, *own.read(layer, 0, span.before)), present)
