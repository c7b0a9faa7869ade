"""The files themselves, without kubectl: they are YAML, every one is used, and what two of them say alike is alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve import proxy
from serve.local import read_settings
from serve.settings import Settings
from tests.deploy.manifests import KUSTOMIZE, OVERLAYS, ROOT, Document

FILES = sorted([*KUSTOMIZE.rglob("*.yaml"), *(ROOT / "deploy" / "monitoring").glob("*.yaml")])
SERVICES = [path for path in FILES if "serveConfigV2:" in path.read_text()]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def documents(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def kustomizations() -> list[tuple[Path, Document]]:
    return [(path.parent, documents(path)[0]) for path in FILES if path.name == "kustomization.yaml"]


def named_by(folder: Path, kustomization: Document) -> set[Path]:
    """The files and folders that a kustomization names."""
    names: list[str] = [*kustomization.get("resources", []), *kustomization.get("components", [])]
    names += [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
    names += [file for generated in kustomization.get("configMapGenerator", []) for file in generated.get("files", [])]
    names += [kustomization["openapi"]["path"]] if "openapi" in kustomization else []
    return {(folder / name).resolve() for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_holds_objects_of_kubernetes(path: Path) -> None:
    found = documents(path)
    assert found
    for document in found:
        assert {"apiVersion", "kind"} <= document.keys(), document


def test_every_file_is_named_and_every_name_is_a_file() -> None:
    named = set().union(*(named_by(folder, kustomization) for folder, kustomization in kustomizations()))
    assert not [path for path in named if not path.exists()]
    pieces = {path for path in KUSTOMIZE.rglob("*") if path.is_file() and path.name != "kustomization.yaml"}
    assert pieces <= named


def test_the_overlays_are_those_that_are_tested() -> None:
    assert {path.name for path in (KUSTOMIZE / "overlays").iterdir()} == set(OVERLAYS)


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.parent.name)
def test_the_arguments_are_those_of_the_builder(path: Path) -> None:
    [document] = documents(path)
    [application] = yaml.safe_load(document["spec"]["serveConfigV2"])["applications"]
    assert application["import_path"] == "serve.app:build"
    settings = Settings.model_validate(application["args"])
    assert settings.ingress.access.keys_file == Path("/etc/dsr/keys/keys.yaml")


@pytest.mark.parametrize("name", ["serve-local.yaml", "serve-container.yaml"])
def test_a_serve_config_is_read_by_the_service(name: str) -> None:
    settings = read_settings(ROOT / "deploy" / name)
    assert settings.checkpoint.endswith("models/tiny")


def test_pods_of_one_group_are_confined_as_those_of_many() -> None:
    """The component repeats what the base says of a worker: an anchor does not reach over files."""
    [base] = documents(KUSTOMIZE / "base" / "rayservice.yaml")
    [component] = documents(KUSTOMIZE / "components" / "one-group" / "together.yaml")
    ingress = base["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    together = component["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]["template"]["spec"]
    assert _same_of(ingress) == _same_of(together)


def _same_of(spec: Document) -> dict[str, Any]:
    alike = {"image", "env", "ports", "securityContext", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"}
    own = {
        key: value for key, value in spec.items() if key not in ("containers", "volumes", "topologySpreadConstraints")
    }
    return own | {f"container.{key}": spec["containers"][0][key] for key in alike}


def test_the_image_is_built_of_what_is_pinned() -> None:
    [base] = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.M)
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+", base)
    installs = re.findall(r"pip install (.*?)(?: \\)?$", DOCKERFILE, re.M)
    assert len(installs) == 3
    assert all("--constraint requirements.lock" in line or "--no-deps" in line for line in installs)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE


def test_the_image_starts_what_the_service_needs_and_not_as_root() -> None:
    service = DOCKERFILE.split(" AS service\n")[1]
    assert re.findall(r"^USER (.*)$", service, re.M) == ["10001:10001"]
    assert f"{proxy.CALLBACK}={proxy.IMPORT_PATH}" in service
    assert "HEALTHCHECK" in service


def test_the_build_sees_no_weights_but_the_embedded_ones() -> None:
    """By the ignore file: everything is left out, then some is let in."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [ROOT / line.removeprefix("!") for line in lines if line.startswith("!")]
    assert all(path.exists() for path in let_in)
    weights = {p for path in let_in if path.is_dir() for p in path.rglob("*.safetensors")}
    assert {path.relative_to(ROOT).parts[:2] for path in weights} == {("models", "tiny")}
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert {(ROOT / word).resolve() for word in copied} == {path.resolve() for path in let_in}
