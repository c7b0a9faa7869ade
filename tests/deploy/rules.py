"""What must hold of a rendered overlay. A rule yields a sentence for everything that is wrong."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from pydantic import ValidationError
from ray.scripts.scripts import start
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from serve.settings import Settings
from tests.deploy.manifests import (
    RECONSTRUCTOR,
    ROOT,
    STAGES,
    Document,
    Service,
    container,
    custom_resources,
    quantity,
    service,
)
from tests.deploy.operator_kinds import is_operators, operator_problems
from tests.deploy.pod_rules import pod_problems

KUBERNETES = "1.32"
SCHEMA = Path(os.environ.get("RAYSERVICE_SCHEMA", ROOT.parent / "shared" / "schemas" / "rayservice-v1.schema.json"))
RAY_OPTIONS = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}

# The keys that we use, by where they are; [] is any element of a list. More may exist: a new one is added here once
# somebody has looked it up, which is the point.
CLUSTER = "spec.rayClusterConfig"
RAYSERVICE_KEYS = {
    "spec": {
        *("deploymentUnhealthySecondThreshold", "excludeHeadPodFromServeSvc", "rayClusterConfig", "serveConfigV2"),
        *("rayClusterDeletionDelaySeconds", "serviceUnhealthySecondThreshold", "upgradeStrategy"),
    },
    "spec.upgradeStrategy": {"clusterUpgradeOptions", "type"},
    "spec.upgradeStrategy.clusterUpgradeOptions": {
        *("gatewayClassName", "intervalSeconds", "maxSurgePercent", "stepSizePercent"),
    },
    CLUSTER: {
        *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
        *("rayVersion", "workerGroupSpecs"),
    },
    f"{CLUSTER}.authOptions": {"mode"},
    f"{CLUSTER}.autoscalerOptions": {
        *("idleTimeoutSeconds", "imagePullPolicy", "resources", "securityContext", "upscalingMode", "version"),
        "volumeMounts",
    },
    f"{CLUSTER}.gcsFaultToleranceOptions": {"redisAddress", "redisPassword"},
    f"{CLUSTER}.headGroupSpec": {"rayStartParams", "template"},
    f"{CLUSTER}.workerGroupSpecs[]": {
        *("groupName", "maxReplicas", "minReplicas", "rayStartParams", "replicas", "template"),
    },
}


def problems(documents: list[Document]) -> list[str]:
    """Of all documents of one overlay. An overlay that cannot be read has no more rules."""
    found = [*kind_problems(documents)]
    ours = service(documents)
    found += [*key_problems(ours), *serve_problems(ours)]
    if not found:
        found += [*placement_problems(ours), *cluster_problems(ours), *pod_problems(documents, ours)]
    return found


def kind_problems(documents: list[Document]) -> Iterator[str]:
    """By the schemas of Kubernetes, in which an unknown key is an error, and KubeRay's, where that file is present."""
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "RayService":
            if SCHEMA.is_file():
                for error in _kuberay().iter_errors(document):
                    yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
        elif is_operators(document):
            yield from operator_problems(document, service(documents))
        else:
            yield from _built_in(name, document)
    for where, template in service(documents).templates.items():
        metadata = {"name": where, **template.get("metadata", {})}
        yield from _built_in(f"pods of {where}", {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata})


def _built_in(name: str, document: Document) -> Iterator[str]:
    yield from (f"{name}: {problem}" for problem in _verdict(json.dumps(document)))


