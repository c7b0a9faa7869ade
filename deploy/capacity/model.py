"""A deployment under a load, as discrete events: what waits where, and for how long.

    question ─► edge ─┬─ clip unknown ─► frames ─┬─► prefix (decoder) ──────────────┬─► answer (decoder)
                      │                          └─► encoder ─► memory (selector) ─┐│
                      └─ clip known ────────────────────────► select (selector) ───┘┘

Every replica does one thing at a time, in the order of coming, but for what goes together in one pass: questions at the
selector and answers at the decoder, whose pass costs a fixed part and a part for each. The decoder takes turns between
answers and the next chunk of a clip. A clip belongs to one replica of each stage. Where stages share processor cores (a
laptop), no more of them work at a time than there are cores.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

CHUNK_SECONDS = 0.1  # of a clip in the decoder, before answers have their turn
STAGES = ("frames", "encoder", "selector", "decoder")


@dataclass(frozen=True)
class Times:
    """Seconds of one replica. `*_clip`: for a clip that is new to it; `*_pass` and `*_each`: of a pass over questions,
    and for each in it; `edge`: of a request outside all stages (HTTP, calls between processes), which nobody waits in
    line for."""

    frames_clip: float
    encoder_clip: float
    selector_clip: float
    selector_pass: float
    selector_each: float
    decoder_clip: float
    decoder_pass: float
    decoder_each: float
    edge: float = 0.0


@dataclass(frozen=True)
class Load:
    """`rate` questions per second, as many independent people ask (Poisson); `per_clip` questions about a clip on
    average, `gap` seconds between them on average."""

    rate: float
    per_clip: float = 2.6
    gap: float = 10.0


@dataclass(frozen=True)
class Deployment:
    """Replicas of each stage; `cores`: of the one machine that they share, None where each has its own. `together`:
    most questions of a pass."""

    frames: int = 1
    encoder: int = 1
    selector: int = 1
    decoder: int = 1
    cores: int | None = None
    together: int = 16


@dataclass
class Outcome:
    """Seconds of each answer, cold and warm apart; share of its time that each stage's replicas worked."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)
    unfinished: int = 0

    def quantile(self, q: float) -> float:
        """Of all answers; infinite when more than a hundredth of the questions were not answered in the time."""
        answers = sorted(self.cold + self.warm)
        if not answers or self.unfinished > 0.01 * (len(answers) + self.unfinished):
            return float("inf")
        return answers[min(len(answers) - 1, int(q * len(answers)))]

    @property
    def median(self) -> float:
        return statistics.median(self.cold + self.warm) if self.cold or self.warm else float("inf")


@dataclass(eq=False)
class Task:
    """Work for one replica. Tasks of one `kind` that wait may go together: `fixed` once, `each` for every one."""

    stage: str
    owner: int
    kind: str
    fixed: float
    each: float
    done: Callable[[], None] = lambda: None
    rest: float = 0.0  # seconds after this chunk


class _Replica:
    def __init__(self) -> None:
        self.waiting: deque[Task] = deque()
        self.working = False
        self.busy = 0.0
        self.answered = False  # in its last turn


