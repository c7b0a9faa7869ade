"""Every setting of the service, typed, with its default and its reason. `deploy/serve-local.yaml` is the laptop's."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.video import Limits
from serve.access.keyring import KeyLimits
from serve.media.urls import HTTPS_PORT, is_host_name

MiB = 1024**2
GiB = 1024**3

DType = Literal["auto", "float32", "bfloat16"]
CacheBytes = Annotated[int, Field(ge=0, description="bound of this stage's cache, per replica; 0: no cache")]


class Strict(BaseModel):
    """A typo in a settings file is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Autoscale(Strict):
    """As many replicas as the stage's work needs: `serve.scaling` has the unit of each stage."""

    least: Annotated[int, Field(ge=1, description="replicas that are always there")] = 1
    most: Annotated[int, Field(ge=1, le=1000, description="replicas, whatever there is to do")]
    target: Annotated[float, Field(gt=0, description="work that one replica should have, in the stage's unit")]
    up_seconds: Annotated[float, Field(ge=0, description="how long more must be needed before there is more")] = 2
    down_seconds: Annotated[float, Field(ge=0, description="the same for less: a start takes long, idling little")] = 60
    window_seconds: Annotated[float, Field(gt=1, description="that the work is averaged over")] = 4

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"most is {self.most}, below least, {self.least}")
        return self


class Stage(Strict):
    """What every stage has: replicas of its own, their resources, and bounds on the requests that they take in."""

    replicas: Annotated[int, Field(ge=1, le=1000, description="copies of this stage, where nothing scales it")] = 1
    autoscale: Annotated[Autoscale | None, Field(description="in place of `replicas`, a number that changes")] = None
    cpus: Annotated[float, Field(ge=0, description="CPU cores that Ray reserves per replica")] = 0.5
    gpus: Annotated[float, Field(ge=0, description="GPUs, or a fraction of one, that Ray reserves per replica")] = 0
    resources: Annotated[dict[str, float], Field(description="Ray's custom resources, to place a stage")] = {}
    max_ongoing: Annotated[int, Field(ge=1, description="requests that one replica works on at a time")] = 16
    max_queued: Annotated[int, Field(ge=1, description="requests that each caller may have waiting")] = 128

    @property
    def most_replicas(self) -> int:
        return self.autoscale.most if self.autoscale else self.replicas


class Routing(Strict):
    """Which replica of a stage gets the requests about a clip: `serve.ring`. The defaults do for any number of them."""

    factor: Annotated[float, Field(ge=1, le=10, description="of the mean load: what a replica may have")] = 1.25
    # A batch of questions about one clip costs little more than one question, another copy of the clip costs seconds.
    slack: Annotated[int, Field(ge=1, le=10_000, description="requests more than that before a clip spreads")] = 8
    virtual_nodes: Annotated[
        int, Field(ge=1, le=1000, description="places of a replica on the ring; more: more equal shares of the clips")
    ] = 100


class RoutedStage(Stage):
    """A stage that is asked about clips, and keeps what it makes of them."""

    routing: Routing = Routing()


class ModelStage(RoutedStage):
    """A stage with weights."""

    cache_bytes: CacheBytes = 256 * MiB
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    # "auto" is bfloat16 where the device computes it faster (`serve.worker.fastest`), which a replica decides for
    # itself. Not the default, since replicas on unlike machines would differ in the third digit of a probability.
    dtype: DType = "float32"
    threads: Annotated[int, Field(ge=0, description="CPU threads of torch; 0: half of the cores")] = 0

    @model_validator(mode="after")
    def _gpu_on_cuda(self) -> Self:
        if self.device.startswith("cuda") and self.gpus == 0:
            raise ValueError(f"device {self.device} with gpus 0: Ray would hide every GPU from the replica")
        return self


class Sandbox(Strict):
    """What the process may have that decodes one video. Beyond it the video is answered 422."""

    # The longest clip of 1080p that the limits let in (ten minutes, every frame decoded) takes about a minute.
    deadline_seconds: Annotated[float, Field(gt=0, description="from the start of decoding to its result")] = 120
    # Two threads decode, so that the deadline alone would allow twice its length.
    cpu_seconds: Annotated[int, Field(ge=1, description="processor time, of all threads together")] = 180
    # 4K with 10 bits and 16 reference frames, which is the worst that the limits let in, takes a third of it.
    memory_bytes: Annotated[int, Field(ge=64 * MiB, description="on top of what an idle decoder has mapped")] = 2 * GiB
    # A fresh process costs some 50 ms of processor time, half of what a short clip takes. Whoever takes one over
    # could see and falsify the videos after his own, until it ends: 1 where tenants must be kept apart at that price.
    videos_per_child: Annotated[int, Field(ge=1, description="after which a decoder is replaced by a fresh one")] = 32
    # Some runtimes of containers refuse filters of system calls; the other bounds hold there, too.
    require_seccomp: Annotated[bool, Field(description="refuse to start where the kernel takes no filter")] = False


