"""What each row shows to whoever answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.clips import make_clip
from training.data.benchmarks import LAYOUTS
from training.data.formats import Numeric
from training.data.seen import Files
from training.data.sets import Sample
from training.evaluate.rows import FIRST_LETTER, KINDS, Job, Scope
from training.questions.records import Record

OPTIONS = ("(1) Front.", "(1) Left.")


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    samples = []
    for name in ("one", "two", "three"):
        path = tmp_path / f"{name}.mp4"
        make_clip(path, seconds=2, fps=10)
        samples += [
            Sample(f"{name}/{of}", Record(name, "?", OPTIONS, "A", of), path) for of in ("abs_dis", "abs_dir_pred")
        ]
    files = Files(tmp_path / "views", 32)
    return Scope(samples, {sample.id: files.of(sample.path, sample.record) for sample in samples}, files)


def jobs(scope: Scope, row: str) -> list[Job]:
    [kind] = [kind for kind in KINDS if kind.name == row]
    found = kind.jobs(scope)
    assert [job.id for job in found] == [sample.id for sample in scope.samples]
    return found


def test_another_video_is_another_one_with_as_many_frames(scope: Scope) -> None:
    own = {job.id: job for job in jobs(scope, "answers")}
    for row in ("other video", "geometry of another clip"):
        for job in jobs(scope, row):
            looked = job.view if row == "other video" else job.geometry
            assert looked is not None
            assert looked.frames == own[job.id].view.frames
            name = job.id.partition("/")[0]
            assert not looked.path.name.startswith(name)
            assert own[job.id].view.path.name.startswith(name)
    assert {job.view for job in jobs(scope, "other video")} == {job.view for job in own.values()}


def test_only_the_geometry_goes(scope: Scope) -> None:
    for own, off in zip(jobs(scope, "answers"), jobs(scope, "geometry off"), strict=True):
        assert own.geometry == own.view == off.view
        assert off.geometry is None


def test_a_letter_that_is_written_is_asked_for_in_the_prompt_of_the_benchmark(scope: Scope) -> None:
    prompt = LAYOUTS["dsr-bench"].prompt
    written = jobs(replace(scope, prompt=prompt), FIRST_LETTER)
    assert [job.question for job in written] == [prompt(sample.record) for sample in scope.samples]
    assert all(job.options == () for job in written)
    assert [job.view for job in written] == [job.view for job in jobs(scope, "answers")]


def test_a_number_is_asked_for_in_every_row_but_that_of_letters(scope: Scope) -> None:
    first = scope.samples[0]
    number = replace(first, record=Numeric("one", "How many?", (), "3", "object_counting"))
    asked = {kind.name: kind.jobs(replace(scope, samples=[number])) for kind in KINDS}
    assert asked.pop(FIRST_LETTER) == []
    assert {(job.question, job.options) for [job] in asked.values()} == {("How many?", ())}


def test_rows_that_cannot_be_measured_say_why() -> None:
    why = {kind.name: kind.unavailable(over_http=True, geometry=True, videos=2) for kind in KINDS}
    assert {name for name, reason in why.items() if reason} == {"geometry of another clip"}
    why = {kind.name: kind.unavailable(over_http=False, geometry=False, videos=1) for kind in KINDS}
    assert {name for name, reason in why.items() if reason is None} == {"answers", "text, first letter", "grey video"}
