"""`python -m training.cues FOLDER --out DIR`: from videos to cues, and with --questions to an audited set of questions.

    python -m training.cues VIDEOS --out cues --pi3 yyfz233/Pi3 --detector IDEA-Research/grounding-dino-base \\
        --masks facebook/sam2.1-hiera-large --orientation FOLDER --questions
    python -m training.cues CLIPS --out cues --estimators oracle --questions     # clips of `training.scenes write`
    python -m training.cues VIDEOS --out cues --estimators random                # tries the machinery, no weights

Exits with 0 when all is well; 1 when videos failed or the audit found a leak; 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from models.errors import CheckpointError
from training.arguments import positive
from training.cues import record
from training.cues.ask import Made, ask
from training.cues.extract import extract_all, videos
from training.cues.keep import TABLE, Table
from training.cues.loading import KINDS, Choice
from training.cues.settings import Settings
from training.progress import shown
from training.questions.engine import Plan
from training.questions.templates import TYPES

WEIGHTS = ("pi3", "detector", "masks", "orientation")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.of(dict(_pair(text) for text in given.set))
        errors = _extract(given, settings)
        found = list(record.read_all(given.out))
        _say(_summary(found, errors))
        made = _ask(given, found, settings) if given.questions else None
    except (ValueError, OSError, CheckpointError) as error:
        _say(f"cues: {error}")
        return 2
    except KeyboardInterrupt:
        _say("\ncues: stopped; the same command goes on")
        return 130
    leak = made is not None and made.report is not None and made.report.exit_code == 1
    return 1 if errors or leak else 0


def _extract(given: argparse.Namespace, settings: Settings) -> dict[str, str]:
    """By the name of a video what it ended with."""
    choice = Choice(
        kind=given.estimators,
        weights={name: getattr(given, name) for name in WEIGHTS},
        captions=given.captions,
        language_model=(given.language_model, given.model) if given.language_model else None,
        device=given.device,
        dtype=given.dtype,
    )
    paths = videos(given.folder)
    done = extract_all(paths, given.out, choice.load, settings, given.workers)
    errors = {one.name: one.error for one in shown(done, len(paths), "videos") if one.error is not None}
    record.keep_errors(given.out, errors)
    return errors


def _ask(given: argparse.Namespace, found: list[record.CuesRecord], settings: Settings) -> Made:
    table = Table.load(given.noise_table)
    made = ask(
        found,
        given.out,
        table,
        settings.most_changed,
        Plan(per_scene=given.per_scene, types=_types(given.types)),
        given.seed,
        given.least,
    )
    _say(f"{made.questions} questions in {given.out / record.QUESTIONS}")
    _say(f"asked of so many videos: {', '.join(f'{type_} {count}' for type_, count in made.kept.items())}")
    if made.report is None:
        _say("no audit: questions about at least two videos are needed")
    else:
        _say(made.report.as_markdown())
        if not made.report.enough:
            _say(f"too few questions for a verdict: {given.least} are needed")
    return made


def _summary(found: list[record.CuesRecord], errors: dict[str, str]) -> str:
    reasons = Counter(reason.split(":")[0] for one in found for reason in one.reasons)
    lines = [f"{len(found)} records, {sum(one.usable for one in found)} of them usable"]
    lines += [f"  left out: {reason} ({count})" for reason, count in reasons.most_common()]
    lines += [f"  failed: {name}: {error}" for name, error in errors.items()]
    return "\n".join(lines)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r}; expected NAME=VALUE")
    return name, value


def _types(text: str | None) -> tuple[str, ...]:
    if text is None:
        return TYPES
    if unknown := sorted(set(text.split(",")) - set(TYPES)):
        raise ValueError(f"--types has {unknown[0]!r}; there are {', '.join(TYPES)}")
    return tuple(text.split(","))


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip("\n") + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.cues", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder of records; what is there is not made again")
    parser.add_argument("--estimators", choices=KINDS, default="published")
    for name in WEIGHTS:
        parser.add_argument(f"--{name}", help="directory" if name == "orientation" else "directory or hub id")
    parser.add_argument("--captions", type=Path, help="JSON: a video's name -> caption, or its agents and objects")
    parser.add_argument("--language-model", metavar="URL", help="OpenAI-compatible, ends with /v1; reads the captions")
    parser.add_argument("--model", default="default", help="the language model's name")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of π³")
    parser.add_argument("--workers", type=positive, default=1, help="1: this process; more: so many tasks of Ray")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a setting")
    parser.add_argument("--questions", action="store_true", help="then ask questions, and audit them")
    parser.add_argument("--per-scene", type=positive, default=24, help="questions of each video on average")
    parser.add_argument("--types", metavar="TYPE,TYPE", help="question types, all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--least", type=positive, default=2000, help="fewest questions for a verdict of the audit")
    parser.add_argument("--noise-table", type=Path, default=TABLE, help="from `python -m training.cues.noise`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
