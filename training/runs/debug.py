"""`debug`: the loop on a problem of seconds - the real selector learns to tell which of four patterns a clip shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from models.config import SelectorConfig
from models.rope import Grid
from models.selector import Selector
from training.loop.loop import LoopConfig
from training.loop.task import Metrics, Outcome, Rate, Share

PATTERNS = 4
GRID = Grid(2, 2, 2, 0.5)
SIZES = SelectorConfig(
    hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1, feature_size=8,
    mrope_section=(2, 3, 3), num_queries=4,
)  # fmt: skip


@dataclass(frozen=True)
class DebugConfig:
    """`items` clips of a step."""

    items: int = 16
    lr: float = 3e-3
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig("runs/debug", steps=60, save_every=20, evaluate_every=20)
    )


class Patterns(nn.Module):
    """The selector and a linear layer that reads the pattern off its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.selector = Selector(SIZES)
        self.asked = nn.Parameter(torch.randn(3, SIZES.hidden_size))
        self.read = nn.Linear(SIZES.hidden_size, PATTERNS)

    def forward(self, clips: Tensor) -> Tensor:
        """[B, F, P, C] features -> [B, patterns]."""
        memories = [self.selector.project(self.selector.remember(clip, GRID), GRID) for clip in clips]
        chosen = self.selector.select([self.asked] * len(clips), memories)
        return self.read(chosen.tokens.mean(dim=1))


class DebugTask:
    def __init__(self, config: DebugConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.loop.seed)
        self.module = Patterns().to(device)
        self.patterns = torch.randn(PATTERNS, 4, 16, SIZES.feature_size)

    def rates(self) -> Sequence[Rate]:
        return [Rate("merger", r"^selector\.merger", self.config.lr), Rate("rest", "", self.config.lr)]

    def batch(self, step: int, share: Share) -> tuple[Tensor, Tensor, list[str]]:
        return self._made(step, share.of(range(self.config.items)))

    def loss(self, batch: tuple[Tensor, Tensor, list[str]]) -> Outcome:
        clips, truth, ids = batch
        logits = self.module(clips)
        right = float((logits.argmax(-1) == truth).sum())
        return Outcome(F.cross_entropy(logits, truth, reduction="sum"), len(ids), {"right": (right, len(ids))}, ids)

    def evaluate(self, step: int) -> Metrics:
        return self.loss(self._made(-1, range(64))).metrics

    def blocks(self) -> Sequence[nn.Module]:
        """Not the Q-Formers whole: `project` calls a part of them, for which FSDP would not gather it."""
        return [self.module.selector.q_former_1.mlp, self.module.selector.q_former_2.mlp]

    def export(self, directory: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "model.safetensors")

    def _made(self, step: int, items: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """Each item is made of its own seed, so that it is the same in every share."""
        clips, truth = [], []
        for item in items:
            random = torch.Generator().manual_seed(1_000_003 * (step + 2) + item)
            which = int(torch.randint(PATTERNS, (), generator=random))
            noise = torch.randn(self.patterns.shape[1:], generator=random)
            clips.append(self.patterns[which] + 0.5 * noise)
            truth.append(which)
        return (
            torch.stack(clips).to(self.device),
            torch.tensor(truth, device=self.device),
            [f"{step}/{i}" for i in items],
        )
