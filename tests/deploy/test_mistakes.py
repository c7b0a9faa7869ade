"""A mistake in a manifest is found, and named, before a cluster sees it: one at a time, in an overlay that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.manifests import Document, Service, container, of_kind, rendered, service
from tests.deploy.rules import key_problems, problems

Mistake = Callable[[Service], Any]


def replaced(old: str, new: str) -> Mistake:
    """In the text of the Serve config."""

    def change(ours: Service) -> None:
        text = ours.spec["serveConfigV2"]
        assert old in text
        ours.spec["serveConfigV2"] = text.replace(old, new, 1)

    return change


def renamed(path: str, new: str) -> Mistake:
    """The last key of a path below `spec`."""

    def change(ours: Service) -> None:
        *parents, old = path.split(".")
        part: Document = ours.spec
        for key in parents:
            part = part[key]
        part[new] = part.pop(old)

    return change


def on_group(name: str, change: Callable[[Document], Any]) -> Mistake:
    return lambda ours: change(ours.groups[name])


def on_pod(name: str, change: Callable[[Document], Any]) -> Mistake:
    return lambda ours: change(ours.templates[name])


def param(name: str, value: str) -> Callable[[Document], Any]:
    return lambda group: group["rayStartParams"].update({name: value})


MISTAKES: dict[str, tuple[Mistake, str]] = {
    # keys
    "a key of the spec": (renamed("serveConfigV2", "serveConfigV3"), "serveConfigV3"),
    "a key of the cluster": (
        renamed("rayClusterConfig.enableInTreeAutoscaling", "enableAutoscaling"),
        "enableAutoscaling",
    ),
    "a key of a group": (on_group("encoder", lambda group: group.update(maxReplica=8)), "maxReplica"),
    "a key of a pod": (on_pod("encoder", lambda pod: pod["spec"].update(toleration=[])), "toleration"),
    "a key of a container": (on_pod("head", lambda pod: container(pod).update(volumeMount=[])), "volumeMount"),
    "an option of ray start": (on_group("frames", param("num-cpu", "1")), "rayStartParams.num-cpu"),
    "a key of the Serve config": (replaced("http_options", "http_option"), "serveConfigV2.http_option: no such key"),
    "a key of the application": (replaced("route_prefix", "routeprefix"), "application.routeprefix: no such key"),
    # names of stages
    "a stage's name in the args": (replaced("encoder:", "encoders:"), "args.encoders: Extra inputs"),
    "a stage's resource": (replaced("stage-encoder", "stage-encode"), "encoder asks for {'stage-encode': 0.001}"),
    "a group's resource": (on_group("encoder", param("resources", '"{\\"stage-encode\\": 1}"')), "no stage asks for"),
    "a resource on two groups": (
        on_group("selector", param("resources", '"{\\"stage-selector\\": 1, \\"stage-encoder\\": 1}"')),
        "stage-encoder is on 2 groups",
    ),
    "a resource of the head": (lambda ours: param("resources", '"{\\"stage-frames\\": 1}"')(ours.head), "the head has"),
    "pods of a reconstructor that is off": (
        on_group("reconstructor", lambda group: group.update(replicas=1)),
        "group reconstructor has pods, and no stage for them",
    ),
    # arguments
    "an argument": (replaced("batch_patches", "batch_patch"), "args.encoder.batch_patch: Extra inputs"),
    "an argument's value": (replaced("dtype: bfloat16", "dtype: bf16"), "args.encoder.dtype: Input should be"),
    "a GPU device without a GPU": (replaced("gpus: 1\n", "gpus: 0\n"), "device cuda with gpus 0"),
    "the builder's name": (replaced("serve.app:build", "serve.app:built"), "has no function 'built'"),
    "the builder's module": (replaced("serve.app:build", "serve.apps:build"), "there is no module 'serve.apps'"),
    "the port": (replaced("port: 8000", "port: 8001"), "ask port 8000"),
    "the address": (replaced("host: 0.0.0.0", "host: 127.0.0.1"), "ask port 8000"),
    # what must fit together
    "Ray's version": (lambda ours: ours.cluster.update(rayVersion="2.59.0"), "rayVersion is 2.59.0"),
    "no token": (lambda ours: ours.cluster.pop("authOptions"), "authOptions"),
    "work on the head": (lambda ours: param("num-cpus", "1")(ours.head), "num-cpus"),
    "more replicas than pods": (replaced("replicas: 4\n", "replicas: 100\n"), "maxReplicas is 40"),
    "a replica larger than a pod": (replaced("gpus: 1\n", "gpus: 2\n"), "a replica needs 2.0 gpus, a pod has 1.0"),
    "draining longer than a pod may": (replaced("drain_seconds: 60", "drain_seconds: 200"), "drain_seconds, 200"),
    "a store that is no volume": (replaced("/data/videos", "/videos"), "ingress: /videos is on no volume"),
    "a checkpoint that is no volume": (replaced("/weights/dsr-7b", "/weight/dsr-7b"), "is on no volume"),
    "keys that are no volume": (replaced("/etc/dsr/keys/", "/etc/dsr/key/"), "/etc/dsr/key/keys.yaml is on no volume"),
    "no keys": (replaced("access: {keys_file: /etc/dsr/keys/keys.yaml}", "access: {}"), "ingress.access.keys_file"),
    "a proxy without our middleware": (
        on_pod("decoder", lambda pod: container(pod)["env"].pop(0)),
        "switch limits off",
    ),
    "a root that is written to": (
        on_pod("frames", lambda pod: container(pod)["securityContext"].update(readOnlyRootFilesystem=False)),
        "container ray is not confined",
    ),
    "root": (on_pod("frames", lambda pod: pod["spec"]["securityContext"].update(runAsNonRoot=False)), "not confined"),
    "the image's version": (
        on_pod("ingress", lambda pod: container(pod).update(image="dsr-serve")),
        "no stated version",
    ),
    "an object store above its memory": (
        on_group("encoder", param("object-store-memory", "9000000000")),
        "the object store",
    ),
    "a mount without a volume": (on_pod("encoder", lambda pod: pod["spec"]["volumes"].pop()), "and not both"),
    "a Secret that nobody makes": (
        on_pod("ingress", lambda pod: _volume(pod, "keys")["secret"].update(secretName="dsr-keys")),
        "there is no Secret dsr-keys",
    ),
}


def _volume(pod: Document, name: str) -> Document:
    [found] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == name]
    return found


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(mistake: Mistake, sentence: str) -> None:
    documents = rendered("multi-gpu")
    mistake(service(documents))
    found = problems(documents)
    assert any(sentence in problem for problem in found), found


@pytest.mark.parametrize(
    ("kind", "key", "sentence"),
    [("PodDisruptionBudget", "minAvailabel", "minAvailabel"), ("NetworkPolicy", "podSelectors", "podSelectors")],
)
def test_a_wrong_key_of_another_kind_is_named(kind: str, key: str, sentence: str) -> None:
    documents = rendered("multi-gpu")
    of_kind(documents, kind)[0]["spec"][key] = 1
    assert any(sentence in problem for problem in problems(documents))


def test_a_budget_of_no_pod_is_named() -> None:
    documents = rendered("multi-gpu")
    budget = of_kind(documents, "PodDisruptionBudget")[0]
    budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = "encoders"
    assert any("no pod has the labels" in problem for problem in problems(documents))


@pytest.mark.parametrize(
    "name", ["a key of the spec", "a key of the cluster", "a key of a group", "an option of ray start"]
)
def test_our_own_list_of_keys_needs_no_schema(name: str) -> None:
    mistake, sentence = MISTAKES[name]
    ours = service(rendered("multi-gpu"))
    assert list(key_problems(ours)) == []
    mistake(ours)
    assert any(sentence in problem for problem in key_problems(ours))
