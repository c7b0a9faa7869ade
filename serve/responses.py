"""What several responses tell in the same words: of a video, and of the stages' work."""

from __future__ import annotations

from typing import Any

from models.video import VideoFacts
from serve.schemas import Span, VideoInfo
from serve.trace import Trace


def described(video: str, facts: VideoFacts, frames: int) -> VideoInfo:
    return VideoInfo(
        id=video, duration=facts.duration, fps=facts.fps, width=facts.width, height=facts.height, frames=frames
    )


def worked(trace: Trace, arrived: float) -> dict[str, Any]:
    """The fields `timings`, `cache` and `spans`. `arrived`: when the request came, in seconds since 1970."""
    spans = {stage: work.span for stage, work in trace.items() if work.span is not None}
    return {
        "timings": {stage: work.seconds for stage, work in trace.items()},
        "cache": {stage: work.cache for stage, work in trace.items()},
        # Clocks of different machines may differ by more than a request takes: no span begins before its request.
        "spans": {
            stage: Span(start=max(0.0, began - arrived), end=max(0.0, ended - arrived))
            for stage, (began, ended) in spans.items()
        },
    }
