"""Reconstructions: what is asked, how arrays are read with and without numpy, and files, which are the service's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dsr_client import BadRequest, BrokenResponse, Client, Reconstruction

from serve.reconstructions import as_reconstruction
from serve.scene_files import glb, ply
from serve.trace import Made, Work
from tests.clients.test_command import Dsr, dsr  # noqa: F401  a fixture
from tests.clients.wire import VIDEO_ID, Pipe, Reply, Wire, problem, video
from tests.serve.scenes import sphere


def reconstruction(points: int = 200, **changes: Any) -> dict[str, Any]:
    """As the service writes it."""
    trace = {"frames": Work(0.25, "hit"), "reconstructor": Work(1.5, "miss", (1.0, 2.5))}
    told = as_reconstruction(VIDEO_ID, Made(sphere().sample(points), trace), arrived=1.0)
    whole: dict[str, Any] = json.loads(told.model_dump_json())
    return whole | changes


def test_all_that_is_asked_arrives_and_all_that_is_answered_is_read(client: Client, wire: Wire) -> None:
    wire.script(Reply(reconstruction(news="from a later version")))
    found = client.reconstruct(VIDEO_ID, points=200, frames=4)
    [request] = wire.seen
    assert (request.method, request.path) == ("POST", "/v1/reconstructions")
    assert request.json() == {"video": {"id": VIDEO_ID}, "points": 200, "frames": 4}
    scene = sphere().sample(200)
    assert [camera.time for camera in found.cameras] == scene.seen.times.tolist()
    assert np.allclose([camera.pose for camera in found.cameras], scene.poses)
    assert np.allclose([camera.position for camera in found.cameras], scene.poses[:, :3, 3])
    assert (len(found.points), found.points.available) == (200, 6000)
    assert (found.width, found.height, found.video.id) == (56, 42, VIDEO_ID)
    assert found.cache == {"frames": "hit", "reconstructor": "miss"}
    assert found.spans["reconstructor"].end == 1.5
    assert found.request_id == request.headers["x-request-id"]
    assert found.raw["news"] == "from a later version"


def test_arrays_are_numpys_without_a_copy_and_lists_without_numpy() -> None:
    points = Reconstruction.of(reconstruction()).points
    scene = sphere().sample(200)
    for packed, array in (
        (points.positions, scene.positions),
        (points.colors, scene.colors),
        (points.frames, scene.frames),
        (points.confidence, scene.certainty),
    ):
        made = np.asarray(packed)
        assert made.dtype == array.dtype
        assert np.array_equal(made, array)
        assert not made.flags.owndata
        assert packed.tolist() == array.tolist()


@pytest.mark.parametrize("points", [200, 0])
def test_files_are_byte_by_byte_those_of_the_service(tmp_path: Path, points: int) -> None:
    found = Reconstruction.of(reconstruction(points))
    assert found.save(tmp_path / "scene.ply").read_bytes() == ply(sphere().sample(points))
    assert found.save(str(tmp_path / "scene.GLB")).read_bytes() == glb(sphere().sample(points))
    with pytest.raises(ValueError, match=r"saved as \.ply or \.glb, not as \.obj"):
        found.save(tmp_path / "scene.obj")


def test_a_path_is_uploaded_once_and_again_when_the_service_has_dropped_it(
    client: Client, wire: Wire, clip: Path
) -> None:
    wire.script(Reply(video(), 201), Reply(reconstruction()))
    client.reconstruct(clip)
    assert [request.path for request in wire.seen] == ["/v1/videos", "/v1/reconstructions"]
    assert wire.seen[1].json() == {"video": {"id": VIDEO_ID}}, "what is not given is left to the service"
    wire.script(problem(404, "unknown_video"), Reply(video(), 201), Reply(reconstruction()))
    client.reconstruct(clip)
    assert [request.path for request in wire.seen[2:]] == ["/v1/reconstructions", "/v1/videos", "/v1/reconstructions"]


def test_bytes_and_files_travel_in_a_form(client: Client, wire: Wire) -> None:
    wire.script(Reply(reconstruction()), Reply(reconstruction()))
    client.reconstruct(b"a clip", points=7)
    client.reconstruct(Pipe(b"a clip"), frames=3)
    assert [request.form() for request in wire.seen] == [
        {"points": ["7"], "filename": ["video"], "video": ["a clip"]},
        {"frames": ["3"], "filename": ["video"], "video": ["a clip"]},
    ]


def test_a_service_without_a_reconstructor_says_so(client: Client, wire: Wire) -> None:
    wire.script(problem(400, "not_supported", "this service has no reconstructor", field="reconstructor"))
    with pytest.raises(BadRequest, match="no reconstructor") as caught:
        client.reconstruct(VIDEO_ID)
    assert (caught.value.code, caught.value.field) == ("not_supported", "reconstructor")


def with_array(name: str, dtype: str, data: str) -> dict[str, Any]:
    return {"points": {**reconstruction(1)["points"], name: {"dtype": dtype, "shape": [1, 3], "data": data}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cameras": None}, "cameras"),
        ({"cameras": [{"time": 0.0, "confidence": 0.5, "pose": [[1, 0, 0, 0]]}]}, "a pose of 1 rows"),
        ({"cameras": [{"time": 0.0, "confidence": 0.5}]}, "no pose"),
        ({"points": {"count": 3}}, "positions"),
        ({"points": {**reconstruction(3)["points"], "count": 4}}, r"expected float32 \[4, 3\]"),
        (
            {
                "points": {
                    **reconstruction(1)["points"],
                    "positions": {"dtype": "float32", "shape": [1, 3], "data": "AAAA"},
                }
            },
            "in 3 bytes",
        ),
        (
            {"points": {**reconstruction(1)["points"], "colors": {"dtype": "uint8", "shape": [1, 3], "data": "%%%"}}},
            "not base64",
        ),
    ],
)
def test_what_is_no_reconstruction_is_a_broken_response(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BrokenResponse, match=said):
        Reconstruction.of(reconstruction(3) | change)


def test_the_command_writes_the_file_and_says_what_is_in_it(dsr: Dsr, wire: Wire, clip: Path, tmp_path: Path) -> None:  # noqa: F811
    wire.script(Reply(video(), 201), Reply(reconstruction()))
    out = tmp_path / "scene.ply"
    code, said, err = dsr("reconstruct", str(clip), "--out", str(out), "--points", "200", "--frames", "4")
    assert (code, err) == (0, "")
    assert out.read_bytes() == ply(sphere().sample(200))
    assert wire.seen[1].json() == {"video": {"id": VIDEO_ID}, "points": 200, "frames": 4}
    assert said.startswith(f"{out}: 200 of 6000 points, 4 cameras from 0.0 to 1.9 s, mean confidence 70%\n")
    assert "reconstructor 1.500 s (miss)" in said


def test_the_command_refuses_before_it_asks(dsr: Dsr, wire: Wire, clip: Path) -> None:  # noqa: F811
    code, _, err = dsr("reconstruct", str(clip))
    assert (code, "--out" in err) == (2, True)
    code, _, err = dsr("reconstruct", str(clip), "--out", "scene.obj")
    assert (code, ".obj" in err) == (2, True)
    assert wire.seen == []
    wire.script(Reply(reconstruction()))
    code, said, _ = dsr("reconstruct", VIDEO_ID, "--json")
    assert (code, json.loads(said)["points"]["count"]) == (0, 200)
