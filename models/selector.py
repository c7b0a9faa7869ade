"""The geometry selector (GSM): from the encoder's features and a question to a few geometry tokens (arXiv 2512.20557).

    features ─► Merger ─► geometry ─► keys and values ──┐
    text embeddings ─► Q-Former 1 ─► question queries ─► Q-Former 2 ─► RMSNorm ─► geometry tokens

Legend: B pairs of clip and question, F frames, P patches of a frame, C feature width, M merged tokens of a clip,
L text tokens, Q learned queries, D model width, N heads, K key/value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from models.config import SelectorConfig
from models.rope import Grid, grid_positions, multimodal_angles, rotate, text_positions


@dataclass(frozen=True, eq=False)
class Memory:
    """What every question reads of a clip: Q-Former 2's `keys` and `values`, each [K, M, E], of the clip's geometry.

    The keys are turned to their place in `grid`, in whose order (time, row, column) M runs. At 7B a clip of 32 frames
    takes 16.5 MiB in float32 in place of 57.75 for the merged features, and a question about it 1.4 s of a CPU core in
    place of 2.1 (`tests.bench.memory`).
    """

    keys: Tensor
    values: Tensor
    grid: Grid

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def until(self, times: int) -> Memory:
        """The memory of the clip's first `times` grid times, as if the clip ended there."""
        grid = replace(self.grid, times=times)
        return Memory(self.keys[:, : grid.size], self.values[:, : grid.size], grid)


@dataclass(frozen=True)
class Selection:
    """`tokens` [B, Q, D]. `attention`, when asked for: one [Q, M] per pair, Q-Former 2's, averaged over the heads; rows
    sum to 1; M runs over the clip's grid (time, row, column)."""

    tokens: Tensor
    attention: list[Tensor] | None = None


