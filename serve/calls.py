"""Calls between stages: once more when a replica dies under them, and with the errors that the other side meant.

What Ray Serve 2.60 raises where the caller awaits, and what becomes of it here:

| raised                                             | means                                        | here           |
|----------------------------------------------------|----------------------------------------------|----------------|
| RayTaskError, and a subclass of the error's type   | the replica's code raised; `cause` is it     | the cause      |
| RayActorError, ObjectLostError, … (`LOST`)         | replica, node or result is gone              | called again   |
| ObjectRefStreamEndOfStreamError, or CancelledError | something on the other side cancelled the    | called again   |
|   though nobody cancelled the caller               | method while it ran                          |                |
| BackPressureError                                  | this caller has max_queued_requests waiting  | Busy           |
| DeploymentUnavailableError                         | the stage failed to deploy                   | NotReady       |
| RayServeException from a RayActorError             | an argument's own call died                  | StageLost      |

and by value (`call`), where there is no RayTaskError and the code's error comes as it is:

| AioRpcError, or RuntimeError "Unexpected error (…" | the connection broke, or a message too large | called again   |

A call about a clip names it, and `serve.routing` sends it to the replica that holds the clip.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from grpc.aio import AioRpcError
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    ObjectRefStreamEndOfStreamError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RpcError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)

from serve.errors import Busy, NotReady, StageLost
from serve.keys import ClipKey

LOST = (
    RayActorError,
    ObjectLostError,
    ObjectRefStreamEndOfStreamError,
    NodeDiedError,
    OutOfMemoryError,
    WorkerCrashedError,
    RpcError,
    ReplicaUnavailableError,
    AioRpcError,
)
BACKOFF_SECONDS = 0.05


async def call(
    method: Any, *args: Any, clip: ClipKey | str | None = None, attempts: int = 3, by_value: bool = False
) -> Any:
    """The result of `method.remote(*args)`, where `method` is a method of a `DeploymentHandle`.

    `clip` is what the call is about: calls with the same go to the same replica, see `serve.routing`.
    `by_value` is for arguments and results of less than 4 MiB together: they go from process to process by gRPC, in
    about half the time of a call through Ray's object store.

    Only for methods that may run twice: a call whose replica dies is made again, `attempts` times in all; while the
    stage has no replica, it waits for one. An error that the method raised arrives as it was raised, with its own type
    and attributes, and is not tried again. A cancelled caller cancels the call, which a bare `await` of the response
    does not. There is no time limit: put `asyncio.timeout` around it.

    Raises:
        StageLost: every attempt lost its replica.
        Busy: the stage's queue is full.
        NotReady: the stage is not deployed.
    """
    by_reference = _about(method, clip)
    method = _by_value(by_reference) if by_value else by_reference
    lost: BaseException | None = None
    for attempt in range(attempts):
        await _pause(attempt)
        response = method.remote(*args)
        try:
            return await response
        except (Exception, asyncio.CancelledError) as error:
            lost = _lost(error, method, response)
            method = by_reference
    raise StageLost(f"{_name(method)} lost its replica {attempts} times", value=attempts) from lost


@dataclass(frozen=True)
class Again:
    """In a stream: the replica was lost, and what follows begins anew."""


async def stream(
    method: Any, *args: Any, clip: ClipKey | str | None = None, attempts: int = 3, by_value: bool = False
) -> AsyncGenerator[Any, None]:
    """What `method` yields, a method of a handle with `options(stream=True)`; otherwise as `call`.

    When the call is made again, `Again` comes before what the new one yields. Closing the generator cancels the call.
    """
    by_reference = _about(method, clip)
    method = _by_value(by_reference) if by_value else by_reference
    lost: BaseException | None = None
    for attempt in range(attempts):
        await _pause(attempt)
        if attempt:
            yield Again()
        response = method.remote(*args)
        try:
            async for item in response:
                yield item
            return
        except GeneratorExit:
            _cancel(response)
            raise
        except (Exception, asyncio.CancelledError) as error:
            lost = _lost(error, method, response)
            method = by_reference
    raise StageLost(f"{_name(method)} lost its replica {attempts} times", value=attempts) from lost


def _about(method: Any, clip: ClipKey | str | None) -> Any:
    return method if clip is None else method.options(session_id=str(clip))


def _by_value(method: Any) -> Any:
    """For the first attempt only: by reference Ray learns that a replica is dead, and any size passes."""
    return method.options(_by_reference=False)


async def _pause(attempt: int) -> None:
    if attempt:
        await asyncio.sleep(BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5))


def _lost(error: BaseException, method: Any, response: Any) -> BaseException:
    """The error, when it says that the replica was lost; any other is raised as what it means."""
    if isinstance(error, asyncio.CancelledError):
        if _is_cancelled():
            _cancel(response)
            raise error
    elif not (isinstance(error, LOST) or _is_broken_off(error)) or isinstance(error, RayTaskError):
        raise _meant(error, _name(method)) from error  # which holds the other side's traceback, for the log
    return error


def _is_broken_off(error: BaseException) -> bool:
    """A connection that broke before Ray could say what it means: it says that in a bare RuntimeError."""
    return type(error) is RuntimeError and str(error).startswith("Unexpected error (StatusCode.")


def _meant(error: BaseException, stage: str) -> BaseException:
    """The error that the other side meant."""
    while isinstance(error, RayTaskError) and error.cause is not None and error.cause is not error:
        error = error.cause
    if isinstance(error, BackPressureError):
        return Busy(f"the queue of {stage} is full", retry_after=error.retry_after_s)
    if isinstance(error, DeploymentUnavailableError):
        return NotReady(f"{stage} is not deployed")
    if isinstance(error, RayActorError) or (
        isinstance(error, RayServeException) and isinstance(error.__cause__, RayActorError)
    ):
        return StageLost(f"what {stage} was to work on was lost with its replica")
    return error


def _is_cancelled() -> bool:
    """Whether somebody cancelled the running task, as against a CancelledError that came with a result."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cancel(response: Any) -> None:
    # A call that has failed meanwhile raises here what it failed with; the caller, cancelled, no longer wants to know.
    with contextlib.suppress(Exception):
        response.cancel()


def _name(method: Any) -> str:
    return str(method.deployment_name)
