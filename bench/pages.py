"""Listings of realistic events as files, the same in every run."""

from __future__ import annotations

import json
import os
import random
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from flicker.demo.events import make_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_EVENTS = 1_000
FIRST_AT = datetime(2025, 1, 1, tzinfo=timezone.utc)
STEP = timedelta(milliseconds=10)

_SEED = 20250101


class Listing:
    """Pages of `PAGE_EVENTS` events, made once and shared by all that read them.

    Args:
        files: The directory that the API serves.
    """

    def __init__(self, files: Path) -> None:
        self._files = files
        self._tails = list(_make_tails())
        self._made = 0
        self.event_bytes = 0
        (files / "all").mkdir()

    def of(self, events: int) -> str:
        """Give the path of a listing of so many events, whole pages."""
        pages = max(1, events // PAGE_EVENTS)
        for number in range(self._made + 1, pages + 1):
            body = self._page(number)
            (self._files / "all" / f"{number}.json").write_bytes(body)
            self.event_bytes = len(body) // PAGE_EVENTS
        self._made = max(self._made, pages)
        directory = self._files / f"first-{pages}"
        if not directory.exists():
            directory.mkdir()
            for number in range(1, pages + 1):
                os.link(self._files / "all" / f"{number}.json", directory / f"{number}.json")
        return f"/first-{pages}/events"

    def of_few(self, events: int) -> str:
        """Give the name of a file of so many events, which the API serves after a while too."""
        name = f"few-{events}.json"
        (self._files / name).write_bytes(b'{"events":[%b]}' % b",".join(self._events(1)[:events]))
        return name

    def _page(self, number: int) -> bytes:
        return b'{"events":[%b],"next":"%d"}' % (b",".join(self._events(number)), number + 1)

    def _events(self, number: int) -> list[bytes]:
        first = (number - 1) * PAGE_EVENTS
        return [
            b'{"uuid":"%08x-%b","published":"%b",%b'
            % (first + index, uuid, format_instant(FIRST_AT + (first + index) * STEP), rest)
            for index, (uuid, rest) in enumerate(self._tails)
        ]


def format_instant(instant: datetime) -> bytes:
    """Write an instant as Okta does."""
    text = instant.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z".encode()


def _make_tails() -> Iterator[tuple[bytes, bytes]]:
    """Make the end of each uuid of a page, and what follows the timestamp.

    Only the numbers and instants differ from page to page: a million events
    are written in seconds, and the decoders cannot tell.
    """
    rng = random.Random(_SEED)  # noqa: S311 - the same in every run
    for index in range(PAGE_EVENTS):
        event = make_event(index, 0, rng)
        uuid = str(event.pop("uuid"))[9:].encode()
        del event["published"]
        event["legacyEventType"] = f"core.{event['eventType']}"
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        yield uuid, text[1:].encode()
