"""The decoder: transformers' Qwen2.5-VL, wrapped once, with a place for geometry tokens.

The wrapper takes embeddings and explicit three-dimensional positions everywhere, so that nothing depends on the mutable
`rope_deltas` that transformers keeps on the model between calls.

Importing its Qwen2.5-VL takes 3 s and 0.1 GB, so only what has a decoder does it, and this module when it is used: the
other stages, and whoever starts them, read checkpoints too.

Legend: F frames, T x R x S grid of merged tokens (times, rows, columns), V video tokens = T*R*S, Q geometry tokens,
L prompt length, B prompts, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from models.config import DecoderConfig
from models.prompt import Prompt
from models.rope import Grid, prompt_positions

if TYPE_CHECKING:
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Inputs:
    """One composed prompt: `embeds` [L, D] and `positions` [3, L]."""

    embeds: Tensor
    positions: Tensor


class Decoder(nn.Module):
    """Vision tower, language model and head. `model` is the transformers module; all state lives in it."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokens_per_second: int = 2) -> None:
        super().__init__()
        self.model = model
        self.tokens_per_second = tokens_per_second
        # `generate` takes from here what a call leaves open, and Qwen's file penalises repetition: not greedy then.
        stated = model.generation_config
        self.model.generation_config = _plan(
            bos_token_id=stated.bos_token_id, eos_token_id=stated.eos_token_id, pad_token_id=stated.pad_token_id
        )

    @property
    def embeddings(self) -> Tensor:
        """The input embedding table [vocabulary, D]."""
        return self.model.get_input_embeddings().weight

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[L, D] input embeddings of token ids."""
        return self.embeddings[torch.tensor(ids, dtype=torch.long, device=self.embeddings.device)]

    def see(self, frames: Tensor) -> Tensor:
        """Video tokens [V, D] of uint8 frames [F, H, W, 3]; F a multiple of 2, H and W multiples of 28."""
        pixels, grid = self.patchify(frames.to(self.model.device))
        seen = self.model.model.visual(pixels.to(self.embeddings.dtype), grid_thw=grid.to(pixels.device))
        return seen.pooler_output

    def patchify(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`patchify` with this model's patch sizes."""
        vision = self.model.config.vision_config
        return patchify(frames, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)

    def compose(self, prompt: Prompt, grid: Grid, video: Tensor, geometry: Tensor | None = None) -> Inputs:
        """Text, video tokens [V, D] and geometry tokens [Q, D] in the order and at the positions of the release."""
        parts = [self.embed(prompt.before), video, self.embed(prompt.after)]
        lengths: list[int | Grid] = [len(prompt.before), grid, len(prompt.after)]
        if geometry is not None:
            parts.insert(2, geometry.to(video.dtype))
            lengths.insert(2, len(geometry))
        positions = prompt_positions(lengths, self.tokens_per_second, video.device)
        return Inputs(torch.cat(parts), positions)

    def logits(self, batch: Sequence[Inputs], last_only: bool = False) -> list[Tensor]:
        """Next-token logits [L_b, vocabulary] (or [1, vocabulary]) of each prompt, whatever its neighbours."""
        embeds, positions, mask = _pad(batch, left=last_only)
        out = self.model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False,
            logits_to_keep=1 if last_only else 0,
        ).logits  # fmt: skip
        return [row if last_only else row[: len(item.embeds)] for row, item in zip(out, batch, strict=True)]

    def choose(self, batch: Sequence[Inputs], letters: Sequence[Sequence[int]]) -> list[Tensor]:
        """Probabilities [options] of the letters' ids as the answer's first token, by one forward pass."""
        rows = self.logits(batch, last_only=True)
        return [row[0, list(ids)].float().softmax(dim=-1) for row, ids in zip(rows, letters, strict=True)]

    def generate(self, batch: Sequence[Inputs], max_tokens: int) -> list[list[int]]:
        """Greedy token ids of each prompt, up to and including the end token."""
        embeds, positions, mask = _pad(batch, left=True)
        ends = self.end_ids
        plan = _plan(max_new_tokens=max_tokens, do_sample=False, eos_token_id=sorted(ends), pad_token_id=min(ends))
        out = self.model.generate(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, generation_config=plan
        )
        return [_until(ids, ends) for ids in out.tolist()]

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end an answer, from the checkpoint's generation settings."""
        ends = self.model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends)


def patchify(frames: Tensor, patch: int = 14, merge: int = 2, stride: int = 2) -> tuple[Tensor, Tensor]:
    """Frames uint8 [F, H, W, 3] → Qwen's pixel values [patches, 3*2*14*14] float32 and the grid [[T, H/14, W/14]].

    Patches of one merged token stand next to each other, and a patch holds two frames.
    """
    mean, std = (rearrange(torch.tensor(v, device=frames.device), "c -> c 1") for v in (CLIP_MEAN, CLIP_STD))
    # Put in order as bytes, and computed with where channels stand apart: five times as fast as the other way round.
    patches = rearrange(
        frames,
        "(t s) (h a p) (w b q) c -> (t h w a b) c (s p q)",
        s=stride, a=merge, b=merge, p=patch, q=patch,
    )  # fmt: skip
    pixels = rearrange(patches.float().div_(255).sub_(mean).div_(std), "n c e -> n (c e)")
    count, height, width, _ = frames.shape
    return pixels, torch.tensor([[count // stride, height // patch, width // patch]])


def transformers_config(config: DecoderConfig, special: Any) -> Qwen2_5_VLConfig:
    """The configuration of a Qwen2.5-VL of these sizes, with the special ids of `SpecialTokens`."""
    from transformers import Qwen2_5_VLConfig

    text = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "bos_token_id": special.endoftext,
        "eos_token_id": special.im_end,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "mrope_section": list(config.mrope_section),
        },
    }
    vision = {
        "depth": config.vision.num_hidden_layers,
        "hidden_size": config.vision.hidden_size,
        "intermediate_size": config.vision.intermediate_size,
        "num_heads": config.vision.num_attention_heads,
        "out_hidden_size": config.hidden_size,
        "window_size": config.vision.window_size,
        "fullatt_block_indexes": list(config.vision.full_attention),
        "tokens_per_second": config.tokens_per_second,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=config.tie_word_embeddings,
        image_token_id=special.image_pad,
        video_token_id=special.video_pad,
        vision_start_token_id=special.vision_start,
        vision_end_token_id=special.vision_end,
    )


def _plan(**settings: Any) -> GenerationConfig:
    from transformers import GenerationConfig

    return GenerationConfig(**settings)


def _pad(batch: Sequence[Inputs], left: bool) -> tuple[Tensor, Tensor, Tensor]:
    """embeds [B, L, D], positions [3, B, L] and mask [B, L]; padding is masked out and never seen by a prompt."""
    side = "left" if left else "right"
    embeds = pad_sequence([item.embeds for item in batch], batch_first=True, padding_side=side)
    positions = pad_sequence([item.positions.T for item in batch], batch_first=True, padding_side=side)
    real = [item.positions.new_ones(len(item.embeds)) for item in batch]
    mask = pad_sequence(real, batch_first=True, padding_side=side)
    return embeds, rearrange(positions, "b l a -> a b l"), mask


def _until(ids: list[int], ends: frozenset[int]) -> list[int]:
    for index, token in enumerate(ids):
        if token in ends:
            return ids[: index + 1]
    return ids
