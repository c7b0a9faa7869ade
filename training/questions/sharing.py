"""Which videos hang together, because some of their questions share their options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from training.questions.records import Record


def together(records: Iterable[Record]) -> dict[str, list[str]]:
    """Parts of the videos of which none shares options with another part, each by the name of one of its videos."""
    root: dict[str, str] = {}

    def find(video: str) -> str:
        while root[video] != video:
            video = root[video]
        return video

    first: dict[str, str] = {}  # group of options -> its first video
    for record in records:
        root.setdefault(record.videoID, record.videoID)
        if record.extras:
            root[find(first.setdefault(record.extras.group, record.videoID))] = find(record.videoID)
    parts: dict[str, list[str]] = defaultdict(list)
    for video in root:
        parts[find(video)].append(video)
    return dict(parts)
