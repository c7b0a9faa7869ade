"""The start-up check: the engine's own forward pass against transformers', on this model, device and type."""

from __future__ import annotations

import torch
from torch import Tensor

from models.decoder import Decoder
from models.prompt import Prompt, SpecialTokens
from models.rope import Grid
from serve.engine.transformer import Segment, Transformer

# Of the largest logit. Summing in another order moves float32 by 1e-6 and bfloat16, over 28 layers, by some percent;
# a wrong position or mask, by about 1.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

_GRID = Grid(2, 2, 3, seconds_per_time=1.0)
_GEOMETRY = 3
_LENGTHS = (5, 9)


@torch.inference_mode()
def check(decoder: Decoder, transformer: Transformer) -> float:
    """The largest deviation of a logit, of a prefix in two chunks under two suffixes, one of them in two chunks.

    Raises:
        RuntimeError: it is beyond the tolerance.
    """
    video = decoder.embed(_ids(decoder, _GRID.size))
    geometry = decoder.embed(_ids(decoder, _GEOMETRY, seed=1))
    prompts = [Prompt(tuple(_ids(decoder, 4)), tuple(_ids(decoder, n, seed=n)), SpecialTokens()) for n in _LENGTHS]
    inputs = [decoder.compose(prompt, _GRID, video, geometry) for prompt in prompts]
    expected = torch.cat(decoder.logits(inputs, last_only=True))

    length = len(prompts[0].before) + _GRID.size
    border = length - 5
    prefix, first, second = (transformer.room(n) for n in (length, *(len(i.embeds) - length for i in inputs)))

    def part(index: int, start: int, stop: int) -> tuple[tuple[Tensor, ...], Tensor]:
        return (inputs[index].embeds[start:stop],), inputs[index].positions[:, start:stop]

    whole, most = len(inputs[0].embeds), len(inputs[1].embeds) - 1
    transformer.forward([Segment(*part(0, 0, border), prefix, 0, wanted=False)])
    transformer.forward([Segment(*part(0, border, length), prefix, border, wanted=False)])
    both = [
        Segment(*part(0, length, whole), first, 0, prefix),
        Segment(*part(1, length, most), second, 0, prefix, wanted=False),
    ]
    rest = [Segment(*part(1, most, most + 1), second, most - length, prefix)]
    found = [row for row in transformer.forward(both) + transformer.forward(rest) if row is not None]
    deviation = float((torch.stack(found) - expected).abs().max() / expected.abs().max())
    limit = TOLERANCE[expected.dtype]
    if not deviation <= limit:
        raise RuntimeError(
            f"the engine's forward pass deviates from transformers' by {deviation:.2g} of the largest logit, "
            f"beyond {limit}: the installed transformers computes this model differently"
        )
    return deviation


def _ids(decoder: Decoder, count: int, seed: int = 0) -> list[int]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(len(decoder.embeddings), (count,), generator=chance).tolist()
