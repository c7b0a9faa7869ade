"""A scene as a file that other programs open: PLY of Stanford, GLB of Khronos. Numpy only; a few milliseconds each.

PLY has the points as they are. GLB has them below a node that turns OpenCV's axes into glTF's (y up, z towards the
viewer), and beside them an empty node at each camera, with its pose and, in `extras`, its time and confidence.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.messages import Scene

_VERTEX = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z")),
        *((name, "u1") for name in ("red", "green", "blue")),
        ("frame", "<u2"),
        ("confidence", "u1"),
    ]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar", "<u2": "ushort"}
_FLOAT, _UBYTE = 5126, 5121  # glTF's names of types
_ARRAY_BUFFER, _POINTS = 34962, 0
_TURN = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]  # y and z the other way round


def ply(scene: Scene) -> bytes:
    """Binary little-endian; `frame` is the index of the camera that saw a point, `confidence` of 255."""
    vertices = np.empty(len(scene.positions), _VERTEX)
    for column, name in enumerate(("x", "y", "z")):
        vertices[name] = scene.positions[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = scene.colors[:, column]
    vertices["frame"], vertices["confidence"] = scene.frames, scene.certainty
    properties = (f"property {_PLY_TYPES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ())
    lines = ("ply", "format binary_little_endian 1.0", "comment OpenCV axes, free scale, by dsr-serve")
    head = "\n".join((*lines, f"element vertex {len(vertices)}", *properties, "end_header\n"))
    return head.encode("ascii") + vertices.tobytes()


def glb(scene: Scene) -> bytes:
    """Binary glTF 2.0. Without points it has the cameras alone, as no glTF array may be empty."""
    count = len(scene.positions)
    nodes: list[dict[str, Any]] = [{"name": "scene", "matrix": _TURN}]
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "dsr-serve"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
    }
    binary = b""
    if count:
        rgba = np.full((count, 4), 255, np.uint8)  # each element must begin at a multiple of four bytes
        rgba[:, :3] = scene.colors
        positions = scene.positions.astype("<f4", copy=False)
        binary = positions.tobytes() + rgba.tobytes()
        nodes.append({"name": "points", "mesh": 0})
        document |= _mesh(positions, len(binary))
    nodes += [_camera(scene, index) for index in range(len(scene.poses))]
    nodes[0]["children"] = list(range(1, len(nodes)))
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    chunks = _chunk(b"JSON", text, b" ") + (_chunk(b"BIN\0", binary, b"\0") if binary else b"")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _mesh(positions: NDArray[np.float32], size: int) -> dict[str, Any]:
    count, split = len(positions), positions.nbytes
    shared = {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3"}
    bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    return {
        "meshes": [{"primitives": [{"mode": _POINTS, "attributes": {"POSITION": 0, "COLOR_0": 1}}]}],
        "accessors": [
            {**shared, **bounds},
            {"bufferView": 1, "componentType": _UBYTE, "normalized": True, "count": count, "type": "VEC4"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": split, "target": _ARRAY_BUFFER},
            {"buffer": 0, "byteOffset": split, "byteLength": size - split, "target": _ARRAY_BUFFER},
        ],
        "buffers": [{"byteLength": size}],
    }


def _camera(scene: Scene, index: int) -> dict[str, Any]:
    extras = {"time": float(scene.seen.times[index]), "confidence": float(scene.confidence[index])}
    # glTF writes matrices column by column.
    return {"name": f"camera {index}", "matrix": scene.poses[index].T.ravel().tolist(), "extras": extras}


def _chunk(kind: bytes, data: bytes, filler: bytes) -> bytes:
    data += filler * (-len(data) % 4)
    return struct.pack("<I4s", len(data), kind) + data
