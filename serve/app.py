"""The whole service on one screen: which stage asks which. Nothing else binds deployments.

ingress ──► decoder ──┬──► frames
        │             └──► selector ──► encoder ──► frames
        └─► reconstructor ──► frames        (where the settings have one)
"""

from __future__ import annotations

import os
from functools import partial
from ipaddress import ip_address
from typing import Any

from ray.serve import Application, Deployment, deployment
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from models.checkpoint import locate
from models.config import ModelConfig
from models.errors import CheckpointError
from models.layout import recognise
from serve.decoder import Decoder
from serve.encoder import Encoder
from serve.frames import Frames
from serve.ingress import Ingress
from serve.reconstructor import Reconstructor
from serve.routing import ClipRouter
from serve.selector import Selector
from serve.settings import Access, Admission, Autoscale, ReconstructorStage, RoutedStage, Settings, Stage
from serve.settings import Ingress as IngressSettings

REPORT_SECONDS = 1.0  # between two reports of a replica's work
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
# With either of these Ray passes results by value, at most 4 MiB each: a clip's tensors would fail with HTTP 500.
FORBIDDEN = ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_USE_GRPC_BY_DEFAULT")


def build(args: Settings | dict[str, Any]) -> Application:
    """The application for `serve.run`, or for `import_path: serve.app:build` in a Serve config with `args`.

    Raises:
        CheckpointError: there is no checkpoint where the settings say, or one of another kind.
        RuntimeError: the environment asks Ray for a mode in which large tensors fail, or which needs API keys.
    """
    args = Settings.model_validate(args)  # Ray hands over what the config file has
    for name in FORBIDDEN:
        if os.environ.get(name, "0") not in ("", "0"):
            raise RuntimeError(f"unset {name}: it limits what stages pass to each other to 4 MiB")
    layout = recognise(locate(args.checkpoint))
    checkpoint = str(layout.path.resolve())
    store = args.store.model_copy(update={"url": args.store.absolute})
    access, admission = _access(args.ingress), _admission(args, layout.model)
    ingress = args.ingress.model_copy(update={"access": access, "admission": admission})

    deployed = partial(_deployment, args=args)
    frames = deployed(Frames, "frames", args.frames).bind(args.frames, store)
    stages = {"frames": frames}
    selector = None
    if layout.model.selector is not None:
        encoder = deployed(Encoder, "encoder", args.encoder).bind(args.encoder, checkpoint, frames)
        selector = deployed(Selector, "selector", args.selector).bind(args.selector, checkpoint, encoder)
        stages |= {"encoder": encoder, "selector": selector}
    decoder = deployed(Decoder, "decoder", args.decoder).bind(args.decoder, checkpoint, frames, selector)
    stages["decoder"] = decoder
    if args.reconstructor is not None:
        weights = _pi3(args.reconstructor)
        stages["reconstructor"] = deployed(Reconstructor, "reconstructor", args.reconstructor).bind(
            args.reconstructor, weights, frames
        )
    return deployed(Ingress, "ingress", ingress).bind(ingress, store, checkpoint, stages, args.reconstructor)


def _pi3(stage: ReconstructorStage) -> str:
    """
    Raises:
        CheckpointError: what the settings name is no π³.
    """
    layout = recognise(locate(stage.checkpoint))
    if layout.kind != "pi3":
        raise CheckpointError(f"reconstructor.checkpoint: {layout.path} holds no π³ ({layout.kind})")
    return str(layout.path.resolve())


def _autoscaling(scale: Autoscale) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=scale.least,
        max_replicas=scale.most,
        upscale_delay_s=scale.up_seconds,
        downscale_delay_s=scale.down_seconds,
        look_back_period_s=scale.window_seconds,
        metrics_interval_s=REPORT_SECONDS,  # deprecated for variables that Ray 2.60 does not read yet
        policy=AutoscalingPolicy(policy_function="serve.scaling:ByWork", policy_kwargs={"target": scale.target}),
    )


def _admission(args: Settings, model: ModelConfig) -> Admission:
    """Two passes of every encoder, one that it works on and one that is ready for it; and every decoder full."""
    admission, frames = args.ingress.admission, model.frames
    clip = frames.count * frames.max_pixels / frames.patch_size**2
    patches = admission.patches or 2 * args.encoder.replicas * max(args.encoder.batch_patches, clip)
    answers = admission.answers or args.decoder.replicas * args.decoder.running
    return admission.model_copy(update={"patches": patches, "answers": answers})


def _access(ingress: IngressSettings) -> Access:
    """
    Raises:
        RuntimeError: without keys the service would be open to everybody, which nobody has said that it may be.
    """
    access, listen = ingress.access, ingress.listen
    if access.keys_file is not None:  # replicas may have another working directory
        return access.model_copy(update={"keys_file": access.keys_file.expanduser().absolute()})
    if not access.open and os.environ.get(HA_PROXY, "0") not in ("", "0"):
        raise RuntimeError(
            f"{HA_PROXY} listens on every address, and behind it every caller seems to be this machine: set "
            "ingress.access.keys_file, or ingress.access.open where everybody who can reach it may use it"
        )
    if not access.open and listen is not None and not ip_address(listen.host).is_loopback:
        raise RuntimeError(
            f"ingress.listen.host {listen.host} can be reached by others: set ingress.access.keys_file, or "
            "ingress.access.open where everybody who can reach it may use it"
        )
    return access


def _deployment(kind: type, name: str, stage: Stage, args: Settings) -> Deployment:
    """A stage's class with its share of the machine, and the way to its replicas."""
    router = RequestRouterConfig()
    if isinstance(stage, RoutedStage):
        router = RequestRouterConfig(
            request_router_class=ClipRouter, request_router_kwargs=stage.routing.model_dump(mode="json")
        )
    return deployment(
        kind,
        name=name,
        num_replicas="auto" if stage.autoscale else stage.replicas,
        autoscaling_config=None if stage.autoscale is None else _autoscaling(stage.autoscale),
        max_ongoing_requests=stage.max_ongoing,
        max_queued_requests=stage.max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),  # Ray's own is a 503 without a time
        health_check_period_s=1,  # Ray's 10 s is how long a stage with one replica would stay away when that dies
        graceful_shutdown_timeout_s=args.drain_seconds,
        logging_config=LoggingConfig(encoding=args.logs.upper()),
        graceful_shutdown_wait_loop_s=0.2,  # how often a replica that is to go looks whether its requests are done
        request_router_config=router,
        ray_actor_options={"num_cpus": stage.cpus, "num_gpus": stage.gpus, "resources": stage.resources},
    )
