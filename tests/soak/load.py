"""Clients that go on asking, as people's programs do, and know what the answers must be."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dsr_client import Answer, AsyncClient, DsrError, Retries, Token

from tests.clips import make_clip

QUESTION = "How does the distance between the white square and the camera change?"
OPTIONS = ("Become larger.", "Become smaller.", "Keep nearly constant.", "Become smaller. Become larger.")
CLOSE = 1e-4  # of a probability: the same float32 sums in another order
PATIENT = Retries(count=12, first_pause=0.2, longest_pause=3.0)


@dataclass(frozen=True)
class Asked:
    """A question whose answer is known from a quiet run. Without options the answer is greedy text."""

    video: str
    options: tuple[str, ...]
    streamed: bool
    expected: Answer

    def is_right(self, answer: Answer) -> bool:
        if not self.options:
            return answer.text == self.expected.text
        return answer.text == self.expected.text and all(
            abs(p - self.expected.probabilities[letter]) < CLOSE for letter, p in answer.probabilities.items()
        )


@dataclass
class Tally:
    """What became of the requests. `failed` and `wrong` have what a person needs to look into one."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def late(self) -> float:
        """Seconds within which 99 % of the answers came."""
        ordered = sorted(self.seconds) or [0.0]
        return ordered[int(0.99 * (len(ordered) - 1))]

    def __str__(self) -> str:
        ordered = sorted(self.seconds) or [0.0]
        return (
            f"{len(self.seconds)} right, {len(self.wrong)} wrong, {len(self.failed)} lost; "
            f"median {ordered[len(ordered) // 2]:.2f} s, 99 % within {self.late:.2f} s"
        )


async def known(client: AsyncClient, clips: int, kinds: Sequence[tuple[tuple[str, ...], bool]]) -> list[Asked]:
    """Uploads `clips` different clips, and asks each kind of question (options, streamed) about each in peace."""
    found = []
    for number in range(clips):
        data = make_clip(None, seconds=1.0 + 0.2 * number, fps=10, size=(112 + 28 * (number % 3), 112))
        video = (await client.upload(data)).id
        for options, streamed in kinds:
            expected = await client.ask(video, QUESTION, options, max_tokens=12)
            found.append(Asked(video, options, streamed, expected))
    return found


async def ask(client: AsyncClient, asked: Asked) -> Answer:
    if not asked.streamed:
        return await client.ask(asked.video, QUESTION, asked.options, max_tokens=12)
    said = ""
    async with client.stream(asked.video, QUESTION, asked.options, max_tokens=12) as events:
        async for event in events:
            if isinstance(event, Token):
                said += event.text
            else:
                # What came in parts, perhaps from two decoders, is the whole.
                return event if asked.options or said.strip() == event.text else _broken(event, said)
    raise AssertionError("a stream ended without its answer")


def _broken(answer: Answer, said: str) -> Answer:
    raise AssertionError(f"the parts are {said!r}, the whole is {answer.text!r}")


@asynccontextmanager
async def asking(client: AsyncClient, questions: Sequence[Asked], clients: int) -> AsyncIterator[Tally]:
    """`clients` that ask one question after the other while the block runs; those under way are finished after it."""
    tally, over = Tally(), asyncio.Event()

    async def one(seed: int) -> None:
        draw = random.Random(seed)
        while not over.is_set():
            question, start = draw.choice(questions), time.perf_counter()
            try:
                answer = await ask(client, question)
            except (DsrError, AssertionError) as error:
                tally.failed.append(f"{question.video[:12]} streamed={question.streamed}: {error!r}")
                continue
            if question.is_right(answer):
                tally.seconds.append(time.perf_counter() - start)
            else:
                tally.wrong.append(f"{question.video[:12]}: {answer.text!r}, expected {question.expected.text!r}")

    tasks = [asyncio.create_task(one(seed)) for seed in range(clients)]
    try:
        yield tally
    finally:
        over.set()
        await asyncio.gather(*tasks)
