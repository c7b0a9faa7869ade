"""A deployment under a load, as discrete events: what waits where, and for how long.

    question ─► edge ─┬─ clip unknown ─► frames ─┬─► prefix (decoder) ──────────────┬─► answer (decoder)
                      │                          └─► encoder ─► memory (selector) ─┐│
                      └─ clip known ────────────────────────► select (selector) ───┘┘

Every replica does one thing at a time, in the order of coming, but for what goes together in one pass: questions at the
selector and answers at the decoder, whose pass costs a fixed part and a part for each. The decoder takes turns between
answers and the next chunk of a clip. A clip belongs to one replica of each stage. Where all share the cores of one
machine (a laptop), they go on at the same speed, and the edge takes its part of them (`cores.py`).
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from deploy.capacity.cores import SharedCores

STAGES = ("frames", "encoder", "selector", "decoder")


@dataclass(frozen=True)
class Times:
    """Seconds of one replica. `*_clip`: for a clip that is new to it; `*_pass` and `*_each`: of a pass over questions,
    and for each in it; `edge`: of a request outside all stages (HTTP, calls between processes), which has cores of its
    own where stages have, and nobody waits in line for it; `decoder_chunk`: of a clip in the decoder, before answers
    have their turn (`decoder.chunk_tokens`)."""

    frames_clip: float
    encoder_clip: float
    selector_clip: float
    selector_pass: float
    selector_each: float
    decoder_clip: float
    decoder_pass: float
    decoder_each: float
    edge: float = 0.0
    decoder_chunk: float = 0.1


@dataclass(frozen=True)
class Load:
    """`rate` questions per second, as many independent people ask (Poisson); `per_clip` questions about a clip on
    average, `gap` seconds between them on average."""

    rate: float
    per_clip: float = 2.6
    gap: float = 10.0


@dataclass(frozen=True)
class Deployment:
    """Replicas of each stage; `cores`: of the one machine that all share, None where each has its own. `together`:
    most questions of a pass."""

    frames: int = 1
    encoder: int = 1
    selector: int = 1
    decoder: int = 1
    cores: float | None = None
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


def arrivals(load: Load, seconds: float, seed: int = 0) -> list[tuple[float, int]]:
    """Questions within `seconds`, as (when, number of the clip), in the order of coming."""
    draw, at, clips, found = random.Random(seed), 0.0, itertools.count(), list[tuple[float, int]]()
    while (at := at + draw.expovariate(load.rate / load.per_clip)) < seconds:
        clip, moment = next(clips), at
        while True:  # geometric: at least one, `per_clip` on average
            found.append((moment, clip))
            if draw.random() < 1 / load.per_clip:
                break
            moment += draw.expovariate(1 / load.gap)
    return sorted(each for each in found if each[0] < seconds)


class Simulation:
    """`run` plays questions on a deployment; those of the first fifth of the time are not counted."""

    def __init__(self, times: Times, deployment: Deployment) -> None:
        self._times, self._deployment = times, deployment
        self._replicas = {stage: [_Replica() for _ in range(getattr(deployment, stage))] for stage in STAGES}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._cores = None if deployment.cores is None else SharedCores(deployment.cores, lambda: self._now, self._at)
        self._clips: dict[int, _Clip] = {}
        self._outcome = Outcome()
        self._open = 0

    def run(self, questions: Sequence[tuple[float, int]], seconds: float) -> Outcome:
        """`questions`: as `arrivals` gives them."""
        self._measured = seconds / 5
        for when, clip in questions:
            self._at(when, lambda clip=clip: self._come(clip))  # type: ignore[misc]
        while self._events and self._events[0][0] < seconds:
            self._now, _, event = heapq.heappop(self._events)
            event()
        self._outcome.unfinished = self._open
        for stage, replicas in self._replicas.items():
            self._outcome.busy[stage] = sum(r.busy for r in replicas) / (len(replicas) * seconds)
        return self._outcome

    def _at(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._order), event))

    def _come(self, number: int) -> None:
        """The edge reads the question before any stage hears of it."""
        if number not in self._clips:
            self._clips[number] = _Clip(random.Random(number).random())
        clip = self._clips[number]
        began, counted = self._now, self._now >= self._measured
        self._open += counted

        def answered(cold: bool) -> None:
            if counted:
                self._open -= 1
                (self._outcome.cold if cold else self._outcome.warm).append(self._now - began)

        self._spend(self._times.edge, lambda: self._ask(clip, answered))

    def _ask(self, clip: _Clip, then: Callable[[bool], None]) -> None:
        cold, clip.asked = not clip.asked, True

        def answered() -> None:
            then(cold)

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
        chunk = min(seconds, self._times.decoder_chunk) if stage == "decoder" else seconds
        self._submit(Task(stage, owner, kind, chunk, 0.0, done, rest=seconds - chunk))

    def _submit(self, task: Task) -> None:
        replica = self._replicas[task.stage][task.owner]
        replica.waiting.append(task)
        self._start(task.stage, replica)

    def _start(self, stage: str, replica: _Replica) -> None:
        if replica.working or not replica.waiting:
            return
        first = self._next(replica)
        batch = [task for task in replica.waiting if task.kind == first.kind][: self._deployment.together]
        for task in batch:
            replica.waiting.remove(task)
        seconds = first.fixed + sum(task.each for task in batch)
        began, replica.working = self._now, True

        def finish() -> None:
            replica.working, replica.busy = False, replica.busy + self._now - began
            self._finish(stage, replica, batch)

        self._spend(seconds, finish)

    def _spend(self, seconds: float, done: Callable[[], None]) -> None:
        """Seconds of a core: one's own, or of those that all share."""
        if self._cores is None:
            self._at(seconds, done)
        else:
            self._cores.work(seconds, done)

    @staticmethod
    def _next(replica: _Replica) -> Task:
        """In the order of coming, but answers and chunks of clips take turns."""
        other = (task for task in replica.waiting if (task.kind == "answer") != replica.answered)
        first = next(other, replica.waiting[0])
        replica.answered = first.kind == "answer"
        return first

    def _finish(self, stage: str, replica: _Replica, batch: list[Task]) -> None:
        for task in batch:
            if task.rest > 0:
                chunk = min(task.rest, self._times.decoder_chunk)
                replica.waiting.appendleft(replace(task, fixed=chunk, rest=task.rest - chunk))
            else:
                task.done()
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
