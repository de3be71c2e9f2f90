"""Giving back memory that the C library keeps after its use.

glibc has a heap for each of many threads and gives back only what is free at the
end of one. What a thousand first polls needed at a time, or a destination that was
slow for a while, would stay with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERVAL_S = 2.0

GROWTH_BYTES = 4 * 1024 * 1024
"""What a process has to have grown by since the last time: going through all heaps
takes milliseconds, and so do the page faults afterwards."""

REST_LOOKS = 10
"""Looks after which it is done in any case: what is free does not show."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 2 * 1024 * 1024
"""From this on a block is mapped for itself and gone after its use. glibc would go up
to 32 MB by itself, and snapshots of a full outbox would leave holes in the heap."""

KEPT_BYTES = 4 * LARGE_BYTES
"""At the end of a heap, so that pages of events need not be mapped each time."""

_STATM = Path("/proc/self/statm")


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Give memory back every now and then, on a thread, until the block ends.

    Nothing happens where the C library is not glibc.
    """
    map_large_blocks()
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "malloc_trim") and _STATM.exists()):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(
        target=_run, args=(libc.malloc_trim, over), name="flicker-memory", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def map_large_blocks() -> None:
    """Have large blocks be gone after their use, in this process from now on."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def _run(trim: Callable[[int], int], over: threading.Event) -> None:
    kept = looks = 0
    while not over.wait(INTERVAL_S):
        looks += 1
        # Where a process may open no more files, a later look tells.
        with contextlib.suppress(OSError):
            if looks >= REST_LOOKS or resident_bytes() > kept + GROWTH_BYTES:
                looks = 0
                trim(0)
                kept = resident_bytes()


def resident_bytes() -> int:
    """Give the memory that this process occupies.

    Raises:
        OSError: No more files can be opened.
    """
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
