"""Which estimators a command asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from training.cues.estimators import Estimators, Namer
from training.cues.language_model import LanguageModel
from training.cues.names import Asked, Captioned, Listed

KINDS = ("published", "oracle", "random")


@dataclass(frozen=True)
class Choice:
    """`weights`: pi3, detector, masks, orientation -> directory or hub id (orientation: a directory or a file).

    Names come from `captions`, from a language model at `language_model` that reads them, or from the default list.
    """

    kind: str
    weights: Mapping[str, str | None]
    captions: Path | None = None
    language_model: tuple[str, str] | None = None
    device: str = "cpu"
    dtype: str = "float32"

    def load(self) -> Estimators:
        """ValueError names an option that is missing; CheckpointError what is wrong with weights."""
        if self.kind == "oracle":
            from training.cues.oracle import oracle

            return oracle()
        if self.kind == "random":
            from training.cues.untrained import untrained

            return untrained(self.namer(), device=self.device)
        return self._published()

    def namer(self) -> Namer:
        if self.language_model is not None:
            if self.captions is None:
                raise ValueError("a language model is asked about captions: --captions is missing")
            url, model = self.language_model
            return Asked.of(LanguageModel.connect(url, model), self.captions)
        return Listed() if self.captions is None else Captioned.load(self.captions)

    def _published(self) -> Estimators:
        from training.cues.detection import GroundingDino
        from training.cues.geometry import Pi3Geometer
        from training.cues.masks import Sam2Tracker
        from training.cues.orientation import OrientAnythingOrienter

        if missing := [f"--{name}" for name, where in self.weights.items() if not where]:
            raise ValueError(f"published estimators need their weights: {', '.join(missing)} missing")
        where = {name: str(location) for name, location in self.weights.items()}
        return Estimators(
            namer=self.namer(),
            geometer=Pi3Geometer.load(where["pi3"], self.device, getattr(torch, self.dtype)),
            detector=GroundingDino.load(where["detector"], self.device),
            tracker=Sam2Tracker.load(where["masks"], self.device),
            orienter=OrientAnythingOrienter.load(where["orientation"], self.device),
        )