class FramesStage(RoutedStage):
    """Decoding of videos. The limits are those of one file, checked before a frame of it is decoded."""

    cache_bytes: CacheBytes = 256 * MiB
    threads: Annotated[int, Field(ge=1, description="videos decoded at a time, per replica, a process for each")] = 2
    limits: Limits = Limits()
    sandbox: Sandbox = Sandbox()


class BatchedStage(ModelStage):
    """A stage that works on all together that came while it was busy."""

    linger_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=0.1,
            description="how long an idle stage waits for company; it may pay on a GPU, where a pass over a few costs "
            "hardly more than over one; at most a tenth of a second, beyond which a person notices",
        ),
    ] = 0


class EncoderStage(BatchedStage):
    batch_patches: Annotated[
        int,
        Field(
            ge=1,
            le=1_048_576,
            description="patches (14 x 14 px of a frame) that clips of one size may have together to share a forward "
            "pass; a larger clip goes alone. 8192 fill the caches of a CPU",
        ),
    ] = 8_192


class SelectorStage(BatchedStage):
    batch_questions: Annotated[
        int, Field(ge=1, le=256, description="questions of one forward pass; beyond max_ongoing there are never more")
    ] = 16
    token_cache_bytes: Annotated[int, Field(ge=0, description="bound of the geometry tokens' cache")] = 64 * MiB


class DecoderStage(ModelStage):
    """`cache_bytes` are keys and values: of the clips that were asked about, and of the requests under way."""

    max_ongoing: Annotated[int, Field(ge=1, description="requests that one replica works on at a time")] = 64
    max_tokens: Annotated[int, Field(ge=1, description="longest answer that a request may ask for")] = 1024
    running: Annotated[int, Field(ge=1, description="answers that are written side by side")] = 64
    batch_tokens: Annotated[int, Field(ge=1, description="tokens of one forward pass over questions")] = 1024
    chunk_tokens: Annotated[
        int | None,
        Field(ge=1, description="of a clip in one pass, how long it holds up others; default: 1056, on a GPU 2112"),
    ] = None


class ReconstructorStage(ModelStage):
    """The whole of π³, for cameras and points: 959 M parameters as published. What is kept of a clip has 18 bytes for
    each of half a million points at most."""

    checkpoint: Annotated[str, Field(description="directory with π³'s weights, or a hub id")]
    # Attention over all frames: twice the frames take up to four times as long.
    max_frames: Annotated[int, Field(ge=1, le=256, description="of one clip")] = 64
    min_confidence: Annotated[float, Field(ge=0, le=1, description="probability below which a point is dropped")] = 0.1
    max_step: Annotated[
        float, Field(gt=0, description="of its depth: how much that may change around a pixel whose point is kept")
    ] = 0.03
    max_queued: Annotated[int, Field(ge=1, description="requests that each caller may have waiting")] = 32


class Access(Strict):
    """Who may call. Without a key file the service answers to its own machine alone."""

    keys_file: Annotated[Path | None, Field(description="of API keys, see serve.access.keyring; read again")] = None
    open: Annotated[bool, Field(description="without keys: whoever can reach the service may use it")] = False
    origins: Annotated[
        tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...],
        Field(description="other sites, as https://example.org, whose pages may ask with a key"),
    ] = ()
    limits: Annotated[KeyLimits, Field(description="of each caller, where the key file says nothing else")] = (
        KeyLimits()
    )


class Admission(Strict):
    """How much is worked on at a time, over all ingress replicas, and how long others may wait for it."""

    patches: Annotated[
        float | None,
        Field(gt=0, description="of clips that no stage has yet; None: twice what all encoders take in one pass"),
    ] = None
    answers: Annotated[int | None, Field(ge=1, description="None: what all decoders write side by side")] = None
    waiting: Annotated[int, Field(ge=0, description="requests in the queue; a place costs a few kilobytes")] = 1024
    wait_seconds: Annotated[
        float, Field(gt=0, description="longest time in the queue, as estimated; who would wait longer is told so")
    ] = 60


