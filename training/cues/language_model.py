"""A language model behind any OpenAI-compatible server, which is asked for JSON."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

KEY = "OPENAI_API_KEY"  # in the environment: a key in the arguments could be read by every user of the machine


@dataclass(frozen=True)
class LanguageModel:
    client: httpx.Client
    name: str

    @classmethod
    def connect(cls, url: str, name: str, key: str | None = None, timeout: float = 120.0) -> Self:
        """`url` ends with `/v1`; `timeout` in seconds. Without a `key` that of the environment, if there is one."""
        key = key or os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return cls(httpx.Client(base_url=url.rstrip("/") + "/", headers=headers, timeout=timeout), name)

    def ask(self, rules: str, told: str, most_tokens: int) -> str:
        """What it says, as steadily as it can. httpx.HTTPError when it says nothing."""
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": told}]
        body = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": most_tokens}
        response = self.client.post("chat/completions", json=body)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()


def object_in(text: str, video: str) -> dict[str, Any]:
    """The JSON object in what a model says, whatever it says around it. ValueError, which names the video."""
    found = re.search(r"\{.*\}", text, re.S)
    try:
        data = json.loads(found[0] if found else "")
    except json.JSONDecodeError:
        raise ValueError(f"{video}: the language model answered {text[:80]!r}, expected JSON") from None
    return dict(data)
