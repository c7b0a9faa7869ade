from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from serve.errors import TooLarge, UnknownVideo
from serve.store import VideoStore

DAY = 86_400.0


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "videos") if request.param == "local" else f"memory:/{tmp_path}/videos"


def stored(url: str, max_bytes: int = 1000, max_age: float = DAY) -> VideoStore:
    return VideoStore(url, max_bytes, max_age)


def put(store: VideoStore, data: bytes) -> str:
    return store.put(io.BytesIO(data))


def read(store: VideoStore, video: str) -> bytes:
    with store.open(video) as file:
        return file.read()


def files(url: str) -> list[str]:
    """Every file below the root, videos and uploads under way."""
    system, root = fsspec.core.url_to_fs(url)
    return [path.removeprefix(root) for path in system.find(root)]


def grow_old(url: str, name: str, seconds: float) -> None:
    system, root = fsspec.core.url_to_fs(url)
    if url.startswith("memory"):
        system.store[f"{root}/{name}"].created -= timedelta(seconds=seconds)
    else:
        then = os.stat(f"{root}/{name}").st_mtime - seconds
        os.utime(f"{root}/{name}", (then, then))


def test_bytes_come_back_under_their_hash(url: str) -> None:
    store, data = stored(url, 10**7), random.Random(0).randbytes(3_000_000)
    video = put(store, data)
    assert video == "vid_" + hashlib.sha256(data).hexdigest()
    assert read(store, video) == data
    assert store.size(video) == len(data)
    assert store.exists(video)


def test_a_second_put_of_the_same_bytes_changes_nothing(url: str) -> None:
    store = stored(url)
    assert put(store, b"same") == put(store, b"same")
    assert store.usage() == (1, 4)
    assert read(store, put(store, b"same")) == b"same"


def test_another_store_on_the_same_root_sees_the_videos(url: str) -> None:
    video = put(stored(url), b"shared")
    assert read(stored(url), video) == b"shared"


def test_an_opened_video_is_a_real_seekable_file_of_ones_own(url: str) -> None:
    store = stored(url)
    video = put(store, b"0123456789")
    with store.open(video) as first, store.open(video) as second:
        os.fstat(first.fileno())
        assert first.seek(4) == 4
        assert second.read(2) == b"01"
        assert first.read(2) == b"45"


def test_an_opened_video_stays_readable_when_it_is_deleted(url: str) -> None:
    store = stored(url)
    video = put(store, b"still here")
    with store.open(video) as file:
        store.delete(video)
        assert file.read() == b"still here"
    assert not store.exists(video)


