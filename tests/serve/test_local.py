"""`make run` as a person uses it: a terminal, an answer, Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.local import _inherited
from tests.clips import make_clip
from tests.fresh import free_port
from tests.processes import alive, descendants

SECONDS = 150
QUESTION = "How does the square move?"
LONG = {"max_tokens": "1000", "temperature": "2.0", "seed": "4"}  # 0.5 s


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`python -m serve.local --ask` in a process group of its own, as a shell starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-u", "-m", "serve.local", "--ask", "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        yield process, port
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    text, end = "", time.monotonic() + SECONDS
    for line in process.stdout:
        text += line
        if word in line:
            return text
        assert time.monotonic() < end, text
    raise AssertionError(f"ended before it said {word!r}:\n{text}")


def test_it_answers_the_sample_and_ctrl_c_stops_all_that_it_started_and_nothing_else(
    terminal: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = terminal
    said = read_until(process, "Ctrl-C stops")
    assert said.count("←") == 1, "one option is the answer"
    assert "(true)" in said
    for stage in ("frames", "encoder", "selector", "decoder"):
        assert f"{stage} " in said
    started = descendants(process.pid)
    assert any("raylet" in command for command in started.values())

    second = subprocess.run(
        [sys.executable, "-m", "serve.local", "--port", str(port)], capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert f"port {port}" in second.stderr
    assert "Traceback" not in second.stderr

    os.killpg(process.pid, signal.SIGINT)
    assert "stopped" in read_until(process, "stopped")
    assert process.wait(timeout=30) == 0
    time.sleep(1)
    assert not [command for pid, command in started.items() if alive(pid)]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_what_ends_a_container_lets_it_finish_what_it_works_on(terminal: tuple[subprocess.Popen[str], int]) -> None:
    process, port = terminal
    read_until(process, "Ctrl-C stops")
    started = descendants(process.pid)
    form = {"question": QUESTION, "stream": "true", **LONG}
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        client.stream("POST", "/v1/answers", data=form, files={"video": make_clip(seconds=1)}) as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "event: token"
        os.kill(process.pid, signal.SIGTERM)
        assert "event: answer" in list(lines)
    assert "stopped" in read_until(process, "stopped")
    assert process.wait(timeout=30) == 0
    time.sleep(1)
    assert not [command for pid, command in started.items() if alive(pid)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(("--checkpoint", "no/such/directory"), "no/such/directory", id="missing-checkpoint"),
        pytest.param(("--port", "70000"), "port 70000", id="impossible-port"),
    ],
)
def test_what_cannot_start_is_said_in_one_line(given: tuple[str, str], said: str) -> None:
    command = [sys.executable, "-m", "serve.local", "--port", str(free_port()), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_started_inherits_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_GIVEN", "ours")
    before = dict(os.environ)
    with _inherited({"DSR_GIVEN": "theirs", "DSR_NEW": "new"}):
        assert {**before, "DSR_NEW": "new"} == dict(os.environ), "what somebody set is as they set it"
    assert before == dict(os.environ)
