"""Makes the scenes of a run before it starts, on all cores, and says how far it is."""

from __future__ import annotations

import sys

from training.data.scenes import SceneStore


def prepared(store: SceneStore, groups: int, ask: bool, processes: int) -> None:
    """All `groups` groups of the store are there afterwards; what a run before left is used again."""

    def done(ready: int, all_: int) -> None:
        sys.stderr.write(f"\rscenes: {ready} of {all_} files in {store.directory}" + "\n" * (ready == all_))
        sys.stderr.flush()

    store.prepare(groups, ask, processes, done)
