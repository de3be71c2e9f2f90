"""How late the kernel may wake a thread that waits for time to pass.

Bytewax's workers look for work every millisecond, and so does the thread that
started them, for signals. The kernel may put off such a wake-up by the thread's
timer slack, so that a process with nothing to do hardly wakes (prctl(2),
PR_SET_TIMERSLACK). What wakes a thread before its time is not put off.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALERT_S = 0.000_05
"""Linux's own."""

IDLE_S = 0.005
"""Of a worker that only waits for the next poll or heartbeat: a poll may begin so late."""

SIGNALS_S = 0.02
"""Of the thread that looks for signals while workers run."""

SOON_S = 0.05
"""A partition that wants to be woken within this is at work."""

_PR_SET_TIMERSLACK = 29


def set_slack(seconds: float) -> None:
    """Set the slack of the calling thread, and of threads that it starts from now on.

    Nothing happens where the system knows no such thing.
    """
    prctl = _find_prctl()
    if prctl is not None:
        prctl(_PR_SET_TIMERSLACK, round(seconds * 1e9), 0, 0, 0)


@cache
def _find_prctl() -> Callable[..., int] | None:
    try:
        # Not CDLL: it would give the interpreter's lock away and have to wait for it.
        prctl: Callable[..., int] = ctypes.PyDLL(None).prctl
    except (AttributeError, OSError):
        return None
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]  # type: ignore[attr-defined]
    return prctl


@contextlib.contextmanager
def slack_for_signals() -> Iterator[None]:
    """Let the calling thread look for signals less often than Bytewax has it."""
    set_slack(SIGNALS_S)
    try:
        yield
    finally:
        set_slack(ALERT_S)


class Slacks:
    """The slack of each worker of a process: little as long as it is at work."""

    def __init__(self) -> None:
        self._at_work: Counter[int] = Counter()

    def join(self) -> Slack:
        """Give a partition its say; to be called by its worker."""
        worker = threading.get_ident()
        if worker not in self._at_work:
            set_slack(ALERT_S)
            self._at_work[worker] = 0
        return Slack(self._at_work, worker)


class Slack:
    """What one partition has to say about its worker's slack.

    Args:
        at_work: How many partitions of each worker are; touched by no other
            thread than the worker where it is the worker's.
        worker: Whose partition it is.
    """

    def __init__(self, at_work: Counter[int], worker: int) -> None:
        self._at_work = at_work
        self._worker = worker
        self._is_at_work = False

    def note(self, awake_in_s: float) -> None:
        """Note in how many seconds the partition wants to be woken."""
        is_at_work = awake_in_s <= SOON_S
        if is_at_work == self._is_at_work:
            return
        self._is_at_work = is_at_work
        before = self._at_work[self._worker]
        self._at_work[self._worker] = now = before + (1 if is_at_work else -1)
        if not (before and now):
            set_slack(ALERT_S if now else IDLE_S)
