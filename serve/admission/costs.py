"""How much work a question will be: the patches of its clip, unless the stages have them already.

A cold clip costs the encoder and the decoder its patches; a question about a clip that was answered a moment ago costs
next to nothing. Both are known before a frame is decoded: the size by the model's own bound, until the first answer
tells the true one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from models.config import FramesConfig
from models.video import Limits, Sampling
from serve.messages import Ask, Reply
from serve.trace import Made

STAGES = ("encoder", "decoder")  # that work on patches
NEWEST = 0.1  # weight of an observation in the mean of all
REMEMBERED = 4096  # clips: their names take half a megabyte


class Costs:
    """What is learned from replies is that of one ingress replica. A stage may have forgotten a clip meanwhile: how
    often that was so lately is what a clip counts that should be remembered."""

    def __init__(self, frames: FramesConfig, warm: int = 64, limits: Limits = Limits()) -> None:
        """`warm`: of how many clips the stages are taken to remember everything."""
        self._patch_pixels = frames.patch_size**2
        self._merged = frames.spatial_merge**2 * frames.temporal_patch
        self._most_frames = limits.max_frames
        self._warm_size = warm
        self._warm: OrderedDict[tuple[str, bool], None] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._expected: Counter[tuple[str, bool]] = Counter()
        self._forgotten = 0.0  # share of the clips that should have been remembered and were not, lately

    @contextmanager
    def expecting(self, ask: Ask) -> Iterator[float]:
        """Patches that the stages will work on for this question: few where they remember the clip, and none where
        another question about it is under way, whose work they share."""
        clip = str(ask.clip)
        key = clip, ask.geometry
        patches = 0.0
        if not self._expected[key]:
            patches = self._known.get(clip) or self.most_patches(Sampling.parse(ask.clip.sampling))
            patches *= self._forgotten if key in self._warm else 1.0
        self._expected[key] += 1
        try:
            yield patches
        finally:
            self._expected[key] -= 1
            if not self._expected[key]:
                del self._expected[key]

    def most_patches(self, sampling: Sampling) -> float:
        """Of any clip of this sampling."""
        return (sampling.count or self._most_frames) * sampling.max_pixels / self._patch_pixels

    def learn(self, ask: Ask, made: Made[Reply]) -> None:
        clip = str(ask.clip)
        if (clip, ask.geometry) in self._warm and not self._expected[clip, ask.geometry] > 1:
            missed = any(work.cache == "miss" for stage, work in made.trace.items() if stage in STAGES)
            self._forgotten += NEWEST * (missed - self._forgotten)
        self._known[clip] = float(made.value.video_tokens * self._merged)
        self._known.move_to_end(clip)
        self._warm[clip, ask.geometry] = None
        self._warm.move_to_end((clip, ask.geometry))
        for kept, most in ((self._known, REMEMBERED), (self._warm, self._warm_size)):
            while len(kept) > most:
                kept.popitem(last=False)
