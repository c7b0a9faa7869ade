"""The command `dsr`.

Exit codes: 0 done; 1 the service refused, failed or is not ready; 2 wrong usage, or a file that cannot be read or
written; 3 no connection, or silence for too long; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .._errors import ConnectionFailed, DsrError, ServiceError
from ._arguments import parser

__all__ = ["main"]

REFUSED, USAGE, UNREACHED, INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Nothing that is wrong with the service, the network or a file shows a traceback."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except ServiceError as error:
        return _say(f"{error.title}: {error}" if error.title else str(error), REFUSED)
    except ConnectionFailed as error:
        return _say(str(error), UNREACHED)
    except DsrError as error:
        return _say(str(error), REFUSED)
    except BrokenPipeError:  # `dsr videos | head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}" if error.filename else str(error), USAGE)
    except (TypeError, ValueError) as error:
        return _say(str(error), USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED


def _say(text: str, code: int) -> int:
    print(f"dsr: {text}", file=sys.stderr)
    return code
