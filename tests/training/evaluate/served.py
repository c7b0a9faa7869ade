"""The service's real HTTP routes and video store on loopback, the plain model behind them in place of Ray's stages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn
from prometheus_client import Metric

from models.prompt import build_chat, letter_ids
from models.video import Sampling, VideoFacts, probe, read
from models.vlm import VisionLanguageModel, choice_answer
from serve.api import create_app
from serve.messages import Ask, Reply, Report, Said, Seen
from serve.settings import Ingress
from serve.store import VideoStore
from serve.trace import Made


class Plain:
    """A backend that decodes, encodes, selects and answers anew for every question."""

    def __init__(self, model: VisionLanguageModel, store: VideoStore) -> None:
        self.model, self.store = model, store

    async def answer(self, ask: Ask) -> Made[Reply]:
        return await asyncio.to_thread(self._answer, ask)

    async def probe(self, video: str) -> VideoFacts:
        with self.store.open(video) as file:
            return probe(file)

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        yield await self.answer(ask)

    async def flush(self, video: str | None = None) -> None:
        """Nothing is kept."""

    async def edges(self) -> Sequence[Sequence[Metric]]:
        return []

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        return {}

    async def ready(self) -> Sequence[str]:
        return ["decoder"]

    def _answer(self, ask: Ask) -> Made[Reply]:
        with self.store.open(ask.clip.video) as file:
            clip = read(file, Sampling.parse(ask.clip.sampling))
        inputs = self.model.compose(clip, build_chat(self.model.tokenizer, ask.turns), ask.geometry)
        seen = Seen(clip.facts, clip.times)
        if not ask.options:
            [ids] = self.model.decoder.generate([inputs], ask.max_tokens)
            return Made(Reply(self.model.tokenizer.decode(ids), None, seen, 0, 0, len(inputs.embeds), len(ids)))
        letters = letter_ids(self.model.tokenizer, len(ask.options))
        answer = choice_answer(self.model.decoder.choose([inputs], [letters])[0], len(inputs.embeds))
        return Made(Reply(answer.text, answer.probabilities, seen, 0, 0, answer.prompt_tokens, 1))


@contextmanager
def running(checkpoint: str, folder: Path) -> Iterator[str]:
    """The service's URL."""
    model, store = VisionLanguageModel.load(checkpoint), VideoStore(str(folder), 10_000_000, 3600)
    app = create_app(Plain(model, store), store, model.config, Ingress())
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
