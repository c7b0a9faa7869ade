"""Uploads, and the videos that the service holds."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest
from dsr_client import BrokenResponse, Client, UnknownVideo

from tests.clients.wire import VIDEO_ID, Pipe, Reply, Wire, problem, video

MB = 1_000_000


def test_an_upload_tells_what_the_video_is(client: Client, wire: Wire, clip: Path) -> None:
    wire.script(*[Reply(video(), 201)] * 3)
    for given in (clip, clip.read_bytes(), io.BytesIO(clip.read_bytes())):
        assert client.upload(given).frames == 20
    for request in wire.seen:
        assert request.path == "/v1/videos"
        assert request.form()["video"] == [clip.read_bytes().decode("latin-1")]


def test_a_large_file_goes_from_disk_to_the_wire_in_flat_memory_with_progress(
    client: Client, wire: Wire, tmp_path: Path
) -> None:
    path, size = tmp_path / "large.mp4", 48 * MB
    with path.open("wb") as file:
        file.write(b"start")
        file.truncate(size)
    calls: list[tuple[int, int | None]] = []
    wire.script(Reply(video(), 201))
    tracemalloc.start()
    try:
        client.upload(path, progress=lambda sent, total: calls.append((sent, total)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MB, f"{peak / MB:.0f} MB for a file of {size / MB:.0f} MB"  # pieces, both ends, httpx: about 3
    sent = [call[0] for call in calls]
    assert sent == sorted(sent)
    assert len(sent) > 100
    assert calls[-1] == (size, size)
    assert {total for _, total in calls} == {size}
    [request] = wire.seen
    assert int(request.headers["content-length"]) == request.size > size


def test_all_of_a_large_file_arrives(client: Client, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(hashlib.shake_256(b"video").digest(700_001))
    wire.script(Reply(video(), 201))
    client.upload(path)
    assert wire.seen[0].form()["video"] == [path.read_bytes().decode("latin-1")]


def test_progress_starts_again_with_a_retry(client: Client, wire: Wire) -> None:
    wire.script(problem(503, "not_ready"), Reply(video(), 201))
    calls: list[tuple[int, int | None]] = []
    client.upload(b"12345", progress=lambda *call: calls.append(call))
    assert calls == [(5, 5), (5, 5)]


def test_the_size_of_a_pipe_is_not_known(client: Client, wire: Wire) -> None:
    wire.script(Reply(video(), 201))
    calls: list[tuple[int, int | None]] = []
    client.upload(Pipe(b"12345"), progress=lambda *call: calls.append(call))
    assert calls == [(5, None)]


def test_the_list_of_videos_turns_its_pages_only_as_far_as_it_is_read(client: Client, wire: Wire) -> None:
    ids = [f"vid_{number}" for number in range(5)]
    pages = [([0, 1], "c/1"), ([], "c 2"), ([2, 3], "c3"), ([4], None)]
    wire.script(*[Reply({"videos": [video(id=ids[i]) for i in page], "next": after}) for page, after in pages])
    held = iter(client.videos.list(limit=2))
    assert [next(held).id, next(held).id] == ids[:2]
    assert len(wire.seen) == 1
    assert [one.id for one in held] == ids[2:]
    asked = [request.query for request in wire.seen]
    assert asked == [{"limit": ["2"]}] + [{"limit": ["2"], "after": [after]} for _, after in pages[:-1]]


def test_a_page_that_follows_itself_is_an_error_and_no_endless_list(client: Client, wire: Wire) -> None:
    wire.script(*[Reply({"videos": [video()], "next": "same"})] * 2)
    with pytest.raises(BrokenResponse, match="is itself"):
        list(client.videos.list())
    wire.script(Reply({"videos": {}}))
    with pytest.raises(BrokenResponse, match="expected a list"):
        list(client.videos.list())


def test_a_video_is_looked_up_and_deleted_by_id_or_by_itself(client: Client, wire: Wire) -> None:
    wire.script(Reply(video()), Reply(b"", 204), Reply(b"", 204), problem(404, "unknown_video"))
    held = client.videos.get(VIDEO_ID)
    assert held.bytes == 1234
    client.videos.delete(held)
    client.videos.delete("../answers?x=1")
    with pytest.raises(UnknownVideo):
        client.videos.delete(VIDEO_ID)
    paths = [(request.method, request.path, request.query) for request in wire.seen]
    assert paths[:2] == [("GET", f"/v1/videos/{VIDEO_ID}", {}), ("DELETE", f"/v1/videos/{VIDEO_ID}", {})]
    assert paths[2] == ("DELETE", "/v1/videos/..%2Fanswers%3Fx%3D1", {}), "an id cannot leave its place in the path"
    with pytest.raises(ValueError, match="empty"):
        client.videos.get("")
