"""`python -m tests.bench caches`: 200 different clips pass through small caches; none of these may outgrow its budget.

The budgets are some clips each, so that every cache evicts. After every tenth clip the service's own metrics are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from serve.local import read_settings, running, wait_until_ready
from serve.settings import MiB, Settings
from tests.bench.record import Record, median
from tests.bench.reference import OPTIONS, question
from tests.bench.service import unseen
from tests.processes import descendants

CLIPS = 200
EVERY = 10
BUDGETS = {"frames": 16 * MiB, "encoder": 8 * MiB, "selector": MiB, "decoder": 4 * MiB}
_LINE = re.compile(r'^dsr_cache_(\w+?)(?:_total)?{cache="(\w+)",stage="(\w+)"} (\S+)', re.M)


def measure(clip: Path, port: int, store: str) -> Iterator[Record]:
    video = clip.read_bytes()
    settings = read_settings(Path("deploy/serve-local.yaml"), store={"url": store})
    with running(_with_budgets(settings), port) as url, httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(url)
        seen, memory = [], []
        for number in range(CLIPS):
            body = {"question": question(number), "options": OPTIONS}
            files = {"video": ("clip.mp4", unseen(video, number))}
            client.post("/v1/answers", data=body, files=files).raise_for_status()
            if number % EVERY == EVERY - 1:
                seen.append(_caches(client))
                memory.append(_resident_mib())
    for name in seen[0]:
        most = max(moment[name]["bytes"] / moment[name]["max_bytes"] for moment in seen)
        yield median(f"cache_{name}_most_of_its_budget", [most], "share", "its max_bytes")
        yield median(f"cache_{name}_evictions", [seen[-1][name]["evictions"]], "values", f"{CLIPS} clips")
    yield median("memory_of_all_replicas_growth", [memory[-1] / memory[4]], "x", f"after {5 * EVERY} of {CLIPS} clips")


def _with_budgets(settings: Settings) -> Settings:
    changed = {name: getattr(settings, name).model_copy(update={"cache_bytes": size}) for name, size in BUDGETS.items()}
    changed["selector"] = changed["selector"].model_copy(update={"token_cache_bytes": MiB})
    return settings.model_copy(update=changed)


def _caches(client: httpx.Client) -> dict[str, dict[str, float]]:
    """`stage_cache` -> what /metrics tells of it."""
    found: dict[str, dict[str, float]] = {}
    for field, cache, stage, value in _LINE.findall(client.get("/metrics").text):
        found.setdefault(f"{stage}_{cache}", {})[field] = float(value)
    return found


def _resident_mib() -> float:
    """Of all replicas below this process."""
    replicas = [pid for pid, command in descendants().items() if "ray::ServeReplica" in command]
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in replicas]
    return sum(pages) * 4096 / MiB
