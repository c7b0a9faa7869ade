"""The start-up check: the engine's own forward pass against transformers', on this model, device and type."""

from __future__ import annotations

import torch
from torch import Tensor

from models.decoder import Decoder
from models.parity import deviation
from models.prompt import Prompt, SpecialTokens
from models.rope import Grid
from serve.engine.transformer import Segment, Transformer

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
    return deviation(torch.stack(found), expected, "the engine's forward pass")


def _ids(decoder: Decoder, count: int, seed: int = 0) -> list[int]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(len(decoder.embeddings), (count,), generator=chance).tolist()
