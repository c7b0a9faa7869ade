"""The laptop's manifest on a real Ray, in the real image, started as KubeRay starts it: `python -m pytest -m image`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from serve.access.keyring import new_key
from tests.deploy import containers
from tests.deploy.containers import Image, run
from tests.deploy.manifests import ROOT, STAGES, rendered, service

SAMPLE = ROOT / "models" / "tiny" / "sample"

pytestmark = [pytest.mark.image, pytest.mark.skipif(bool(containers.missing()), reason=containers.missing())]


def test_the_laptops_manifest_serves_on_ray(image: Image) -> None:
    ours = service(rendered("laptop"))
    key, digest = new_key()
    config = json.loads(json.dumps(ours.config))
    config["http_options"]["host"] = "127.0.0.1"
    config["applications"][0]["args"]["ingress"]["access"]["keys_file"] = "/data/keys.yaml"  # no Secret is mounted here
    plan = {
        "token": "a-token-of-one-test",
        "keys": f"keys:\n  tester: {{sha256: [{digest}]}}\n",
        "key": key,
        "config": config,
        "head": {**ours.head["rayStartParams"], "dashboard-host": "127.0.0.1"},
        "worker": {**ours.groups["together"]["rayStartParams"], "num-cpus": "4"},
        "question": _question(),
    }
    script = (Path(__file__).parent / "as_kuberay.py").read_text()
    done = run(image.files, image.facts, ["python", "-c", script], said=json.dumps(plan), alone=True, seconds=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    [head] = json.loads(found["head"])
    assert set(found["replicas"]) == set(STAGES)
    assert all(nodes and head["node_id"] not in nodes for nodes in found["replicas"].values())
    assert found["stranger"] == 401, "Ray took a request without its token"
    assert found["probes"] == [200, 200, 200, 200, 404]
    assert found["without_key"] == 401
    assert sum(found["answer"]["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def _question() -> dict[str, Any]:
    sample = json.loads((SAMPLE / "question.json").read_text())
    data = base64.b64encode((SAMPLE / "clip.mp4").read_bytes()).decode()
    return {"video": {"data": data}, "question": sample["question"], "options": sample["options"]}
