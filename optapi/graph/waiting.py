"""Whom a backend tells of a compilation that takes long."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


# Called before it begins, with what is compiled, and how many seconds it usually takes.
WAITING: ContextVar[Callable[[str, int], None] | None] = ContextVar("waiting", default=None)
