"""A clip in 3D: where its camera was, and coloured points.

Axes as in OpenCV: x right, y down, z into the picture. The world is the first frame's camera, and lengths are in one
unit per reconstruction that nobody knows in metres.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from ._errors import BrokenResponse
from ._json import Json, mapping, number, text, whole
from ._models import Span, Video, numbers, spans
from ._scene_files import glb, ply

__all__ = ["Array", "Camera", "Points", "Reconstruction", "writer_of"]

_KINDS = {"float32": ("<f4", 4, "f"), "uint16": ("<u2", 2, "H"), "uint8": ("|u1", 1, "B")}
Pose = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Array:
    """Numbers as they came: little-endian, row by row. `numpy.asarray(array)` is an array of them, without a copy."""

    dtype: str  # float32, uint16 or uint8
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """numpy's protocol, which needs no numpy here."""
        return {"version": 3, "typestr": _KINDS[self.dtype][0], "shape": self.shape, "data": self.data}

    def tolist(self) -> list[Any]:
        """Without numpy: numbers, or rows of them."""
        flat = struct.unpack(f"<{len(self.data) // _KINDS[self.dtype][1]}{_KINDS[self.dtype][2]}", self.data)
        if len(self.shape) == 1:
            return list(flat)
        width = self.shape[1]
        return [list(flat[start : start + width]) for start in range(0, len(flat), width)]

    @classmethod
    def of(cls, raw: Json, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """BrokenResponse for another type or shape than the contract has, and for data of another length."""
        packed = mapping(raw, name)
        try:
            data = base64.b64decode(text(packed, "data"), validate=True)
        except binascii.Error as error:
            raise BrokenResponse(f"the service's answer: points.{name}: not base64: {error}", field=name) from None
        size = _KINDS[dtype][1]
        for side in shape:
            size *= side
        if text(packed, "dtype") != dtype or packed.get("shape") != list(shape) or len(data) != size:
            got = f"{packed.get('dtype')} {packed.get('shape')} in {len(data)} bytes"
            raise BrokenResponse(
                f"the service's answer: points.{name}: expected {dtype} {list(shape)}, got {got}", field=name
            )
        return cls(dtype, shape, data)


@dataclass(frozen=True)
class Camera:
    """Of one sampled frame."""

    time: float  # seconds in the video
    pose: Pose  # 4 rows: camera to world
    confidence: float  # mean over the frame's pixels, 0 to 1

    @property
    def position(self) -> tuple[float, float, float]:
        x, y, z, _ = (row[3] for row in self.pose)
        return x, y, z

    @classmethod
    def of(cls, raw: Json) -> Camera:
        try:
            pose = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in raw["pose"])
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenResponse(f"the service's answer: cameras: no pose: {error!r}", field="cameras") from None
        if len(pose) != 4:
            raise BrokenResponse(f"the service's answer: cameras: a pose of {len(pose)} rows", field="cameras")
        return cls(number(raw, "time"), pose, number(raw, "confidence"))


@dataclass(frozen=True)
class Points:
    """One row in each array for a point, ordered by frame."""

    positions: Array  # float32 [N, 3] in the world
    colors: Array  # uint8 [N, 3] red, green, blue
    frames: Array  # uint16 [N]: index of the camera that saw it
    confidence: Array  # uint8 [N]: probability that it is good, times 255
    available: int  # how many there were to draw from

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def of(cls, raw: Json) -> Points:
        count = whole(raw, "count")
        return cls(
            positions=Array.of(raw, "positions", "float32", (count, 3)),
            colors=Array.of(raw, "colors", "uint8", (count, 3)),
            frames=Array.of(raw, "frames", "uint16", (count,)),
            confidence=Array.of(raw, "confidence", "uint8", (count,)),
            available=whole(raw, "available"),
        )


@dataclass(frozen=True)
class Reconstruction:
    """Cameras in the order of their times, and points."""

    id: str
    video: Video
    width: int  # of the frames as they were reconstructed, in pixels
    height: int
    cameras: Sequence[Camera]
    points: Points = field(repr=False)
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds of work by stage
    cache: Mapping[str, str] = field(default_factory=dict)  # "hit" or "miss" by stage
    spans: Mapping[str, Span] = field(default_factory=dict)
    request_id: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json, request_id: str | None = None) -> Reconstruction:
        cameras = raw.get("cameras")
        if not isinstance(cameras, list) or not all(isinstance(camera, dict) for camera in cameras):
            raise BrokenResponse("the service's answer: cameras: expected a list of objects", field="cameras")
        return cls(
            id=text(raw, "id"),
            video=Video.of(mapping(raw, "video")),
            width=whole(raw, "width"),
            height=whole(raw, "height"),
            cameras=tuple(map(Camera.of, cameras)),
            points=Points.of(mapping(raw, "points")),
            timings=numbers(raw, "timings"),
            cache={stage: text(mapping(raw, "cache"), stage) for stage in mapping(raw, "cache")},
            spans=spans(raw),
            request_id=request_id,
            raw=raw,
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes a file that viewers open: `.ply` has the points, `.glb` the points and the cameras. ValueError for
        another name."""
        path = Path(path)
        path.write_bytes(writer_of(path)(self))
        return path


def writer_of(path: Path) -> Callable[[Any], bytes]:
    """ValueError for a name that ends otherwise."""
    writers = {".ply": ply, ".glb": glb}
    if path.suffix.lower() not in writers:
        raise ValueError(
            f"{path}: a reconstruction is saved as .ply or .glb, not as {path.suffix or 'no kind of file'}"
        )
    return writers[path.suffix.lower()]
