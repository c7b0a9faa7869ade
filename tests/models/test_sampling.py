"""How frames are asked for, and what size they get."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from models.config import FramesConfig
from models.errors import InvalidQuestion, OutOfLimits
from models.video import Sampling, fit


def test_a_sampling_names_either_a_count_or_a_rate() -> None:
    for count, fps in (
        (None, None),
        (4, 2.0),
        (0, None),
        (None, 0.0),
        (None, -1.0),
        (None, math.nan),
        (None, math.inf),
    ):
        with pytest.raises(InvalidQuestion):
            Sampling(count, fps)
    with pytest.raises(InvalidQuestion):
        Sampling(max_pixels=100)


def test_the_key_of_a_sampling_is_its_whole_content() -> None:
    samplings = [
        Sampling(),
        Sampling(8),
        Sampling(None, 2),
        Sampling(None, 1e-4 / 3 * 7),
        Sampling(max_pixels=50_176),
        Sampling(temporal_patch=1),
    ]
    assert [Sampling.parse(sampling.key()) for sampling in samplings] == samplings
    assert len({sampling.key() for sampling in samplings}) == len(samplings)
    assert Sampling(None, 2).key() == Sampling(None, 2.0).key()
    for text in ("", "n32", "n32_p1-2_m28_t2/..", "n0_p3136-230400_m28_t2", "f-_p3136-230400_m28_t2"):
        with pytest.raises(InvalidQuestion):
            Sampling.parse(text)


def test_a_models_sampling_takes_the_callers_frames() -> None:
    config = FramesConfig(count=16, max_pixels=50_176)
    assert Sampling.of(config) == Sampling(16, max_pixels=50_176)
    assert Sampling.of(config, count=4) == Sampling(4, max_pixels=50_176)
    assert Sampling.of(config, fps=2) == Sampling(None, 2, max_pixels=50_176)


@pytest.mark.parametrize(
    ("source", "fitted"),
    [
        ((1920, 1080), (616, 336)),
        ((1080, 1920), (336, 616)),
        ((640, 360), (616, 336)),
        ((112, 84), (112, 84)),
        ((20, 20), (56, 56)),
        ((4096, 2304), (616, 336)),
    ],
)
def test_sizes_follow_the_published_rule(source: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit(*source, Sampling()) == fitted


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(max_pixels=50_176), Sampling(min_pixels=100_352)])
def test_fitted_sizes_are_whole_tokens_within_bounds_and_near_the_aspect(sampling: Sampling) -> None:
    sides = sorted({round(4 * 1.13**i) for i in range(60)})
    for width in sides:
        for height in (side for side in sides if max(side, width) <= 200 * min(side, width)):
            across, down = fit(width, height, sampling)
            assert across % 28 == down % 28 == 0
            assert sampling.min_pixels <= across * down <= sampling.max_pixels, (width, height)
            assert fit(height, width, sampling) == (down, across)
            tokens = min(across, down) // 28
            if tokens > 1:  # rounding a side up to k tokens makes it at most k / (k - 1) times as long
                worst = tokens / (tokens - 1)
                assert 1 / worst < across / down * height / width < worst, (width, height)


def test_an_absurd_aspect_is_refused() -> None:
    assert fit(5600, 28, Sampling())
    with pytest.raises(OutOfLimits, match="5628x28"):
        fit(5628, 28, Sampling())


def test_the_http_edge_can_import_limits_and_facts_without_torch() -> None:
    code = "import sys; from models.video import Limits, Sampling, VideoFacts, probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
