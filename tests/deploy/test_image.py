"""The image, really built and really run: `python -m pytest -m image`. Minutes, root, and Debian's packages."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import containers
from tests.deploy.containers import Image, run, started
from tests.deploy.manifests import ROOT

SAMPLE = ROOT / "models" / "tiny" / "sample"
CONFIG = "deploy/serve-container.yaml"

pytestmark = [pytest.mark.image, pytest.mark.skipif(bool(containers.missing()), reason=containers.missing())]


def test_what_the_image_is(image: Image) -> None:
    facts = image.facts
    print(f"\nimage: {facts['size']}, {facts['layers']} layers, user {facts['User']}")
    assert facts["User"] == "10001:10001"
    assert facts["Cmd"] == ["python", "-m", "serve.local", "--config", CONFIG]
    assert facts["Healthcheck"]["Test"][0] == "CMD"
    assert facts["Labels"]["org.opencontainers.image.revision"] == "test"
    assert facts["layers"] <= 12


def test_no_weights_are_inside_but_the_embedded_ones(image: Image) -> None:
    weights = {p.relative_to(image.files).parts[:3] for p in image.files.rglob("*") if _is_weights(p)}
    assert weights == {("app", "models", "tiny")}
    assert not list((image.files / "app").glob("tests*"))


def test_attention_is_compiled_and_the_compiler_stayed_outside(image: Image) -> None:
    assert len(list((image.files / "app" / "models").glob("_attention.*.so"))) == 1
    assert run(image.files, image.facts, ["bash", "-c", "command -v g++ gcc cc"]).stdout == ""
    script = "import ctypes, glob; ctypes.CDLL(*glob.glob('/app/models/_attention.*.so')).dsr_attention"
    done = run(image.files, image.facts, ["python", "-c", script])
    assert done.returncode == 0, done.stderr


def _is_weights(path: Path) -> bool:
    return (
        path.suffix in {".safetensors", ".pt", ".pth", ".bin"} and not path.is_symlink() and path.stat().st_size > 1e6
    )


def test_the_root_is_read_only_and_what_must_be_written_is_not(image: Image) -> None:
    script = "id -u; for p in /app /etc /opt/dsr /data /tmp /dev/shm; do touch $p/x 2>/dev/null && echo $p; done; true"
    assert run(image.files, image.facts, ["bash", "-c", script]).stdout.split() == [
        "10001",
        "/data",
        "/tmp",
        "/dev/shm",
    ]


def test_a_login_shell_finds_ray_too(image: Image) -> None:
    done = run(image.files, image.facts, ["bash", "-lc", "command -v ray python"])
    assert done.stdout.split() == ["/opt/dsr/bin/ray", "/opt/dsr/bin/python"]


def test_kuberay_finds_what_it_starts(image: Image) -> None:
    """The autoscaler beside the head, the init container of the workers, and a shell for both."""
    script = "python -c 'from ray.autoscaler._private.kuberay import run_autoscaler' && ray health-check --help"
    done = run(image.files, image.facts, ["/bin/bash", "-c", script])
    assert done.returncode == 0, done.stderr
    assert "--address" in done.stdout


def test_the_job_that_fetches_weights_runs_in_it(image: Image) -> None:
    script = "python -m models.fetch /app/models/tiny /tmp/tiny && python -m models.verify /tmp/tiny"
    done = run(image.files, image.facts, ["bash", "-c", script])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.split("\n", 1)[1])["ok"]


def test_it_answers_as_its_user_on_a_read_only_root(image: Image, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [*image.facts["Cmd"], "--port", str(port)]
    with (tmp_path / "log").open("wb") as log, started(image.files, image.facts, arguments, log):
        _wait(f"http://127.0.0.1:{port}/readyz", tmp_path / "log")
        sample = json.loads((SAMPLE / "question.json").read_text())
        answer = _ask(port, sample["question"], sample["options"])
    assert set(answer["probabilities"]) == {"A", "B", "C", "D"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert answer["cache"]["encoder"] == "miss"


def _wait(url: str, log: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            assert time.monotonic() < end, log.read_text()
        time.sleep(1)


def _ask(port: int, question: str, options: list[str]) -> dict[str, Any]:
    body = {"question": question, "options": options}
    with (SAMPLE / "clip.mp4").open("rb") as video:
        response = httpx.post(f"http://127.0.0.1:{port}/v1/answers", data=body, files={"video": video}, timeout=300)
    assert response.status_code == 200, response.text
    return response.json()
