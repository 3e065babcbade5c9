"""Locks of the drivers, which a process that is forked never finds taken by a thread that it does not have."""

from __future__ import annotations

import os
import threading


# Graphs are built one at a time: PyTensor's configuration belongs to all threads. A build may need another one.
BUILDING = threading.RLock()
# Steps are taken from where they are kept, and put back; it is taken for a moment, also while something is built.
KEEPING = threading.Lock()


def _acquire() -> None:
    # A fork waits for what is being built, which would be half done for ever in the child.
    BUILDING.acquire()
    KEEPING.acquire()


def _release() -> None:
    KEEPING.release()
    BUILDING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
