"""Uploads of 200 MB to the real service: what they cost each process in memory, and what is left of a broken one.

All of it is flat, on loopback too, where 200 MB take a second: the ingress answers by itself and takes a body only as
fast as it stores it (3 MB more than before, seen on two cores). Behind Ray's own HTTP proxy, as in a cluster, two
queues without a bound stand before it (Ray 2.60, `ray.serve._private`), and on loopback proxy and replica had 224 MB
and 291 MB more.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.clips import make_clip
from tests.fresh import free_port
from tests.processes import descendants
from tests.serve.service.asking import held

pytestmark = pytest.mark.soak

MB = 1_000_000
SIZE = 200 * MB
PIECE = 64 * 1024
BOUNDARY = "the-parts-of-this-form"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="video"; filename="clip.mp4"\r\n'
    "Content-Type: video/mp4\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
PACE = 25 * MB  # bytes/s: 200 Mbit/s
FLAT = 48 * MB  # a quarter of the body; what one request and its tracing leave behind are 5 to 20 MB
INGRESS = "ray::ServeReplica:dsr:ingress"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def uploads(root: Path) -> Iterator[httpx.Client]:
    """A service of its own: the other tests' takes no body of this size."""
    pytest.importorskip("ray")
    from serve.local import read_settings, running, wait_until_ready

    store = {"url": str(root / "store"), "max_bytes": 2 * SIZE}
    settings = read_settings(Path("deploy/serve-local.yaml"), store=store)
    ingress = settings.ingress.model_copy(update={"max_body_bytes": 300 * MB})
    settings = settings.model_copy(update={"ingress": ingress})
    with running(settings, free_port()) as url, httpx.Client(base_url=url, timeout=120) as client:
        wait_until_ready(url)
        small = client.post("/v1/videos", files={"video": ("x.mp4", make_clip(None, seconds=1, fps=9))})
        client.delete(f"/v1/videos/{small.json()['id']}").raise_for_status()  # every process has worked once
        yield client


@pytest.fixture(scope="module")
def video(root: Path) -> Path:
    """A second of video, and a second box for frames, which no frame is in: readers skip it."""
    clip = make_clip(None, seconds=1, fps=10)
    path = root / "clip.mp4"
    with path.open("wb") as file:
        file.write(clip + (SIZE - len(clip)).to_bytes(4, "big") + b"mdat")
        while rest := SIZE - file.tell():
            file.write(os.urandom(min(rest, MB)))
    return path


def form(video: Path, pace: float | None = None) -> Iterator[bytes]:
    """The request's body, from disk, at most `pace` bytes/s."""
    start, sent = time.monotonic(), 0
    yield HEAD
    with video.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
            sent += len(piece)
            if pace is not None:
                time.sleep(max(0.0, start + sent / pace - time.monotonic()))
    yield TAIL


def memory(field: str) -> dict[int, int]:
    """Bytes by process id: `VmRSS`, held now, or `VmHWM`, the most since `watched` began."""
    found = {}
    for pid in descendants():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if match := re.search(rf"^{field}:\s+(\d+) kB", status, re.M):  # one that has just ended has none
            found[pid] = int(match[1]) * 1024
    return found


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """By how many bytes the most that each process held in this block is above what it held before; filled at its end.

    By the process's name, without this one, which is the client.
    """
    names = {pid: command.split(".")[0].strip() for pid, command in descendants().items() if pid != os.getpid()}
    for pid in names:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM starts again at VmRSS
    before = memory("VmRSS")
    grown: dict[str, int] = {}
    yield grown
    peaks = memory("VmHWM")
    for pid in names.keys() & before.keys() & peaks.keys():
        grown[names[pid]] = max(grown.get(names[pid], 0), peaks[pid] - before[pid])


def told(grown: dict[str, int]) -> str:
    return ", ".join(f"{name[:40]} +{size // MB} MB" for name, size in sorted(grown.items()) if size > MB)


def test_an_upload_is_flat_in_memory_and_idempotent(uploads: httpx.Client, root: Path, video: Path) -> None:
    with watched() as grown:
        paced = uploads.post("/v1/videos", content=form(video, PACE), headers=HEADERS)
    assert paced.status_code == 201, paced.text
    print(f"\n{SIZE // MB} MB at {PACE // MB} MB/s: {told(grown)}")
    assert any(name.startswith(INGRESS) for name in grown), "the replica that took the body was watched"
    assert max(grown.values()) < FLAT, told(grown)

    start = time.monotonic()
    with watched() as grown:
        fast = uploads.post("/v1/videos", content=form(video), headers=HEADERS)
    print(f"{SIZE // MB} MB in {time.monotonic() - start:.1f} s: {told(grown)}")
    assert fast.json() == paced.json(), "the same bytes are the same video"
    assert held(root / "store") == {paced.json()["id"]}
    assert max(grown.values()) < FLAT, told(grown)


def test_an_upload_that_breaks_off_half_way_leaves_nothing_behind(
    uploads: httpx.Client, root: Path, video: Path
) -> None:
    before = held(root / "store")
    temporary = open_files(root)
    request = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['Content-Type']}\r\n"
    with socket.create_connection((uploads.base_url.host, uploads.base_url.port or 80)) as connection:
        connection.sendall(f"{request}Content-Length: {len(HEAD) + SIZE + len(TAIL)}\r\n\r\n".encode())
        sent = 0
        for piece in form(video):
            connection.sendall(piece)
            sent += len(piece)
            if sent > SIZE // 2:
                break
    end = time.monotonic() + 30
    while held(root / "store") != before or open_files(root) != temporary:
        assert time.monotonic() < end, "the half of an upload is still there"
        time.sleep(0.1)
    assert uploads.get("/livez").status_code == 200
    assert held(root / "store") == before


def open_files(root: Path) -> int:
    """Deleted files that a process of the service still holds: bodies on their way stand in such."""
    count = 0
    for pid in descendants():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                count += os.readlink(link).endswith("(deleted)")
            except FileNotFoundError:  # closed meanwhile
                continue
    return count
