"""The page as a folder: `index.html` with all that is shown in it, `clips/` with the videos, nothing from elsewhere.

Text from the data only ever becomes text: it stands in the page as JSON in which no `<` is left, and the script makes
text nodes of it. The content policy lets no other script run, and sends nothing anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.sets import find
from training.questions.cues import Cues
from training.questions.records import Record
from training.review.items import clip, items
from training.scenes.clips import read_cues
from training.whole import replacing

FILE = "index.html"
CLIPS = "clips"
KNOWN = "set.json"


def write(records: Sequence[Record], videos: Path, cues: Path, out: Path, title: str) -> list[str]:
    """Makes the folder `out`; decisions that are in it stay. Returns what is missing, a line for each video.

    A video's cues are `cues/NAME.json`, a record of `training.cues` or what scenes write. Without cues a clip is shown
    without boxes and paths.

    Raises:
        ValueError: no question has a video, or a file of cues is none.
    """
    (out / CLIPS).mkdir(parents=True, exist_ok=True)
    clips: dict[str, Any] = {}
    known: dict[str, Cues] = {}
    missing: list[str] = []
    for number, name in enumerate(sorted({record.videoID for record in records})):
        video = find(videos, name)
        if video is None:
            missing.append(f"{name}: there is no such video")
            continue
        told = cues / f"{Path(name).stem}.json"
        if told.is_file() and told.resolve().is_relative_to(cues.resolve()):
            known[name] = _cues(told)
        else:
            missing.append(f"{name}: there are no cues")
        # A name of our own: one from the data could be any address.
        address = f"{CLIPS}/{number}{video.suffix.lower()}"
        _place(video, out / address)
        clips[name] = clip(address, known.get(name))
    shown = items((record for record in records if record.videoID in clips), known)
    if not shown:
        raise ValueError(f"no question has a video in {videos}")
    page = _page(title, {"title": title, "items": shown, "clips": clips})
    ids = json.dumps({"title": title, "ids": [item["id"] for item in shown]}) + "\n"
    for file, text in ((FILE, page), (KNOWN, ids)):
        with replacing(out / file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return missing


def known_ids(folder: Path) -> frozenset[str]:
    """Of the questions of a page. ValueError when there is no page."""
    try:
        return frozenset(json.loads((folder / KNOWN).read_text(encoding="utf-8"))["ids"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no page of questions ({error})") from None


def _cues(path: Path) -> Cues:
    """Arrays lie beside the records of `training.cues`; those of rendered scenes are in the file itself."""
    try:
        if not path.with_suffix(".npz").is_file():
            return read_cues(path)
        from training.cues.record import read  # and with it torch, which takes seconds

        return read(path).cues
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no cues ({type(error).__name__}: {error})") from None


def _page(title: str, data: Mapping[str, Any]) -> str:
    own = Path(__file__).parent
    style, script = ((own / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    parts = {
        "title": html.escape(title),
        "policy": (
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; media-src 'self' file:; "
            "img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    page = (own / "page.html").read_text(encoding="utf-8")
    before, *pieces = page.split("{{")
    # One pass: what is put in is never looked through for more places.
    return before + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _place(video: Path, where: Path) -> None:
    """The same file under another name where the disk can have it, else a copy."""
    where.unlink(missing_ok=True)
    try:
        os.link(video.resolve(), where)
    except OSError:
        shutil.copyfile(video, where)
