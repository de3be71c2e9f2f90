"""Threads for requests, so that no wait ever holds a Bytewax worker.

One pool serves all sources and destinations of a process. A request that
hangs keeps its own thread and nobody else's: a task for which no thread is
idle gets a new one, up to a bound far above what living servers need.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from flicker.slack import ALERT_S, set_slack

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 2048
IDLE_S = 10.0
RETRY_S = 1.0

logger = logging.getLogger(__name__)


class _Seat:
    """Where a thread waits for its next task; a condition would wake it twice for each."""

    def __init__(self, task: Callable[[], None]) -> None:
        self._task: Callable[[], None] | None = task
        # Open while there is a task.
        self._gate = threading.Lock()

    def give(self, task: Callable[[], None]) -> None:
        """Have the thread run this next; it has none."""
        self._task = task
        self._gate.release()

    def take(self) -> Callable[[], None] | None:
        """Give the next task, None where it is long in coming."""
        if not self._gate.acquire(timeout=IDLE_S):
            return None
        task, self._task = self._task, None
        return task


class Pool:
    """Runs functions on daemon threads, at once or later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle: list[_Seat] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._later_changed = threading.Condition()
        self._numbers = itertools.count()
        self._timer: threading.Thread | None = None

    def submit(self, task: Callable[[], None]) -> None:
        """Run a function soon; it must not raise.

        Where the system gives no more threads, it waits for one of ours.

        Raises:
            RuntimeError: There is not even one.
        """
        with self._lock:
            # The one that worked last: its memory is warm, and what is too many ends sooner.
            seat = self._idle.pop() if self._idle else None
            if seat is None:
                if self._threads >= MAX_THREADS:
                    self._tasks.append(task)
                    return
                self._threads += 1
        if seat is not None:
            seat.give(task)
            return
        try:
            threading.Thread(
                target=self._work, args=(_Seat(task),), name="flicker-request", daemon=True
            ).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    raise
                seat = self._idle.pop() if self._idle else None
                if seat is None:
                    self._tasks.append(task)
            if seat is not None:
                seat.give(task)
            logger.warning("no more threads; requests wait for one another")

    def submit_later(self, delay_s: float, task: Callable[[], None]) -> None:
        """Run a function after a while; it must not raise.

        Args:
            delay_s: Seconds from now.
            task: What to run. It cannot be cancelled: let it look whether it
                is still wanted.
        """
        with self._later_changed:
            if self._timer is None:
                self._timer = threading.Thread(target=self._tick, name="flicker-timer", daemon=True)
                self._timer.start()
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), task))
            self._later_changed.notify()

    def _work(self, seat: _Seat) -> None:
        # A worker that is idle would hand down its own.
        set_slack(ALERT_S)
        while True:
            task = seat.take()
            if task is None:
                with self._lock:
                    if seat in self._idle:
                        self._idle.remove(seat)
                        self._threads -= 1
                        return
                # It is being given one.
                continue
            try:
                task()
            except Exception:
                logger.exception("a background task failed")
            # A page may hang on it, and the next task may be long in coming.
            del task
            with self._lock:
                if self._tasks:
                    seat.give(self._tasks.popleft())
                else:
                    self._idle.append(seat)

    def _tick(self) -> None:
        set_slack(ALERT_S)
        while True:
            with self._later_changed:
                wait_s = self._later[0][0] - time.monotonic() if self._later else None
                if wait_s is None or wait_s > 0:
                    self._later_changed.wait(wait_s)
                    continue
                task = heapq.heappop(self._later)[2]
            try:
                self.submit(task)
            except RuntimeError:
                self.submit_later(RETRY_S, task)
            del task
