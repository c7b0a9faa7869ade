"""The sample of the embedded checkpoint: a rendered clip and a question about it.

`python -m training.sample DIRECTORY` writes both. The scene is in `training.street`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from training.raycast import Array, Picture, picture, things, turn_z
from training.street import CAR, SECONDS, SIZE, camera_at, heading, scene_at

FPS = 15
FRAMES = int(SECONDS * FPS)
SAMPLED = 32
FIRST, LAST = 2, 28  # the question's interval among the sampled frames; the last two frames are no part of any


@dataclass(frozen=True)
class Question:
    """A record of a question set. `answer` is the letter of the right option; `type` one of the twelve keys."""

    question: str
    options: list[str]
    answer: str
    type: str


def question() -> Question:
    """How the car's orientation changes, seen from the camera where it stands at the first frame.

    The truth is read off the trajectory. The other options mirror it left to right, reverse it in time, and do both.
    From any of the four these steps lead to the other three, so the wording does not set the right one apart.
    """
    start, end = sample_times()[FIRST], sample_times()[LAST]
    forward = forward_axes(sample_times()[FIRST : LAST + 1])
    mirrored = forward * np.array([1, -1, 1], np.float32)
    truth = numbered(forward)
    options = [truth, numbered(mirrored), numbered(forward[::-1]), numbered(mirrored[::-1])]
    Random(3).shuffle(options)
    left, top, right, bottom = car_box(start)
    text = (
        f"From the viewpoint of the camera at 0.0 s, how does the orientation of the red car "
        f"[{left}, {top}, {right}, {bottom}] change between {start:.1f} s and {end:.1f} s?"
    )
    return Question(text, options, "ABCD"[options.index(truth)], "abs_ori")


def sample_times() -> list[float]:
    """Times of the sampled frames, spread evenly over the clip, rounded to 0.1 s as questions state them."""
    return [round(int(index) / FPS, 1) for index in np.linspace(0, FRAMES - 1, SAMPLED).round()]


def forward_axes(times: Iterable[float]) -> Array:
    """[N, 3] the car's forward axis at each time, in the axes (forward, left, up) of the camera at 0.0 s."""
    return np.stack([turn_z(float(heading(t)))[:, 0] for t in times]) @ camera_at(0).axes


def numbered(vectors: Array) -> str:
    """`(1) Front. (2) Front|Left.`: words for the axes above 0.3 of each unit vector, equal neighbours merged."""
    names = (("Front", "Behind"), ("Left", "Right"), ("Above", "Below"))
    labels: list[str] = []
    for vector in vectors:
        words = [name[int(value < 0)] for name, value in zip(names, vector, strict=True) if abs(value) > 0.3]
        if not labels or labels[-1] != "|".join(words):
            labels.append("|".join(words))
    return " ".join(f"({number}) {label}." for number, label in enumerate(labels, 1))


def car_box(t: float) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels around what is seen of the car; the last two are exclusive."""
    rows, columns = np.nonzero(np.isin(things(scene_at(t), camera_at(t)), CAR))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def frames() -> Iterator[Picture]:
    """The clip's pictures, uint8 RGB [height, width, 3]."""
    return (picture(scene_at(index / FPS), camera_at(index / FPS)) for index in range(FRAMES))


def encode(path: Path, pictures: Iterable[Picture]) -> None:
    """Writes an H.264 mp4 at `FPS`. The same pictures give the same bytes with the same build of the encoder."""
    # One thread, no version strings and no vector code: each would make the bytes depend on the machine, and x264's
    # vector code even on what its memory held before (four different files in sixteen runs).
    options = {"crf": "21", "preset": "slow", "threads": "1", "x264-params": "no-asm=1"}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for index, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sample(directory: Path) -> None:
    """Writes `clip.mp4` and `question.json`; takes about ten seconds. The directory is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    encode(directory / "clip.mp4", frames())
    record = json.dumps(asdict(question()), indent=2)
    (directory / "question.json").write_text(record + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the sample clip and write the question about it.")
    parser.add_argument("directory", type=Path)
    write_sample(parser.parse_args().directory)


if __name__ == "__main__":
    main()
