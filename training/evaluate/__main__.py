"""Measures the answers of a checkpoint or a running service, by type, with 95 % intervals.

Beside them stands what can be had without the video, and what is left without the geometry. A stopped evaluation goes
on: answers are kept in a .jsonl beside --json.

    python -m training.evaluate --checkpoint models/tiny --scenes 90 --seed 0 --json held-out.json
    python -m training.evaluate --endpoint http://127.0.0.1:8000 --scenes 90 --seed 0 --json served.json
    python -m training.evaluate --checkpoint DIR --benchmark benchmark.parquet --videos FOLDER --json public.json
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from models.errors import CheckpointError, ExplainedError, InputError
from training.data.seen import Files, View
from training.data.sets import QUESTIONS, QuestionSet, Scenes, of_records
from training.evaluate.answerers import Answered, Answerer, InProcess
from training.evaluate.kept import Kept
from training.evaluate.progress import shown
from training.evaluate.report import GROUPS, LEAST_FOR_CLASSIFIER, Measured, Report, text_rows
from training.evaluate.rows import ANSWERS, KINDS, Job, Kind, Scope
from training.questions.audit import CLASSIFIER

ROWS = (*(kind.name for kind in KINDS), CLASSIFIER)


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
    print(report.as_table(published=given.benchmark is not None))
    return 0


def _evaluate(given: argparse.Namespace, stack: ExitStack) -> Report:
    answerer = _answerer(given, stack)
    file, videos = _files(given)
    asked, scope = _scope(of_records(file, videos, given.items), Files(given.cache / "views", answerer.frames))
    if not asked.samples:
        raise ValueError(f"no question of {file} has a video in {videos} that can be read")
    kept = stack.enter_context(Kept(_kept(given), _setup(given, answerer, file)))
    kinds, left_out = _chosen(given, answerer, scope)
    refused = _ask(answerer, kinds, scope, kept)
    rows = [Measured(kind.name, kind.group, _points(asked, kept.of(kind.name))) for kind in kinds]
    classifier = CLASSIFIER in given.rows and len(asked.samples) >= LEAST_FOR_CLASSIFIER
    if CLASSIFIER in given.rows and not classifier:
        left_out[CLASSIFIER] = f"it needs {LEAST_FOR_CLASSIFIER} questions"
    rows += text_rows(asked.samples, classifier)
    rows.sort(key=lambda row: GROUPS.index(row.group))
    return Report(asked, rows, _setup(given, answerer, file), left_out, refused)


def _answerer(given: argparse.Namespace, stack: ExitStack) -> Answerer:
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.checkpoint:
        return InProcess(given.checkpoint, given.device, getattr(torch, given.dtype), given.frames)
    from training.evaluate.service import FRAMES, Service

    return stack.enter_context(Service(given.endpoint, given.key, given.frames or FRAMES))


def _files(given: argparse.Namespace) -> tuple[Path, Path]:
    """The questions and the folder of their videos; scenes are made first."""
    if given.scenes:
        scenes = Scenes(given.scenes, given.seed, given.per_scene, given.train_scenes)
        folder = scenes.folder(given.cache)
        for _ in shown(scenes.make(folder), given.scenes, "scenes"):
            pass
        return folder / QUESTIONS, folder
    if given.videos is None:
        raise ValueError("--records and --benchmark need --videos, the folder with their files")
    return given.records or given.benchmark, given.videos


def _scope(asked: QuestionSet, files: Files) -> tuple[QuestionSet, Scope]:
    """The questions whose videos can be read, each with what may be seen; for predictions, files are made."""
    views: dict[str, View] = {}
    lost: dict[str, str] = {}
    for sample in shown(asked.samples, len(asked.samples), "videos"):
        try:
            views[sample.id] = files.of(sample.path, sample.record)
        except InputError as error:
            lost[sample.id] = str(error)
    asked = asked.without(lost)
    return asked, Scope(asked.samples, views, files)


def _chosen(given: argparse.Namespace, answerer: Answerer, scope: Scope) -> tuple[list[Kind], dict[str, str]]:
    """The rows that are asked for and can be measured; the answers always are."""
    wanted = [kind for kind in KINDS if kind.name in (ANSWERS, *given.rows)]
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


def _points(asked: QuestionSet, choices: Mapping[str, int]) -> dict[str, float]:
    """Of each sample that was answered, 1 when it was right."""
    there = (sample for sample in asked.samples if sample.id in choices)
    return {sample.id: float(choices[sample.id] == sample.record.right) for sample in there}


def _setup(given: argparse.Namespace, answerer: Answerer, questions: Path) -> dict[str, Any]:
    """What must be the same for answers to be used again."""
    return {
        "answerer": answerer.name,
        "model": answerer.model,
        "dtype": given.dtype if given.checkpoint else None,
        "frames": answerer.frames,
        "questions": hashlib.sha256(questions.read_bytes()).hexdigest()[:12],
        "items": given.items,
        **(
            {"scenes": given.scenes, "seed": given.seed, "per_scene": given.per_scene, "train": given.train_scenes}
            if given.scenes
            else {"file": str(questions), "videos": str(given.videos)}
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
    what.add_argument("--scenes", type=_positive, help="this many rendered scenes")
    what.add_argument("--records", type=Path, help="questions, ours or in the public format: .json or .parquet")
    what.add_argument("--benchmark", type=Path, help="the public benchmark; its published rows are shown, too")
    parser.add_argument("--videos", type=Path, help="the folder with the questions' videos")
    parser.add_argument("--seed", type=int, default=0, help="the first of the scenes")
    parser.add_argument("--per-scene", type=_positive, default=24, help="questions about a scene, on average")
    parser.add_argument("--train-scenes", action="store_true", help="scenes of training in place of held-out ones")
    parser.add_argument("--items", "--limit", type=_positive, help="at most this many questions, evenly from all")
    parser.add_argument(
        "--rows", nargs="*", default=ROWS, choices=ROWS, metavar="ROW", help=f"some of: {', '.join(ROWS)}"
    )
    parser.add_argument("--json", type=Path, default=Path("evaluation.json"), help="where the figures go")
    parser.add_argument("--cache", type=Path, default=Path("runs/evaluate"), help="scenes and shortened videos")
    parser.add_argument("--frames", type=_positive, help="sampled of a video; default: the checkpoint's, or 32")
    parser.add_argument("--key", help="API key of the service")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=_positive, help="CPU threads of torch")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