@pytest.mark.parametrize(
    "text", ["", "video", "../secret", "vid_../../secret", "vid_" + "g" * 64, "vid_" + "0" * 64, "partial"]
)
def test_what_is_no_held_id_is_an_unknown_video_and_never_a_path(url: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = stored(url)
    assert not store.exists(text)
    for method in (store.open, store.size, store.delete):
        with pytest.raises(UnknownVideo) as caught:
            method(text)
        assert (caught.value.field, caught.value.value) == ("video.id", text)
    assert (tmp_path / "secret").exists()


def test_a_video_larger_than_the_store_is_refused_with_both_numbers_and_leaves_nothing(url: str) -> None:
    store = stored(url, max_bytes=10)
    kept = put(store, b"0123456789")
    with pytest.raises(TooLarge) as caught:
        put(store, b"0123456789x")
    assert (caught.value.value, caught.value.limit) == (11, 10)
    assert files(url) == [f"/{kept}"]


def test_an_interrupted_put_leaves_nothing(url: str) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError("connection lost")
            return super().read(2)

    store = stored(url)
    with pytest.raises(OSError, match="connection lost"):
        store.put(Broken(b"abcdef"))
    assert files(url) == []


def test_chunks_that_arrive_make_the_same_id_as_a_file(url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b"ab", b"", b"cdef"):
            yield part

    store = stored(url)
    assert asyncio.run(store.put_chunks(chunks())) == put(stored(url), b"abcdef")


@pytest.mark.parametrize("ending", ["cancelled", "failed", "too large"])
def test_an_upload_that_does_not_finish_leaves_nothing(url: str, ending: str) -> None:
    async def chunks(arrived: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"first"
        arrived.set()
        if ending == "cancelled":
            await asyncio.Event().wait()
        yield b"x" * 1000
        raise ConnectionError("client went away")

    async def scenario() -> None:
        arrived = asyncio.Event()
        limit = 100 if ending == "too large" else 2000
        task = asyncio.create_task(stored(url, limit).put_chunks(chunks(arrived)))
        await arrived.wait()
        if ending == "cancelled":
            task.cancel()
        expected = {"cancelled": asyncio.CancelledError, "failed": ConnectionError, "too large": TooLarge}[ending]
        with pytest.raises(expected):
            await task
        assert files(url) == []

    asyncio.run(scenario())


def test_an_upload_cancelled_while_a_thread_still_writes_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield bytes(4_000_000)

        store = VideoStore(str(tmp_path), 10**9, DAY)
        for _ in range(5):
            task = asyncio.create_task(store.put_chunks(chunks()))
            await asyncio.sleep(0.03)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert files(str(tmp_path)) == []

    asyncio.run(scenario())


def test_the_remains_of_an_upload_whose_process_died_are_removed_after_an_hour(url: str) -> None:
    store = stored(url)
    system, root = fsspec.core.url_to_fs(url)
    for name in ("dead", "alive"):
        system.pipe_file(f"{root}/partial/{name}", b"x")
    grow_old(url, "partial/dead", 3700)
    video = put(store, b"y")
    assert sorted(files(url)) == ["/partial/alive", f"/{video}"]
    assert store.usage() == (1, 1)


def test_the_least_recently_stored_video_goes_first(url: str) -> None:
    store = stored(url, max_bytes=3)
    videos = [put(store, data) for data in (b"a", b"b", b"c")]
    for age, video in zip((30, 10, 20), videos, strict=True):
        grow_old(url, video, age)
    put(store, b"d")
    assert [store.exists(video) for video in videos] == [False, True, True]
    put(store, b"ee")
    assert [store.exists(video) for video in videos] == [False, False, False]


def test_storing_a_video_again_needs_no_room(url: str) -> None:
    store = stored(url, max_bytes=2)
    older, newer = put(store, b"a"), put(store, b"b")
    grow_old(url, older, 10)
    assert put(store, b"b") == newer
    assert store.exists(older)


def test_storing_a_video_again_counts_as_a_use(url: str) -> None:
    store = stored(url, max_bytes=2)
    first, second = put(store, b"a"), put(store, b"b")
    grow_old(url, first, 20)
    grow_old(url, second, 10)
    put(store, b"a")
    put(store, b"c")
    assert store.exists(first)
    assert not store.exists(second)


def test_reading_a_local_video_counts_as_a_use_but_asking_about_it_does_not(tmp_path: Path) -> None:
    store = stored(str(tmp_path), max_bytes=2)
    read_one, asked_about = put(store, b"a"), put(store, b"b")
    grow_old(str(tmp_path), read_one, 20)
    grow_old(str(tmp_path), asked_about, 10)
    read(store, read_one)
    assert store.exists(asked_about)
    assert store.size(asked_about) == 1
    put(store, b"c")
    assert store.exists(read_one)
    assert not store.exists(asked_about)


def test_a_video_that_is_too_old_is_gone_at_once_and_its_bytes_at_the_next_eviction(url: str) -> None:
    store = stored(url, max_age=100)
    old, young = put(store, b"old"), put(store, b"young")
    grow_old(url, old, 101)
    grow_old(url, young, 50)
    assert (store.exists(old), store.exists(young)) == (False, True)
    for method in (store.open, store.size):
        with pytest.raises(UnknownVideo):
            method(old)
    put(store, b"young")
    assert files(url) == [f"/{young}"]
    assert put(store, b"old") == old
    assert store.exists(old)


@pytest.mark.parametrize("seed", range(3))
def test_random_use_never_exceeds_the_bounds_and_every_held_video_reads_back(url: str, seed: int) -> None:
    rng = random.Random(seed)
    store, limit = stored(url, max_bytes=200), 200
    contents: dict[str, bytes] = {}
    for _ in range(120):
        known = rng.choice([*contents, "vid_" + "0" * 64])
        match rng.choice(["put", "put", "open", "delete", "again", "age"]):
            case "put":
                data = rng.randbytes(rng.randrange(260))
                if len(data) > limit:
                    with pytest.raises(TooLarge):
                        put(store, data)
                else:
                    video = put(store, data)
                    contents[video] = data
                    assert store.exists(video)
            case "again" if known in contents:
                assert put(store, contents[known]) == known
            case "open" if store.exists(known):
                assert read(store, known) == contents[known]
            case "delete" if store.exists(known):
                store.delete(known)
                assert not store.exists(known)
            case "age" if store.exists(known):
                grow_old(url, known, rng.choice([10, DAY + 1]))
        held = [video for video in contents if f"/{video}" in files(url)]
        assert store.usage() == (len(held), sum(len(contents[video]) for video in held))
        assert store.usage()[1] <= limit
        assert len(files(url)) == len(held)


def test_uploads_at_the_same_time_keep_the_bound(url: str) -> None:
    store = stored(url, max_bytes=50)
    with ThreadPoolExecutor(8) as pool:
        videos = list(pool.map(lambda i: put(store, bytes([i % 7]) * 20), range(40)))
    assert store.usage()[1] <= 50
    assert any(store.exists(video) for video in videos)
    assert all(name.startswith("/vid_") for name in files(url))


def test_a_local_folder_is_closed_to_others(tmp_path: Path) -> None:
    stored(str(tmp_path / "a" / "videos"))
    assert stat.S_IMODE((tmp_path / "a" / "videos").stat().st_mode) == 0o700


def test_bounds_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes: 0"):
        VideoStore(str(tmp_path), 0, 1)
    with pytest.raises(ValueError, match="max_age: -1"):
        VideoStore(str(tmp_path), 1, -1)


def test_a_video_that_the_disk_has_damaged_is_gone_rather_than_wrong(url: str) -> None:
    store = stored(url)
    video, other = put(store, b"the bytes"), put(store, b"others")
    system, root = fsspec.core.url_to_fs(url)
    system.pipe_file(f"{root}/{video}", b"the bytez")
    with pytest.raises(UnknownVideo, match="upload it again"):
        store.open(video)
    assert not store.exists(video)
    assert read(store, other) == b"others"
    assert put(store, b"the bytes") == video
    assert read(store, video) == b"the bytes"


def test_a_truncated_video_is_gone_even_after_it_was_whole(tmp_path: Path) -> None:
    store = stored(str(tmp_path))
    video = put(store, b"the bytes")
    assert read(store, video) == b"the bytes"
    os.truncate(tmp_path / video, 4)
    with pytest.raises(UnknownVideo):
        store.open(video)
