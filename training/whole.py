"""Files that are there whole or not at all, whoever stops their writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name to write to, beside `path`; it becomes `path` at once when nothing went wrong.

    The process is part of the name, so that two that make the same file do not write into each other's.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    yield unfinished
    os.replace(unfinished, path)
