"""New settings are rolled out under load, and nobody notices."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from dsr_client import AsyncClient

from tests.processes import replicas
from tests.soak.conftest import STAGES, Start
from tests.soak.figures import hand_over_tally
from tests.soak.load import OPTIONS, PATIENT, asking, known
from tests.typed import typed

pytestmark = pytest.mark.soak


def test_a_rolling_redeploy_of_every_stage_loses_no_request(start: Start, tmp_path: Path) -> None:
    url = start(**{stage: {"replicas": 2} for stage in STAGES})
    asyncio.run(_redeploy(url, tmp_path))


async def _redeploy(url: str, root: Path) -> None:
    async with AsyncClient(url, retries=PATIENT) as client:
        questions = await known(client, 3, [(OPTIONS, False), ((), False), ((), True)])
        before = {stage: replicas(stage) for stage in STAGES}
        async with asking(client, questions, clients=3) as tally:
            await asyncio.sleep(2)
            await asyncio.to_thread(_roll_out, url, root)
            await asyncio.to_thread(_until_gone, before)
            await asyncio.sleep(2)
    print(f"\nevery replica replaced: {tally}")
    hand_over_tally("redeploy", tally)
    assert (tally.failed, tally.wrong) == ([], [])
    assert tally.seconds


def _until_gone(before: dict[str, set[int]]) -> None:
    while any(before[stage] & replicas(stage) for stage in STAGES):
        time.sleep(0.5)


def _roll_out(url: str, root: Path) -> None:
    """Every stage gets another setting, which only a new replica can have; the ingress listens where it did."""
    from ray import serve

    from serve.app import build
    from serve.local import APP, LOOPBACK, read_settings
    from serve.settings import Listen

    store = {"url": str(root / "store"), "max_bytes": 400_000_000}
    settings = typed(read_settings(Path("deploy/serve-local.yaml"), store=store))
    update = {stage: getattr(settings, stage).model_copy(update={"replicas": 2, "max_ongoing": 60}) for stage in STAGES}
    listen = Listen(host=LOOPBACK, port=int(url.rpartition(":")[2]))
    update["ingress"] = update["ingress"].model_copy(update={"listen": listen})
    serve.run(build(settings.model_copy(update=update)), name=APP, route_prefix="/")
