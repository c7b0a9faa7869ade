"""The command `dsr`: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dsr_client
import numpy as np
import pytest
from dsr_client._cli import main
from dsr_client._cli._bench import percentile
from dsr_client._cli._progress import Bar, shown
from PIL import Image

from tests.clients.wire import VIDEO_ID, Reply, Wire, answer, event, problem, video
from tests.clips import make_clip

OPTIONS = ["-o", "It grows.", "-o", "It shrinks."]
Dsr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dsr(wire: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dsr:
    """Runs the command against `wire`: exit code, stdout, stderr."""
    monkeypatch.setenv("DSR_URL", wire.url)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def test_ask_prints_the_options_and_what_the_stages_took(dsr: Dsr, wire: Wire, clip: Path) -> None:
    wire.script(Reply(video(), 201), Reply(answer()))
    code, out, err = dsr("ask", str(clip), "How?", *OPTIONS, "--frames", "8", "--geometry", "off")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["A", "25.0%", "█" * 5, "It", "grows."]
    assert lines[1].split() == ["→", "B", "75.0%", "█" * 15, "It", "shrinks."]
    assert ["decoder", "0.500", "miss", "0.250", "…", "0.750", "s"] in [line.split() for line in lines]
    assert "ans_1" in lines[-1]
    assert wire.seen[1].json() == {
        "video": {"id": VIDEO_ID},
        "question": "How?",
        "options": ["It grows.", "It shrinks."],
        "frames": 8,
        "geometry": "off",
    }


def test_ask_json_prints_the_answer_as_it_came(dsr: Dsr, wire: Wire) -> None:
    wire.script(Reply(answer(news="später")))
    code, out, _ = dsr("ask", VIDEO_ID, "How?", "--json", "--url", wire.url)
    assert (code, json.loads(out)) == (0, answer(news="später"))


def test_ask_stream_prints_tokens_as_they_come(dsr: Dsr, wire: Wire) -> None:
    free = answer(text="It turns.", choice=None, probabilities={})
    words = [event("token", {"text": word}) for word in ("It ", "turns.")]
    lost = {"status": 503, "code": "stage_lost", "title": "Stage lost", "detail": "it is so", "request_id": "req_1"}
    wire.script(Reply([*words, event("answer", free)]), Reply([*words, event("error", lost)]))
    code, out, _ = dsr("ask", VIDEO_ID, "How?", "--stream")
    assert code == 0
    assert out.startswith("It turns.\n\nstage")
    assert out.count("It turns.") == 1
    code, out, err = dsr("ask", VIDEO_ID, "How?", "--stream")
    assert (code, out) == (1, "It turns.\n")
    assert err == "dsr: Stage lost: it is so [stage_lost, request req_1]\n"


def test_ask_explain_draws_what_was_looked_at(dsr: Dsr, wire: Wire, tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "strip.png"
    make_clip(clip, seconds=1, fps=10)
    looked = {"times": [0.0, 0.5], "grid": [2, 2, 2], "attention": np.full((2, 2, 2), 1 / 8).tolist()}
    wire.script(Reply(video(), 201), Reply(answer(explanation=looked)))
    assert dsr("ask", str(clip), "How?", "--explain", str(out))[0] == 0
    with Image.open(out) as image:
        assert image.format == "PNG"
    assert wire.seen[1].json()["explain"] is True
    code, _, err = dsr("ask", VIDEO_ID, "How?", "--explain", str(out))
    assert code == 2
    assert "not by its id" in err
    assert len(wire.seen) == 2, "it is said before the question is asked"


def test_upload_list_and_delete(dsr: Dsr, wire: Wire, clip: Path) -> None:
    wire.script(
        Reply(video(), 201),
        Reply({"videos": [video(bytes=1_500_000)], "next": None}),
        Reply({"videos": [], "next": None}),
        *[Reply(b"", 204)] * 2,
        Reply({"videos": [video()] * 2, "next": None}),
    )
    code, out, _ = dsr("upload", str(clip))
    assert (code, out.splitlines()[1].split()[0]) == (0, VIDEO_ID)
    code, out, _ = dsr("videos")
    assert (code, out.splitlines()[1].split()) == (0, [VIDEO_ID, "2.0", "10.00", "64x48", "20", "1.5"])
    assert dsr("videos", "list")[1] == "no videos\n"
    assert dsr("videos", "delete", "a", "b")[:2] == (0, "deleted a\ndeleted b\n")
    assert [json.loads(line) for line in dsr("videos", "--json")[1].splitlines()] == [video()] * 2


def test_health_has_its_exit_code(dsr: Dsr, wire: Wire) -> None:
    wire.script(
        Reply({"status": "ready", "model": "dsr-tiny", "stages": ["frames"]}),
        problem(503, "not_ready", "the encoder is still loading"),
    )
    assert dsr("health")[:2] == (0, f"ready: dsr-tiny with frames at {wire.url}\n")
    assert dsr("health")[:2] == (1, "not ready: the encoder is still loading\n")


def test_a_refusal_is_worded_as_the_service_words_it(dsr: Dsr, wire: Wire) -> None:
    wire.script(problem(422, "out_of_limits", "frames is 1000; at most 256", field="frames", value=1000, limit=256))
    code, out, err = dsr("ask", VIDEO_ID, "How?", "--frames", "1000")
    assert (code, out) == (1, "")
    assert err == "dsr: Out_Of_Limits: frames is 1000; at most 256 [out_of_limits, request req_of_the_service]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "nowhere.mp4", "How?"], "nowhere.mp4: No such file or directory"),
        (["upload", "."], "Is a directory"),
        (["videos", "delete"], "dsr videos delete ID"),
        (["videos", "list", "vid"], "dsr videos delete ID"),
        (["health", "--url", "localhost"], "http://"),
        (["health", "--timeout", "0"], "more than 0"),
        (["ask", VIDEO_ID], "QUESTION"),
        (["bench", VIDEO_ID, "How?", "-n", "0"], "less than 1"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_is_code_two(dsr: Dsr, wire: Wire, arguments: list[str], said: str) -> None:
    code, out, err = dsr(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert wire.seen == []


def test_nobody_there_is_code_three(dsr: Dsr) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, _, err = dsr("videos", "--url", f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert code == 3
    assert err.startswith("dsr: no connection to http://127.0.0.1:")


def test_bench_counts_latencies_hits_and_failures(dsr: Dsr, wire: Wire, clip: Path) -> None:
    wire.script(Reply(video(), 201), *[Reply(answer())] * 6, *[problem(429, "busy")] * 2)
    code, out, _ = dsr("bench", str(clip), "How?", "-n", "8", "-c", "3", "--json")
    report = json.loads(out)
    assert code == 1, "not every question was answered"
    assert (report["questions"], report["answered"], report["failures"]) == (8, 6, {"busy": 2})
    assert report["cache_hits"] == {"selector": 1.0, "decoder": 0.0}
    assert report["questions_per_second"] == pytest.approx(6 / report["seconds"])
    latency = report["latency_seconds"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= report["seconds"]
    assert len(wire.seen) == 9, "a refusal is not retried"
    wire.script(*[Reply(answer())] * 2)
    code, out, _ = dsr("bench", VIDEO_ID, "How?", *OPTIONS, "-n", "2", "-c", "1")
    assert code == 0
    assert "2 of 2, 1 at a time" in out
    assert "cache hits, selector" in out


def test_percentiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(5).random(37).tolist()
    for q in (0, 50, 90, 95, 99, 100):
        assert percentile(values, q) == pytest.approx(np.percentile(values, q))
    assert percentile([2.0], 99) == 2.0


def test_a_bar_is_drawn_for_people_only_and_only_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with shown("clip.mp4") as progress:
        assert progress is None, "pytest's stderr is no terminal"
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with shown("clip.mp4") as progress:
        assert progress is not None
        progress(5, 10)
    assert terminal.getvalue() == ""
    bar = Bar("clip.mp4", terminal, quiet=0)
    bar(5_000_000, 10_000_000)
    bar(6_000_000, 10_000_000)  # too soon to be drawn
    bar.clear()
    assert terminal.getvalue().count("clip.mp4") == 1
    assert "█" * 12 + "░" * 12 + "  50%  5.0 of 10.0 MB" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "%" not in bar.line(5, None, 1)


def test_the_module_is_the_command(wire: Wire) -> None:
    source = str(Path(dsr_client.__file__).parents[1])
    environment = {**os.environ, "DSR_URL": wire.url, "PYTHONPATH": source}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dsr_client", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    wire.script(Reply({"status": "ready", "model": "dsr-tiny", "stages": []}))
    assert run("health").stdout.startswith("ready: dsr-tiny")
    assert run("--version").stdout == f"dsr-client {dsr_client.__version__}\n"
    assert run("nonsense").returncode == 2


def test_who_reads_only_the_first_lines_breaks_nothing(wire: Wire) -> None:
    many = [video(id=f"vid_{number}") for number in range(5000)]
    wire.script(Reply({"videos": many, "next": None}))
    source = str(Path(dsr_client.__file__).parents[1])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m dsr_client videos --json | head -n 1"],
        env={**os.environ, "DSR_URL": wire.url, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "vid_0"
