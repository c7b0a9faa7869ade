"""Videos in the service's hands: stored, known to be their caller's, and let go when they turn out to be none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

from models.errors import InputError
from serve.access.claims import Claims
from serve.access.keyring import Caller
from serve.errors import UnknownVideo
from serve.store import VideoStore, unknown


class Custody:
    """The store, for coroutines. With `claims` a caller knows of no video but those that it has sent itself."""

    def __init__(self, store: VideoStore, claims: Claims | None = None) -> None:
        self._store = store
        self._claims = claims
        self._arriving = 0  # uploads that are being stored
        self._in_use: Counter[str] = Counter()  # videos whose requests are under way

    async def keep(self, file: BinaryIO, caller: Caller) -> str:
        """The id of a video, which is stored by then and known to be the caller's."""
        self._arriving += 1
        try:
            return await asyncio.to_thread(self._keep, file, caller.name)
        finally:
            self._arriving -= 1

    async def claim(self, video: str, caller: Caller) -> None:
        """A video that the service has stored for the caller by itself is the caller's, too."""
        if self._claims is not None and caller.name is not None:
            await asyncio.to_thread(self._claims.add, caller.name, video)

    async def check(self, video: str, caller: Caller) -> None:
        """
        Raises:
            UnknownVideo: the caller has not sent it. Whether another has, is not to be seen.
        """
        if self._claims is None or caller.name is None:
            return
        if not await asyncio.to_thread(self._claims.has, caller.name, video):
            raise unknown(video)

    async def drop(self, video: str, caller: Caller) -> bool:
        """Whether the video itself is gone now: for another caller who has sent it, too, it stays."""
        return await asyncio.to_thread(self._drop, video, caller.name)

    async def ids(self, caller: Caller) -> Sequence[str]:
        """Of all videos held that the caller may know of, sorted."""
        return await asyncio.to_thread(self._ids, caller.name)

    async def size(self, video: str) -> int:
        return await asyncio.to_thread(self._store.size, video)

    @asynccontextmanager
    async def discarding(self, video: str, caller: Caller, *errors: type[InputError]) -> AsyncIterator[None]:
        """What turns out to be no video that we answer about does not stay in the store.

        Another request may have sent the same bytes: the last one to find that out deletes them. While some upload is
        arriving, which may be the same, they stay until the store needs their room.
        """
        self._in_use[video] += 1
        try:
            yield
        except errors:
            if self._in_use[video] == 1 and not self._arriving:
                with suppress(UnknownVideo):  # a request to another replica was faster
                    await self.drop(video, caller)
            raise
        finally:
            self._in_use[video] -= 1
            if not self._in_use[video]:
                del self._in_use[video]

    def _keep(self, file: BinaryIO, caller: str | None) -> str:
        if self._claims is None or caller is None:
            return self._store.put(file)
        start = file.tell()
        while True:
            video = self._store.put(file)
            self._claims.add(caller, video)
            if self._store.exists(video):
                return video
            file.seek(start)  # somebody else has dropped the same video between the two steps

    def _drop(self, video: str, caller: str | None) -> bool:
        if self._claims is not None and caller is not None and not self._claims.drop(caller, video):
            return False
        self._store.delete(video)
        return True

    def _ids(self, caller: str | None) -> Sequence[str]:
        held = self._store.ids()
        return held if self._claims is None or caller is None else self._claims.of(caller, held)
