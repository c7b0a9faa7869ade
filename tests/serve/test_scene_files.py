"""PLY and GLB as their specifications have them, read back without the code that wrote them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from serve.scene_files import glb, ply
from tests.serve.scenes import sphere

TYPES = {"float": "<f4", "uchar": "u1", "ushort": "<u2"}


def read_ply(data: bytes) -> np.ndarray:
    """The vertices, by the header's own words."""
    head, _, body = data.partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    assert lines[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
    fields = [(line[2], TYPES[line[1]]) for line in lines if line[0] == "property"]
    [count] = [int(line[2]) for line in lines if line[:2] == ["element", "vertex"]]
    vertices = np.frombuffer(body, np.dtype(fields))
    assert len(vertices) == count
    return vertices


def read_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, size = struct.unpack_from("<4sII", data)
    assert (magic, version, size) == (b"glTF", 2, len(data))
    chunks, at = {}, 12
    while at < size:
        length, kind = struct.unpack_from("<I4s", data, at)
        assert length % 4 == 0
        chunks[kind] = data[at + 8 : at + 8 + length]
        at += 8 + length
    assert next(iter(chunks)) == b"JSON", "the first chunk, by the specification"
    return json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")


def test_ply_has_every_point_with_its_colour_frame_and_confidence() -> None:
    scene = sphere().sample(333)
    vertices = read_ply(ply(scene))
    assert np.array_equal(np.stack([vertices[name] for name in "xyz"], axis=1), scene.positions)
    assert np.array_equal(np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1), scene.colors)
    assert np.array_equal(vertices["frame"], scene.frames)
    assert np.array_equal(vertices["confidence"], scene.certainty)


def test_glb_has_the_points_below_a_node_that_turns_the_axes_and_a_node_for_each_camera() -> None:
    scene = sphere().sample(333)
    document, binary = read_glb(glb(scene))
    assert document["buffers"] == [{"byteLength": len(binary)}]
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        kind = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        arrays.append(np.frombuffer(part, kind).reshape(accessor["count"], -1))
    positions, colors = arrays
    assert np.array_equal(positions, scene.positions)
    assert np.array_equal(colors[:, :3], scene.colors)
    assert (colors[:, 3] == 255).all()
    assert document["accessors"][0]["min"] == positions.min(0).tolist()
    assert document["accessors"][1]["normalized"]
    [primitive] = document["meshes"][0]["primitives"]
    assert primitive == {"mode": 0, "attributes": {"POSITION": 0, "COLOR_0": 1}}
    root, points, *cameras = document["nodes"]
    assert root["children"] == list(range(1, len(document["nodes"])))
    assert points["mesh"] == 0
    turn = np.array(root["matrix"]).reshape(4, 4).T
    assert (turn @ [0, 1, 0, 0]).tolist() == [0, -1, 0, 0], "down is down"
    for node, pose, time in zip(cameras, scene.poses, scene.seen.times, strict=True):
        assert np.allclose(np.array(node["matrix"]).reshape(4, 4).T, pose)
        assert node["extras"]["time"] == time


def test_a_scene_without_points_is_a_file_too() -> None:
    scene = sphere().sample(0)
    assert len(read_ply(ply(scene))) == 0
    document, binary = read_glb(glb(scene))
    assert binary == b""
    assert "meshes" not in document
    assert len(document["nodes"]) == 1 + len(scene.poses)
