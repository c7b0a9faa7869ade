"""`POST /v1/reconstructions`: from a video to its cameras and points, as JSON or as a file for other programs."""

from __future__ import annotations

import asyncio
import base64
import uuid
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from fastapi import Request, Response

from models.config import ModelConfig
from models.errors import NotAVideo, OutOfLimits, Undecodable
from models.video import Sampling
from serve.access.edge import caller_of
from serve.admission.gate import Gate
from serve.clock import Clock
from serve.custody import Custody
from serve.errors import NotSupported
from serve.intake import Intake, Shape
from serve.keys import ClipKey
from serve.measured import note
from serve.messages import Scene
from serve.responses import described, worked
from serve.scene_files import glb, ply
from serve.scene_schemas import (
    MEDIA_TYPES,
    Camera,
    Format,
    PackedArray,
    Points,
    Reconstruction,
    ReconstructionParameters,
    ReconstructionRequest,
)
from serve.settings import ReconstructorStage
from serve.trace import Made


class ReconstructionBackend(Protocol):
    """What this route needs of the stages."""

    async def reconstruct(self, clip: ClipKey, points: int) -> Made[Scene]:
        """The clip's scene with at most so many points."""
        ...


@dataclass(frozen=True)
class Reconstructing:
    """The stage that a service may have: the way to it, and its settings."""

    backend: ReconstructionBackend
    settings: ReconstructorStage


class Reconstructions:
    """`stage` None: there is none, and every request is refused. `gate`: of this route alone, as the stage shares
    nothing with those that answer."""

    def __init__(
        self,
        stage: Reconstructing | None,
        gate: Gate,
        intake: Intake,
        custody: Custody,
        model: ModelConfig,
        deadline_seconds: float,
    ) -> None:
        self._stage = stage
        self._gate = gate
        self._intake = intake
        self._custody = custody
        self._shape = Shape(ReconstructionParameters, ReconstructionRequest, self._refuse_too_many)
        self._model = model
        self._deadline_seconds = deadline_seconds

    async def reconstruct(self, request: Request) -> Response:
        """Reconstructs a video: a camera for every sampled frame, and coloured points.

        JSON or `multipart/form-data` with the same names. The response is JSON, or with `format` or an `Accept` header
        a PLY or GLB file. `not_supported` (400) when the service has no reconstructor.
        """
        stage = self._stage
        if stage is None:
            raise NotSupported("this service has no reconstructor: its settings name none", field="reconstructor")
        caller = caller_of(request)
        self._gate.knock(caller.name or "")
        clock = Clock(self._deadline_seconds)
        parameters, video = await clock.within(self._intake.read(request, clock, self._shape))
        clock.limit(parameters.timeout)
        clip = ClipKey(video, self._sampling(parameters, stage.settings).key())
        async with self._custody.discarding(video, caller, NotAVideo, Undecodable):
            made = await clock.within(self._in_turn(stage.backend, caller.name or "", clip, parameters.points, clock))
        note(request, made.trace)
        kind = parameters.format or accepted(request.headers.get("accept", ""))
        # In a thread: half a million points are twelve megabytes of base64.
        body = await asyncio.to_thread(_written, kind, video, made, clock.arrived)
        return Response(body, media_type=MEDIA_TYPES[kind], headers=_as_file(kind))

    async def _in_turn(
        self, backend: ReconstructionBackend, caller: str, clip: ClipKey, points: int, clock: Clock
    ) -> Made[Scene]:
        async with self._gate.turn(caller, 0, clock.seconds_left):
            return await backend.reconstruct(clip, points)

    def _sampling(self, parameters: ReconstructionParameters, settings: ReconstructorStage) -> Sampling:
        """The model's own, so that questions about the clip and its reconstruction share its frames."""
        count = parameters.frames or min(self._model.frames.count, settings.max_frames)
        return Sampling.of(self._model.frames, count=count)

    def _refuse_too_many(self, parameters: ReconstructionParameters) -> None:
        """
        Raises:
            OutOfLimits: more frames than the stage takes.
        """
        most = self._stage.settings.max_frames if self._stage is not None else 0
        if parameters.frames is not None and parameters.frames > most:
            message = f"{parameters.frames} frames are asked for; at most {most} are reconstructed together"
            raise OutOfLimits(message, field="frames", value=parameters.frames, limit=most)


def accepted(header: str) -> Format:
    """The first media type of an Accept header that we have; JSON when there is none."""
    kinds = {media_type: kind for kind, media_type in MEDIA_TYPES.items()}
    asked = (part.partition(";")[0].strip().lower() for part in header.split(","))
    return next((kinds[media_type] for media_type in asked if media_type in kinds), "json")


def _written(kind: Format, video: str, made: Made[Scene], arrived: float) -> bytes:
    """The response's body."""
    if kind == "json":
        return as_reconstruction(video, made, arrived).model_dump_json().encode()
    return ply(made.value) if kind == "ply" else glb(made.value)


def as_reconstruction(video: str, made: Made[Scene], arrived: float) -> Reconstruction:
    """`arrived`: when the request came, in seconds since 1970."""
    scene = made.value
    times, confidence = scene.seen.times.tolist(), scene.confidence.clip(0, 1).tolist()
    return Reconstruction(
        id=f"rec_{uuid.uuid4().hex}",
        video=described(video, scene.seen.facts, len(scene.poses)),
        width=scene.size[0],
        height=scene.size[1],
        cameras=[
            Camera(time=time, pose=pose, confidence=sure)
            for time, pose, sure in zip(times, scene.poses.tolist(), confidence, strict=True)
        ],
        points=Points(
            count=len(scene.positions),
            available=scene.good,
            positions=_packed(scene.positions, "float32"),
            colors=_packed(scene.colors, "uint8"),
            frames=_packed(scene.frames, "uint16"),
            confidence=_packed(scene.certainty, "uint8"),
        ),
        **worked(made.trace, arrived),
    )


def _packed(array: np.ndarray, dtype: Literal["float32", "uint16", "uint8"]) -> PackedArray:
    little = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    return PackedArray(dtype=dtype, shape=list(array.shape), data=base64.b64encode(little.tobytes()).decode("ascii"))


def _as_file(kind: Format) -> dict[str, str]:
    return {} if kind == "json" else {"Content-Disposition": f'attachment; filename="scene.{kind}"'}