class MediaUrls(Strict):
    """Videos that the service fetches by URL, over https alone. Whoever may ask can make the ingress send requests, so
    that it is off, and when it is on, it is for hosts that somebody chose."""

    enabled: Annotated[bool, Field(description="whether URLs are fetched at all; `hosts` must say from where")] = False
    hosts: Annotated[
        tuple[str, ...],
        Field(description="host names, or `.example.org` for all below example.org (not itself); none by default"),
    ] = ()
    ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...],
        Field(min_length=1, description="that of https: other ports are where administration listens"),
    ] = (HTTPS_PORT,)
    max_bytes: Annotated[
        int, Field(ge=1, description="of one video; as much as frames.limits lets through by default")
    ] = Limits.max_bytes
    seconds: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="for all of it, from the look-up of the name to the last byte: 7 MB/s for the largest",
        ),
    ] = 30
    max_redirects: Annotated[
        int, Field(ge=0, le=10, description="each is checked as the first URL was; a video's own URL needs none")
    ] = 0
    at_once: Annotated[
        int, Field(ge=1, le=1000, description="fetches per replica; others wait, so that nobody is flooded through us")
    ] = 8

    @field_validator("hosts")
    @classmethod
    def _host_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not is_host_name(host.removeprefix(".")):
                raise ValueError(f"{host!r} is no host name of two labels or more, in lower case and xn-- form")
        return hosts

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.enabled and not self.hosts:
            raise ValueError("enabled without hosts: name those that videos may come from")
        return self


class Traces(Strict):
    """OpenTelemetry: `serve.tracing`. Headers, timeouts and certificates are those of its `OTEL_EXPORTER_OTLP_*`."""

    endpoint: Annotated[
        str | None,
        Field(pattern=r"^https?://", description="of a collector, OTLP by HTTP: http://HOST:4318/v1/traces; None: off"),
    ] = None
    ratio: Annotated[float, Field(ge=0, le=1, description="of the requests whose caller has not decided already")] = 1.0


class Listen(Strict):
    """Where every replica of the ingress answers by itself, without Ray's proxies before it: on one machine alone."""

    host: Annotated[str, Field(description="an IP address of this machine; others than 127.0.0.1 need keys")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=1, le=65535, description="that the replicas share")] = 8000

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        return str(ip_address(host))


class Ingress(Stage):
    listen: Annotated[Listen | None, Field(description="None: Ray's proxies ask it; `serve.local` sets it")] = None
    max_ongoing: Annotated[int, Field(ge=1, description="HTTP requests at a time, per replica")] = 256
    max_body_bytes: Annotated[int, Field(ge=1, description="largest request body: a video in base64")] = 280 * MiB
    deadline_seconds: Annotated[float, Field(gt=0, description="a request that takes longer is answered 504")] = 300
    access: Access = Access()
    admission: Admission = Admission()
    allow_flush: Annotated[bool, Field(description="DELETE /v1/caches: who may call it can slow down everybody")] = (
        False
    )
    media_urls: MediaUrls = MediaUrls()
    traces: Traces = Traces()

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.listen is not None and self.autoscale is not None:
            raise ValueError("autoscale with listen: Ray counts the requests in its proxies, which see none then")
        return self


class Store(Strict):
    """Where uploaded videos live: a local folder, or any fsspec URL that every node reaches."""

    url: str = ".dsr/videos"
    max_bytes: Annotated[int, Field(ge=1, description="the least recently used videos go when it is full")] = 10 * GiB
    max_age_seconds: Annotated[float, Field(gt=0, description="a video unused for longer is deleted")] = 7 * 86_400

    @property
    def absolute(self) -> str:
        """Replicas may have another working directory, so that a local folder is made absolute once, at the start."""
        return self.url if "://" in self.url else str(Path(self.url).expanduser().resolve())


class Settings(Strict):
    """The argument of `serve.app:build`."""

    checkpoint: Annotated[str, Field(description="directory in any layout of models.layout, or a hub id")] = (
        "models/tiny"
    )
    store: Store = Store()
    frames: FramesStage = FramesStage()
    encoder: EncoderStage = EncoderStage()
    selector: SelectorStage = SelectorStage()
    decoder: DecoderStage = DecoderStage()
    reconstructor: Annotated[
        ReconstructorStage | None, Field(description="None: POST /v1/reconstructions is refused")
    ] = None
    ingress: Ingress = Ingress()
    logs: Annotated[
        Literal["text", "json"], Field(description="of every replica; json has the request's id in each line of it")
    ] = "text"
    drain_seconds: Annotated[
        float, Field(ge=0, description="how long a replica that is to go may finish what it works on")
    ] = 60

    @property
    def cpus(self) -> float:
        """CPU cores that all replicas reserve together."""
        stages: list[Stage] = [self.frames, self.encoder, self.selector, self.decoder, self.ingress]
        stages += [self.reconstructor] if self.reconstructor else []
        return sum(stage.most_replicas * stage.cpus for stage in stages)
