"""PLY and GLB files of a reconstruction, byte by byte those that the service writes. Needs no numpy: slices of bytes
with a step move a column at a time."""

from __future__ import annotations

import array
import json
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._reconstruction import Camera, Reconstruction

__all__ = ["glb", "ply"]

_FLOATS, _BYTES, _SHORT = ("float x", "float y", "float z"), ("uchar red", "uchar green", "uchar blue"), "ushort frame"
_PROPERTIES = (*_FLOATS, *_BYTES, _SHORT, "uchar confidence")
_FLOAT, _UBYTE = 5126, 5121  # glTF's names of types
_ARRAY_BUFFER, _POINTS = 34962, 0
_TURN = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]  # OpenCV's axes in glTF's


def ply(scene: Reconstruction) -> bytes:
    points = scene.points
    lines = ["ply", "format binary_little_endian 1.0", "comment OpenCV axes, free scale, by dsr-serve"]
    lines += [f"element vertex {len(points)}", *(f"property {one}" for one in _PROPERTIES), "end_header\n"]
    rows = _side_by_side(
        (points.positions.data, 12), (points.colors.data, 3), (points.frames.data, 2), (points.confidence.data, 1)
    )
    return "\n".join(lines).encode("ascii") + rows


def glb(scene: Reconstruction) -> bytes:
    """Without points: the cameras alone, as no glTF array may be empty."""
    nodes: list[dict[str, Any]] = [{"name": "scene", "matrix": _TURN}]
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "dsr-serve"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
    }
    binary, positions = b"", scene.points.positions.data
    if positions:
        # Each element must begin at a multiple of four bytes, so that a colour is four.
        rgba = _side_by_side((scene.points.colors.data, 3), (b"\xff" * len(scene.points), 1))
        binary = positions + rgba
        nodes.append({"name": "points", "mesh": 0})
        document |= _mesh(positions, len(scene.points), len(binary))
    nodes += [_camera(camera, index) for index, camera in enumerate(scene.cameras)]
    nodes[0]["children"] = list(range(1, len(nodes)))
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    chunks = _chunk(b"JSON", text, b" ") + (_chunk(b"BIN\0", binary, b"\0") if binary else b"")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _side_by_side(*columns: tuple[bytes, int]) -> bytes:
    """Rows that have each column's next `width` bytes one after the other."""
    stride = sum(width for _, width in columns)
    rows = bytearray(sum(len(data) for data, _ in columns))
    at = 0
    for data, width in columns:
        for byte in range(width):
            rows[at + byte :: stride] = data[byte::width]
        at += width
    return bytes(rows)


def _mesh(positions: bytes, count: int, size: int) -> dict[str, Any]:
    values = array.array("f", positions)
    if sys.byteorder == "big":
        values.byteswap()
    axes = [values[axis::3] for axis in range(3)]
    split = len(positions)
    shared = {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3"}
    return {
        "meshes": [{"primitives": [{"mode": _POINTS, "attributes": {"POSITION": 0, "COLOR_0": 1}}]}],
        "accessors": [
            {**shared, "min": [min(axis) for axis in axes], "max": [max(axis) for axis in axes]},
            {"bufferView": 1, "componentType": _UBYTE, "normalized": True, "count": count, "type": "VEC4"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": split, "target": _ARRAY_BUFFER},
            {"buffer": 0, "byteOffset": split, "byteLength": size - split, "target": _ARRAY_BUFFER},
        ],
        "buffers": [{"byteLength": size}],
    }


def _camera(camera: Camera, index: int) -> dict[str, Any]:
    columns = [row[column] for column in range(4) for row in camera.pose]  # glTF writes matrices column by column
    extras = {"time": camera.time, "confidence": camera.confidence}
    return {"name": f"camera {index}", "matrix": columns, "extras": extras}


def _chunk(kind: bytes, data: bytes, filler: bytes) -> bytes:
    data += filler * (-len(data) % 4)
    return struct.pack("<I4s", len(data), kind) + data
