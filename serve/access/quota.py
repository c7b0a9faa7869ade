"""What each caller may still do now: requests and bytes by token buckets, and requests at a time.

The counts are those of one ingress replica, which allows its share of a caller's limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve.access.keyring import Caller, KeyLimits
from serve.errors import Busy

BURST_SECONDS = 10.0  # of requests that may come at once: a page load, a batch script's start
IDLE_SECONDS = 600.0  # after which a caller who has nothing under way is forgotten, all of whose buckets are full again


@dataclass
class _Account:
    """`requests` and `bytes`: what is left at `since`. Bytes may fall below zero: nobody is cut off in mid-upload,
    but waits the longer for the next one."""

    requests: float
    bytes: float
    since: float
    concurrent: int = 0


class Quotas:
    """For one event loop's thread. `replicas`: how many ingress replicas share a caller's limits."""

    def __init__(self, replicas: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas = replicas
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @contextmanager
    def request(self, caller: Caller) -> Iterator[Callable[[int], None]]:
        """Counts one request while it is under way; yields what is to be told of the bytes that it brings.

        Raises:
            Busy: a limit of this caller is reached; `retry_after` says when it no longer will be.
        """
        if caller.name is None:  # without keys there is nobody to be fair to
            yield lambda size: None
            return
        limits, account = caller.limits, self._account(caller.name, caller.limits)
        self._admit(caller.name, limits, account)
        account.requests -= 1
        account.concurrent += 1

        def bring(size: int) -> None:
            account.bytes -= size

        try:
            yield bring
        finally:
            account.concurrent -= 1

    def _admit(self, name: str, limits: KeyLimits, account: _Account) -> None:
        most = max(1, limits.concurrent // self._replicas)
        if account.concurrent >= most:
            raise Busy(
                f"{name} has {account.concurrent} requests under way here; the limit is {most}",
                field="concurrent",
                value=account.concurrent,
                limit=most,
            )
        if account.requests < 1:
            rate = self._rate(limits.requests_per_minute)
            raise Busy(
                f"{name} has used up its {limits.requests_per_minute:g} requests per minute",
                retry_after=(1 - account.requests) / rate,
                field="requests_per_minute",
                limit=limits.requests_per_minute,
            )
        if account.bytes <= 0:
            raise Busy(
                f"{name} has used up its {limits.bytes_per_minute} bytes per minute",
                retry_after=(1 - account.bytes) / self._rate(limits.bytes_per_minute),
                field="bytes_per_minute",
                limit=limits.bytes_per_minute,
            )

    def _account(self, name: str, limits: KeyLimits) -> _Account:
        now = self._clock()
        most_requests = max(1.0, self._rate(limits.requests_per_minute) * BURST_SECONDS)
        most_bytes = limits.bytes_per_minute / self._replicas
        account = self._accounts.get(name)
        if account is None:
            self._forget(now)
            account = self._accounts[name] = _Account(most_requests, most_bytes, now)
        passed = now - account.since
        account.requests = min(most_requests, account.requests + passed * self._rate(limits.requests_per_minute))
        account.bytes = min(most_bytes, account.bytes + passed * self._rate(limits.bytes_per_minute))
        account.since = now
        return account

    def _rate(self, per_minute: float) -> float:
        """Per second, of this replica."""
        return per_minute / 60 / self._replicas

    def _forget(self, now: float) -> None:
        idle = [name for name, a in self._accounts.items() if not a.concurrent and now - a.since > IDLE_SECONDS]
        for name in idle:
            del self._accounts[name]
