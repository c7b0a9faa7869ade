"""What is let in, what waits for how long, and who goes first; the clock is the tests' own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path

import httpx
import pytest

from models.config import FramesConfig
from models.layout import recognise
from models.video import Sampling
from serve.admission.costs import Costs
from serve.admission.gate import Capacity, Gate
from serve.api import create_app
from serve.errors import Busy
from serve.keys import ClipKey
from serve.messages import Ask, Reply, Said
from serve.settings import Admission, Ingress
from serve.store import VideoStore
from serve.trace import Made, Work
from tests.serve.backends import REPLY, VIDEO, SpeakingBackend

CAPACITY = Capacity(patches=1000, answers=4, waiting=100, wait_seconds=10)


class Crowd:
    """Requests at one gate: each takes its turn as a task, is noted when let in, and leaves when it is told to."""

    def __init__(self, capacity: Capacity = CAPACITY) -> None:
        self.now = 0.0
        self.gate = Gate(capacity, clock=lambda: self.now)
        self.inside: list[str] = []
        self.refused: dict[str, Busy] = {}
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, patches: float = 0, caller: str = "", seconds_left: float = math.inf) -> None:
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._turn(name, patches, caller, seconds_left))
        await self.settle()

    async def go(self, name: str, after: float = 0.0) -> None:
        self.now += after
        self._leave[name].set()
        await self.settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _turn(self, name: str, patches: float, caller: str, seconds_left: float) -> None:
        try:
            async with self.gate.turn(caller, patches, seconds_left):
                self.inside.append(name)
                await self._leave[name].wait()
                self.inside.remove(name)
        except Busy as busy:
            self.refused[name] = busy


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(test())


def test_as_many_answers_as_there_is_room_for_and_the_next_in_order() -> None:
    async def test() -> None:
        crowd = Crowd()
        for name in "abcdef":
            await crowd.come(name)
        assert crowd.inside == ["a", "b", "c", "d"]
        assert crowd.gate.load == (2, 4)
        await crowd.go("b")
        await crowd.go("a")
        assert crowd.inside == ["c", "d", "e", "f"]

    run(test)


def test_patches_are_bounded_and_a_small_one_does_not_overtake_a_large_one_for_ever() -> None:
    async def test() -> None:
        crowd = Crowd()
        await crowd.come("a", 600)
        await crowd.come("large", 500)
        await crowd.come("small", 10)
        assert crowd.inside == ["a"]
        await crowd.go("a")
        assert crowd.inside == ["large", "small"]

    run(test)


def test_what_is_larger_than_the_whole_capacity_goes_alone() -> None:
    async def test() -> None:
        crowd = Crowd()
        await crowd.come("huge", 5000)
        await crowd.come("small", 1)
        assert crowd.inside == ["huge"]
        await crowd.go("huge")
        await crowd.come("huge again", 5000)
        assert crowd.inside == ["small"]
        await crowd.go("small")
        assert crowd.inside == ["huge again"]

    run(test)


def test_callers_take_turns_by_their_work() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=100, wait_seconds=10))
        crowd.gate._known_rate = 1.0
        await crowd.come("first", caller="greedy")
        for number in range(20):
            await crowd.come(f"greedy {number}", caller="greedy")
        assert set(crowd.refused) == {f"greedy {number}" for number in range(10, 20)}
        await crowd.come("modest 0", caller="modest")
        await crowd.come("modest 1", caller="modest")
        assert not {"modest 0", "modest 1"} & set(crowd.refused), "the queue of another is not theirs"
        order = []
        for _ in range(5):
            [inside] = crowd.inside
            order.append(inside)
            await crowd.go(inside, after=1)
        assert order == ["first", "modest 0", "greedy 0", "modest 1", "greedy 1"]

    run(test)


def test_a_wait_that_is_too_long_is_refused_with_the_time_when_it_will_not_be() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=100, wait_seconds=10))
        await crowd.come("0")
        for number in range(1, 5):  # one answer in two seconds
            await crowd.come(str(number))
            await crowd.go(str(number - 1), after=2)
        for number in range(5, 9):
            await crowd.come(str(number))
        assert crowd.gate.wait_seconds() == pytest.approx(10)
        await crowd.come("9")
        await crowd.come("one too many")
        busy = crowd.refused["one too many"]
        assert busy.retry_after == pytest.approx(2)
        assert "for about 12 s" in str(busy)
        with pytest.raises(Busy):
            crowd.gate.knock("")
        await crowd.go("4", after=2)
        await crowd.come("in time")
        assert "in time" not in crowd.refused

    run(test)


def test_who_has_less_time_than_the_wait_is_refused_at_once() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=100, wait_seconds=100))
        await crowd.come("0")
        for number in range(1, 5):
            await crowd.come(str(number))
            await crowd.go(str(number - 1), after=2)
        await crowd.come("5")
        await crowd.come("hurried", seconds_left=3)
        await crowd.come("patient", seconds_left=30)
        assert set(crowd.refused) == {"hurried"}

    run(test)


def test_after_a_pause_the_rate_of_before_is_known_still() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=100, wait_seconds=10))
        await crowd.come("0")
        for number in range(1, 5):  # one answer in two seconds
            await crowd.come(str(number))
            await crowd.go(str(number - 1), after=2)
        await crowd.go("4", after=2)
        crowd.now += 3600
        for number in range(20):
            await crowd.come(f"burst {number}")
        assert len(crowd.refused) == 14, "one at work and five that wait ten seconds, as measured an hour ago"

    run(test)


def test_what_failed_is_no_work_that_was_finished() -> None:
    async def test() -> None:
        crowd = Crowd()
        for name in "abcd":
            await crowd.come(name)
        for name in "abc":
            await crowd.go(name, after=1.0)
        known = crowd.gate._rate()
        for _ in range(50):  # a replica is gone, and all that is sent there fails at once
            with pytest.raises(LookupError):
                async with crowd.gate.turn("", 0, math.inf):
                    raise LookupError
        assert crowd.gate._rate() == known == 0.25

    run(test)


def test_before_a_rate_is_known_few_may_wait() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=64, waiting=100, wait_seconds=10))
        for number in range(12):
            await crowd.come(str(number), 500)
        assert (len(crowd.inside), len(crowd.refused)) == (2, 2), "eight wait, four times what is worked on"

    run(test)


def test_the_queue_is_bounded_even_before_a_rate_is_known() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=3, wait_seconds=10))
        for number in range(6):
            await crowd.come(str(number))
        assert (crowd.gate.load, set(crowd.refused)) == ((3, 1), {"4", "5"})
        assert (crowd.refused["5"].value, crowd.refused["5"].limit) == (3, 3)

    run(test)


def test_who_leaves_the_queue_makes_room_and_who_is_cancelled_inside_too() -> None:
    async def test() -> None:
        crowd = Crowd(Capacity(patches=1000, answers=1, waiting=100, wait_seconds=10))
        for name in ("a", "b", "c", "d"):
            await crowd.come(name)
        await crowd.cancel("b")
        await crowd.cancel("a")
        assert (crowd.inside[-1], crowd.gate.load) == ("c", (1, 1))
        # let in and cancelled in the same moment, before its task has run again
        crowd._leave["c"].set()
        await asyncio.sleep(0)
        crowd._tasks["d"].cancel()
        await crowd.settle()
        assert crowd.gate.load == (0, 0)
        await crowd.come("e", 1000)
        assert crowd.inside[-1] == "e", "nothing is held by those who have gone"

    run(test)


def ask(video: str = VIDEO, geometry: bool = True, frames: int = 8) -> Ask:
    return Ask(ClipKey(video, Sampling(count=frames, max_pixels=19_600).key()), (), (), geometry, 8)


def expected(costs: Costs, question: Ask) -> float:
    with costs.expecting(question) as patches:
        return patches


def test_a_question_costs_the_patches_of_its_clip_until_the_stages_have_them() -> None:
    costs = Costs(FramesConfig(patch_size=14, spatial_merge=2, temporal_patch=2), warm=1)
    assert expected(costs, ask()) == 8 * 100
    with costs.expecting(ask()):
        assert expected(costs, ask()) == 0, "they share one clip's work"
        assert expected(costs, ask(geometry=False)) == 800, "but not that of the encoder"
    costs.learn(ask(), Made(REPLY))
    assert expected(costs, ask()) == 0
    costs.learn(ask("vid_" + "1" * 64), Made(REPLY))
    assert expected(costs, ask()) == REPLY.video_tokens * 8, "forgotten by the stages, but its size is known now"


def test_when_stages_forget_what_they_should_remember_it_costs_again() -> None:
    costs = Costs(FramesConfig(patch_size=14, spatial_merge=2, temporal_patch=2))
    size = REPLY.video_tokens * 8
    forgotten, remembered = (Made(REPLY, {"decoder": Work(1.0, cache)}) for cache in ("miss", "hit"))
    costs.learn(ask(), forgotten)  # the first time is no surprise
    assert expected(costs, ask()) == 0
    for _ in range(50):
        costs.learn(ask(), forgotten)
    assert expected(costs, ask()) > 0.9 * size
    for _ in range(50):
        costs.learn(ask(), remembered)
    assert expected(costs, ask()) < 0.1 * size


class Slow(SpeakingBackend):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def answer(self, ask: Ask) -> Made[Reply]:
        await self.go.wait()
        return Made(REPLY)

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        yield Said("It ")
        await self.go.wait()
        yield Made(REPLY)


def test_a_full_service_says_429_with_a_time_on_both_routes_and_before_the_body(tmp_path: Path) -> None:
    async def test() -> None:
        backend, model = Slow(), recognise(Path("models/tiny")).model
        settings = Ingress(admission=Admission(answers=1, waiting=1))
        app = create_app(backend, VideoStore(str(tmp_path), 1_000_000, 3600), model, settings)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        body = {"video": {"id": VIDEO}, "question": "?"}
        read = []

        async def large() -> AsyncGenerator[bytes, None]:
            read.append(1)
            yield b"{"

        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            first = asyncio.create_task(http.post("/v1/answers", json={**body, "stream": True}))
            second = asyncio.create_task(http.post("/v1/answers", json=body))
            for _ in range(200):
                await asyncio.sleep(0.005)
                if 'dsr_admission_requests{state="waiting"} 1.0' in (await http.get("/metrics")).text:
                    break
            third = await http.post("/v1/answers", content=large(), headers={"content-type": "application/json"})
            chat = {
                "model": "dsr-tiny",
                "messages": [{"role": "user", "content": [
                    {"type": "video_url", "video_url": {"url": f"dsr://{VIDEO}"}}, {"type": "text", "text": "?"}]}],
            }  # fmt: skip
            fourth = await http.post("/v1/chat/completions", json=chat)
            backend.go.set()
            assert [(await first).status_code, (await second).status_code] == [200, 200]
        for refused, code in ((third, third.json()["code"]), (fourth, fourth.json()["error"]["code"])):
            assert (refused.status_code, code) == (429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
        assert not read

    run(test)
