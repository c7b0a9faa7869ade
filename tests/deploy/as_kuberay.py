"""What KubeRay does with a RayService, on one machine: `test_as_kuberay.py` runs it in the image, with a plan on stdin.

Starts a head and one worker by the commands that KubeRay makes of `rayStartParams`, hands the head the Serve config by
HTTP as KubeRay does, waits until everything runs, looks at what the probes ask, and asks a question with a key. Prints
one JSON object. Its network is its own, with a loopback and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DASHBOARD = "http://127.0.0.1:8265/api/serve/applications/"
HEAD_AGENT, WORKER_AGENT, SERVE = 52365, 52366, "http://127.0.0.1:8000"


def main() -> None:
    plan = json.load(sys.stdin)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=plan["token"])
    Path("/data/keys.yaml").write_text(plan["keys"])
    local = {"node-ip-address": "127.0.0.1"}
    ray_start("--head", plan["head"] | local | {"dashboard-agent-listen-port": str(HEAD_AGENT)})
    worker = {"address": "127.0.0.1:6379", "dashboard-agent-listen-port": str(WORKER_AGENT)}
    ray_start("", plan["worker"] | local | worker)
    stranger = status(DASHBOARD)
    call(DASHBOARD, plan["token"], plan["config"], method="PUT")
    applications = running(plan["token"])
    deployments = applications["dsr"]["deployments"]
    found = {
        "stranger": stranger,
        "replicas": {name: [r["node_id"] for r in each["replicas"]] for name, each in deployments.items()},
        "head": subprocess.run(
            ["ray", "list", "nodes", "--filter", "is_head_node=True", "--format", "json"],
            capture_output=True,
            text=True,
        ).stdout,
        "probes": [status(f"http://127.0.0.1:{port}/api/healthz") for port in (HEAD_AGENT, WORKER_AGENT)]
        + [status(f"{SERVE}/-/healthz"), status(f"{SERVE}/readyz"), status(f"{SERVE}/-/routes")],
        "without_key": status(f"{SERVE}/v1/videos"),
        "answer": call(f"{SERVE}/v1/answers", plan["key"], plan["question"]),
    }
    print("\n" + json.dumps(found))


def ray_start(kind: str, params: Mapping[str, str]) -> None:
    """Through a shell, whose quotes are part of what is tested."""
    options = " ".join(f"--{name}={value}" for name, value in params.items())
    subprocess.run(["/bin/bash", "-c", "--", f"ulimit -n 65536; ray start {kind} {options}"], check=True, timeout=300)


def call(url: str, token: str, body: Any = None, method: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=300) as response:
        text = response.read()
    return json.loads(text) if text else None


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def running(token: str, seconds: float = 400) -> Any:
    end = time.monotonic() + seconds
    while True:
        applications = call(DASHBOARD, token)["applications"]
        state = applications.get("dsr", {}).get("status")
        if state == "RUNNING":
            return applications
        if state == "DEPLOY_FAILED" or time.monotonic() > end:
            raise SystemExit(json.dumps(applications))
        time.sleep(2)


if __name__ == "__main__":
    main()
