"""`python -m deploy.capacity --times FILE --rate 10 --p95 5`: how many replicas of each stage, and what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.capacity.model import STAGES, Load, Times
from deploy.capacity.plan import plan


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__)
    parser.add_argument(
        "--times", type=_times, required=True, help="JSON: seconds of each stage, as in deploy/capacity"
    )
    parser.add_argument("--rate", type=float, nargs="+", default=[10.0], help="questions per second")
    parser.add_argument("--per-clip", type=float, default=2.6, help="questions about a clip, on average")
    parser.add_argument("--gap", type=float, default=10.0, help="seconds between them, on average")
    parser.add_argument(
        "--p95", type=float, default=10.0, help="seconds within which 95 %% of the answers must be there"
    )
    parser.add_argument(
        "--price", type=_price, action="append", default=[], metavar="STAGE=COST", help="of a replica, per hour"
    )
    given = parser.parse_args(arguments)
    for rate in given.rate:
        try:
            found = plan(given.times, Load(rate, given.per_clip, given.gap), given.p95, dict(given.price))
        except ValueError as error:
            parser.error(str(error))
        sys.stdout.write(found.row() + "\n")
    return 0


def _times(text: str) -> Times:
    """Names that begin with a line are remarks."""
    try:
        fields = json.loads(Path(text).read_text(encoding="utf-8"))
        return Times(**{name: float(value) for name, value in fields.items() if not name.startswith("_")})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"{text} holds no times: {error}") from None


def _price(text: str) -> tuple[str, float]:
    stage, _, cost = text.partition("=")
    if stage not in STAGES:
        raise argparse.ArgumentTypeError(f"{text}: no such stage; {', '.join(STAGES)}")
    try:
        return stage, float(cost)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected {stage}=COST, a number") from None


if __name__ == "__main__":
    sys.exit(main())
