"""The overlays as kubectl renders them: every rule holds, and what each promises is so."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.settings import Settings
from tests.deploy.manifests import (
    EVERYTHING,
    OVERLAYS,
    RECONSTRUCTOR,
    ROOT,
    STAGES,
    Document,
    container,
    custom_resources,
    of_kind,
    rendered,
    service,
)
from tests.deploy.rules import problems

NO_PODS = {"replicas": 0, "minReplicas": 0}


@pytest.mark.parametrize("overlay", [*OVERLAYS, EVERYTHING.name])
def test_an_overlay_breaks_no_rule(overlay: str) -> None:
    assert problems(rendered(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_serve_takes_the_config(overlay: str) -> None:
    config = ServeDeploySchema.model_validate(service(rendered(overlay)).config)
    assert config.applications[0].import_path == "serve.app:build"


def test_with_everything_there_are_the_gateway_and_what_prometheus_needs() -> None:
    documents = rendered(EVERYTHING.name)
    assert service(documents).spec["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    for kind in ("PodMonitor", "ScrapeConfig", "PrometheusRule"):
        assert len(of_kind(documents, kind)) == 1
    [dashboard] = [d for d in of_kind(documents, "ConfigMap") if "grafana_dashboard" in d["metadata"].get("labels", {})]
    assert json.loads(dashboard["data"]["dashboard.json"])["panels"]
    [scrape] = of_kind(documents, "ScrapeConfig")
    ours = service(documents).document["metadata"]
    assert scrape["spec"]["staticConfigs"] == [{"targets": [f"{ours['name']}-serve-svc.{ours['namespace']}.svc:8000"]}]


def test_the_laptop_needs_no_gpu_and_fetches_nothing() -> None:
    documents = rendered("laptop")
    ours = service(documents)
    assert ours.settings.checkpoint == "/app/models/tiny"
    assert (ROOT / ours.settings.checkpoint.removeprefix("/app/") / "config.json").is_file()
    assert not of_kind(documents, "Job")
    assert all(ours.stage(stage).gpus == 0 for stage in STAGES)
    assert not any("gpu" in key for pod in ours.templates.values() for key in container(pod)["resources"]["limits"])


def test_on_a_single_gpu_the_fractions_of_all_stages_make_one() -> None:
    ours = service(rendered("single-gpu"))
    assert list(ours.groups) == ["together"]
    assert sum(ours.stage(stage).gpus * ours.stage(stage).replicas for stage in STAGES) == pytest.approx(1)
    assert container(ours.templates["together"])["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_on_several_gpus_every_stage_has_its_group() -> None:
    ours = service(rendered("multi-gpu"))
    assert [ours.group_of(stage) for stage in (*STAGES, RECONSTRUCTOR)] == [*STAGES, RECONSTRUCTOR]
    gpus = {name: container(pod)["resources"]["limits"].get("nvidia.com/gpu") for name, pod in ours.templates.items()}
    assert gpus == dict.fromkeys(("head", "ingress", "frames")) | dict.fromkeys((*STAGES[2:], RECONSTRUCTOR), "1")
    assert ours.cluster["gcsFaultToleranceOptions"]["redisAddress"] == "dsr-redis:6379"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_no_reconstructor_until_somebody_asks_for_one(overlay: str) -> None:
    documents = rendered(overlay)
    ours = service(documents)
    assert ours.settings.reconstructor is None
    assert f"stage-{RECONSTRUCTOR}" in custom_resources(ours.groups[ours.group_of(RECONSTRUCTOR)])
    assert ours.groups.get(RECONSTRUCTOR, NO_PODS).items() >= NO_PODS.items()
    assert not any("pi3" in json.dumps(document) for document in of_kind(documents, "Job"))


def test_with_its_line_and_its_weights_the_reconstructor_breaks_no_rule() -> None:
    documents = rendered(EVERYTHING.name)
    switch_on(documents)
    ours = service(documents)
    assert ours.stages == (*STAGES, RECONSTRUCTOR)
    assert ours.settings.reconstructor is not None
    assert problems(documents) == []
    fetched = {source["data"].get("DIRECTORY") for source in of_kind(documents, "ConfigMap")}
    assert ours.settings.reconstructor.checkpoint in fetched
    jobs = {job["metadata"]["name"]: job["spec"]["template"]["spec"] for job in of_kind(documents, "Job")}
    named = {name: spec["containers"][0]["envFrom"][0]["configMapRef"]["name"] for name, spec in jobs.items()}
    assert named == {"dsr-weights": "dsr-weights", "dsr-weights-pi3": "dsr-weights-pi3"}


def test_a_reconstructor_on_a_pod_that_has_no_gpu_is_named() -> None:
    documents = rendered("multi-gpu")
    switch_on(documents)
    limits = container(service(documents).templates[RECONSTRUCTOR])["resources"]["limits"]
    del limits["nvidia.com/gpu"]
    assert "group reconstructor: a replica needs 1.0 gpus, a pod has 0.0" in problems(documents)


def switch_on(documents: list[Document]) -> None:
    """As deploy/README.md says: the line without its sign."""
    spec = service(documents).spec
    assert "# reconstructor:" in spec["serveConfigV2"]
    spec["serveConfigV2"] = spec["serveConfigV2"].replace("# reconstructor:", "reconstructor:")


@pytest.mark.parametrize("overlay", ["single-gpu", "multi-gpu"])
def test_the_job_fetches_the_checkpoint_that_is_served(overlay: str) -> None:
    documents = rendered(overlay)
    [source] = of_kind(documents, "ConfigMap")
    assert source["data"]["DIRECTORY"] == service(documents).settings.checkpoint


@pytest.mark.parametrize("overlay", ["single-gpu", "multi-gpu"])
def test_the_network_lets_in_requests_and_nothing_else(overlay: str) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(rendered(overlay), "NetworkPolicy")}
    assert policies["dsr-deny-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    everybody = {
        name: rule for name, spec in policies.items() for rule in spec.get("ingress", []) if "from" not in rule
    }
    assert everybody == {"dsr-requests": {"ports": [{"port": 8000}]}}
    assert policies["dsr-ray"]["ingress"] == [{"from": [{"podSelector": policies["dsr-ray"]["podSelector"]}]}]


def test_the_readmes_command_scales_the_encoder_and_changes_nothing_else() -> None:
    readme = (ROOT / "deploy" / "README.md").read_text()
    [program] = re.findall(r"sed -E '([^']+)'", readme)
    for overlay in OVERLAYS:
        before = service(rendered(overlay)).spec["serveConfigV2"]
        after = subprocess.run(["sed", "-E", program], input=before, capture_output=True, text=True, check=True).stdout
        changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
        assert len(changed) == 1, overlay
        was, now = (
            Settings.model_validate(yaml.safe_load(text)["applications"][0]["args"]) for text in (before, after)
        )
        encoder = was.encoder.model_copy(update={"replicas": 4})
        assert now == was.model_copy(update={"encoder": encoder})
