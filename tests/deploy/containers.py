"""Building and running the image without a container engine: Debian's buildah, on a base image that debootstrap makes.

The container is a mount and process namespace over the image's files: the root read-only, the image's user, no
privilege to be had, and memory for what may be written, as the manifests give it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tests.deploy.manifests import ROOT

TOOLS = ("buildah", "debootstrap", "unshare", "setpriv")
BASE, IMAGE = "localhost/dsr-test-base:bookworm", "localhost/dsr-serve:test"
RELEASE, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates"

# What Kubernetes does of a pod's security context: $1 is the root, the rest the command.
ENTER = """
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for place in /tmp /dev/shm /data; do mount -t tmpfs -o size=2g,mode=1777 tmpfs "$root$place"; done
exec chroot --userspec="$RUN_AS" "$root" setpriv --no-new-privs /usr/bin/env -i -C "$RUN_IN" "$@"
"""


def missing() -> str:
    """Why there can be no image on this machine; empty: there can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install buildah debootstrap util-linux"
    return "" if os.geteuid() == 0 else "a container without an engine needs root"


@dataclass(frozen=True)
class Buildah:
    """With storage of its own below `folder`, so that nothing else on the machine is seen or changed."""

    folder: Path
    keeps: bool = False  # every step's result, for the next time: some 10 GB

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            ["buildah", *arguments], check=True, cwd=ROOT, env=self._environment(), stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def _environment(self) -> Mapping[str, str]:
        places = f'graphroot = "{self.folder}/images"\nrunroot = "{self.folder}/run"\n'
        (self.folder / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{places}')
        (self.folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        return {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": "vfs",
            "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
        }

    @property
    def _policy(self) -> str:
        return f"--signature-policy={self.folder}/policy.json"

    def base(self) -> None:
        """Debian's own Python, in place of the official image. Kept when it is there."""
        if (
            subprocess.run(
                ["buildah", "inspect", "--type=image", BASE], env=self._environment(), capture_output=True
            ).returncode
            == 0
        ):
            return
        files = self.folder / "debian"
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, files], check=True)
        container = self("from", "scratch")
        self("copy", "--quiet", container, str(files), "/")
        self("commit", "--quiet", "--rm", self._policy, container, BASE)
        shutil.rmtree(files)

    def build(self) -> None:
        """The Dockerfile as it is. The build has the settings of this machine's pip, and the files that they name."""
        settings, folders = pip_settings()
        arguments = {"PYTHON_IMAGE": BASE, "REVISION": "test", **settings}
        if "PIP_FIND_LINKS" in settings:
            arguments["TORCH_INDEX_CPU"] = ""  # this machine has its own wheels
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        volumes = [f"--volume={folder}:{folder}:ro" for folder in sorted(folders)]
        self(
            "build",
            f"--layers={str(self.keeps).lower()}",
            "--format=docker",
            self._policy,
            *volumes,
            *given,
            "--tag",
            IMAGE,
            ".",
        )

    def facts(self) -> dict[str, Any]:
        """The image's configuration, and `layers` and `bytes` of it."""
        found = json.loads(self("inspect", "--type=image", IMAGE))["Docker"]
        [listed] = json.loads(self("images", "--json", IMAGE))
        return found["config"] | {"layers": len(found["rootfs"]["diff_ids"]), "size": listed["size"]}

    @contextmanager
    def files(self) -> Iterator[Path]:
        """The image's files, in a working container that is gone afterwards."""
        container = self("from", self._policy, IMAGE)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)


@dataclass(frozen=True)
class Image:
    """A built image: where its files are, and its configuration."""

    files: Path
    facts: dict[str, Any]


def pip_settings() -> tuple[dict[str, str], set[Path]]:
    """pip's settings on this machine as build arguments of the Dockerfile, and the local folders that they name."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    known = {"index-url", "extra-index-url", "find-links", "cert", "trusted-host"}
    settings: dict[str, str] = {}
    folders: set[Path] = set()
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        name, value = name.split(".", 1)[-1], value.strip("'\"")
        if name not in known:
            continue
        settings[f"PIP_{name.upper().replace('-', '_')}"] = value
        for word in value.split():
            path = Path(urlsplit(word).path if word.startswith("file:") else word)
            if path.is_absolute() and path.exists():  # the pages of an index name files beside its folder
                folders.add(path if path.is_dir() and not word.startswith("file:") else path.parent)
    return settings, folders


def command(files: Path, facts: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """`arguments` in the image, as its user, where it says, with its environment and nothing else."""
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", ENTER, "enter", str(files)),
        *facts["Env"],
        *arguments,
    ]


def run(
    files: Path,
    facts: Mapping[str, Any],
    arguments: Sequence[str],
    said: str = "",
    alone: bool = False,
    seconds: float = 300,
) -> subprocess.CompletedProcess[str]:
    """To its end, with `said` on its input. `alone`: in a network of its own, with a loopback and nothing else."""
    given = command(files, facts, arguments)
    if alone:
        given = ["unshare", "--net", "/bin/sh", "-c", 'ip link set lo up && exec "$@"', "alone", *given]
    return subprocess.run(given, env=_who(facts), input=said, capture_output=True, text=True, timeout=seconds)


@contextmanager
def started(files: Path, facts: Mapping[str, Any], arguments: Sequence[str], log: IO[bytes]) -> Iterator[None]:
    """A container that is stopped afterwards, with all that it started: its first process takes the others along."""
    process = subprocess.Popen(
        command(files, facts, arguments), env=_who(facts), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def _who(facts: Mapping[str, Any]) -> dict[str, str]:
    return {**os.environ, "RUN_AS": facts["User"], "RUN_IN": facts["WorkingDir"]}
