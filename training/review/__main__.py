"""A person looks at questions with their clips, and keeps or drops them.

    python -m training.review page questions.json --videos DIR --out review     # review/index.html
    python -m training.review serve review                                      # saves decisions as they are made
    python -m training.review apply questions.json review/decisions.jsonl --out reviewed.json

The page also works without the server, opened as a file: it remembers decisions in the browser and offers them as a
file. Boxes and paths come from the cues, NAME.json beside each video; --cues names another folder, such as the one that
`python -m training.cues` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.arguments import positive
from training.questions.records import Record, read, write
from training.review import decisions, page
from training.review.server import ReviewServer

NAMED = 10  # things that are missing


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"review: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _page(given: argparse.Namespace) -> None:
    records = _some(read(given.questions), given.items)
    missing = page.write(records, given.videos, given.cues or given.videos, given.out, given.questions.name)
    for line in missing[:NAMED]:
        sys.stderr.write(f"{line}\n")
    if len(missing) > NAMED:
        sys.stderr.write(f"and {len(missing) - NAMED} more\n")
    sys.stdout.write(f"{len(page.known_ids(given.out))} questions: {given.out / page.FILE}\n")


def _serve(given: argparse.Namespace) -> None:
    with ReviewServer(given.folder, given.port) as server:
        sys.stdout.write(f"{server.url} (Ctrl-C ends; decisions go to {given.folder / decisions.FILE})\n")
        sys.stdout.flush()
        server.serve_forever()


def _apply(given: argparse.Namespace) -> None:
    if not given.decisions.is_file():
        raise ValueError(f"there is no {given.decisions}")
    made = decisions.apply(read(given.questions), decisions.read(given.decisions), given.undecided, not given.alone)
    write(given.out, made.records)
    counts = ", ".join(f"{made.counts[name]} {name}" for name in ("keep", "drop", "undecided", "with their group"))
    sys.stdout.write(f"{len(made.records)} questions in {given.out}: {counts}; {made.unknown} of other sets\n")


def _some(records: Sequence[Record], most: int | None) -> Sequence[Record]:
    if most is None or most >= len(records):
        return records
    return [records[int(place)] for place in np.linspace(0, len(records) - 1, most)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.review", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("page", help="a folder with the page and the clips")
    make.set_defaults(run=_page)
    make.add_argument("questions", type=Path, help="our records or the public format, .json")
    make.add_argument("--videos", type=Path, required=True, help="the folder with the questions' videos")
    make.add_argument(
        "--cues",
        type=Path,
        help="the folder with NAME.json of each video; default: that of the videos",
    )
    make.add_argument("--out", type=Path, required=True, help="the folder to make")
    make.add_argument("--items", type=positive, help="at most this many questions, evenly from all")
    serve = commands.add_parser("serve", help="the page on this machine, decisions saved as they are made")
    serve.set_defaults(run=_serve)
    serve.add_argument("folder", type=Path, help="what `page` has made")
    serve.add_argument("--port", type=int, default=8123, help="0: any that is free")
    apply = commands.add_parser("apply", help="the set without what was dropped")
    apply.set_defaults(run=_apply)
    apply.add_argument("questions", type=Path)
    apply.add_argument("decisions", type=Path, help="decisions.jsonl")
    apply.add_argument("--out", type=Path, required=True, help=".json, in the form of our records")
    apply.add_argument("--undecided", choices=["keep", "drop"], default="keep", help="what nobody has decided")
    apply.add_argument("--alone", action="store_true", help="the three others of a dropped question's group stay")
    return parser


if __name__ == "__main__":
    sys.exit(main())
