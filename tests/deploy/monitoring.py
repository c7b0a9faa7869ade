"""What the monitoring files ask of the service."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path("deploy/monitoring")
RULES, DASHBOARD, MAKER = (FOLDER / name for name in ("rules.yaml", "dashboard.json", "dashboard.py"))
NAME = re.compile(r"\bdsr_\w+")
INTERVAL = re.compile(r"\[\d+m\]")


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> dict[str, list[str]]:
    """The queries of every panel, by its title."""
    dashboard = json.loads(DASHBOARD.read_text())
    return {p["title"]: [t["expr"] for t in p["targets"]] for p in dashboard["panels"] if p["type"] != "row"}


def made() -> dict[str, Any]:
    """What the dashboard's maker makes now."""
    spec = importlib.util.spec_from_file_location("dashboard", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dashboard: dict[str, Any] = module.dashboard()
    return dashboard