@cache
def _verdict(document: str) -> tuple[str, ...]:
    """Of one document as JSON. Kept, since a mistake changes one of thirty, and each reads a megabyte of schemas."""
    try:
        kubernetes_validate.validate(json.loads(document), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (f"{'.'.join(map(str, error.path))}: {error.message}",)
    return ()


@cache
def _kuberay() -> Any:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def key_problems(ours: Service) -> Iterator[str]:
    """Our own list of keys, which needs no file of others, and Ray's own options."""
    for path, allowed in RAYSERVICE_KEYS.items():
        for part in _at(ours.document, path.split(".")):
            for key in part.keys() - allowed:
                yield f"{path}.{key}: no such key"
    for name, group in {"head": ours.head, **ours.groups}.items():
        for option in group.get("rayStartParams", {}).keys() - RAY_OPTIONS:
            yield f"{name}: rayStartParams.{option}: `ray start` has no such option"


def _at(part: Document, path: list[str]) -> Iterator[Document]:
    if not path:
        yield part
        return
    key = path[0]
    value = part.get(key.removesuffix("[]"), [] if key.endswith("[]") else None)
    for each in value if isinstance(value, list) else [value] if value is not None else []:
        yield from _at(each, path[1:])


def serve_problems(ours: Service) -> Iterator[str]:
    """The Serve config: keys that Ray would pass over silently, the builder's name, its arguments."""
    try:
        config = ours.config or {}
    except yaml.YAMLError as error:
        yield f"serveConfigV2 is not YAML: {error}"
        return
    if not isinstance(config, dict):
        yield f"serveConfigV2 is {config!r}, not a mapping"
        return
    yield from _unknown("serveConfigV2", config, set(ServeDeploySchema.model_fields))
    yield from _unknown("http_options", config.get("http_options", {}), set(HTTPOptionsSchema.model_fields))
    if config.get("http_options") != {"host": "0.0.0.0", "port": 8000}:
        yield f"http_options are {config.get('http_options')}: probes, Service and policies ask port 8000 of every pod"
    applications = config.get("applications", [])
    if len(applications) != 1:
        yield f"serveConfigV2 has {len(applications)} applications, expected 1"
        return
    [application] = applications
    yield from _unknown("application", application, set(ServeApplicationSchema.model_fields))
    yield from builder_problems(application.get("import_path", ""))
    try:
        Settings.model_validate(application.get("args", {}))
    except ValidationError as error:
        yield from (f"args.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def _unknown(where: str, found: Document, known: set[str]) -> Iterator[str]:
    yield from (f"{where}.{key}: no such key" for key in sorted(found.keys() - known))


def builder_problems(import_path: str) -> Iterator[str]:
    """The builder, read and not imported: that would load torch."""
    module, _, function = import_path.partition(":")
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        yield f"import_path {import_path!r}: there is no module {module!r}"
    elif function not in {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}:
        yield f"import_path {import_path!r}: {module} has no function {function!r}"


def placement_problems(ours: Service) -> Iterator[str]:
    """Every stage asks for the resource of its name, exactly one group has it, and has room for the replicas.

    The reconstructor's place is there before it is: it costs nothing until the settings have one.
    """
    known = {f"stage-{stage}" for stage in (*STAGES, RECONSTRUCTOR)}
    for name, group in ours.groups.items():
        for resource in custom_resources(group).keys() - known:
            yield f"group {name} has {resource!r}, which no stage asks for"
    if custom_resources(ours.head):
        yield "the head has a resource of a stage, and is to have no work"
    homes: dict[str, list[str]] = {}
    for stage in ours.stages:
        if ours.stage(stage).resources.keys() != {f"stage-{stage}"}:
            yield f"{stage} asks for {dict(ours.stage(stage).resources)}, and must for stage-{stage} alone"
        found = [name for name, group in ours.groups.items() if f"stage-{stage}" in custom_resources(group)]
        if len(found) != 1:
            yield f"stage-{stage} is on {len(found)} groups {found}, expected exactly one"
        else:
            homes.setdefault(found[0], []).append(stage)
    for name in ours.groups.keys() - homes.keys():
        if name != RECONSTRUCTOR:
            yield f"no stage lands on group {name}"
        elif ours.groups[name]["replicas"] or ours.groups[name]["minReplicas"]:
            yield f"group {name} has pods, and no stage for them"
    for name, stages in homes.items():
        yield from room_problems(ours, name, stages)


def room_problems(ours: Service, name: str, stages: list[str]) -> Iterator[str]:
    """Replicas go into the fewest pods; one replica is in one pod."""
    group = ours.groups[name]
    limits = container(group["template"])["resources"]["limits"]
    have = {"cpus": quantity(limits["cpu"]), "gpus": quantity(limits.get("nvidia.com/gpu", 0))}
    for what, there in have.items():
        sizes = [size for s in stages for size in [getattr(ours.stage(s), what)] * ours.stage(s).replicas]
        if max(sizes) > there:
            yield f"group {name}: a replica needs {max(sizes)} {what}, a pod has {there}"
            continue
        per_pod = int(there / max(sizes) + 1e-9) if max(sizes) else len(sizes)
        pods = 1 if sum(sizes) <= there + 1e-9 else -(-len(sizes) // per_pod)
        if pods > group["maxReplicas"]:
            yield f"group {name}: the replicas need {pods} pods for their {what}, maxReplicas is {group['maxReplicas']}"
    if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
        yield f"group {name}: replicas {group['replicas']} is not within minReplicas and maxReplicas"


def cluster_problems(ours: Service) -> Iterator[str]:
    """What KubeRay and Ray must agree on."""
    lock = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert lock is not None
    if ours.cluster["rayVersion"] != lock[1]:
        yield f"rayVersion is {ours.cluster['rayVersion']}, the lock and so the image have {lock[1]}"
    if ours.cluster.get("authOptions") != {"mode": "token"}:
        yield "authOptions: whoever reaches a port of Ray could run code"
    if ours.head["rayStartParams"].get("num-cpus") != "0":
        yield "the head's num-cpus is not 0: replicas could land there"
    drain = ours.settings.drain_seconds
    if ours.spec["rayClusterDeletionDelaySeconds"] <= drain:
        yield f"rayClusterDeletionDelaySeconds is not above drain_seconds, {drain}"
    for name, group in ours.groups.items():
        if group["template"]["spec"]["terminationGracePeriodSeconds"] <= drain:
            yield f"group {name}: terminationGracePeriodSeconds is not above drain_seconds, {drain}"