class Simulation:
    """`run` plays `seconds` of the load after a warm-up of a fifth of it. The same seed gives the same run."""

    def __init__(self, times: Times, deployment: Deployment, load: Load, seed: int = 0) -> None:
        self._times, self._deployment, self._load = times, deployment, load
        self._draw = random.Random(seed)
        self._replicas = {stage: [_Replica() for _ in range(getattr(deployment, stage))] for stage in STAGES}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._cores = deployment.cores if deployment.cores is not None else 10**9
        self._stalled: deque[tuple[str, _Replica]] = deque()  # have work, but no core
        self._outcome = Outcome()
        self._open = 0

    def run(self, seconds: float) -> Outcome:
        clips = self._load.rate / self._load.per_clip
        self._measured = seconds / 5
        self._at(self._draw.expovariate(clips), lambda: self._new_clip(clips, seconds))
        while self._events and self._events[0][0] < seconds:
            self._now, _, event = heapq.heappop(self._events)
            event()
        self._outcome.unfinished = self._open
        for stage, replicas in self._replicas.items():
            self._outcome.busy[stage] = sum(r.busy for r in replicas) / (len(replicas) * seconds)
        return self._outcome

    def _at(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._order), event))

    def _new_clip(self, rate: float, end: float) -> None:
        self._at(self._draw.expovariate(rate), lambda: self._new_clip(rate, end))
        clip = _Clip(self._draw.random())
        at = 0.0
        # Geometric: at least one, `per_clip` on average.
        while True:
            self._at(at, lambda: self._ask(clip))
            if self._draw.random() < 1 / self._load.per_clip:
                return
            at += self._draw.expovariate(1 / self._load.gap)

    def _ask(self, clip: _Clip) -> None:
        began, cold = self._now, not clip.asked
        counted = began >= self._measured
        self._open += counted
        clip.asked = True

        def answered() -> None:
            if counted:
                self._open -= 1
                (self._outcome.cold if cold else self._outcome.warm).append(self._now - began + self._times.edge)

        times, join = self._times, _Join(2, lambda: self._give(clip, "decoder", "answer", answered))
        clip.when_known("prefix", join.one)
        clip.when_known("memory", lambda: self._give(clip, "selector", "select", join.one))
        if cold:

            def remember() -> None:
                self._clip_task(clip, "selector", times.selector_clip, lambda: clip.know("memory"))

            def after_frames() -> None:
                self._clip_task(clip, "decoder", times.decoder_clip, lambda: clip.know("prefix"))
                self._clip_task(clip, "encoder", times.encoder_clip, remember)

            self._clip_task(clip, "frames", times.frames_clip, after_frames)

    def _give(self, clip: _Clip, stage: str, kind: str, done: Callable[[], None]) -> None:
        fixed, each = getattr(self._times, f"{stage}_pass"), getattr(self._times, f"{stage}_each")
        self._submit(Task(stage, clip.owner(len(self._replicas[stage])), kind, fixed, each, done))

    def _clip_task(self, clip: _Clip, stage: str, seconds: float, done: Callable[[], None]) -> None:
        owner, kind = clip.owner(len(self._replicas[stage])), f"clip {next(self._order)}"
        chunk = min(seconds, CHUNK_SECONDS) if stage == "decoder" else seconds
        self._submit(Task(stage, owner, kind, chunk, 0.0, done, rest=seconds - chunk))

    def _submit(self, task: Task) -> None:
        replica = self._replicas[task.stage][task.owner]
        replica.waiting.append(task)
        self._start(task.stage, replica)

    def _start(self, stage: str, replica: _Replica) -> None:
        if replica.working or not replica.waiting:
            return
        if self._cores == 0:
            if (stage, replica) not in self._stalled:
                self._stalled.append((stage, replica))
            return
        first = self._next(replica)
        batch = [task for task in replica.waiting if task.kind == first.kind][: self._deployment.together]
        for task in batch:
            replica.waiting.remove(task)
        seconds = first.fixed + sum(task.each for task in batch)
        replica.working, replica.busy, self._cores = True, replica.busy + seconds, self._cores - 1
        self._at(seconds, lambda: self._finish(stage, replica, batch))

    @staticmethod
    def _next(replica: _Replica) -> Task:
        """In the order of coming, but answers and chunks of clips take turns."""
        other = (task for task in replica.waiting if (task.kind == "answer") != replica.answered)
        first = next(other, replica.waiting[0])
        replica.answered = first.kind == "answer"
        return first

    def _finish(self, stage: str, replica: _Replica, batch: list[Task]) -> None:
        replica.working, self._cores = False, self._cores + 1
        for task in batch:
            if task.rest > 0:
                chunk = min(task.rest, CHUNK_SECONDS)
                replica.waiting.appendleft(replace(task, fixed=chunk, rest=task.rest - chunk))
            else:
                task.done()
        if self._stalled:
            self._start(*self._stalled.popleft())
        self._start(stage, replica)


class _Clip:
    """A clip, and what is known of it so far."""

    def __init__(self, place: float) -> None:
        self._place = place
        self.asked = False
        self._known: set[str] = set()
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def owner(self, replicas: int) -> int:
        return int(self._place * replicas)

    def when_known(self, what: str, then: Callable[[], None]) -> None:
        if what in self._known:
            then()
        else:
            self._waiting.setdefault(what, []).append(then)

    def know(self, what: str) -> None:
        self._known.add(what)
        for then in self._waiting.pop(what, []):
            then()


class _Join:
    """Calls `then` when `count` things have happened."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left, self._then = count, then

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._then()
