"""`python -m serve.local`: the service on this machine, on a Ray of its own that nobody else sees, until Ctrl-C."""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve import proxy

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(proxy.CALLBACK, proxy.IMPORT_PATH)  # Ray reads it when it is imported, and in its proxy

import ray
import yaml
from ray import serve

from models.errors import CheckpointError
from serve.access.keyring import BadKeyFile, Keyring
from serve.app import build
from serve.settings import Ingress, MiB, Settings

APP = "dsr"
LOOPBACK, EVERYWHERE = "127.0.0.1", ("0.0.0.0", "::")
OBJECT_STORE_BYTES = 1024 * MiB
# A replica's own code and its calls in the loop that Ray has anyway: a tenth of the overhead. All that is long is in
# threads. For the replicas alone: handles of this process need a loop that runs.
ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}
# Ray's controller looks after the replicas ten times a second, which takes 5 % of a core from the answers.
CALM = {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5"}


class CannotStart(RuntimeError):
    """Said to the user as it is, without a traceback."""


def read_settings(path: Path, **changes: Any) -> Settings:
    """The args of the one application in a Serve config file, with top-level settings replaced by `changes`."""
    try:
        [application] = yaml.safe_load(path.read_text())["applications"]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise CannotStart(f"{path} is not a Serve config with one application: {error}") from None
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return Settings.model_validate({**application.get("args", {}), **given})
    except ValueError as error:
        raise CannotStart(f"{path}: {error}") from None


@contextmanager
def running(
    settings: Settings, port: int, verbose: bool = False, host: str = LOOPBACK, proxied: bool = False
) -> Iterator[str]:
    """Starts Ray and the application, yields the service's URL, and stops both at the end.

    `proxied`: behind Ray's own HTTP proxy, as in a cluster; otherwise the ingress answers by itself (`serve.front`).
    """
    _refuse_open_doors(settings, host)
    _refuse_taken(port, host)
    if not proxied:
        settings = _listening(settings, host, port)
    application = build(settings)  # before Ray: a wrong checkpoint is said at once
    # Its own session directory: another Ray on the machine neither finds this one nor is found by it. Socket paths may
    # have 107 bytes, so that the directory must be short.
    directory = tempfile.mkdtemp(prefix="dsr-", dir="/tmp" if Path("/tmp").is_dir() else None)
    logging.getLogger("ray.serve").setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with _inherited(CALM if proxied else {**ONE_LOOP, **CALM}), _sigterm_kept():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, int(settings.cpus) + 2),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level="info" if verbose else "error",
                _temp_dir=directory,
            )
        if proxied:
            serve.start(http_options={"host": host, "port": port})
        else:
            serve.start(proxy_location="Disabled")
        serve.run(application, name=APP, route_prefix="/")
        yield f"http://{LOOPBACK if host in EVERYWHERE else host}:{port}"
    finally:
        if ray.is_initialized():
            # Lets the replicas finish what they work on. Serve itself goes with its Ray; `serve.shutdown()` before that
            # makes Ray complain of a controller that died.
            serve.delete(APP)
            ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """What is started meanwhile has these in its environment, unless ours says otherwise."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """`ray.init` takes SIGTERM, with which containers and systemd end a service, for itself: its handlers abort the
    process, so that nobody waits for what the replicas work on, and files stay behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # neither Ray nor we can set a handler there
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _listening(settings: Settings, host: str, port: int) -> Settings:
    try:
        ingress = Ingress.model_validate({**settings.ingress.model_dump(), "listen": {"host": host, "port": port}})
    except ValueError as error:
        raise CannotStart(f"ingress: {error}") from None
    return settings.model_copy(update={"ingress": ingress})


