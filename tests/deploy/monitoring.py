"""What the monitoring files ask of the service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path("deploy/monitoring")
RULES, DASHBOARD = FOLDER / "rules.yaml", FOLDER / "dashboard.json"
NAME = re.compile(r"\bdsr_\w+")
INTERVAL = re.compile(r"\[\d+m\]")


def rule_file() -> dict[str, Any]:
    """As a Prometheus without its operator takes it."""
    spec: dict[str, Any] = yaml.safe_load(RULES.read_text())["spec"]
    return spec


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = rule_file()["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> dict[str, list[str]]:
    """The queries of every panel, by its row and its title."""
    found: dict[str, list[str]] = {}
    row = ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found[f"{row}: {panel['title']}"] = [target["expr"] for target in panel["targets"]]
    return found
