"""The contract of `POST /v1/reconstructions` as types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve.schemas import MAX_FRAMES, WHOLE, Probability, Seconds, Span, Strict, VideoInfo, VideoSource

MAX_POINTS, DEFAULT_POINTS = 500_000, 100_000

Format = Literal["json", "ply", "glb"]
MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "ply": "model/ply", "glb": "model/gltf-binary"}

_Row = Annotated[list[float], Field(min_length=4, max_length=4)]


class ReconstructionParameters(Strict):
    """How to reconstruct: everything in a request but the video."""

    frames: Annotated[
        int | None,
        Field(ge=1, le=MAX_FRAMES, description="frames sampled from the video; by default as many as for an answer"),
        WHOLE,
    ] = None
    points: Annotated[int, Field(ge=0, le=MAX_POINTS, description="at most so many, evenly drawn from all"), WHOLE] = (
        DEFAULT_POINTS
    )
    format: Annotated[
        Format | None,
        Field(description="of the response; by default what the Accept header names, model/ply or model/gltf-binary"),
    ] = None
    timeout: Annotated[
        float | None, Field(gt=0, le=3600, description="seconds; at most, and by default, the service's own deadline")
    ] = None


class ReconstructionRequest(ReconstructionParameters):
    """The JSON body of `POST /v1/reconstructions`."""

    video: VideoSource


class Camera(Strict):
    """Of one sampled frame. `pose`: 4 rows, camera to world; axes as in OpenCV (x right, y down, z into the picture).

    The world is the first frame's camera; lengths are in one unit per reconstruction that nobody knows in metres.
    """

    time: Seconds
    pose: Annotated[list[_Row], Field(min_length=4, max_length=4)]
    confidence: Annotated[Probability, Field(description="mean over the frame's pixels")]


class PackedArray(Strict):
    """Numbers, little-endian and row by row, in base64."""

    dtype: Literal["float32", "uint16", "uint8"]
    shape: Annotated[list[int], Field(min_length=1, max_length=2)]
    data: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class Points(Strict):
    """`count` rows in each array, ordered by frame: pixels whose point is likely good and lies at no edge in depth."""

    count: Annotated[int, Field(ge=0)]
    available: Annotated[int, Field(ge=0, description="how many there were to draw from")]
    positions: Annotated[PackedArray, Field(description="float32 [count, 3] in the world")]
    colors: Annotated[PackedArray, Field(description="uint8 [count, 3] red, green, blue")]
    frames: Annotated[PackedArray, Field(description="uint16 [count]: index of the camera that saw it")]
    confidence: Annotated[PackedArray, Field(description="uint8 [count]: probability that it is good, times 255")]


class Reconstruction(Strict):
    """The response of `POST /v1/reconstructions` in JSON."""

    id: Annotated[str, Field(examples=["rec_5f0c"])]
    video: VideoInfo
    width: Annotated[int, Field(ge=1, description="of the frames as they were reconstructed, in pixels")]
    height: Annotated[int, Field(ge=1)]
    cameras: list[Camera]
    points: Points
    timings: Annotated[dict[str, Seconds], Field(description="each stage's own work")]
    spans: dict[str, Span]
    cache: dict[str, Literal["hit", "miss"]]
