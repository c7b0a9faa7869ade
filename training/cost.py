"""`python -m training.cost [--preset 7b] [--layers 7 14 28]`: what a step of the published recipe costs on this device.

The recipe's modules with random weights, in float32 with bfloat16 autocast and recomputed blocks; a clip of noise
through encoder, selector and vision tower, then the language model there and back, and AdamW. One JSON line for each
number of layers: the measured peak beside what `training.plan` expects, and the time of each part. Needs torch,
transformers and einops alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder
from models.prompt import Prompt, SpecialTokens
from models.rope import Grid
from training.loop.groups import grouped, optimizer
from training.loop.loop import recompute
from training.plan import GIB, plan
from training.runs.recipe import DsrModel, rates
from training.untrained import random_stages

SIZES = {"7b": (336, 616), "bench": (336, 616), "tiny": (112, 112)}  # of a frame: what 640 x 360 becomes
QUESTION = 160  # tokens, options and all
SECONDS_PER_TIME = 0.5


@dataclass(frozen=True)
class Step:
    """One step of a model with `layers`: GiB at its peak and as planned, and seconds."""

    layers: int
    tokens: int
    peak: float
    planned: float
    geometry: float
    forward: float
    backward: float
    update: float
    device: str


class Recipe:
    """The modules and the optimizer of the recipe, on a device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        stages = random_stages(config, SpecialTokens(*range(8)), 0, device)
        if stages.encoder is None or stages.selector is None:
            raise ValueError(f"{config.name} has no geometry")
        self.encoder: ImageEncoder = stages.encoder.to(torch.bfloat16).requires_grad_(False)
        decoder = Decoder(stages.decoder, config.decoder.tokens_per_second)
        self.module = DsrModel(decoder, stages.selector)
        self.groups = grouped(self.module, rates(1e-6, 2e-7))
        self.optim = optimizer(self.groups)
        for layer in decoder.model.model.language_model.layers:
            recompute(layer)

    def embedded(self, frames: Tensor, grid: Grid, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Embeddings [1, L, D] and positions [3, 1, L] of one prompt, with gradients where there are any."""
        decoder, selector = self.module.decoder, self.module.selector
        with torch.no_grad():
            features = self.encoder(frames)
        memory = selector.project(selector.remember(features.float(), grid), grid)
        geometry = selector.select([decoder.embed(prompt.text_ids)], [memory]).tokens[0]
        inputs = decoder.compose(prompt, grid, decoder.see(frames), geometry)
        return inputs.embeds[None], inputs.positions[:, None]

    def loss(self, embeds: Tensor, positions: Tensor) -> Tensor:
        model = self.module.decoder.model
        logits = model(inputs_embeds=embeds, position_ids=positions, use_cache=False, logits_to_keep=2).logits
        return F.cross_entropy(logits[0].float(), torch.tensor([9, 10], device=logits.device))


def measured(config: ModelConfig, size: tuple[int, int], device: torch.device, steps: int) -> Step:
    """The last of `steps` steps; the first ones make caches and moments."""
    recipe, (height, width) = Recipe(config, device), size
    side = config.frames.side_multiple
    grid = Grid(config.frames.count // 2, height // side, width // side, SECONDS_PER_TIME)
    prompt = Prompt(tuple(range(10, 25)), tuple(range(10, 10 + QUESTION)), SpecialTokens(*range(8)))
    times: list[float] = []
    for _ in range(steps):
        _reset(device)
        frames = torch.randint(0, 256, (config.frames.count, height, width, 3), dtype=torch.uint8, device=device)
        times = [_now(device)]
        with warnings.catch_warnings(), torch.autocast(device.type, torch.bfloat16):
            # A norm with float32 weights on bfloat16 values: that is what the recipe has.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
            embeds, positions = recipe.embedded(frames, grid, prompt)
            times.append(_now(device))
            loss = recipe.loss(embeds, positions)
            times.append(_now(device))
            loss.backward()  # type: ignore[no-untyped-call]
        times.append(_now(device))
        trained = [p for group in recipe.groups if not group.frozen for _, p in group.parameters]
        nn.utils.clip_grad_norm_(trained, 1.0)
        recipe.optim.step()
        recipe.optim.zero_grad(set_to_none=True)
        times.append(_now(device))
    geometry, forward, backward, update = (round(after - before, 3) for before, after in pairwise(times))
    planned = round(plan(config, 1, embeds.shape[1]).total / GIB, 2)
    layers, tokens = config.decoder.num_hidden_layers, embeds.shape[1]
    return Step(layers, tokens, _peak(device), planned, geometry, forward, backward, update, _name(device))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    """GiB; of a CPU those of the whole process since it began."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="7b", choices=sorted(SIZES))
    parser.add_argument("--layers", type=int, nargs="+", help="of the language model, default: the preset's")
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig.preset(given.preset)
    status = 0
    for layers in given.layers or [config.decoder.num_hidden_layers]:
        fewer = replace(config, decoder=replace(config.decoder, num_hidden_layers=layers))
        try:
            print(json.dumps(asdict(measured(fewer, SIZES[given.preset], device, given.steps))), flush=True)
        except torch.OutOfMemoryError as error:
            print(f"{layers} layers: {error}", file=sys.stderr)
            status = 1
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return status


if __name__ == "__main__":
    sys.exit(main())
