"""What a child may say: the truth is understood, and every claim that cannot be is a lie."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from models import video
from models.errors import InputError, NotAVideo, OutOfLimits
from models.video import Clip, Limits, Sampling, VideoFacts
from serve.sandbox import wire
from serve.sandbox.claims import Failed, Frames, Lie, understand
from serve.sandbox.wire import Job, frame_bytes

FACTS = VideoFacts(container="mp4", codec="h264", width=112, height=84, duration=2.0, fps=30.0, frames=60, rotation=0)
SAMPLING = Sampling(5)
CLIP = Clip(np.zeros((6, 84, 112, 3), np.uint8), np.linspace(0, 2, 6), FACTS, 5, SAMPLING)
NAN, INFINITY = float("nan"), float("inf")


def said(**changes: Any) -> bytes:
    """The honest answer with something else in it; names of facts change the facts."""
    answer = json.loads(wire.decoded(CLIP))
    for name, value in changes.items():
        (answer["facts"] if name in answer["facts"] else answer)[name] = value
    return json.dumps(answer).encode()


def test_the_truth_is_understood() -> None:
    clip = understand(wire.decoded(CLIP), SAMPLING, Limits())
    assert isinstance(clip, Frames)
    assert (clip.facts, clip.shape, clip.sampled) == (FACTS, CLIP.frames.shape, 5)
    assert np.array_equal(clip.times, CLIP.times)
    assert understand(wire.seen(FACTS), None, Limits()) == FACTS
    error = OutOfLimits("too wide", field="width", value=5000, limit=4096)
    refused = understand(wire.refused(error), None, Limits())
    assert isinstance(refused, OutOfLimits)
    assert refused.__dict__ == error.__dict__
    assert understand(wire.failed("memory", "MemoryError"), None, Limits()) == Failed(True, "MemoryError")


@pytest.mark.parametrize(
    "changes",
    [
        {"duration": NAN},
        {"duration": INFINITY},
        {"duration": -1.0},
        {"duration": 601.0},
        {"duration": 2},
        {"duration": "2.0"},
        {"fps": 0.0},
        {"fps": 251.0},
        {"width": 5000},
        {"width": 112.0},
        {"width": True},
        {"width": 0},
        {"width": 4096, "height": 4096},
        {"height": -84},
        {"frames": 10**6},
        {"frames": 4},
        {"codec": "rawvideo"},
        {"codec": ["h264"]},
        {"container": "/etc/passwd"},
        {"rotation": 45},
        {"rotation": False},
        {"shape": [6, 84, 112, 4]},
        {"shape": [6, 840, 1120, 3]},
        {"shape": [-6, -84, 112, 3]},
        {"shape": [60, 84, 112, 3]},
        {"shape": "6"},
        {"sampled": 6},
        {"sampled": 0},
        {"sampled": 10**9},
        {"times": [0.0, 0.4, 0.8, 1.2, 1.6]},
        {"times": [0.0, 0.4, 0.8, 1.2, 1.6, NAN]},
        {"times": [0.0, 0.4, 0.8, 0.7, 1.6, 2.0]},
        {"times": [0.0, 0.4, 0.8, 1.2, 1.6, 1e9]},
        {"times": [0, 1, 2, 3, 4, 5]},
        {"times": {"0": 1}},
        {"facts": None},
        {"facts": {**asdict(FACTS), "more": 1}},
        {"more": 1},
    ],
)
def test_a_claim_that_cannot_be_is_a_lie(changes: dict[str, Any]) -> None:
    with pytest.raises(Lie):
        understand(said(**changes), SAMPLING, Limits())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b"1" * 60_000,
        b'{"a":' * 10_000,
        b" " * (wire.MAX_ANSWER + 1),
        b"cos\nsystem\n(S'true'\ntR.",  # a pickle
    ],
)
def test_what_is_no_answer_is_a_lie(answer: bytes) -> None:
    with pytest.raises(Lie):
        understand(answer, SAMPLING, Limits())


REFUSAL = {"code": "not_a_video", "message": "no", "field": None, "value": None, "limit": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "internal_error"},
        {"code": "__class__"},
        {"code": None},
        {"message": "x" * (wire.MAX_TEXT + 1)},
        {"message": "two\nlines"},
        {"message": "\x1b[31mred"},
        {"message": 5},
        {"field": 5},
        {"value": [1]},
        {"value": NAN},
        {"value": 10**30},
        {"value": True},
        {"limit": {}},
        {"status": 200},
    ],
)
def test_only_known_refusals_are_rebuilt(changes: dict[str, Any]) -> None:
    assert isinstance(understand(json.dumps({"refused": REFUSAL}).encode(), None, Limits()), NotAVideo)
    with pytest.raises(Lie):
        understand(json.dumps({"refused": {**REFUSAL, **changes}}).encode(), None, Limits())


def test_an_answer_to_another_question_is_a_lie() -> None:
    with pytest.raises(Lie):
        understand(wire.seen(FACTS), SAMPLING, Limits())
    with pytest.raises(Lie):
        understand(wire.decoded(CLIP), None, Limits())


def test_frames_too_narrow_are_refused_by_the_parent_too() -> None:
    with pytest.raises(InputError, match="too narrow"):
        understand(said(width=4000, height=2), SAMPLING, Limits())


def test_a_job_survives_the_wire() -> None:
    for sampling in (None, Sampling(None, 2.5), Sampling(7, min_pixels=784, side_multiple=14)):
        job = Job(Limits(max_seconds=1.5), sampling, 10, 20, 30, 4)
        assert Job.from_json(job.to_json()) == job


def test_the_shared_memory_holds_every_clip_that_the_limits_allow() -> None:
    generator = np.random.default_rng(1)
    for _ in range(2000):
        least = int(generator.integers(1, 20_000))
        side, patch = int(generator.integers(1, 60)), int(generator.integers(1, 5))
        most = max(side**2, least) + int(generator.integers(0, 50_000))
        sampling = Sampling(int(generator.integers(1, 100)), None, least, most, side, patch)
        height = int(generator.integers(1, 400))
        width = min(int(height * np.exp(generator.uniform(0, 5.29))), 4096)
        for size in ((width, height), (height, width)):
            fitted = video.fit(*size, sampling)
            frames = sampling.count + -sampling.count % patch if sampling.count else 0
            assert frames * fitted[0] * fitted[1] * 3 <= frame_bytes(sampling, Limits()), (size, sampling)
