"""How often an API may be asked: our own cap, and the pauses that it asks for."""

from __future__ import annotations

import math
import threading

PATIENCE_S = 0.25
"""How long a turn is kept for somebody who was told of it and does not come."""

LOOK_AGAIN_S = 0.01


class Pace:
    """Spaces the requests of one source, or of a group that shares a quota.

    Times are those of `time.monotonic`, in seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interval_s = 0.0
        self._waiting: dict[str, None] = {}
        self._started_at = -math.inf
        self._paused_until = 0.0

    def limit(self, requests_per_second: float | None) -> None:
        """Ask no more often than this; of several limits the lowest counts."""
        if requests_per_second is not None:
            with self._lock:
                self._interval_s = max(self._interval_s, 1 / requests_per_second)

    def start(self, name: str, now: float) -> float:
        """Start a request, if it is the caller's turn.

        Who came first is served first: those told to wait all wake at about
        the same time, and the same one might win for ever.

        Args:
            name: Of the caller, who has to come back.
            now: The present.

        Returns:
            When it may start; it has, unless that is in the future.
        """
        with self._lock:
            self._waiting.setdefault(name)
            ready_at = max(self._paused_until, self._started_at + self._interval_s)
            ahead = list(self._waiting)[: list(self._waiting).index(name)]
            if now < ready_at:
                return ready_at + min(len(ahead) * self._interval_s, PATIENCE_S)
            if ahead and self._interval_s:
                if now < ready_at + PATIENCE_S:
                    return now + LOOK_AGAIN_S
                # Their destinations are behind, say; they queue up again when they come back.
                for absent in ahead:
                    del self._waiting[absent]
            del self._waiting[name]
            self._started_at = now
            return now

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