def wait_until_ready(url: str, seconds: float = 120) -> None:
    """Returns when every stage has loaded and tested itself."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError) as error:
            if time.monotonic() > end:
                raise CannotStart(f"{url}/readyz did not become ready within {seconds:.0f} s: {error}") from None
        time.sleep(0.2)


def ask(url: str, clip: Path, question: str, options: list[str]) -> dict[str, Any]:
    """Posts one question as JSON."""
    body = {
        "video": {"data": base64.b64encode(clip.read_bytes()).decode()},
        "question": question,
        "options": options,
    }
    request = urllib.request.Request(
        f"{url}/v1/answers", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def show_sample(url: str, checkpoint: Path) -> None:
    """Asks the sample question of the checkpoint twice, cold and warm, and prints what came back."""
    sample = checkpoint / "sample"
    question = json.loads((sample / "question.json").read_text())
    print(f"\n{sample / 'clip.mp4'}\n{question['question']}")
    for note in ("first time", "again"):
        start = time.perf_counter()
        answer = ask(url, sample / "clip.mp4", question["question"], question["options"])
        wall = time.perf_counter() - start
        if note == "first time":
            _print_choices(answer, question)
        stages = ", ".join(f"{s} {t * 1000:.0f} ms ({answer['cache'].get(s)})" for s, t in answer["timings"].items())
        print(f"{note}: {wall * 1000:.0f} ms in all: {stages}")


def _print_choices(answer: dict[str, Any], question: dict[str, Any]) -> None:
    for letter, text in zip(answer["probabilities"], question["options"], strict=True):
        chosen = "  ← answer" if letter == answer["choice"]["letter"] else ""
        truth = "  (true)" if letter == question["answer"] else ""
        print(f"  {letter} {answer['probabilities'][letter]:6.1%}  {text}{chosen}{truth}")


def _refuse_open_doors(settings: Settings, host: str) -> None:
    """Before anything is started: a key file that cannot be used, and a service that strangers could use."""
    access = settings.ingress.access
    if access.keys_file is not None:
        try:
            Keyring(access.keys_file, access.limits)
        except BadKeyFile as error:
            raise CannotStart(str(error)) from None
    elif not access.open and host != LOOPBACK:
        raise CannotStart(
            f"on {host} others can reach it, and there are no API keys: give --keys FILE (python -m serve.access new "
            "NAME makes a key), or set ingress.access.open where everybody who can reach it may use it"
        )


def _refuse_taken(port: int, host: str = LOOPBACK) -> None:
    if not 1 <= port <= 65535:
        raise CannotStart(f"port {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise CannotStart(f"port {port} of {host} is taken; choose another: PORT=8001 make run") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve.local", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deploy/serve-local.yaml"), help="a Serve config file")
    parser.add_argument("--checkpoint", help="in place of the config's: a directory or a hub id")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    parser.add_argument("--host", default=LOOPBACK, help="an address of this machine; others than 127.0.0.1 need keys")
    parser.add_argument("--keys", type=Path, help="a file of API keys: serve/access/keyring.py")
    parser.add_argument("--proxied", action="store_true", help="behind Ray's own HTTP proxy, as in a cluster: slower")
    parser.add_argument("--ask", action="store_true", help="ask the checkpoint's sample question when ready")
    parser.add_argument("--verbose", action="store_true", help="show the logs of Ray and of every replica")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        settings = read_settings(arguments.config, checkpoint=arguments.checkpoint)
        if arguments.keys is not None:
            access = settings.ingress.access.model_copy(update={"keys_file": arguments.keys})
            settings = settings.model_copy(update={"ingress": settings.ingress.model_copy(update={"access": access})})
        _serve(settings, arguments)
    except (CannotStart, CheckpointError) as error:
        print(f"dsr-serve cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return 0


def _serve(settings: Settings, arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    print(f"starting dsr-serve with {settings.checkpoint} (Ray, then {_plan(settings)}) …", flush=True)
    with running(settings, arguments.port, arguments.verbose, arguments.host, arguments.proxied) as url:
        wait_until_ready(url)
        print(f"ready after {time.monotonic() - start:.0f} s: {url} (API: {url}/docs)", flush=True)
        if arguments.ask and settings.ingress.access.keys_file is not None:
            print("the sample question is not asked, as that needs a key")
        elif arguments.ask:
            show_sample(url, Path(settings.checkpoint))
        print("\nserving; Ctrl-C stops", flush=True)
        threading.Event().wait()


def _plan(settings: Settings) -> str:
    stages = ("frames", "encoder", "selector", "decoder", "reconstructor")
    found = ((name, getattr(settings, name)) for name in stages)
    return ", ".join(f"{stage.replicas} {name}" for name, stage in found if stage is not None)


def _stop(number: int, frame: object) -> None:
    """Once. A second Ctrl-C would leave Ray's processes behind."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    print("\nstopping …", flush=True)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
