"""What a stage has to compute and to read: operations (a multiplication and an addition are two) and bytes.

Counted from the sizes, in products of matrices alone; norms, rotations and activations come on top. `counted` asks
torch's own counter instead; the tests compare the two.

Legend: a grid is of merged tokens, one of which is 2 frames x 2 x 2 patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.config import DecoderConfig, EncoderConfig, SelectorConfig
from models.decoder import Decoder
from models.rope import Grid
from serve.engine.transformer import Segment

ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
PATCH = 14
MERGE = 2
STRIDE = 2
PAIR = STRIDE * MERGE**2  # feature vectors of one merged token


def encoder(config: EncoderConfig, grid: Grid) -> int:
    """All frames of a clip: every one attends to itself alone."""
    width = config.hidden_size
    patches = MERGE**2 * grid.rows * grid.columns
    tokens = 1 + config.num_register_tokens + patches
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return STRIDE * grid.times * (config.num_hidden_layers * block + 2 * patches * 3 * config.patch_size**2 * width)


def merger(config: SelectorConfig, grid: Grid) -> int:
    """From features to a clip's geometry memory."""
    joined = config.feature_size * PAIR
    return 2 * grid.size * (joined**2 + joined * config.hidden_size)


def vision(config: DecoderConfig, grid: Grid) -> int:
    """Qwen's tower over all frame pairs: most blocks see windows, some the whole frame."""
    tower = config.vision
    width, patches = tower.hidden_size, MERGE**2 * grid.size
    linear = 2 * patches * (4 * width**2 + 3 * width * tower.intermediate_size)
    whole = 4 * grid.times * (MERGE**2 * grid.rows * grid.columns) ** 2 * width
    side = tower.window_size // PATCH // MERGE
    windows = product(_cut(grid.rows, side), _cut(grid.columns, side))
    windowed = 4 * grid.times * sum((MERGE**2 * rows * columns) ** 2 for rows, columns in windows) * width
    full = len(tower.full_attention)
    attention = full * whole + (tower.num_hidden_layers - full) * windowed
    joined = MERGE**2 * width
    ends = 2 * patches * 3 * STRIDE * PATCH**2 * width + 2 * grid.size * (joined**2 + joined * config.hidden_size)
    return tower.num_hidden_layers * linear + attention + ends


def language(config: DecoderConfig, segments: Iterable[Segment]) -> int:
    """One pass of the language model. The last layer goes on, after keys and values, with the wanted tokens alone."""
    segments = list(segments)
    wanted = [segment for segment in segments if segment.wanted]
    width, layers = config.hidden_size, config.num_hidden_layers
    keys = width // config.num_attention_heads * config.num_key_value_heads
    project = 2 * width * (width + 2 * keys)
    finish = 2 * width * (width + 3 * config.intermediate_size)
    tokens = sum(segment.count for segment in segments)
    seen = sum(s.count * _before(s) + s.count * (s.count + 1) // 2 for s in segments)
    seen_last = sum(_before(s) + s.count for s in wanted)
    first = layers * tokens * project + (layers - 1) * (tokens * finish + 4 * width * seen)
    return first + len(wanted) * (finish + 2 * width * config.vocab_size) + 4 * width * seen_last


def pass_bytes(decoder: Decoder, segments: Iterable[Segment]) -> int:
    """What one pass of few tokens reads: every weight of the language model once, every key and value that is seen.

    A prefix that several segments share is read once.
    """
    segments = list(segments)
    text: Any = decoder.model.model.language_model
    shared = {id(segment.shared): segment.shared for segment in segments if segment.shared is not None}
    own = sum(segment.own.nbytes * (segment.start + segment.count) // segment.own.keys.shape[2] for segment in segments)
    weights = module_bytes(text.layers) + decoder.model.lm_head.weight.nbytes
    return weights + sum(room.nbytes for room in shared.values()) + own


def module_bytes(module: nn.Module) -> int:
    """Of the parameters, those that are shared counted once."""
    return sum(weights.nbytes for weights in module.parameters())


def counted(call: Callable[[], object]) -> int:
    """Operations of a call as torch counts them while it runs; causal attention counts as the whole square."""
    # torch's counter does not know the CPU's kernel, and its formula for the others refuses keys that heads share.
    kernels = dict.fromkeys(map(partial(getattr, torch.ops.aten), ATTENTION), _attention)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        call()
    return counter.get_total_flops()


def _before(segment: Segment) -> int:
    """Keys that every token of the segment sees."""
    return segment.start + (0 if segment.shared is None else segment.shared.keys.shape[2])


def _attention(query: Sequence[int], key: Sequence[int], *_: object, out_shape: object = None, **__: object) -> int:
    batch, heads, rows, size = query
    return 4 * batch * heads * rows * key[2] * size


def _cut(length: int, side: int) -> list[int]:
    """`length` in pieces of `side`, the last one shorter."""
    return [min(side, length - start) for start in range(0, length, side)]
