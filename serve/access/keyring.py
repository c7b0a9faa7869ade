"""API keys, by their hashes, from a file that is read again when it changes. A key is never stored or logged.

    keys:
      alice: {sha256: [3f0c…, 91aa…]}                       # two keys of one caller, while one replaces the other
      nightly: {sha256: [77b2…], requests_per_minute: 30}

`python -m serve.access new alice` makes a key and prints its hash. A key has 256 random bits, so that a plain hash of
it cannot be reversed by trying; passwords, which people choose, would need a slow one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

PREFIX = "dsr_"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LOOK_AGAIN_SECONDS = 1.0
MAX_FILE_BYTES = 2**20

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyLimits(_Strict):
    """Of one caller, over all ingress replicas. Uploads are bytes too."""

    requests_per_minute: Annotated[float, Field(gt=0, description="sustained; ten seconds' worth may come at once")] = (
        600
    )
    bytes_per_minute: Annotated[
        int, Field(gt=0, description="of request bodies; a minute's worth may come at once")
    ] = 2 * 1024**3
    concurrent: Annotated[int, Field(ge=1, description="requests at a time")] = 64


class KeyEntry(_Strict):
    """What the file has for one caller; limits that are left out are those of the settings."""

    sha256: Annotated[tuple[Digest, ...], Field(min_length=1)]
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    bytes_per_minute: Annotated[int, Field(gt=0)] | None = None
    concurrent: Annotated[int, Field(ge=1)] | None = None


class KeyFile(_Strict):
    keys: dict[Name, KeyEntry]


@dataclass(frozen=True)
class Caller:
    """`name` None: nobody needs a key here, and all videos are everybody's."""

    name: str | None
    limits: KeyLimits


class BadKeyFile(ValueError):
    """Names the file, and the place in it, but none of its values."""


class Keyring:
    """The callers of a key file. A file that is broken when it is read again changes nothing, and is logged."""

    def __init__(self, path: Path, limits: KeyLimits) -> None:
        """BadKeyFile when the file cannot be read, or has anything but hashed keys."""
        self._path = path
        self._limits = limits
        self._state = _state(path)
        self._callers = _read(path, limits)
        self._looked = time.monotonic()

    def identify(self, key: str) -> Caller | None:
        """Whose key it is, in a time that tells nothing about the keys that there are."""
        self._look_again()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _look_again(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = now
        state = _state(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            self._callers = _read(self._path, self._limits)
        except BadKeyFile as error:
            _log.error("the keys stay as they were: %s", error)
        else:
            _log.info("%s was read again: %d keys", self._path, len(self._callers))


def new_key() -> tuple[str, str]:
    """A key, to be shown once, and the hash to keep of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _read(path: Path, limits: KeyLimits) -> list[tuple[str, Caller]]:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise BadKeyFile(f"{path} has more than {MAX_FILE_BYTES} bytes")
        found = KeyFile.model_validate(yaml.safe_load(text))
    except OSError as error:
        raise BadKeyFile(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadKeyFile(f"{path} is not YAML" + (f", line {mark.line + 1}" if mark else "")) from None
    except ValidationError as error:
        # Without the values: whoever put a key in place of its hash does not want to read it in a log.
        places = "; ".join(f"{_place(e['loc']) or 'the file'}: {e['msg']}" for e in error.errors())
        raise BadKeyFile(f"{path}: {places}") from None
    return [(digest, _caller(name, entry, limits)) for name, entry in found.keys.items() for digest in entry.sha256]


def _place(parts: tuple[int | str, ...]) -> str:
    """Where in the file; a name that is none may be anything, a key too."""
    known = {*KeyFile.model_fields, *KeyEntry.model_fields}
    shown = (p if isinstance(p, int) or p in known or NAME.fullmatch(p) else "(no name)" for p in parts[:4])
    return ".".join(map(str, shown))


def _caller(name: str, entry: KeyEntry, limits: KeyLimits) -> Caller:
    own = {field: value for field, value in entry.model_dump(exclude={"sha256"}).items() if value is not None}
    return Caller(name, limits.model_copy(update=own))


def _state(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does; a Kubernetes Secret is swapped by a link, which changes the inode."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
