"""Reading of `deploy/kubernetes`: rendered by kubectl, and what is in a RayService, by name."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.settings import Settings, Stage

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kubernetes"
EVERYTHING = Path(__file__).parent / "everything"  # multi-gpu and the components that no overlay has
OVERLAYS = ("laptop", "single-gpu", "multi-gpu")
STAGES = ("ingress", "frames", "encoder", "selector", "decoder")  # that every deployment has
RECONSTRUCTOR = "reconstructor"  # where the settings have one

Document = dict[str, Any]


def rendered(overlay: str) -> list[Document]:
    """All documents of an overlay, the caller's own to change. Skips the test where there is no kubectl."""
    return copy.deepcopy(_render(EVERYTHING if overlay == EVERYTHING.name else KUSTOMIZE / "overlays" / overlay))


@cache
def _render(path: Path) -> list[Document]:
    kubectl = _kubectl()
    done = subprocess.run([kubectl, "kustomize", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def _kubectl() -> str:
    """Its path. Skips the test without one, or with one whose kustomize knows no components and merge keys."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed, and it renders the overlays: the files alone are checked")
    asked = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60)
    version = json.loads(asked.stdout or "{}").get("kustomizeVersion", "none")
    if not re.match(r"v([5-9]|\d\d)\.", version):
        pytest.skip(
            f"kubectl has kustomize {version}, the overlays need 5 or newer (kubectl 1.27): files alone are checked"
        )
    return path


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


@dataclass(frozen=True)
class Service:
    """The one RayService of an overlay."""

    document: Document

    @property
    def spec(self) -> Document:
        return self.document["spec"]

    @property
    def cluster(self) -> Document:
        return self.spec["rayClusterConfig"]

    @property
    def head(self) -> Document:
        return self.cluster["headGroupSpec"]

    @property
    def groups(self) -> dict[str, Document]:
        return {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}

    @property
    def templates(self) -> dict[str, Document]:
        """The pods of the head and of every group."""
        return {"head": self.head["template"], **{name: group["template"] for name, group in self.groups.items()}}

    @cached_property
    def config(self) -> Document:
        return yaml.safe_load(self.spec.get("serveConfigV2", ""))

    @property
    def args(self) -> Document:
        [application] = self.config["applications"]
        return application["args"]

    @cached_property
    def settings(self) -> Settings:
        return Settings.model_validate(self.args)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that the settings deploy."""
        return (*STAGES, RECONSTRUCTOR) if self.settings.reconstructor else STAGES

    def stage(self, name: str) -> Stage:
        stage = getattr(self.settings, name)
        assert isinstance(stage, Stage)
        return stage

    def group_of(self, stage: str) -> str:
        """The group whose pods have a stage's resource."""
        [name] = [name for name, group in self.groups.items() if f"stage-{stage}" in custom_resources(group)]
        return name


def service(documents: list[Document]) -> Service:
    [document] = of_kind(documents, "RayService")
    return Service(document)


def custom_resources(group: Document) -> dict[str, float]:
    """Ray's resources of each pod of a group: JSON in a string for the shell, as KubeRay hands it on."""
    quoted = group.get("rayStartParams", {}).get("resources", '"{}"')
    return json.loads(json.loads(quoted))


def container(template: Document) -> Document:
    """Ray's, which is the first one."""
    return template["spec"]["containers"][0]


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: cores, bytes or pieces."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    text = str(text)
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)
