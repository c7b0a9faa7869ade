"""Several hosts on this machine: network namespaces with an address, /tmp and /dev/shm of their own, on one bridge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from tests.deploy.manifests import ROOT

BRIDGE = "dsr-hosts"
NETWORK = "10.77.0"
TOKEN = "of-the-hosts-of-one-test"  # Ray's own, without which no port of it answers
SHARED = "/mnt"  # where every host sees the same folder
RAY = Path(shutil.which("ray") or ROOT / ".venv" / "bin" / "ray")


def missing() -> str:
    """Why there can be no hosts here; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if shutil.which("ip") else "`ip` is not installed: apt-get install iproute2"


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass
class Host:
    number: int
    shared: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"dsr-host-{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def cable(self) -> str:
        """The bridge's end of it."""
        return f"dsr-cable-{self.number}"

    def build(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.cable, "master", BRIDGE, "up")
        ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", link, "up")

    def ray(self, *options: str) -> None:
        """`ray start` with these options, in this host, until it is turned off."""
        mounts = f"mount --bind '{self.shared}' {SHARED} && mount -t tmpfs t /tmp && mount -t tmpfs t /dev/shm"
        start = [str(RAY), "start", "--block", f"--node-ip-address={self.address}", *options]
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.proxy:middlewares",
        }
        with (self.shared / f"{self.name}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", self.name, "bash", "-c", f'{mounts} && exec "$@"', "host", *start],
                    cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                )
            )  # fmt: skip

    def lose_power(self) -> None:
        """Nobody hears of it: the cable is out before the processes die, so that no connection is closed."""
        ip("link", "set", self.cable, "down")
        self._kill()

    def come_back(self) -> None:
        ip("link", "set", self.cable, "up")

    def destroy(self) -> None:
        """Also what a test that was killed has left."""
        if self.name in ip("netns", "list").split():
            self._kill()
            ip("netns", "del", self.name)
        # The kernel takes a namespace apart, with its end of the cable, long after the last process in it has ended.
        if self.cable in ip("link", "show"):
            ip("link", "del", self.cable)

    def _kill(self) -> None:
        while pids := ip("netns", "pids", self.name).split():
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it went by itself
            time.sleep(0.1)
        for process in self.processes:
            process.wait()
        self.processes.clear()


@contextmanager
def hosts(count: int, shared: Path) -> Iterator[list[Host]]:
    """Hosts 1 to `count`, which reach each other, and which this process reaches."""
    with ExitStack() as stack:
        made = [Host(number, shared) for number in range(1, count + 1)]
        for host in made:
            host.destroy()
        if BRIDGE in ip("link", "show"):
            ip("link", "del", BRIDGE)
        ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(ip, "link", "del", BRIDGE)
        ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for host in made:
            stack.callback(host.destroy)
            host.build()
        yield made


class Cluster:
    """Ray Serve's REST API on the head."""

    def __init__(self, head: Host) -> None:
        token = {"Authorization": f"Bearer {TOKEN}"}
        self._http = httpx.Client(base_url=f"http://{head.address}:8265", headers=token, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def hosts(self) -> set[str]:
        """Addresses of those that have a running replica."""
        return {address for there in self.placed().values() for address in there}

    def nodes(self) -> set[str]:
        """Addresses of the hosts that are alive."""
        try:
            answer = self._http.get("/nodes", params={"view": "summary"})
        except httpx.TransportError:  # it is starting
            return set()
        summary = answer.json()["data"]["summary"] if answer.status_code == 200 else []
        return {node["ip"] for node in summary if node["raylet"]["state"] == "ALIVE"}

    def deploy(self, arguments: Mapping[str, Any]) -> None:
        application = {"name": "dsr", "route_prefix": "/", "import_path": "serve.app:build", "args": dict(arguments)}
        config = {"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [application]}
        answer = self._http.put("/api/serve/applications/", json=config)
        assert answer.status_code == 200, answer.text

    def placed(self) -> dict[str, list[str]]:
        """The addresses of the running replicas of each stage, in order. Fails when the application has."""
        application = self._http.get("/api/serve/applications/").json()["applications"].get("dsr", {})
        assert application.get("status") != "DEPLOY_FAILED", json.dumps(application)
        return {
            stage: sorted(r["node_ip"] for r in each["replicas"] if r["state"] == "RUNNING")
            for stage, each in application.get("deployments", {}).items()
        }


def until(ready: Any, what: str, seconds: float) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not ready():
        assert time.monotonic() - start < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - start


def resources(names: Sequence[str]) -> str:
    return "--resources=" + json.dumps({f"stage-{name}": 1 for name in names})
