"""The page behind the one that is being read, asked for meanwhile.

While the events of a page are read and shipped, the connection would be idle.
What comes is taken only if it is what is then to be asked for, so a wrong
guess costs a request and nothing else.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.fetch import Fetch
    from flicker.request import PageRequest

AHEAD_S = 5.0
"""Seconds for which a page that came ahead waits: what the API lists changes."""


class LookAhead:
    """Asks for one page ahead of the one that a source waits for.

    Safe for concurrent use: pages are read on threads of the pool.

    Args:
        follow: Starts the fetch of what a page has behind it, if it may be
            asked for now; None if not.
    """

    def __init__(self, follow: Callable[[Fetch], Fetch | None]) -> None:
        self._follow = follow
        self._lock = threading.Lock()
        self._leader: Fetch | None = None
        self._ahead: Fetch | None = None

    def lead(self, fetch: Fetch) -> None:
        """Look ahead of this page from now on."""
        with self._lock:
            self._leader = fetch
        self.note(fetch)

    def note(self, fetch: Fetch) -> None:
        """Note that it is known what a page has behind it."""
        with self._lock:
            if fetch is self._leader and self._ahead is None and fetch.following is not None:
                self._ahead = self._follow(fetch)

    def take(self, request: PageRequest) -> Fetch | None:
        """Give the page asked for ahead, if it is this request's and not too old."""
        ahead = self.drop()
        if ahead is None or ahead.request != request:
            return None
        is_old = ahead.done_at is not None and time.monotonic() - ahead.done_at > AHEAD_S
        return None if is_old else ahead

    def drop(self) -> Fetch | None:
        """Forget the page asked for ahead, and look ahead no more."""
        with self._lock:
            ahead, self._ahead, self._leader = self._ahead, None, None
            return ahead
