"""Which videos each caller has uploaded. The bytes themselves are kept once, whoever sent them.

An empty file `claims/<caller>/<video>` in the store's folder or URL says that the caller has sent these very bytes.
Who sends what another has sent gets the same id, and learns nothing by that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import fsspec

from serve.keys import is_video_id
from serve.settings import Store
from serve.store import written


class Claims:
    """The functions block, as the store's do."""

    def __init__(self, store: Store) -> None:
        files, root = fsspec.core.url_to_fs(store.absolute)
        self._files: Any = files
        self._root = f"{root.rstrip('/')}/claims"
        self._max_age = store.max_age_seconds

    def add(self, caller: str, video: str) -> None:
        self._files.makedirs(f"{self._root}/{caller}", exist_ok=True)
        self._files.pipe_file(self._path(caller, video), b"")

    def has(self, caller: str, video: str) -> bool:
        """False, too, for a text that is no id."""
        return is_video_id(video) and bool(self._files.exists(self._path(caller, video)))

    def drop(self, caller: str, video: str) -> bool:
        """Whether nobody else claims the video now."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(caller, video))
        return not any(self.has(other, video) for other in self._names(self._root))

    def of(self, caller: str, held: Iterable[str]) -> list[str]:
        """Those of the videos `held` that the caller has sent, sorted. Old claims to what is gone are forgotten."""
        there, oldest = set(held), time.time() - self._max_age
        claimed = {info["name"].rsplit("/", 1)[-1]: info for info in self._infos(f"{self._root}/{caller}")}
        for name, info in claimed.items():
            if name not in there and written(info) < oldest:  # a young one may be of an upload that is just arriving
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(info["name"])
        return sorted(there & claimed.keys())

    def _path(self, caller: str, video: str) -> str:
        return f"{self._root}/{caller}/{video}"

    def _names(self, folder: str) -> list[str]:
        return [info["name"].rstrip("/").rsplit("/", 1)[-1] for info in self._infos(folder)]

    def _infos(self, folder: str) -> list[dict[str, Any]]:
        self._files.invalidate_cache(folder)
        try:
            return list(self._files.ls(folder, detail=True))
        except FileNotFoundError:
            return []
