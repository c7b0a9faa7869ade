"""`python -m deploy.monitoring.dashboard > deploy/monitoring/dashboard.json`: the Grafana dashboard, from one table."""

from __future__ import annotations

import json
import sys
from typing import Any

ANSWERS, SCENES = 'route=~"/v1/(answers|chat/completions)"', 'route="/v1/reconstructions"'
Query = tuple[str, str]  # its legend, and PromQL
Panel = tuple[str, str, list[Query]]  # title, unit, queries


def _quantiles(route: str) -> list[Query]:
    """Of the time from the first byte of a request to the last one of its answer."""
    times = f"sum by (le) (rate(dsr_request_seconds_bucket{{{route}}}[5m]))"
    return [(f"{100 * q:.0f} %", f"histogram_quantile({q}, {times})") for q in (0.5, 0.95, 0.99)]


ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Users",
        [
            ("Requests", "reqps", [("{{status}}", "sum by (status) (rate(dsr_requests_total[1m]))")]),
            ("Answer time", "s", _quantiles(ANSWERS)),
            ("Refused or failed", "reqps", [("{{code}}", "sum by (code) (rate(dsr_rejects_total[5m]))")]),
            ("In the queue and at work", "short", [("{{state}}", "sum by (state) (dsr_admission_requests)")]),
        ],
    ),
    (
        "Reconstructions",
        [
            ("Requests", "reqps", [("{{status}}", f"sum by (status) (rate(dsr_requests_total{{{SCENES}}}[1m]))")]),
            ("Time", "s", _quantiles(SCENES)),
            ("In the queue and at work", "short", [("{{state}}", "sum by (state) (dsr_reconstruction_requests)")]),
            ("Patches that wait or are at work", "short", [("", 'dsr_stage_work{stage="reconstructor"}')]),
        ],
    ),
    (
        "Stages",
        [
            (
                "Mean time of a stage in an answer",
                "s",
                [
                    (
                        "{{stage}}",
                        "sum by (stage) (rate(dsr_stage_seconds_sum[5m]))"
                        " / sum by (stage) (rate(dsr_stage_seconds_count[5m]))",
                    )
                ],
            ),
            ("Work, in the stage's unit", "short", [("{{stage}}", "dsr_stage_work")]),
            ("Replicas", "short", [("{{stage}}", "dsr_stage_replicas")]),
            ("Requests", "short", [("{{stage}} {{state}}", "dsr_stage_requests")]),
            (
                "Requests in a pass",
                "short",
                [("{{stage}}", "rate(dsr_stage_items_total[5m]) / rate(dsr_stage_passes_total[5m])")],
            ),
            ("Memory for keys and values", "percentunit", [("{{stage}}", "dsr_stage_memory_full")]),
            ("Videos not decoded", "ops", [("{{reason}}", "rate(dsr_decode_failures_total[5m])")]),
            ("GPU memory", "bytes", [("{{stage}}", "dsr_stage_device_bytes")]),
        ],
    ),
    (
        "Caches",
        [
            (
                "Hits",
                "percentunit",
                [
                    (
                        "{{stage}} {{cache}}",
                        "rate(dsr_cache_hits_total[5m])"
                        " / (rate(dsr_cache_hits_total[5m]) + rate(dsr_cache_misses_total[5m]))",
                    )
                ],
            ),
            ("Bytes", "bytes", [("{{stage}} {{cache}}", "dsr_cache_bytes")]),
            ("Evictions", "ops", [("{{stage}} {{cache}}", "rate(dsr_cache_evictions_total[5m])")]),
            ("Tokens", "short", [("{{kind}}", "sum by (kind) (rate(dsr_tokens_total[1m]))")]),
        ],
    ),
]
WIDTH, HEIGHT, COLUMNS = 6, 8, 4  # of 24 columns


def dashboard() -> dict[str, Any]:
    """As Grafana imports it: a row of panels for each of `ROWS`, all on the data source that its reader chooses."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": _place(0, y, 24, 1)})
        y += 1
        for number, (name, unit, queries) in enumerate(row):
            place = _place(number % COLUMNS * WIDTH, y + number // COLUMNS * HEIGHT, WIDTH, HEIGHT)
            panels.append(_panel(len(panels) + 1, name, unit, queries, place))
        y += HEIGHT * (1 + (len(row) - 1) // COLUMNS)
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "dsr-serve",
        "title": "dsr-serve",
        "schemaVersion": 41,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _panel(number: int, name: str, unit: str, queries: list[Query], place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(65 + at), "datasource": source, "expr": query, "legendFormat": legend}
        for at, (legend, query) in enumerate(queries)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": name,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
