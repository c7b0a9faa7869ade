"""The parent's side: videos in, clips out, each decoded by a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from models.errors import InputError, NotAVideo, OutOfLimits, Undecodable
from models.video import Clip, Limits, Sampling, VideoFacts
from serve.errors import StageLost
from serve.sandbox.claims import Failed, Frames, Lie, understand
from serve.sandbox.launcher import ENTRY, Child, Launcher, SandboxError
from serve.sandbox.wire import MAX_ANSWER, Job, frame_bytes
from serve.trace import Stopwatch

T = TypeVar("T")

MiB = 1024**2
log = logging.getLogger(__name__)


class Bounds(Protocol):
    """`serve.settings.Sandbox`."""

    @property
    def deadline_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def videos_per_child(self) -> int: ...
    @property
    def require_seccomp(self) -> bool: ...


class Pool:
    """Decodes up to `children` videos at a time; who comes later waits in the order of coming. For one event loop.

    There is always one child more than may work, so that no request waits for a start. A child that was too slow, died,
    lied, found damage or lost its caller is killed at once, any other after its share of videos.
    """

    def __init__(self, bounds: Bounds, children: int, entry: str = ENTRY) -> None:
        """Takes seconds. SandboxError when children cannot be started, or not be confined as `bounds` require."""
        self._bounds = bounds
        self._children = children
        self._slots = asyncio.Semaphore(children)
        self._launcher = Launcher(entry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        self._ready: deque[Future[Child]] = deque()
        self._failure: SandboxError | None = None
        self.refused: Counter[str] = Counter()  # videos, by why: a refusal's code, or how the child ended
        self._end = weakref.finalize(self, _abandon, self._launcher, self._thread, self._ready)
        try:
            self._thread.submit(self._launcher.begin).result()
            if not self._launcher.filtered:
                _unfiltered(bounds.require_seccomp)
            self._ready.extend(self._thread.submit(self._launcher.start) for _ in range(children + 1))
            for starting in self._ready:
                starting.result()
        except BaseException:
            self.close()
            raise

    async def read(self, file: BinaryIO, sampling: Sampling, limits: Limits, watch: Stopwatch | None = None) -> Clip:
        """`models.video.read` of a real file, which may be closed when this returns. `watch` gets the time of the work.

        Raises what that raises; Undecodable, too, when decoding takes more than the sandbox allows or does not survive.
        StageLost when no child can be had.
        """
        async with self._answered(file, sampling, limits, watch or Stopwatch()) as (child, said):
            if not isinstance(said, Frames):
                raise _broken()
            # A copy: the next clip comes to the same place.
            frames = await asyncio.to_thread(_copy, os.dup(child.memory), said.shape)
            return Clip(frames, said.times, said.facts, said.sampled, sampling)

    async def probe(self, file: BinaryIO, limits: Limits, watch: Stopwatch | None = None) -> VideoFacts:
        """`models.video.probe` of a real file; raises what `read` does."""
        async with self._answered(file, None, limits, watch or Stopwatch()) as (_, said):
            if not isinstance(said, VideoFacts):
                raise _broken()
            return said

    def check(self) -> None:
        """SandboxError when the last attempt to start a child failed."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Ends every process. What is under way fails."""
        if self._end.detach() is not None:
            _close(self._launcher, self._thread, self._ready)

    @asynccontextmanager
    async def _answered(
        self, file: BinaryIO, sampling: Sampling | None, limits: Limits, watch: Stopwatch
    ) -> AsyncIterator[tuple[Child, VideoFacts | Frames]]:
        """The answer, and the child that gave it, which may have the next job when the caller is done with its memory.
        Any exception is the end of the child, unless it is the child's own word that the file is no such video."""
        async with self._slots:
            with _reopened(file) as video:
                # Children end with their zygote, which no video can reach: then another one has the job.
                for _ in range(self._children + 2):
                    child, good = await self._take(), False
                    try:
                        with watch.running():
                            job, descriptors = self._job(child, sampling, limits, video)
                            answer = await self._ask(child, job, descriptors)
                            if answer is not None:
                                yield child, self._understood(answer, job)
                                good = True
                                return
                    except (NotAVideo, OutOfLimits):
                        good = True
                        raise
                    finally:
                        self._give_back(child, good)
        raise StageLost("the processes that decode videos end as soon as they start")

    def _job(self, child: Child, sampling: Sampling | None, limits: Limits, video: int) -> tuple[Job, list[int]]:
        """What the child is told, and the descriptors that it needs for it."""
        bounds = self._bounds
        size = frame_bytes(sampling, limits) if sampling is not None else 0
        if size <= child.frame_bytes:
            size = 0
        else:
            child.share(size)
        child.videos += 1
        job = Job(limits, sampling, size, bounds.memory_bytes, bounds.cpu_seconds, bounds.videos_per_child)
        return job, [video, child.memory] if size else [video]

    def _give_back(self, child: Child, good: bool) -> None:
        """A good child has the next job, unless it has had its share; in place of another, one is started."""
        if not self._end.alive:  # closed meanwhile, which ended the child
            child.close()
        elif good and child.videos < self._bounds.videos_per_child:
            again: Future[Child] = Future()
            again.set_result(child)
            self._ready.appendleft(again)  # the one whose memory is touched already goes first
        else:
            self._submit(self._launcher.end, child)
            self._ready.append(self._submit(self._launcher.start))

    async def _take(self) -> Child:
        """A child that stands ready. There are always more of them, or of those that start, than slots."""
        if not self._ready:
            raise StageLost("the sandbox is closed")
        starting = self._ready.popleft()
        try:
            try:
                child = await asyncio.shield(asyncio.wrap_future(starting))
            except SandboxError:  # which may be long ago
                starting = self._submit(self._launcher.start)
                child = await asyncio.shield(asyncio.wrap_future(starting))
        except asyncio.CancelledError:
            self._ready.appendleft(starting)
            raise
        except SandboxError as error:
            self._ready.append(starting)
            self._failure = error
            log.error("no decoder can be started: %s", error)
            raise StageLost("no process can be started to decode the video") from None
        self._failure = None
        return child

    async def _ask(self, child: Child, job: Job, descriptors: list[int]) -> bytes | None:
        """What the child answers. Undecodable when it does not; None when it is not to blame."""
        seconds = self._bounds.deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await _exchange(child, job, descriptors)
            if answer != b"":
                return answer
            status = await asyncio.wrap_future(self._submit(self._launcher.end, child))
        except TimeoutError:
            log.warning("a decoder was killed after %s s", seconds)
            self.refused["deadline"] += 1
            message = f"decoding the video takes longer than {seconds:g} s, which is the limit"
            raise Undecodable(message, field="video", limit=seconds) from None
        if status is None:
            return None
        raise self._died(status)

    def _died(self, status: int) -> Undecodable:
        if status == -signal.SIGXCPU:
            seconds = self._bounds.cpu_seconds
            self.refused["processor_time"] += 1
            message = f"decoding the video takes more than {seconds} s of processor time, which is the limit"
            return Undecodable(message, field="video", limit=seconds)
        self.refused["died"] += 1
        log.warning("a decoder died: %s", signal.strsignal(-status) if status < 0 else f"exit code {status}")
        return _broken()

    def _understood(self, answer: bytes, job: Job) -> VideoFacts | Frames:
        try:
            said = understand(answer, job.sampling, job.limits)
        except Lie as lie:
            log.warning("a decoder lied: %s", lie)
            self.refused["lied"] += 1
            raise _broken() from None
        if isinstance(said, InputError):
            self.refused[said.code] += 1
            raise said
        if isinstance(said, Failed):
            if said.memory:
                limit = self._bounds.memory_bytes // MiB
                self.refused["memory"] += 1
                message = f"decoding the video takes more than {limit} MiB of memory, which is the limit"
                raise Undecodable(message, field="video", limit=limit)
            log.warning("a decoder failed: %s", said.what)
            self.refused["failed"] += 1
            raise _broken()
        return said

    def _submit(self, work: Callable[..., T], *args: object) -> Future[T]:
        try:
            return self._thread.submit(work, *args)
        except RuntimeError:
            raise StageLost("the sandbox is closed") from None


