"""How many replicas a stage should have, by the work that it has and not by how many requests there are.

A request is no measure: a cold clip of 32 frames is a thousand times a cached one. Each replica reports its `work` in
its stage's own unit (`record_autoscaling_stats`) and, where it has a memory that fills up, how `full` that is:

| stage         | work                                       |
|---------------|--------------------------------------------|
| frames        | videos that wait or are decoded            |
| encoder       | patches that wait or are encoded           |
| selector      | questions that wait or are selected for    |
| decoder       | answers that wait or are written; `full`   |
| reconstructor | patches that wait or are reconstructed     |

Ray averages these over a few seconds, asks `ByWork`, and applies the delays of the settings to what it says.
"""

from __future__ import annotations

import math
from typing import Any

WORK, FULL = "work", "full"
FULL_ENOUGH = 0.9  # of the memory for keys and values: beyond it, answers wait for room
SLACK = 0.8  # of the target: below it a replica less would do, so that a load at a border makes no flapping


class ByWork:
    """A deployment's policy: the replicas that the work needs when each has `target` of it, in the stage's unit."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """`ctx`: Ray Serve's AutoscalingContext. The number wanted, and no state."""
        now = ctx.target_num_replicas
        metrics = ctx.aggregated_metrics or {}
        work = sum(metrics.get(WORK, {}).values())
        if not metrics.get(WORK):  # nobody has reported yet
            return now, {}
        # Calls that have not reached a replica are worth what those that have are worth.
        reached = ctx.total_running_requests
        waiting = ctx.total_queued_requests * (work / reached if reached >= 1 and work else self.target)
        needed = (work + waiting) / self.target
        full = metrics.get(FULL, {})
        if full:
            needed = max(needed, sum(full.values()) / FULL_ENOUGH)
        if needed > now:
            return math.ceil(needed), {}
        return min(now, max(1, math.ceil(needed / SLACK))), {}
