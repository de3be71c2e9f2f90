"""The page behind the one that is being read, asked for meanwhile.

While the events of a page are read and shipped, the connection would be idle.
What comes is taken only if it is what is then to be asked for.
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
"""Seconds for which a page that came ahead waits, if it is at an offset or has a
number: what the API lists there changes."""


class LookAhead:
    """Asks for one page ahead of the one that a source waits for.

    A page at a token is kept until it is asked for, however long that takes:
    some tokens may be used once. Safe for concurrent use: pages are read on
    threads of the pool.

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
            if fetch is not self._leader or fetch.following is None:
                return
            if self._ahead is None or self._ahead.request != fetch.following[1]:
                self._ahead = self._follow(fetch)

    def take(self, request: PageRequest) -> Fetch | None:
        """Give the page asked for ahead, if it is this request's."""
        with self._lock:
            ahead = self._ahead
            if ahead is None or (ahead.request != request and ahead.is_at_token):
                return None
            self._ahead = None
            is_old = ahead.done_at is not None and time.monotonic() - ahead.done_at > AHEAD_S
            if ahead.request != request or (is_old and not ahead.is_at_token):
                return None
            return ahead

    def rest(self) -> None:
        """Look ahead no more, until the next page leads."""
        with self._lock:
            self._leader = None
            if self._ahead is not None and not self._ahead.is_at_token:
                self._ahead = None
