"""Stages on three hosts: questions go across them, replicas come and go while they do, and a host loses its power.

The first host is Ray's head and has ingress and frames; each of the others has room for one replica of every stage with
a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dsr_client import AsyncClient

from tests.deploy.manifests import ROOT
from tests.soak import hosts as machines
from tests.soak.figures import hand_over, hand_over_tally
from tests.soak.hosts import SHARED, Cluster, Host, hosts, resources, until
from tests.soak.load import OPTIONS, PATIENT, Tally, asking, known

pytestmark = [pytest.mark.soak, pytest.mark.skipif(bool(machines.missing()), reason=machines.missing())]

EDGE, MODEL = ("ingress", "frames"), ("encoder", "selector", "decoder")
LONGEST = 400.0  # seconds for a start of eight replicas on three hosts, which share two cores here


def test_stages_on_three_hosts_answer_change_and_bear_the_loss_of_one(tmp_path: Path) -> None:
    with ExitStack() as stack:
        edge, left, right = stack.enter_context(hosts(3, tmp_path))
        edge.ray("--head", "--port=6379", "--dashboard-host=0.0.0.0", *_room(EDGE))
        cluster = stack.enter_context(Cluster(edge))
        until(lambda: edge.address in cluster.nodes(), "the head answers", LONGEST)
        for host in (left, right):
            _join(host, edge)
        until(lambda: len(cluster.nodes()) == 3, "three hosts", LONGEST)
        cluster.deploy(_arguments())
        whole = {stage: [edge.address] for stage in EDGE}
        whole |= {stage: [left.address, right.address] for stage in MODEL}
        seconds = until(lambda: cluster.placed() == whole, "every stage on its hosts", LONGEST)
        hand_over("s", hosts_placed=seconds)
        print(f"\nplaced after {seconds:.0f} s: {whole}")
        asyncio.run(_under_load(cluster, edge, left, right, whole))


def _room(stages: tuple[str, ...]) -> tuple[str, ...]:
    return ("--num-cpus=6", "--object-store-memory=150000000", "--disable-usage-stats", resources(stages))


def _join(host: Host, head: Host) -> None:
    host.ray(f"--address={head.address}:6379", *_room(MODEL))


def _arguments(encoders: int = 2) -> dict[str, Any]:
    """A replica asks for more than half of what a host has of its stage, so that two of them are on two hosts."""
    counts = {"ingress": 1, "frames": 1, "encoder": encoders, "selector": 2, "decoder": 2}
    stages: dict[str, dict[str, Any]] = {
        name: {"replicas": count, "resources": {f"stage-{name}": 0.6}} for name, count in counts.items()
    }
    stages["ingress"]["access"] = {"open": True}
    return {"checkpoint": str(ROOT / "models" / "tiny"), "store": {"url": f"{SHARED}/videos"}, **stages}


async def _under_load(cluster: Cluster, edge: Host, left: Host, right: Host, whole: dict[str, list[str]]) -> None:
    async def settled(ready: Callable[[], bool], what: str) -> float:
        seconds = await asyncio.to_thread(until, ready, what, LONGEST)
        print(f"{what}: after {seconds:.0f} s; {tally}", flush=True)
        return seconds

    tally = Tally()
    async with AsyncClient(f"http://{edge.address}:8000", retries=PATIENT, timeout=300) as client:
        questions = await known(client, 6, [(OPTIONS, False), ((), False), ((), True)])
        async with asking(client, questions, clients=3) as tally:
            await asyncio.sleep(10)
            print(f"across three hosts: {tally}", flush=True)
            cluster.deploy(_arguments(encoders=1))
            await settled(lambda: len(cluster.placed().get("encoder", [])) == 1, "one encoder fewer")
            cluster.deploy(_arguments(encoders=2))
            await settled(lambda: cluster.placed() == whole, "one encoder more")
            await asyncio.to_thread(right.lose_power)
            known_gone = await settled(
                lambda: cluster.nodes() == {edge.address, left.address}, "Ray knows that a host is gone"
            )
            await settled(lambda: cluster.hosts() == {edge.address, left.address}, "so does Serve")
            await asyncio.sleep(15)
            print(f"on two hosts: {tally}", flush=True)
            right.come_back()
            await asyncio.to_thread(_join, right, edge)
            back = await settled(lambda: cluster.placed() == whole, "all replicas are back")
            await asyncio.sleep(10)
    print(f"in the end: {tally}")
    hand_over("s", hosts_known_gone=known_gone, hosts_back=back)
    hand_over_tally("hosts", tally)
    assert (tally.failed, tally.wrong) == ([], [])
    assert len(tally.seconds) > 50
