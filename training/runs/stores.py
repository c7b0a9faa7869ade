"""Makes the scenes of a run before it starts, on all cores, and says how far it is."""

from __future__ import annotations

import sys
from pathlib import Path

from training.data.book import printed
from training.data.processes import process_pool
from training.data.scenes import GROUP, SceneStore


def prepared(store: SceneStore, groups: int, processes: int, tokenizer: Path | None = None) -> None:
    """The first `groups` groups of the store are there afterwards: their pictures, or, with a tokenizer, also their
    questions. Group by group: a run may start with the first ones while another one makes more.
    """
    done = [store.directory / f"{_last(group, tokenizer)}.pt" for group in range(groups)]
    missing = [group for group, path in enumerate(done) if not path.exists()]
    if not missing:
        return
    with process_pool(processes) as pool:
        count = len(missing)
        for ready, _ in enumerate(pool.map(_make, [store] * count, missing, [tokenizer] * count), 1):
            sys.stderr.write(f"\rscenes: {ready} of {count} groups in {store.directory}" + "\n" * (ready == count))
            sys.stderr.flush()


def _last(group: int, tokenizer: Path | None) -> str:
    """The file that is made last of a group."""
    return f"{tokenizer.name}-{group:05d}" if tokenizer else f"chunk-{GROUP * (group + 1) - 1:05d}"


def _make(store: SceneStore, group: int, tokenizer: Path | None) -> None:
    if tokenizer is None:
        for number in range(GROUP):
            store.chunk(group * GROUP + number)
    else:
        printed(store, group, tokenizer)
