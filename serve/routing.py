"""Routing by clip in Ray Serve: `serve.ring` over the replicas of a stage.

A caller names the clip with `serve.calls.call(method, ..., clip=key)`, which travels as the handle's `session_id`. Each
process that calls a stage has one router for it, and all of them see the same ring, because it is made of the replicas'
names. `options(session_id=...)` makes a new handle around the same router, which takes 19 µs where a whole call takes
6 ms (2 cores, ray 2.60); the choice takes 15 µs with 3 replicas and 35 µs with 16. Ray fills `session_id` from a
client's HTTP header only for the ingress, which does not use this router.

What a router knows of a replica's load is the larger of two figures: the requests that it has there itself, which is
exact, and the queue that the replica reported within the last second, with those of other callers; it reports with each
request that it accepts. So with one caller the bound holds exactly, with several as far as the reports are fresh. Ray
keeps a report for 10 s, and one that comes after answers it should have counted is too high until the next: a burst
that is over would keep clips away from their replica for so long, and nothing sent there would correct it.

A replica that died is out as soon as one request has found it dead, before Serve's health check; one that does not
answer is asked again before each request, and passed over. Ray 2.60 keeps this class by value in the deployment's
config, together with its arguments, the fields of `serve.settings.Routing`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from serve.ring import Bound, Ring, for_anyone, for_clip

REPORT_SECONDS = 1.0  # a queue as reported is true for


class ClipRouter(RequestRouter):
    """A clip's requests go to the replica that holds it, within a bound of load; others to the less loaded of two."""

    # A replica of which nothing was heard for 10 s is asked for its queue first. Ray's 0.1 s for the answer is too
    # short for one that computes on a busy machine, and passing it over costs the computation of all about the clip.
    queue_len_response_deadline_s = 0.5

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: Counter[ReplicaID] = Counter()
        self._assigned: dict[asyncio.Future[RunningReplica], ReplicaID] = {}
        self._reported: dict[ReplicaID, float] = {}  # when
        self._random = random.Random()

    def initialize_state(self, *, factor: float, slack: int, virtual_nodes: int) -> None:
        self._bound = Bound(factor, slack)
        self._virtual_nodes = virtual_nodes
        self._ring = Ring((), virtual_nodes)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each. Ray takes the first that has a free place, and asks again after a while."""
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        loads = self._loads(candidate_replicas)
        clip = ""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # else Ray asks again without a pause
            clip = pending_request.metadata.session_id
        best = for_clip(self._ring.walk(clip), loads, self._bound) if clip else for_anyone(loads, self._random)
        return [[replicas[name]] for name in best]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        there = {replica.replica_id for replica in replicas}
        self._reported = {replica: when for replica, when in self._reported.items() if replica in there}
        names = {replica.unique_id for replica in there}
        if names != self._ring.members:
            self._ring = Ring(names, self._virtual_nodes)

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._reported[replica_id] = time.monotonic()

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Comes once for each request, however it ended."""
        super().on_request_completed(replica_id, internal_request_id)
        if self._sent[replica_id] > 1:
            self._sent[replica_id] -= 1
        else:
            del self._sent[replica_id]

    def _loads(self, replicas: list[RunningReplica]) -> dict[str, int]:
        own = self._sent + Counter(self._assigned.values())
        fresh = time.monotonic() - REPORT_SECONDS
        loads = {}
        for replica in (replica.replica_id for replica in replicas):
            reported = self._reported.get(replica, fresh) > fresh
            queue = (self.replica_queue_len_cache.get(replica) or 0) if reported else 0
            loads[replica.unique_id] = max(own[replica], queue)
        return loads

    # Between Ray's choice for a request and its `on_send_request` others are chosen for. With a burst that is all of
    # them, and the bound would see none, so that a request counts from the choice on.

    def _fulfill_next_pending_request(self, replica: RunningReplica, request_metadata: Any = None) -> None:
        for pending in self._pending_requests_to_fulfill:
            if pending.metadata is request_metadata and not pending.future.done():
                self._assigned[pending.future] = replica.replica_id
                # Ray finds it by an id that all calls share which are made on behalf of one request. Of two that wait
                # at the same time it would know the first only, and the second would wait for ever.
                self._pending_requests_by_id[request_metadata.internal_request_id] = pending
                break
        super()._fulfill_next_pending_request(replica, request_metadata)

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        try:
            return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        finally:
            self._assigned.pop(pending_request.future, None)
