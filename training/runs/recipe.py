"""What `dsr-7b` trains, at which rates, and what can be set of it. Needs no video and no PyAV: the run itself does."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from models.decoder import Decoder
from models.selector import Selector
from training.loop.loop import LoopConfig
from training.loop.task import Rate


@dataclass(frozen=True)
class DsrConfig:
    """`base`: a checkpoint with a Qwen2.5-VL, in any layout that `serve` loads; where it has no encoder, it comes from
    the π³ in `pi3`, and the selector starts at random. `questions`: .json or .parquet, ours or the public ones, about
    files in `videos`. `batch` questions a step; the last `held` are measured on and never trained on.
    """

    base: str = "Qwen2.5-VL-7B-Instruct"
    pi3: str | None = "pi3"
    questions: str = "DSR-Train.parquet"
    videos: str = "videos"
    batch: int = 32
    held: int = 256
    lr: float = 2e-7
    selector_lr: float = 1e-6
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            "runs/dsr-7b", 1562, accumulate=32, precision="bf16", checkpoint_blocks=True, evaluate_every=500
        )
    )

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; it must be at least 1")
        if self.held < 0:
            raise ValueError(f"held is {self.held}; it must be at least 0")


class DsrModel(nn.Module):
    """What the recipe trains, and the frozen vision tower. The encoder is no part of it: it never changes."""

    def __init__(self, decoder: Decoder, selector: Selector) -> None:
        super().__init__()
        self.decoder, self.selector = decoder, selector


def rates(merger: float, language: float) -> list[Rate]:
    """The recipe's parameter groups of a `DsrModel`."""
    return [
        Rate("mergers", r"\.visual\.merger\.|^selector\.merger\.", merger),
        Rate("vision tower", r"\.visual\.", 0),
        Rate("q-formers", r"^selector\.", merger),
        Rate("language", "", language),
    ]
