"""`python -m training.evaluate (--checkpoint DIR | --endpoint URL) (--scenes N | --records FILE --videos DIR)`.

Measures the answers by type, with 95 % intervals, beside every blind way to answer and the ablations. It goes on where
it was stopped: answers are kept in a `.jsonl` beside `--json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from models.errors import ExplainedError
from models.video import Sampling
from training.data.sets import QuestionSet, of_records, scenes
from training.evaluate.answerers import Answerer, InProcess, Service
from training.evaluate.kept import Kept
from training.evaluate.report import Report, blind_text_rows
from training.evaluate.rows import KINDS


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        report = _evaluate(given)
    except (ValueError, FileNotFoundError, RuntimeError, ExplainedError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    given.json.write_text(report.as_json(), encoding="utf-8")
    print(report.as_table(published=given.published))
    return 0


def _evaluate(given: argparse.Namespace) -> Report:
    rows = [kind for kind in KINDS if kind.name in given.rows and (given.checkpoint or kind.over_http)]
    if given.threads:
        torch.set_num_threads(given.threads)
    with ExitStack() as stack:
        if given.checkpoint:
            answerer: Answerer = InProcess(given.checkpoint, given.device, getattr(torch, given.dtype))
        else:
            sampling = Sampling(max_pixels=given.max_pixels) if given.max_pixels else Sampling()
            answerer = stack.enter_context(Service(given.endpoint, given.key, sampling))
        questions = _questions(given, answerer.sampling)
        if not questions.samples:
            raise ValueError(f"no question has its video; missing: {', '.join(sorted(questions.missing)[:5])}")
        by_id = {sample.id: sample for sample in questions.samples}
        setup = _setup(given, answerer)
        kept = stack.enter_context(Kept(given.json.with_suffix(".jsonl"), setup))
        points: dict[str, dict[str, float]] = {}
        for kind in rows:
            jobs = [
                job for job in kind.jobs(questions.samples, given.cache / "grey") if not kept.has(kind.name, job.id)
            ]
            for answer in _shown(answerer.answer(jobs), len(jobs), kind.name):
                kept.add(kind.name, answer)
            points[kind.name] = {
                id_: float(kept.choice(kind.name, id_) == sample.record.right) for id_, sample in by_id.items()
            }
        groups = {kind.name: kind.group for kind in rows}
        if given.text_rows:
            blind = blind_text_rows(questions.samples)
            points |= blind
            groups |= dict.fromkeys(blind, "blind")
    return Report(questions.samples, points, groups, setup, questions.missing)


def _questions(given: argparse.Namespace, sampling: Sampling) -> QuestionSet:
    if given.scenes:
        folder = given.cache / f"scenes-{given.scenes}-{given.seed}-{given.per_scene}"
        for _ in _shown(scenes(folder, given.scenes, given.seed, given.per_scene), given.scenes, "scenes"):
            continue
        file, videos = folder / "questions.json", folder
    else:
        file, videos = given.records, given.videos
        if videos is None:
            raise ValueError("--records needs --videos, the folder with their files")
    return of_records(file, videos, sampling, given.cache / "cuts", given.items)


def _setup(given: argparse.Namespace, answerer: Answerer) -> dict[str, Any]:
    """What must be the same for answers to be used again."""
    what = {"scenes": given.scenes, "seed": given.seed, "per_scene": given.per_scene} if given.scenes else {
        "records": str(given.records)
    }  # fmt: skip
    return {"answerer": answerer.name, "dtype": given.dtype if given.checkpoint else None, "items": given.items, **what}


def _shown(things: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    try:
        from tqdm import tqdm
    except ImportError:
        print(f"{what}: {total}", file=sys.stderr)
        return things
    return iter(tqdm(things, total=total, desc=what, dynamic_ncols=True, mininterval=0.5))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--checkpoint", help="a directory or hub id, answered in this process")
    who.add_argument("--endpoint", help="URL of a running service")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scenes", type=int, help="this many held-out scenes, rendered")
    what.add_argument("--records", type=Path, help="questions in our or the public format, .json or .parquet")
    parser.add_argument("--videos", type=Path, help="the folder with the records' videos")
    parser.add_argument("--seed", type=int, default=0, help="the first of the held-out scenes")
    parser.add_argument("--per-scene", type=int, default=24, help="questions about a scene, on average")
    parser.add_argument("--items", type=int, help="at most this many questions, evenly from all")
    parser.add_argument("--rows", nargs="+", default=[k.name for k in KINDS], choices=[k.name for k in KINDS])
    parser.add_argument("--no-text-rows", dest="text_rows", action="store_false", help="leave out rules and classifier")
    parser.add_argument("--published", action="store_true", help="show the published rows of the public benchmark too")
    parser.add_argument("--json", type=Path, default=Path("evaluation.json"), help="where the figures go")
    parser.add_argument("--cache", type=Path, default=Path("runs/evaluate"), help="where rendered clips are kept")
    parser.add_argument("--key", help="API key of the service")
    parser.add_argument("--max-pixels", type=int, help="of the service's frames, for shortened clips")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
