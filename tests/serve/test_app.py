from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from models.errors import CheckpointError
from serve.app import FORBIDDEN, HA_PROXY, build
from serve.settings import Access, EncoderStage, Ingress, Listen, Settings, Store


def graph(application: Any) -> dict[str, Any]:
    """Every deployment that an application binds, by name, with the names of those it was given."""
    found: dict[str, Any] = {}

    def walk(node: Any) -> None:
        deployment = node._bound_deployment
        inner = [a for a in _leaves(deployment.init_args) if hasattr(a, "_bound_deployment")]
        found[deployment.name] = (deployment, {child._bound_deployment.name for child in inner})
        for child in inner:
            walk(child)

    walk(application)
    return found


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def test_each_stage_asks_only_the_one_before_it_and_has_its_own_replicas(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "store": {"url": str(tmp_path)},
            "selector": {"replicas": 2, "routing": {"slack": 3}},
            "decoder": {"replicas": 3, "max_queued": 7},
        }
    )
    bound = graph(build(settings))
    asks = {name: names for name, (_, names) in bound.items()}
    assert asks == {
        "ingress": {"frames", "encoder", "selector", "decoder"},
        "decoder": {"frames", "selector"},
        "selector": {"encoder"},
        "encoder": {"frames"},
        "frames": set(),
    }
    replicas = {name: deployment.num_replicas for name, (deployment, _) in bound.items()}
    assert replicas == {"ingress": 1, "frames": 1, "encoder": 1, "selector": 2, "decoder": 3}
    assert bound["decoder"][0].max_queued_requests == 7
    routers = {name: deployment._deployment_config.request_router_config for name, (deployment, _) in bound.items()}
    by_clip = {name for name, router in routers.items() if router.request_router_class == "serve.routing.ClipRouter"}
    assert by_clip == {"frames", "encoder", "selector", "decoder"}
    assert routers["selector"].request_router_kwargs == {"factor": 1.25, "slack": 3, "virtual_nodes": 100}


def test_a_base_model_is_served_without_encoder_and_selector(tmp_path: Path) -> None:
    """A plain Qwen2.5-VL directory: the embedded checkpoint's decoder alone."""
    settings = Settings.model_validate({"store": {"url": str(tmp_path)}, "checkpoint": "models/tiny/decoder"})
    assert set(graph(build(settings))) == {"ingress", "frames", "decoder"}


def test_a_reconstructor_is_there_where_the_settings_have_one_and_asks_the_frames_alone(tmp_path: Path) -> None:
    settings = {"store": {"url": str(tmp_path)}, "reconstructor": {"checkpoint": "tests/golden/pi3", "replicas": 2}}
    bound = graph(build(settings))
    assert bound["reconstructor"][1] == {"frames"}
    assert "reconstructor" in bound["ingress"][1]
    assert bound["reconstructor"][0].num_replicas == 2
    router = bound["reconstructor"][0]._deployment_config.request_router_config
    assert router.request_router_class == "serve.routing.ClipRouter"
    stage = bound["reconstructor"][0].init_args[1]
    assert Path(stage).is_absolute(), "replicas may have another working directory"
    assert Settings.model_validate(settings).cpus == Settings().cpus + 2 * 0.5


@pytest.mark.parametrize("checkpoint", ["models/tiny", "models/tiny/decoder"])
def test_a_reconstructor_needs_pi3(checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match=r"reconstructor\.checkpoint: .* holds no π³"):
        build({"reconstructor": {"checkpoint": checkpoint}})


def test_a_missing_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointError, match="no/such/place"):
        build(Settings(checkpoint="no/such/place"))


def test_ray_hands_over_a_plain_dictionary(tmp_path: Path) -> None:
    assert set(graph(build({"store": {"url": str(tmp_path)}, "selector": {"replicas": 2}}))) >= {"ingress", "frames"}
    with pytest.raises(ValueError, match="replica"):
        build({"selector": {"replica": 2}})


def test_haproxy_needs_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HA_PROXY, "1")
    settings = Settings(store=Store(url=str(tmp_path)))
    with pytest.raises(RuntimeError, match="behind it every caller seems to be this machine"):
        build(settings)
    for access in (Access(open=True), Access(keys_file=tmp_path / "keys.yaml")):
        build(settings.model_copy(update={"ingress": Ingress(access=access)}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_that_others_reach_needs_keys(host: str, tmp_path: Path) -> None:
    settings = Settings(store=Store(url=str(tmp_path)))
    listen = Listen(host=host)
    with pytest.raises(RuntimeError, match="can be reached by others"):
        build(settings.model_copy(update={"ingress": Ingress(listen=listen)}))
    for access in (Access(open=True), Access(keys_file=tmp_path / "keys.yaml")):
        build(settings.model_copy(update={"ingress": Ingress(listen=listen, access=access)}))
    build(settings.model_copy(update={"ingress": Ingress(listen=Listen())}))


@pytest.mark.parametrize("logs", ["text", "json"])
def test_replicas_log_in_the_form_that_the_settings_say(logs: Literal["text", "json"], tmp_path: Path) -> None:
    bound = graph(build(Settings(store=Store(url=str(tmp_path)), logs=logs)))
    found = {deployment._deployment_config.logging_config["encoding"] for deployment, _ in bound.values()}
    assert found == {logs.upper()}


def test_admission_is_as_wide_as_the_stages_are(tmp_path: Path) -> None:
    settings = Settings(store=Store(url=str(tmp_path)), encoder=EncoderStage(replicas=3, batch_patches=10_000))
    ingress = graph(build(settings))["ingress"][0].init_args[0]
    assert (ingress.admission.patches, ingress.admission.answers) == (2 * 3 * 10_000, settings.decoder.running)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_ray_mode_that_breaks_large_tensors_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(RuntimeError, match=name):
        build(Settings())


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("serve.ingress", ("torch", "transformers")),
        ("serve.api", ("torch", "transformers", "ray")),
        ("serve.frames", ("torch", "transformers")),
        ("serve.encoder", ("transformers",)),
        ("serve.selector", ("transformers",)),
        ("serve.local", ("transformers",)),
        ("models", ("torch", "transformers", "av")),
        ("models.config", ("torch", "transformers", "av")),
        ("serve.settings", ("torch", "ray")),
        ("serve.reconstructions", ("torch", "ray")),
        ("serve.ring", ("torch", "ray")),
        ("serve.routing", ("torch", "transformers")),
        ("models.vlm", ("ray", "fastapi", "pydantic_settings")),
    ],
)
def test_a_process_loads_only_what_its_part_needs(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
