"""`python -m training.plan [--preset 7b] [--gpus 1 4 8]`: how much memory training a preset takes on every GPU.

Counted from the modules themselves, built without weights; what is formed while a step runs is estimated:

    weights, gradients, moments   sharded over the GPUs: 4 bytes a parameter; 4 + 8 more where it is trained
    encoder                       whole on every GPU, bfloat16, frozen
    gathered                      bfloat16: what stands outside of the blocks, and two blocks (one is fetched ahead)
    activations                   the input of every block (recomputed), one block's insides, logits of two tokens
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.config import ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder, encoder_of
from models.prompt import SpecialTokens
from models.selector import Selector
from training.loop.groups import grouped
from training.runs.recipe import DsrModel, rates
from training.untrained import random_decoder

GIB = 2**30
WEIGHT, GRADIENT, MOMENTS = 4, 4, 8  # bytes a parameter, float32
BF16 = 2
INSIDE = 14  # hidden-sized tensors that a block keeps for going backwards, beside its MLP's three
LONGEST = 8192  # tokens of a sequence in the published recipe


@dataclass(frozen=True)
class Plan:
    """Bytes on each of `gpus` GPUs."""

    gpus: int
    weights: int
    gradients: int
    moments: int
    encoder: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.encoder + self.gathered + self.activations


def module_of(config: ModelConfig) -> tuple[DsrModel, ImageEncoder]:
    """Without weights: on the meta device."""
    if config.encoder is None or config.selector is None:
        raise ValueError(f"{config.name} has no geometry")
    with torch.device("meta"):
        decoder = Decoder(random_decoder(config, SpecialTokens(*range(8))), config.decoder.tokens_per_second)
        return DsrModel(decoder, Selector(config.selector)), encoder_of(config.encoder)


def plan(config: ModelConfig, gpus: int, tokens: int = LONGEST) -> Plan:
    """One sequence of `tokens` at a time on each GPU. ValueError: fewer than one GPU, or no geometry."""
    if gpus < 1:
        raise ValueError(f"gpus is {gpus}; it must be at least 1")
    module, encoder = module_of(config)
    groups = grouped(module, rates(1e-6, 2e-7))
    everything = _count(module)
    trained = sum(parameter.numel() for group in groups if not group.frozen for _, parameter in group.parameters)
    layers = module.decoder.model.model.language_model.layers
    block = _count(layers[0])
    gathered = (everything - block * len(layers) + 2 * block) if gpus > 1 else block
    sizes = config.decoder
    inside = INSIDE * sizes.hidden_size + 3 * sizes.intermediate_size
    activations = BF16 * tokens * (len(layers) * sizes.hidden_size + inside) + 4 * 2 * 2 * sizes.vocab_size
    return Plan(
        gpus=gpus,
        weights=WEIGHT * everything // gpus,
        gradients=GRADIENT * trained // gpus,
        moments=MOMENTS * trained // gpus,
        encoder=BF16 * _count(encoder),
        gathered=BF16 * gathered,
        activations=activations,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="7b", choices=["tiny", "bench", "7b"])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=LONGEST, help="of a sequence, video and text")
    given = parser.parse_args(arguments)
    names = ("weights", "gradients", "moments", "encoder", "gathered", "activations", "total")
    print("GiB on each GPU".ljust(17) + "".join(f"{name:>13}" for name in names))
    try:
        for gpus in given.gpus:
            found = plan(ModelConfig.preset(given.preset), gpus, given.tokens)
            print(
                f"{gpus} GPU{'s' * (gpus > 1)}".ljust(17) + "".join(f"{getattr(found, n) / GIB:>13.2f}" for n in names)
            )
    except ValueError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
