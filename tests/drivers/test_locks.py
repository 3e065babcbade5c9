"""Locks and forks."""

import os
import sys
import threading
import time
import warnings

import pytest

from optapi.drivers.locks import BUILDING, KEEPING


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize("lock", [BUILDING, KEEPING], ids=["building", "keeping"])
def test_a_child_finds_no_lock_taken_by_a_thread_of_its_parent(lock):
    taken = threading.Event()

    def hold():
        with lock:
            taken.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads are running: Python's, and JAX's where another test imported it
        child = os.fork()
    if child == 0:
        free = all(one.acquire(timeout=1) for one in (BUILDING, KEEPING))
        sys.stderr.flush()
        os._exit(0 if free else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    for one in (BUILDING, KEEPING):
        assert one.acquire(timeout=1)
        one.release()
