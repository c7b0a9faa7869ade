from __future__ import annotations

import hashlib
import random

import pytest

from models.video import Sampling
from serve.keys import ClipKey, is_video_id, prefix_of, video_id

VIDEO = video_id(hashlib.sha256(b"a video").hexdigest())


def test_a_key_has_one_text_form() -> None:
    key = ClipKey(VIDEO, "n32_p3136-230400_m28_t2")
    assert str(key) == f"{VIDEO}/n32_p3136-230400_m28_t2"


def test_the_prefix_of_a_video_is_that_of_its_clips_alone() -> None:
    other = video_id(hashlib.sha256(b"another video").hexdigest())
    texts = [str(ClipKey(video, sampling)) for video in (VIDEO, other) for sampling in ("n4", "n32")]
    assert [text.startswith(prefix_of(VIDEO)) for text in texts] == [True, True, False, False]
    assert all(text.startswith(prefix_of(None)) for text in texts)


def test_keys_sort_like_their_text() -> None:
    rng = random.Random(0)
    videos = [video_id(rng.randbytes(32).hex()) for _ in range(5)]
    keys = [ClipKey(rng.choice(videos), f"f{rng.randrange(100)}") for _ in range(50)]
    assert [str(key) for key in sorted(keys)] == sorted(str(key) for key in keys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vid_",
        VIDEO[:-1],
        VIDEO + "0",
        VIDEO.upper(),
        VIDEO + "\n",
        "../" + VIDEO,
        "vid_" + "../" * 21 + "x",
        "vid_" + "٣" * 64,
    ],
)
def test_what_is_no_id_is_told_apart(text: str) -> None:
    assert is_video_id(VIDEO)
    assert not is_video_id(text)
    with pytest.raises(ValueError, match="no video id"):
        ClipKey(text, "f32")


def test_an_id_is_made_from_a_whole_hash_only() -> None:
    with pytest.raises(ValueError, match="abc"):
        video_id("abc")


@pytest.mark.parametrize("sampling", ["", "a/b", "a b", "a\n", "x" * 101])
def test_a_sampling_that_could_break_a_path_or_a_header_is_refused(sampling: str) -> None:
    with pytest.raises(ValueError, match="sampling"):
        ClipKey(VIDEO, sampling)


def test_every_sampling_makes_a_key() -> None:
    for sampling in (Sampling(), Sampling(count=None, fps=1e-7), Sampling(count=None, fps=29.97, max_pixels=10**8)):
        key = ClipKey(VIDEO, sampling.key())
        assert Sampling.parse(key.sampling) == sampling
