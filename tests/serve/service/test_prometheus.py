"""A real Prometheus over the real service: every panel and rule can be evaluated, and there is something to see."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.clips import make_clip
from tests.deploy.monitoring import INTERVAL, panels, rule_file, rules
from tests.fresh import free_port
from tests.serve.service.asking import QUESTION, ask_by_id

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed: apt-get install prometheus"
)
# Panels that have nothing to show on a CPU with empty caches and without a reconstructor.
EMPTY_HERE = {"Stages: GPU memory", "Caches: Evictions"}
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: dsr
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture(scope="module")
def prometheus(service: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = urlsplit(str(service.base_url)).netloc
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule_file()))
    (folder / "config.yaml").write_text(CONFIG.format(rules=folder / "rules.yaml", target=target))
    command = ["prometheus", f"--config.file={folder}/config.yaml", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stderr=subprocess.PIPE
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10) as client:
                started(client)
                yield client
        finally:
            process.terminate()


def results(prometheus: httpx.Client, query: str) -> list[Any]:
    answer = prometheus.get("/query", params={"query": query})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    found: list[Any] = answer.json()["data"]["result"]
    return found


def started(prometheus: httpx.Client, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if prometheus.get("/status/runtimeinfo").status_code == 200:
                return
        except httpx.TransportError:  # it does not listen yet
            pass
        assert time.monotonic() < end, "Prometheus did not start"
        time.sleep(0.3)


def until(prometheus: httpx.Client, query: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while True:
        if results(prometheus, query):
            return
        assert time.monotonic() < end, f"nothing for {query}"
        time.sleep(0.3)


def test_every_panel_has_something_to_show_and_every_rule_can_be_evaluated(
    service: httpx.Client, prometheus: httpx.Client
) -> None:
    posted = service.post("/v1/videos", files={"video": ("x.mp4", make_clip(None, seconds=1, fps=11, size=(84, 84)))})
    video = posted.json()["id"]
    until(prometheus, "up == 1")
    for _ in range(2):  # so that rates have two moments with something between
        ask_by_id(service, video).raise_for_status()
        ask_by_id(service, video, question=QUESTION + "?").raise_for_status()
        assert service.post("/v1/videos", files={"video": ("x.mp4", b"no video")}).status_code == 415
        time.sleep(2.5)
    until(prometheus, 'increase(dsr_requests_total{route="/v1/answers",status="200"}[10s]) > 0')
    empty = [
        title
        for title, queries in panels().items()
        for query in queries
        if not results(prometheus, INTERVAL.sub("[20s]", query))
    ]
    assert {title for title in empty if not title.startswith("Reconstructions: ")} <= EMPTY_HERE
    groups = prometheus.get("/rules").json()["data"]["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {rule["name"]: rule.get("lastError", "") for rule in evaluated if rule["health"] == "err"} == {}


def test_metrics_are_those_of_the_whole_application(service: httpx.Client) -> None:
    text = service.get("/metrics").text
    for name in ("dsr_stage_work", "dsr_stage_passes_total", "dsr_stage_memory_full", "dsr_admission_requests"):
        assert f"\n{name}{{" in text, name
    assert 'dsr_stage_replicas{stage="selector"} 2.0' in text
