"""`python -m deploy.capacity --times FILE --rate 10 --p95 5`: how many replicas of each stage, and what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deploy.capacity.model import STAGES, Load, Times
from deploy.capacity.plan import plan


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__)
    parser.add_argument(
        "--times", type=Path, required=True, help="JSON: seconds of each stage, as deploy/capacity/*.json"
    )
    parser.add_argument("--rate", type=float, nargs="+", default=[10.0], help="questions per second")
    parser.add_argument("--per-clip", type=float, default=2.6, help="questions about a clip, on average")
    parser.add_argument("--gap", type=float, default=10.0, help="seconds between them, on average")
    parser.add_argument(
        "--p95", type=float, default=10.0, help="seconds within which 95 %% of the answers must be there"
    )
    parser.add_argument("--price", action="append", default=[], metavar="STAGE=COST", help="of a replica, per hour")
    given = parser.parse_args()
    prices = dict(price.split("=", 1) for price in given.price)
    if unknown := set(prices) - set(STAGES):
        parser.error(f"--price {sorted(unknown)[0]}=…: no such stage; {', '.join(STAGES)}")
    fields = json.loads(given.times.read_text())
    times = Times(**{name: value for name, value in fields.items() if not name.startswith("_")})
    for rate in given.rate:
        try:
            found = plan(
                times, Load(rate, given.per_clip, given.gap), given.p95, {s: float(p) for s, p in prices.items()}
            )
        except ValueError as error:
            parser.error(str(error))
        sys.stdout.write(found.row() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
