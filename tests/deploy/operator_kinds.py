"""The kinds of Prometheus's operator that we use: their keys, as in its API reference, and what they point at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.deploy.manifests import Document, Service, container

GROUP = "monitoring.coreos.com"
Keys = dict[str, Any]  # below a key: its keys, or None for a value that is not looked into
SPECS: dict[tuple[str, str], Keys] = {
    ("v1", "PodMonitor"): {
        "selector": {"matchLabels": None},
        "podTargetLabels": None,
        "podMetricsEndpoints": {"port": None, "interval": None},
    },
    ("v1alpha1", "ScrapeConfig"): {
        "jobName": None,
        "scrapeInterval": None,
        "scrapeTimeout": None,
        "metricsPath": None,
        "staticConfigs": {"targets": None},
        "authorization": {"type": None, "credentials": {"name": None, "key": None}},
    },
    ("v1", "PrometheusRule"): {
        "groups": {
            "name": None,
            "rules": {"record": None, "alert": None, "expr": None, "for": None, "labels": None, "annotations": None},
        }
    },
}


def is_operators(document: Document) -> bool:
    return str(document["apiVersion"]).startswith(f"{GROUP}/")


def operator_problems(document: Document, ours: Service) -> Iterator[str]:
    version, kind = document["apiVersion"].removeprefix(f"{GROUP}/"), document["kind"]
    where = f"{kind} {document['metadata']['name']}"
    if (version, kind) not in SPECS:
        yield f"{where}: no such kind in {GROUP}/{version}"
        return
    found = [*_unknown(f"{where}: spec", document["spec"], SPECS[version, kind])]
    yield from found
    if kind == "PodMonitor" and not found:
        yield from _pod_problems(where, document["spec"], ours)


def _unknown(where: str, part: Document | list[Document], known: Keys) -> Iterator[str]:
    for each in part if isinstance(part, list) else [part]:
        for key, value in each.items():
            if key not in known:
                yield f"{where}.{key}: no such key"
            elif known[key] is not None:
                yield from _unknown(f"{where}.{key}", value, known[key])


def _pod_problems(where: str, spec: Document, ours: Service) -> Iterator[str]:
    """Every pod of Ray has the labels (KubeRay adds those of `ray.io/`) and the port."""
    for name, template in ours.templates.items():
        labels = {**template["metadata"]["labels"], "ray.io/is-ray-node": "yes"}
        if not spec["selector"]["matchLabels"].items() <= labels.items():
            yield f"{where}: selects no pod of {name}"
        ports = {port["name"] for port in container(template)["ports"]}
        for endpoint in spec["podMetricsEndpoints"]:
            if endpoint["port"] not in ports:
                yield f"{where}: pods of {name} have no port {endpoint['port']!r}"
