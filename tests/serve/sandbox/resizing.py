"""The same children, with torch to resize frames."""

from __future__ import annotations

from serve.sandbox.child import warm_up
from tests.serve.sandbox.misbehaving import decode

__all__ = ["decode", "warm_up"]