async def _exchange(child: Child, job: Job, descriptors: list[int]) -> bytes | None:
    """The child's answer, empty when it ends instead; None when it had ended before it got the job."""
    try:
        socket.send_fds(child.channel, [job.to_json()], descriptors)
    except OSError:
        return None
    try:
        return await asyncio.get_running_loop().sock_recv(child.channel, MAX_ANSWER + 1)
    except ConnectionError:
        return b""


def _unfiltered(required: bool) -> None:
    """Said once a replica."""
    if required:
        raise SandboxError("the kernel takes no filter of system calls, which the settings require")
    log.warning("the kernel takes no filter of system calls; decoders are confined by the other bounds alone")


def _broken() -> Undecodable:
    return Undecodable("the video cannot be decoded", field="video")


@contextmanager
def _reopened(file: BinaryIO) -> Iterator[int]:
    """A descriptor of the same file, for reading only and with a place of its own."""
    descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(memory: int, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of `shape` from the start of the shared memory, which is large enough. Closes the descriptor."""
    frames = np.empty(shape, np.uint8)
    flat, done = frames.reshape(-1).data, 0
    try:
        while done < len(flat):
            done += os.preadv(memory, [flat[done:]], done)
    finally:
        os.close(memory)
    return frames


def _abandon(launcher: Launcher, thread: ThreadPoolExecutor, ready: deque[Future[Child]]) -> None:
    """For a pool that was forgotten, or at the end of the interpreter. The garbage collector may call this anywhere,
    also within a lock of the executors' module: so nothing is submitted, and no thread waited for."""
    launcher.close()
    thread.shutdown(wait=False)
    for starting in ready:
        if starting.done() and not starting.cancelled() and starting.exception() is None:
            starting.result().close()
    ready.clear()


def _close(launcher: Launcher, thread: ThreadPoolExecutor, ready: deque[Future[Child]]) -> None:
    try:
        thread.submit(launcher.close)
    except RuntimeError:  # the interpreter ends, and threads did before
        launcher.close()
    thread.shutdown(wait=True)
    for starting in ready:
        if not starting.cancelled() and starting.exception() is None:
            starting.result().close()
    ready.clear()
