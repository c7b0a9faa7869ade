"""Types of arguments of the commands."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on; argparse names the argument when it is none."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; at least 1")
    return value
