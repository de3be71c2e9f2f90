"""Memory that is free does not stay with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

FULL_OF_HOLES = """
import sys, threading, time
from flicker.memory import given_back, resident_bytes

MB = 1_000_000

def measure():
    blocks = [bytes(2000) for _ in range(100_000)]
    full = resident_bytes()
    # The last one is at the end of the heap, which could be cut off otherwise.
    del blocks[:-1]
    return blocks, full

def wait(goal, limit_s):
    deadline = time.monotonic() + limit_s
    while resident_bytes() > goal and time.monotonic() < deadline:
        threading.Event().wait(0.1)
    return resident_bytes() <= goal

blocks, full = measure()
stays = resident_bytes() > full - 50 * MB
with given_back():
    first = wait(full - 150 * MB, 45)
    blocks, full = measure()
    second = wait(full - 150 * MB, 45)
print(stays, first, second)
"""


@pytest.mark.process
def test_what_became_free_in_the_midst_of_the_heap_is_given_back() -> None:
    """Once and again, whenever it became free."""
    said = subprocess.check_output([sys.executable, "-c", FULL_OF_HOLES], text=True, timeout=120)
    assert said.split() == ["True", "True", "True"]


LARGE_AMONG_SMALL = """
import contextlib, sys
from pathlib import Path
from flicker.memory import LARGE_BYTES, given_back, resident_bytes
from flicker.registry.partitions import main

is_reader = sys.argv[1] == "reader"
if is_reader:
    # It is told nothing, and ends.
    main(Path())
with contextlib.nullcontext() if is_reader else given_back():
    before = resident_bytes()
    # By its second use glibc would keep it.
    for _ in range(5):
        large = b"x" * (12 * LARGE_BYTES)
        del large
    print(resident_bytes() - before < LARGE_BYTES)
"""


@pytest.mark.process
@pytest.mark.parametrize("where", ["flow", "reader"])
def test_a_large_block_is_gone_after_its_use(where: str) -> None:
    """Where a flow runs, and in the process that reads its registry."""
    argv = [sys.executable, "-c", LARGE_AMONG_SMALL, where]
    said = subprocess.check_output(argv, stdin=subprocess.DEVNULL, text=True, timeout=60)
    assert said.strip() == "True"


OUT_OF_FILES = """
import resource, threading
from flicker import memory

memory.INTERVAL_S = 0.001
failures = []
resident_bytes = memory.resident_bytes

def count():
    try:
        return resident_bytes()
    except OSError as error:
        failures.append(error)
        if len(failures) == 50:
            enough.set()
        raise

memory.resident_bytes = count
enough = threading.Event()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
with memory.given_back():
    (thread,) = (one for one in threading.enumerate() if one.name == "flicker-memory")
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    while thread.is_alive() and not enough.wait(0.1):
        pass
    print(thread.is_alive())
"""


@pytest.mark.process
def test_a_process_that_is_out_of_files_goes_on_looking() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_FILES], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")
