"""The cheapest deployment that answers a load within a bound, found by giving replicas to whoever is busiest.

A large load is planned on a part of it: clips are independent, so that a thousandth of the load on a thousandth of the
replicas waits at least as long as the whole does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploy.capacity.model import STAGES, Deployment, Load, Outcome, Simulation, Times, arrivals

BUSY = 0.7  # of its time: what a stage's replicas may work on average before queues grow long
SEARCHED = 20.0  # questions per second that are simulated at most
SECONDS = 600.0
MOST_STEPS = 200


@dataclass(frozen=True)
class Plan:
    deployment: Deployment
    load: Load
    outcome: Outcome
    cost: float  # per hour, in the prices' unit

    def row(self) -> str:
        counts = " ".join(f"{stage} {getattr(self.deployment, stage)}" for stage in STAGES)
        busy = " ".join(f"{share:.0%}" for share in self.outcome.busy.values())
        times = f"median {self.outcome.median:.2f} s, p95 {self.outcome.quantile(0.95):.2f} s"
        return f"{self.load.rate:g}/s: {counts}; busy {busy}; {times}; {self.cost:,.2f}/h"


def demand(times: Times, load: Load) -> dict[str, float]:
    """Seconds of each stage's work in a second of the load: the fewest replicas that could do it."""
    cold = load.rate / load.per_clip
    return {
        "frames": cold * times.frames_clip,
        "encoder": cold * times.encoder_clip,
        "selector": cold * times.selector_clip + load.rate * (times.selector_pass + times.selector_each),
        "decoder": cold * times.decoder_clip + load.rate * (times.decoder_pass + times.decoder_each),
    }


def plan(times: Times, load: Load, p95: float, prices: Mapping[str, float], together: int = 16) -> Plan:
    """`p95`: seconds within which 95 % of the answers must be there; `prices`: of a replica of each stage, per hour.

    ValueError when even an idle deployment takes longer.
    """
    part = max(1.0, load.rate / SEARCHED)
    small = replace(load, rate=load.rate / part)
    need = demand(times, small)
    questions = arrivals(small, SECONDS)
    counts = {stage: max(1, math.ceil(need[stage] / BUSY)) for stage in STAGES}
    for _ in range(MOST_STEPS):
        deployment = Deployment(**counts, together=together)
        outcome = Simulation(times, deployment).run(questions, SECONDS)
        if outcome.quantile(0.95) <= p95:
            whole = Deployment(**{s: math.ceil(n * part) for s, n in counts.items()}, together=together)
            cost = sum(prices.get(stage, 0.0) * getattr(whole, stage) for stage in STAGES)
            return Plan(whole, load, outcome, cost)
        if max(outcome.busy.values()) < BUSY / 4:
            break
        busiest = max(STAGES, key=lambda stage: outcome.busy[stage])
        counts[busiest] += 1
    raise ValueError(f"p95 is {p95} s, which {load.rate:g} questions/s do not reach: a cold answer alone takes longer")
