"""Measures the answers of a checkpoint or a running service, by type, with 95 % intervals.

Beside them stands what can be had without the video, and what is left without the geometry. A stopped evaluation goes
on: answers are kept in a .jsonl beside --json.

    python -m training.evaluate --checkpoint models/tiny --scenes 90 --seed 0 --json held-out.json
    python -m training.evaluate --endpoint http://127.0.0.1:8000 --scenes 90 --seed 0 --json served.json
    python -m training.evaluate --checkpoint DIR --benchmark benchmark.parquet --videos FOLDER --json public.json
    python -m training.evaluate --checkpoint DIR --benchmark benchmark.parquet --videos FOLDER --pin public.json …
    python -m training.evaluate --checkpoint DIR --benchmark test.jsonl --layout vsi-bench --videos FOLDER

Every report has the ids and the hash of its questions; --pin measures those of an earlier one, or says why it cannot.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.errors import CheckpointError, ExplainedError, InputError
from training.arguments import positive
from training.data.benchmarks import LAYOUTS, Layout, load, recipe
from training.data.rendered import QUESTIONS, Scenes
from training.data.seen import Files, View
from training.data.sets import QuestionSet, of_records
from training.evaluate.answerers import Answerer, InProcess
from training.evaluate.answers import Answered
from training.evaluate.kept import Kept
from training.evaluate.report import GROUPS, LEAST_FOR_CLASSIFIER, Measured, Report, text_rows
from training.evaluate.rows import ANSWERS, FIRST_LETTER, KINDS, Job, Kind, Points, Scope
from training.evaluate.subset import Subset, rule
from training.progress import shown
from training.questions.audit import CLASSIFIER

ROWS = (*(kind.name for kind in KINDS), CLASSIFIER)
DSR_BENCH = "dsr-bench"


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            report = _evaluate(given, stack)
        given.json.write_text(report.as_json(), encoding="utf-8")
    except (ValueError, OSError, RuntimeError, ExplainedError, CheckpointError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nevaluate: stopped; the same command goes on ({_kept(given).name})", file=sys.stderr)
        return 130
    print(report.as_table())
    return 0


def _evaluate(given: argparse.Namespace, stack: ExitStack) -> Report:
    answerer = _answerer(given, stack)
    layout = LAYOUTS[given.layout] if given.benchmark else None
    files, videos = _files(given)
    asked = _asked(given, layout, files, videos)
    asked, scope = _scope(asked, Files(given.cache / "views", answerer.frames), layout)
    if not asked.samples:
        raise ValueError(f"no question of {', '.join(map(str, files))} has a video in {videos} that can be read")
    asked, scope, subset = _pinned(given, asked, scope)
    setup = _setup(given, answerer, files)
    kept = stack.enter_context(Kept(_kept(given), setup))
    wanted = _wanted(given)
    kinds, left_out = _chosen(wanted, answerer, scope)
    refused = _ask(answerer, kinds, scope, kept)
    rows = [
        Measured(name, kind.group, _points(asked, kept.of(kind.name), points))
        for kind in kinds
        for name, points in kind.rows.items()
    ]
    classifier = CLASSIFIER in wanted and len(asked.samples) >= LEAST_FOR_CLASSIFIER
    if CLASSIFIER in wanted and not classifier:
        left_out[CLASSIFIER] = f"it needs {LEAST_FOR_CLASSIFIER} questions"
    rows += text_rows(asked.samples, classifier)
    rows.sort(key=lambda row: GROUPS.index(row.group))
    published, merged = given.layout == DSR_BENCH and layout is not None, layout.merged if layout else None
    return Report(asked, rows, setup, left_out, refused, subset, published, merged)


def _answerer(given: argparse.Namespace, stack: ExitStack) -> Answerer:
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.checkpoint:
        return InProcess(given.checkpoint, given.device, getattr(torch, given.dtype), given.frames)
    from training.evaluate.service import FRAMES, Service

    return stack.enter_context(Service(given.endpoint, given.key, given.frames or FRAMES))


def _files(given: argparse.Namespace) -> tuple[list[Path], Path]:
    """The questions and the folder of their videos; scenes are made first."""
    if given.scenes:
        scenes = Scenes(given.scenes, given.seed, given.per_scene, given.train_scenes)
        folder = scenes.folder(given.cache)
        for _ in shown(scenes.make(folder), given.scenes, "scenes"):
            pass
        return [folder / QUESTIONS], folder
    if given.videos is None:
        raise ValueError("--records and --benchmark need --videos, the folder with their files")
    return given.benchmark or [given.records], given.videos


def _asked(given: argparse.Namespace, layout: Layout | None, files: Sequence[Path], videos: Path) -> QuestionSet:
    """The questions that have a file; all of them where an earlier report says which ones are asked."""
    if given.pin and given.items:
        raise ValueError("--pin says which questions are asked; --items cannot, too")
    if layout is not None:
        return load(layout, files, videos, given.items)
    return of_records(files[0], videos, given.items)


def _pinned(given: argparse.Namespace, asked: QuestionSet, scope: Scope) -> tuple[QuestionSet, Scope, Subset]:
    """What is asked; with --pin only what an earlier report asked, all of it."""
    if given.pin is None:
        return asked, scope, Subset.of(asked, rule(given.items))
    subset = Subset.read(given.pin)
    asked = subset.of_set(asked)
    return asked, replace(scope, samples=asked.samples), subset


def _scope(asked: QuestionSet, files: Files, layout: Layout | None) -> tuple[QuestionSet, Scope]:
    """The questions whose videos can be read, each with what may be seen; for predictions, files are made."""
    views: dict[str, View] = {}
    lost: dict[str, str] = {}
    for sample in shown(asked.samples, len(asked.samples), "videos"):
        try:
            views[sample.id] = files.of(sample.path, sample.record)
        except InputError as error:
            lost[sample.id] = str(error)
    asked = asked.without(lost)
    return asked, Scope(asked.samples, views, files, layout.prompt if layout else recipe)


def _wanted(given: argparse.Namespace) -> Sequence[str]:
    """Rows by their names. Text is written for benchmarks alone, whose rules want it: it costs as much again."""
    if given.rows is not None:
        return given.rows
    return [name for name in ROWS if given.benchmark or name != FIRST_LETTER]


def _chosen(rows: Sequence[str], answerer: Answerer, scope: Scope) -> tuple[list[Kind], dict[str, str]]:
    """The rows that are asked for and can be measured; the answers always are."""
    wanted = [kind for kind in KINDS if kind.name in (ANSWERS, *rows)]
    why = {kind.name: kind.unavailable(answerer.over_http, answerer.geometry, len(scope.videos)) for kind in wanted}
    left_out = {name: reason for name, reason in why.items() if reason}
    return [kind for kind in wanted if kind.name not in left_out], left_out


def _ask(answerer: Answerer, kinds: Sequence[Kind], scope: Scope, kept: Kept) -> dict[str, Counter[str]]:
    """Asks what has no answer yet, all rows at once; returns by row the reasons of what was refused."""
    jobs: list[Job] = []
    for kind in kinds:
        jobs += [job for job in kind.jobs(scope) if not kept.has(kind.name, job.id)]
    refused: dict[str, Counter[str]] = {}
    for answer in shown(answerer.answer(jobs), len(jobs), "answers"):
        if isinstance(answer, Answered):
            kept.add(answer)
        else:
            refused.setdefault(answer.row, Counter())[answer.why] += 1
    return refused


def _points(asked: QuestionSet, answers: Mapping[str, Answered], points: Points) -> dict[str, float]:
    """What each sample that was answered has earned."""
    there = (sample for sample in asked.samples if sample.id in answers)
    return {sample.id: points(sample.record, answers[sample.id]) for sample in there}


def _setup(given: argparse.Namespace, answerer: Answerer, questions: Sequence[Path]) -> dict[str, Any]:
    """What must be the same for answers to be used again."""
    where = {"layout": given.layout} if given.benchmark else {}
    return {
        "answerer": answerer.name,
        "model": answerer.model,
        "dtype": given.dtype if given.checkpoint else None,
        "frames": answerer.frames,
        "questions": hashlib.sha256(b"".join(file.read_bytes() for file in questions)).hexdigest()[:12],
        "items": given.items,
        **(
            {"scenes": given.scenes, "seed": given.seed, "per_scene": given.per_scene, "train": given.train_scenes}
            if given.scenes
            else {"file": " ".join(map(str, questions)), "videos": str(given.videos), **where}
        ),
    }


def _kept(given: argparse.Namespace) -> Path:
    return Path(given.json).with_suffix(".jsonl")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--checkpoint", help="a directory or hub id, answered in this process")
    who.add_argument("--endpoint", help="URL of a running service")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scenes", type=positive, help="this many rendered scenes")
    what.add_argument("--records", type=Path, help="questions, ours or in the public format: .json or .parquet")
    what.add_argument("--benchmark", type=Path, nargs="+", help="files of a public benchmark, in its --layout")
    parser.add_argument(
        "--layout", default=DSR_BENCH, choices=LAYOUTS, help=f"default: {DSR_BENCH}, with published rows"
    )
    parser.add_argument("--pin", type=Path, metavar="REPORT", help="the questions of an earlier report, all of them")
    parser.add_argument("--videos", type=Path, help="the folder with the questions' videos")
    parser.add_argument("--seed", type=int, default=0, help="the first of the scenes")
    parser.add_argument("--per-scene", type=positive, default=24, help="questions about a scene, on average")
    parser.add_argument("--train-scenes", action="store_true", help="scenes of training in place of held-out ones")
    parser.add_argument("--items", "--limit", type=positive, help="at most this many questions, evenly from all")
    parser.add_argument("--rows", nargs="*", choices=ROWS, metavar="ROW", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, default=Path("evaluation.json"), help="where the figures go")
    parser.add_argument("--cache", type=Path, default=Path("runs/evaluate"), help="scenes and shortened videos")
    parser.add_argument("--frames", type=positive, help="sampled of a video; default: the checkpoint's, or 32")
    parser.add_argument("--key", help="API key of the service")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=positive, help="CPU threads of torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
