"""Which things to look for in a video: a fixed list, a file of captions or names, or a language model that is asked.

A file is JSON. Under the name of a video (with or without suffix) stands either a caption, whose words are compared
with the list, or `{"agents": [...], "objects": [...]}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.cues.estimators import Facts, Footage, Names
from training.cues.language_model import LanguageModel, object_in

AGENTS = (
    "person", "man", "woman", "child", "dog", "cat", "horse", "cow", "sheep", "bird", "elephant", "bear", "monkey",
    "car", "truck", "bus", "van", "motorcycle", "bicycle", "train", "airplane", "helicopter", "boat", "robot", "drone",
)  # fmt: skip
OBJECTS = (
    "ball", "frisbee", "kite", "balloon", "skateboard", "surfboard", "suitcase", "backpack", "box", "bag", "bottle",
    "cup", "bowl", "plate", "knife", "book", "laptop", "phone", "chair", "table", "door", "umbrella", "cart", "bucket",
    "hat",
)  # fmt: skip
COMMON = Names(AGENTS, OBJECTS)
LONGEST_NAME, MOST_NAMES = 40, 40
RULES = (
    'List what can be seen moving or standing in a video, as JSON {"agents": [...], "objects": [...]}. Agents '
    "have a front: people, animals, vehicles. Nouns in the singular, one or two words each, no places."
)
MOST_TOKENS = 256


@dataclass(frozen=True)
class Listed:
    """The same names for every video."""

    names: Names = COMMON

    @property
    def facts(self) -> Facts:
        return {"kind": "list", "agents": list(self.names.agents), "objects": list(self.names.objects)}

    def __call__(self, footage: Footage) -> Names:
        return self.names


@dataclass(frozen=True)
class Captioned:
    """Names from a file. A caption gives those of `known` that it speaks of, one or many of each."""

    entries: Mapping[str, str | Names]
    known: Names = COMMON
    facts: Facts = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Captioned:
        """ValueError when the file is no object of captions or names; it names the video."""
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(
                f"{path.name} holds a {type(data).__name__}, expected an object: a video's name -> caption"
            )
        entries = {
            Path(name).stem: text if isinstance(text, str) else parsed(text, name) for name, text in data.items()
        }
        return cls(entries, facts={"kind": "captions", "file": path.name})

    def __call__(self, footage: Footage) -> Names:
        """ValueError when the file has no such video, or its caption none of the names."""
        entry = self.entries.get(footage.name)
        if entry is None:
            raise ValueError(f"the captions have no video {footage.name!r}")
        names = entry if isinstance(entry, Names) else self._spoken_of(entry)
        if not names.all:
            raise ValueError(f"the caption of {footage.name!r} names nothing of the list")
        return names

    def _spoken_of(self, caption: str) -> Names:
        def found(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name in names if _plural(name).search(caption.lower()))

        return Names(found(self.known.agents), found(self.known.objects))


@dataclass(frozen=True)
class Asked:
    """A language model, told the caption. Off unless it is asked for."""

    captions: Mapping[str, str]
    model: LanguageModel
    facts: Facts

    @classmethod
    def of(cls, model: LanguageModel, captions: Path) -> Asked:
        """ValueError when the captions are no texts."""
        data = json.loads(captions.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
            raise ValueError(f"{captions.name} must be an object of captions to ask a language model about them")
        stems = {Path(name).stem: text for name, text in data.items()}
        return cls(stems, model, {"kind": "language model", "model": model.name, "file": captions.name})

    def __call__(self, footage: Footage) -> Names:
        """ValueError when the model's answer holds no names; httpx.HTTPError when there is none."""
        if footage.name not in self.captions:
            raise ValueError(f"the captions have no video {footage.name!r}")
        text = self.model.ask(RULES, self.captions[footage.name], MOST_TOKENS)
        return parsed(object_in(text, footage.name), footage.name)


def parsed(data: Any, video: str) -> Names:
    """ValueError unless `data` is `{"agents": [names], "objects": [names]}` with at least one short name."""
    parts = []
    for what in ("agents", "objects"):
        names = data.get(what, []) if isinstance(data, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{video}: {what} must be a list of names")
        cleaned = tuple(dict.fromkeys(re.sub(r"[^\w\s-]", "", name).strip().lower() for name in names))
        if len(cleaned) > MOST_NAMES or any(not 0 < len(name) <= LONGEST_NAME for name in cleaned):
            raise ValueError(f"{video}: {what} must be at most {MOST_NAMES} names of at most {LONGEST_NAME} characters")
        parts.append(cleaned)
    agents, objects = parts
    if not agents and not objects:
        raise ValueError(f"{video}: there is no name among its agents and objects")
    return Names(agents, tuple(name for name in objects if name not in agents))


def _plural(name: str) -> re.Pattern[str]:
    odd = {"person": "people|person", "man": "men|man", "woman": "women|woman", "child": "children|child",
           "sheep": "sheep", "knife": "knives|knife", "box": "boxes|box", "bus": "buses|bus"}  # fmt: skip
    return re.compile(rf"\b(?:{odd.get(name, f'{name}s?')})\b")