class Merger(nn.Module):
    """Joins the features of 2 consecutive frames x 2 x 2 patches and projects them to the decoder's width."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.merge, self.stride = config.spatial_merge, config.temporal_patch
        width = config.feature_size * self.stride * self.merge**2
        self.ln_q = nn.RMSNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.hidden_size))

    def forward(self, features: Tensor, rows: int) -> Tensor:
        """features [F, P, C] with F even and P = (2*rows)*(2*columns), row by row → [M, D]."""
        joined = rearrange(
            features,
            "(t s) (r a w b) c -> (t r w) (s a b c)",
            s=self.stride, a=self.merge, b=self.merge, r=rows,
        )  # fmt: skip
        return self.mlp(self.ln_q(joined))


class CrossAttention(nn.Module):
    """Attention of queries to a target with grouped heads and multimodal RoPE; q, k, v have biases, o has none."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        keys = config.num_key_value_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, keys)
        self.v_proj = nn.Linear(config.hidden_size, keys)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def project(self, target: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """Keys, turned by `angles`, and values, each [B, K, M, E], of target [B, M, D]."""
        keys, values = (
            rearrange(layer(target), "b m (k e) -> b k m e", e=self.config.head_size)
            for layer in (self.k_proj, self.v_proj)
        )
        return rotate(keys, *angles), values

    def forward(
        self, x: Tensor, angles: Angles, keys: Tensor, values: Tensor, mask: Tensor, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, Q, D], keys and values [B, K, M, E], mask [B, M] (True: may be seen) → [B, Q, D] and, when asked,
        [B, Q, M]."""
        size, kv_heads = self.config.head_size, self.config.num_key_value_heads
        q = rotate(rearrange(self.q_proj(x), "b q (n e) -> b n q e", e=size), *angles)
        visible = rearrange(mask, "b m -> b 1 1 m")
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible, enable_gqa=q.shape[1] > kv_heads)
        attention = None
        if weights:
            # The queries of all heads that share a key head stand in one column: the keys need no copies.
            sharing = rearrange(q.float(), "b (k g) q e -> b k (g q) e", k=kv_heads)
            scores = (sharing @ keys.float().transpose(-1, -2) / size**0.5).masked_fill(~visible, -torch.inf)
            attention = reduce(scores.softmax(dim=-1), "b k (g q) m -> b q m", "mean", q=x.shape[1])
        return self.o_proj(rearrange(out, "b n q e -> b q (n e)")), attention


class SwiGLU(nn.Module):
    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class QFormer(nn.Module):
    """One layer of cross-attention and MLP, pre-normalised; queries and target share one norm, as in the release."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn = CrossAttention(config)
        self.norm2 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def project(self, target: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """What `forward` reads of target [B, M, D]: keys and values, each [B, K, M, E]."""
        return self.attn.project(self.norm1(target), angles)

    def forward(
        self, x: Tensor, angles: Angles, keys: Tensor, values: Tensor, mask: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        out, attention = self.attn(self.norm1(x), angles, keys, values, mask, weights)
        x = x + out
        return x + self.mlp(self.norm2(x)), attention


class Selector(nn.Module):
    """`remember` and `project` once per clip, `select` once per question. `models.checkpoint` maps the release's names
    to these."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        self.merger = Merger(config)
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.hidden_size).normal_(std=0.02))
        self.q_former_1 = QFormer(config)
        self.q_former_2 = QFormer(config)
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def remember(self, features: Tensor, grid: Grid) -> Tensor:
        """A clip's geometry [M, D], merged from its features [F, P, C]; M = grid.size.

        Raises:
            ValueError: the features are not those of a clip with this grid.
        """
        frames = grid.times * self.config.temporal_patch
        patches = grid.rows * grid.columns * self.config.spatial_merge**2
        expected = (frames, patches, self.config.feature_size)
        if features.shape != expected:
            raise ValueError(f"features are {tuple(features.shape)}; a clip of {grid} has {expected}")
        return self.merger(features, grid.rows)

    def project(self, geometry: Tensor, grid: Grid) -> Memory:
        """The memory of a clip from its geometry [M, D], which `remember` gives.

        Raises:
            ValueError: the geometry is not that of a clip with this grid.
        """
        if geometry.shape != (grid.size, self.config.hidden_size):
            expected = (grid.size, self.config.hidden_size)
            raise ValueError(f"geometry is {tuple(geometry.shape)}; a clip of {grid} has {expected}")
        places = grid_positions(grid, self.config.tokens_per_second, geometry.device)
        keys, values = self.keys_and_values(geometry[None], places[:, None])
        return Memory(keys[0], values[0], grid)

    def keys_and_values(self, geometry: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """What Q-Former 2 reads of S clips, [S, K, M, E] each: geometry [S, M, D] at the positions [3, S, M]."""
        return self.q_former_2.project(geometry, self._angles(places))

    def ask(self, text: Sequence[Tensor]) -> Tensor:
        """Question queries [B, Q, D] from the embeddings [L_b, D] of each question's text (Q-Former 1)."""
        return self.ask_padded(*_pad(text))

    def ask_padded(self, text: Tensor, mask: Tensor) -> Tensor:
        """`ask` of padded text [B, L, D]; mask [B, L] is True where it is real."""
        positions = repeat(text_positions(text.shape[1], device=text.device), "a l -> a b l", b=len(text))
        queries = repeat(self.queries, "q d -> b q d", b=len(text))
        keys, values = self.q_former_1.project(text, self._angles(positions, self._rounding(queries)))
        out, _ = self.q_former_1(queries, self._query_angles(queries), keys, values, mask)
        return out

    def select(self, text: Sequence[Tensor], memories: Sequence[Memory], attention: bool = False) -> Selection:
        """Geometry tokens for B pairs of a question and a clip; a pair's result does not depend on its neighbours.

        text: the language model's input embeddings [L_b, D] of the tokens that the selector reads (`Prompt.text_ids`).
        """
        queries = self.ask(text)
        keys, mask = _pad([memory.keys for memory in memories])
        values, _ = _pad([memory.values for memory in memories])
        tokens, weights = self.look(queries, keys, values, mask, attention)
        kept = [w[:, : m.grid.size] for w, m in zip(weights, memories, strict=True)] if weights is not None else None
        return Selection(tokens, kept)

    def look(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Geometry tokens [B, Q, D] of question queries [B, Q, D] and what they read of clips, [B, K, M, E] each; mask
        [B, M] is True where there is something to read. When asked, also the mean attention [B, Q, M]."""
        out, weights = self.q_former_2(queries, self._query_angles(queries), keys, values, mask, weights=attention)
        return self.norm(out), weights

    def _query_angles(self, queries: Tensor) -> Angles:
        positions = repeat(text_positions(queries.shape[1], device=queries.device), "a q -> a b q", b=len(queries))
        return self._angles(positions, self._rounding(queries))

    def _rounding(self, x: Tensor) -> torch.dtype | None:
        return x.dtype if self.config.position_dtype == "activation" else None

    def _angles(self, positions: Tensor, rounded_to: torch.dtype | None = None) -> Angles:
        sections = self.config.mrope_section
        return multimodal_angles(positions, self.config.head_size, sections, self.config.rope_theta, rounded_to)


Angles = tuple[Tensor, Tensor]


def _pad(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[…, L_b, D] each → [B, …, L, D] filled with zeros and the mask [B, L] of what is real."""
    lengths = torch.tensor([s.shape[-2] for s in sequences], device=sequences[0].device)
    longest = max(s.shape[-2] for s in sequences)
    # `pad_sequence` would copy the whole gradient once for each sequence.
    padded = torch.stack([F.pad(s, (0, 0, 0, longest - s.shape[-2])) for s in sequences])
    return padded, torch.arange(longest, device=padded.device) < lengths[:, None]
