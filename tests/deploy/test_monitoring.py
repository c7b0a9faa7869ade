"""Dashboard and rules against the names that the service exports; with a real Prometheus: tests/serve/service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.monitoring.dashboard import ROWS, dashboard
from serve import metrics
from serve.admission.gate import Capacity, Gate
from serve.cache import CacheStats
from serve.messages import Report
from tests.deploy.monitoring import DASHBOARD, NAME, panels, rule_file, rules


def exported() -> set[str]:
    """The names of every sample that /metrics can have."""
    metrics.watch(Gate(Capacity(1, 1, 1, 1)))
    metrics.watch(Gate(Capacity(1, 1, 1, 1)), metrics.RECONSTRUCTIONS)
    metrics.observe_request("/r", 200, 0.1, code="c")
    for metric in (metrics.STAGE_SECONDS, metrics.CACHE_RESULTS, metrics.TOKENS):
        metric.labels(*("x" for _ in metric._labelnames))
    report = Report({"c": CacheStats(1, 1, 1, 1, 1, 1, 1)}, 1, 1, refused={"died": 1})
    text = metrics.render(reports={"decoder": [report]})[0].decode()
    return set(re.findall(r"^(dsr_\w+)", text, re.M))


def asked() -> set[str]:
    """The names in all rules and panels."""
    queries = [rule["expr"] for rule in rules()] + [query for each in panels().values() for query in each]
    return {name for query in queries for name in NAME.findall(query)}


def test_every_name_that_is_asked_for_is_exported() -> None:
    assert len(asked()) > 15
    assert asked() - exported() == set()


NOT_SHOWN = {
    "dsr_requests_in_flight",  # the queue and what is at work are, by their kinds
    *(
        "dsr_cache_results_total",
        "dsr_cache_rejected_total",
        "dsr_cache_entries",
        "dsr_cache_max_bytes",
    ),  # hits and bytes are
}


def test_every_name_that_is_exported_is_shown_or_known_not_to_be() -> None:
    """By its stem: a histogram is three samples, of which a query needs one or two."""
    stems = {re.sub(r"_(created|bucket|sum|count)$", "", name) for name in exported()}
    assert {stem for stem in stems if not any(name.startswith(stem) for name in asked())} == NOT_SHOWN


def test_no_panel_hides_another_of_its_title() -> None:
    assert len(panels()) == sum(len(row) for _, row in ROWS)


def test_alerts_know_every_route_that_takes_a_video() -> None:
    [alert] = [rule for rule in rules() if rule.get("alert") == "DsrUndecodable"]
    [named] = re.findall(r'route=~"([^"]+)"', alert["expr"])
    for route in ("/v1/answers", "/v1/chat/completions", "/v1/videos", "/v1/reconstructions"):
        assert re.fullmatch(named, route), route


def test_the_dashboard_is_the_one_that_its_maker_makes() -> None:
    assert json.loads(DASHBOARD.read_text()) == dashboard(), "python -m deploy.monitoring.dashboard > its file"


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert set(rule["annotations"]) == {"summary", "do"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_prometheus_understands_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file()))
    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
