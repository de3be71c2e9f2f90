"""How often an API may be asked: our own cap, and the pauses that it asks for."""

from __future__ import annotations

import math
import threading


class Pace:
    """Spaces the requests of one source, or of a group that shares a quota.

    Times are those of `time.monotonic`, in seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interval_s = 0.0
        self._free_at = 0.0
        self._started_at = -math.inf
        self._paused_until = 0.0

    def limit(self, requests_per_second: float | None) -> None:
        """Ask no more often than this; of several limits the lowest counts."""
        if requests_per_second is not None:
            with self._lock:
                self._interval_s = max(self._interval_s, 1 / requests_per_second)

    def reserve(self, now: float) -> float:
        """Give the next free time, and keep it for the caller: who came first is served first."""
        with self._lock:
            at = max(now, self._free_at)
            self._free_at = at + self._interval_s
            return at

    def start(self, at: float, now: float) -> float:
        """Start a request, if it may start yet.

        A time that was kept is no promise: a pause, or a destination that is
        behind, lets several pass, and those who waited must not ask all at once.

        Args:
            at: What `reserve` gave.
            now: The present.

        Returns:
            When it may start; it has, unless that is in the future.
        """
        with self._lock:
            ready_at = max(at, self._paused_until, self._started_at + self._interval_s)
            if ready_at <= now:
                self._started_at = now
                self._free_at = max(self._free_at, now + self._interval_s)
            return ready_at

    def pause(self, until: float) -> None:
        """Have nobody ask before then."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)


class Paces:
    """The paces of a process, by group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_group: dict[str, Pace] = {}

    def join(self, group: str | None, requests_per_second: float | None) -> Pace:
        """Give the pace of a group, with a member's limit put to it.

        Args:
            group: None for a pace that nobody shares.
            requests_per_second: The member's own limit, if it has one.
        """
        with self._lock:
            pace = Pace() if group is None else self._by_group.setdefault(group, Pace())
        pace.limit(requests_per_second)
        return pace
