"""What `dsr` prints for people: answers and videos as tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence

from .._models import Answer, Video

__all__ = ["answer_table", "columns", "video_table"]

BAR_CHARS = 20
_VIDEO_HEAD = ("id", "seconds", "fps", "size", "frames", "MB")


def answer_table(answer: Answer, options: Sequence[str], *, with_text: bool = True) -> str:
    """The options with their probabilities, or the free answer, then what each stage took.

    `with_text=False` leaves out a free answer, which was printed while it was made.
    """
    parts = [_options(answer, options)] if answer.choice is not None else [answer.text] if with_text else []
    if answer.timings:
        parts.append(_stages(answer))
    used = answer.usage
    parts.append(
        f"{answer.model}, {answer.video.frames} frames of {answer.video.duration:.1f} s, "
        f"{used.prompt_tokens} tokens in ({used.video_tokens} of video, {used.geometry_tokens} of geometry), "
        f"{used.completion_tokens} out; {answer.id}"
    )
    return "\n\n".join(parts)


def video_table(videos: Sequence[Video]) -> str:
    if not videos:
        return "no videos"
    return columns([_VIDEO_HEAD, *map(_video_row, videos)], right=(1, 2, 3, 4, 5))


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of equal length, aligned; the columns of the indices in `right` at their right edge."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _options(answer: Answer, options: Sequence[str]) -> str:
    rows = []
    for index, (letter, probability) in enumerate(answer.probabilities.items()):
        chosen = answer.choice is not None and letter == answer.choice.letter
        text = options[index] if index < len(options) else ""
        bar = "█" * round(BAR_CHARS * probability)
        rows.append(("→" if chosen else " ", letter, f"{probability:.1%}", bar, text))
    return columns(rows, right=(2,))


def _stages(answer: Answer) -> str:
    rows = [("stage", "seconds", "cache", "worked from … to")]
    for stage, seconds in answer.timings.items():
        span = answer.spans.get(stage)
        when = f"{span.start:.3f} … {span.end:.3f} s" if span is not None else ""
        rows.append((stage, f"{seconds:.3f}", answer.cache.get(stage, ""), when))
    return columns(rows, right=(1,))


def _video_row(video: Video) -> tuple[str, ...]:
    size = "" if video.bytes is None else f"{video.bytes / 1e6:.1f}"
    return (
        video.id,
        f"{video.duration:.1f}",
        f"{video.fps:.2f}",
        f"{video.width}x{video.height}",
        str(video.frames),
        size,
    )
