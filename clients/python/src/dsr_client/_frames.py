"""Single frames of a video file at given times, by PyAV or by the `ffmpeg` command, whichever is there."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from ._errors import CannotDraw

__all__ = ["frames_at", "reader"]

MAX_SIDE = 512  # pixels; a strip shows small pictures
FFMPEG_SECONDS = 60
HALF_FRAME = 1 / 120  # seconds; a time that was rounded still means its own frame

Reader = Callable[[Path, Sequence[float]], Iterator[Image.Image]]


def frames_at(path: Path, times: Sequence[float]) -> list[Image.Image]:
    """The frames shown at `times`, seconds since the first frame, upright. Past the end: the last frame.

    OSError when the file cannot be opened, CannotDraw when it cannot be decoded.
    """
    with path.open("rb"):  # the system's own words for a file that is missing
        pass
    return list(reader()(path, times))


def reader() -> Reader:
    if importlib.util.find_spec("av") is not None:
        return _by_pyav
    if shutil.which("ffmpeg") is not None:
        return _by_ffmpeg
    raise CannotDraw(
        "reading frames from a file takes PyAV (pip install av) or the ffmpeg command, and neither is here; "
        "or give the frames as pictures"
    )


def _by_pyav(path: Path, times: Sequence[float]) -> Iterator[Image.Image]:
    import av

    try:
        with _opened(path) as (container, stream):
            frames = [_sought(container, stream, time) for time in times]
        if None in frames:  # a container without an index, as MPEG-TS
            with _opened(path) as (container, stream):
                frames = _in_order(container.decode(stream), times)
    except (av.FFmpegError, IndexError) as error:
        raise CannotDraw(f"{path} cannot be decoded: {error}") from None
    if None in frames:
        raise CannotDraw(f"{path} cannot be decoded: no frame in it")
    return map(_picture, frames)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and first video stream. From an open file, not by its name: a name may be a URL to FFmpeg."""
    import av

    with path.open("rb") as file, av.open(file) as container:
        yield container, container.streams.video[0]


def _sought(container: Any, stream: Any, time: float) -> Any:
    """The last frame that begins at or before `time`; None when seeking does not lead there."""
    start = float((stream.start_time or 0) * stream.time_base)
    container.seek(round((start + time) / stream.time_base), stream=stream)
    shown = None
    for frame in container.decode(stream):
        late = frame.time is not None and frame.time - start > time + HALF_FRAME
        if late:
            break
        shown = frame
    return shown


def _in_order(frames: Iterator[Any], times: Sequence[float]) -> list[Any]:
    """The same for every time, by decoding all frames up to the last of `times`."""
    found: list[Any] = [None] * len(times)
    start = None
    for frame in frames:
        start = frame.time if start is None else start
        due = [i for i, time in enumerate(times) if frame.time - start <= time + HALF_FRAME]
        if not due:
            break
        for i in due:
            found[i] = frame
    return found


def _picture(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _by_ffmpeg(path: Path, times: Sequence[float]) -> Iterator[Image.Image]:
    for time in times:
        # Past the end nothing comes: then the last of the final second, by playing it backwards.
        frame = _ffmpeg(path, ["-ss", f"{max(0.0, time - HALF_FRAME):.6f}"]) or _ffmpeg(
            path, ["-sseof", "-1"], "reverse,"
        )
        if frame is None:
            raise CannotDraw(f"{path} has no frame at {time:.3f} s")
        yield frame


def _ffmpeg(path: Path, seek: Sequence[str], filters: str = "") -> Image.Image | None:
    """The first frame from where `seek` leads; None when there is none."""
    source = ["-protocol_whitelist", "file", "-i", f"file:{path.resolve()}"]
    size = f"{filters}scale=w={MAX_SIDE}:h={MAX_SIDE}:force_original_aspect_ratio=decrease"
    out = ["-frames:v", "1", "-vf", size, "-f", "image2pipe", "-c:v", "png", "-"]
    try:
        done = subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", *seek, *source, *out], capture_output=True, timeout=FFMPEG_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CannotDraw(f"{path}: ffmpeg gave no frame within {FFMPEG_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CannotDraw(f"{path} cannot be decoded: ffmpeg says: {said[-1] if said else done.returncode}")
    return Image.open(io.BytesIO(done.stdout)).convert("RGB") if done.stdout else None
