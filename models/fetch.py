"""`python -m models.fetch SOURCE DIRECTORY`: a checkpoint from the hub or a bucket, whole or not at all, and checked.

SOURCE is a hub id, owner/name or owner/name@revision, or what fsspec reads: s3://bucket/folder, gs://…, a folder. The
files go beside DIRECTORY first, and get its name when all are there and their sha256 is what the hub or the manifest of
the checkpoint states. What is there already, from the same SOURCE, is left as it is: the command may be repeated.
Exits with 1 when something is not to be had or not as stated.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import fsspec

from models.checkpoint import HUB_FILES
from models.errors import CheckpointError
from models.layout import read_json, sha256

STAMP = ".fetched"  # {"source": …}; not named *.json, all of which a manifest must state


def fetch(source: str, directory: Path) -> bool:
    """Whether anything was fetched; False: it was there.

    Raises:
        CheckpointError: it cannot be had, differs from its hashes, or the directory holds something else.
    """
    if directory.exists():
        stamp = directory / STAMP
        held = read_json(stamp).get("source") if stamp.is_file() else None
        if held != source:
            raise CheckpointError(f"{directory} holds {held or 'unknown files'}, not {source}: name another one")
        return False
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was cut off
    partial.mkdir(parents=True)
    hub = not Path(source).exists() and "://" not in source
    stated = _from_hub(source, partial) if hub else _from_files(source, partial)
    manifest = partial / "manifest.json"
    if manifest.is_file():
        stated = {**stated, **read_json(manifest).get("files", {})}
    _check(partial, stated)
    (partial / STAMP).write_text(json.dumps({"source": source}) + "\n")
    os.sync()  # a power cut must not leave the name without the bytes
    partial.rename(directory)
    return True


def _from_hub(source: str, into: Path) -> Mapping[str, str]:
    """The files of one commit, and the sha256 that the hub states of the large ones."""
    from huggingface_hub import HfApi, snapshot_download

    name, _, revision = source.partition("@")
    try:
        facts = HfApi().model_info(name, revision=revision or None, files_metadata=True)
        snapshot_download(name, revision=facts.sha, allow_patterns=HUB_FILES, local_dir=into)
    except Exception as error:  # the hub client raises many kinds; all mean that the checkpoint is not to be had
        raise CheckpointError(f"{source}: the hub did not deliver it ({error})") from error
    shutil.rmtree(into / ".cache", ignore_errors=True)  # the hub client's notes
    return {file.rfilename: file.lfs.sha256 for file in facts.siblings or () if file.lfs and _wanted(file.rfilename)}


def _from_files(source: str, into: Path) -> Mapping[str, str]:
    """The files that a checkpoint is made of; a bucket states no sha256."""
    try:
        system, root = fsspec.url_to_fs(source)
        files = {str(PurePosixPath(path).relative_to(PurePosixPath(root))): path for path in system.find(root)}
        wanted = {name: path for name, path in files.items() if _wanted(name)}
        if not wanted:
            raise CheckpointError(f"{source} has no file of a checkpoint")
        for name, path in wanted.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            system.get_file(path, str(into / name))
    except CheckpointError:
        raise
    except Exception as error:  # every kind of file system has its own
        raise CheckpointError(f"{source} cannot be read: {error}") from error
    return {}


def _wanted(name: str) -> bool:
    """One of a checkpoint's files, and below its folder: a bucket's keys may be anything."""
    inside = ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute()
    return inside and any(fnmatch.fnmatch(name, pattern) for pattern in HUB_FILES)


def _check(directory: Path, stated: Mapping[str, str]) -> None:
    for name, wanted in sorted(stated.items()):
        file = directory / name
        found = sha256(file) if file.is_file() else "missing"
        if found != wanted:
            raise CheckpointError(f"{name}: its sha256 is {found}, stated is {wanted}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.fetch", description=__doc__)
    parser.add_argument("source", help="owner/name@revision on the hub, or a URL that fsspec reads")
    parser.add_argument("directory", type=Path, help="where it goes; its parent must be there")
    given = parser.parse_args()
    try:
        fetched = fetch(given.source, given.directory)
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{given.directory}: {given.source}, {'fetched' if fetched else 'there already'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
