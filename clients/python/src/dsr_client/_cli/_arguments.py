"""What `dsr` takes on its command line."""

from __future__ import annotations

import argparse
import math

from .._settings import DEFAULT_TIMEOUT, DEFAULT_URL
from .._version import __version__
from ._ask import ask
from ._bench import bench
from ._held import health, upload, videos
from ._reconstruct import reconstruct

__all__ = ["parser"]

_EPILOG = """\
environment: DSR_URL, where the service is; DSR_API_KEY, the key to it
exit codes: 0 done, 1 refused or failed, 2 wrong usage or a bad file, 3 no connection, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Every parsed command has `run(arguments) -> exit code`."""
    all_commands = argparse.ArgumentParser(
        prog="dsr",
        description="Ask a video how things move in 3D over time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    all_commands.add_argument("--version", action="version", version=f"dsr-client {__version__}")
    commands = all_commands.add_subparsers(required=True, metavar="COMMAND")
    shared = _shared()

    one = commands.add_parser("ask", parents=[shared], help="ask a question about a video")
    _add_question(one)
    one.add_argument("--explain", metavar="PNG", help="draw what the answer looked at (needs pillow, and av or ffmpeg)")
    one.add_argument("--stream", action="store_true", help="print a free answer while it is made")
    one.set_defaults(run=ask)

    one = commands.add_parser("reconstruct", parents=[shared], help="cameras and points of a video, as a file")
    one.add_argument("video", metavar="VIDEO", help="a file, or the id of an uploaded video")
    one.add_argument("--out", metavar="FILE", help="scene.ply or scene.glb")
    one.add_argument("--points", type=_count, metavar="N", help="at most so many")
    one.add_argument("--frames", type=_count, metavar="N", help="frames to reconstruct")
    one.set_defaults(run=reconstruct)

    one = commands.add_parser("upload", parents=[shared], help="store a video, print its id")
    one.add_argument("video", metavar="VIDEO", help="a file")
    one.set_defaults(run=upload)

    one = commands.add_parser("videos", parents=[shared], help="what the service holds")
    one.add_argument("action", choices=("list", "delete"), nargs="?", default="list")
    one.add_argument("ids", metavar="ID", nargs="*", help="videos to delete")
    one.set_defaults(run=videos)

    one = commands.add_parser("health", parents=[shared], help="whether the service is ready")
    one.set_defaults(run=health)

    one = commands.add_parser("bench", parents=[shared], help="measure latency and throughput")
    _add_question(one)
    one.add_argument("-n", type=_count, default=20, metavar="N", help="questions (%(default)s)")
    one.add_argument("-c", type=_count, default=4, metavar="C", help="at the same time (%(default)s)")
    one.set_defaults(run=bench)
    return all_commands


def _shared() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", help=f"where the service is; default: DSR_URL, else {DEFAULT_URL}")
    wait = f"of silence while waiting for an answer ({DEFAULT_TIMEOUT.read:g})"
    shared.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=wait)
    shared.add_argument("--json", action="store_true", help="print JSON")
    return shared


def _add_question(command: argparse.ArgumentParser) -> None:
    command.add_argument("video", metavar="VIDEO", help="a file, or the id of an uploaded video")
    command.add_argument("question", metavar="QUESTION")
    command.add_argument(
        "-o", "--option", action="append", default=[], dest="options", metavar="TEXT", help="repeat; none: free answer"
    )
    command.add_argument("--frames", type=_count, metavar="N", help="frames that the model sees")
    command.add_argument("--max-tokens", type=_count, metavar="N", help="longest free answer")
    command.add_argument("--temperature", type=float, metavar="T", help="of a free answer; 0: the likeliest token")
    command.add_argument("--top-p", type=float, metavar="P", help="draw only from the likeliest tokens")
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="repeat; ends a free answer")
    command.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same answer")
    command.add_argument("--geometry", choices=("gsm", "off"), help="off: the base model alone")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{number:g} s; more than 0, and finite")
    return number
