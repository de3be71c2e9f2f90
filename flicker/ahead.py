"""The pages behind the one that is being read, asked for meanwhile.

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

PAGES_AHEAD = 2
"""One that is on its way while the one before it is decoded."""


class LookAhead:
    """Asks for pages ahead of the one that a source waits for.

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
        self._ahead: list[Fetch] = []

    def lead(self, fetch: Fetch) -> None:
        """Look ahead of this page from now on."""
        with self._lock:
            self._leader = fetch
            ahead = [fetch, *self._ahead]
        for each in ahead:
            self.note(each)

    def note(self, fetch: Fetch) -> None:
        """Note that it is known what a page has behind it."""
        with self._lock:
            line = [self._leader, *self._ahead]
            if self._leader is None or fetch.following is None or fetch not in line:
                return
            at = line.index(fetch)
            if at == PAGES_AHEAD or (
                self._ahead[at:] and self._ahead[at].request == fetch.following[1]
            ):
                return
            followed = self._follow(fetch)
            self._ahead[at:] = [] if followed is None else [followed]

    def take(self, request: PageRequest) -> Fetch | None:
        """Give the page asked for ahead, if it is this request's."""
        with self._lock:
            ahead = self._ahead[0] if self._ahead else None
            if ahead is None or (ahead.request != request and ahead.is_at_token):
                return None
            is_old = ahead.done_at is not None and time.monotonic() - ahead.done_at > AHEAD_S
            if ahead.request != request or (is_old and not ahead.is_at_token):
                self._ahead = []
                return None
            return self._ahead.pop(0)

    def rest(self) -> None:
        """Look ahead no more, until the next page leads."""
        with self._lock:
            self._leader = None
            if self._ahead and not self._ahead[0].is_at_token:
                self._ahead = []
