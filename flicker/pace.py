"""How often an API may be asked: our own cap, and the pauses that it asks for."""

from __future__ import annotations

import threading


class Pace:
    """Spaces the requests of one source, or of a group that shares a quota.

    Times are those of `time.monotonic`, in seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interval_s = 0.0
        self._free_at = 0.0
        self._paused_until = 0.0

    def limit(self, requests_per_second: float | None) -> None:
        """Ask no more often than this; of several limits the lowest counts."""
        if requests_per_second is not None:
            with self._lock:
                self._interval_s = max(self._interval_s, 1 / requests_per_second)

    def reserve(self, now: float) -> float:
        """Give the time of the next request that is free, and take it."""
        with self._lock:
            at = max(now, self._free_at)
            self._free_at = at + self._interval_s
            return at

    def pause(self, until: float) -> None:
        """Have nobody ask before then."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)

    @property
    def paused_until(self) -> float:
        """When asking may go on; in the past where nothing is paused."""
        return self._paused_until


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
