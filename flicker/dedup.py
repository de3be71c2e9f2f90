"""Remembering which events were shipped, no longer than the API repeats them.

Every scan asks again from an inclusive bound, so it gets events that were
shipped before. They are known by their identities, which are kept as long as
the next scan can bring them once more, and no longer.
"""

from __future__ import annotations

import logging
from array import array
from itertools import islice, takewhile
from typing import TYPE_CHECKING, cast

from flicker.events import IDENTITY_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from flicker.events import Event

RECENT_COUNT = 10_000
"""Identities kept below the bound, for repeats from one page to the next."""

KEPT_COUNT = 2_000
"""Of these, how many outlive a scan: a restart from an earlier place asks for
events that the bound alone does not cover."""

CAPACITY = 1_000_000
"""Bound on all identities of a source, some 200 MB of memory."""

EVERYTHING = None
"""Floor of a source whose next scan brings all that is there again."""

NOTHING = 2**63 - 1
"""Floor of a source whose next scan goes on behind the last event."""

NO_TIMESTAMP = -(2**63)
"""Stands in a snapshot for the instant of an event without one."""

logger = logging.getLogger(__name__)


class DedupWindow:
    """Identities of shipped events that the API may send again.

    Three sets: what the scans before this one left behind (`_carried`), what
    this scan brought at or after the floor (`_held`), and the last few
    thousand events before it (`_recent`). The floor is the instant that the
    next scan would ask from if this one ended now.

    Args:
        source: Name for the log.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._carried: dict[bytes, int] = {}
        self._held: dict[bytes, int] = {}
        self._recent: dict[bytes, int] = {}
        self._recent_count = RECENT_COUNT
        self._page_events = 0
        self._packed: list[bytes] | None = None
        self._is_unread = False
        self._warned = False

    def _read(self) -> None:
        """Unpack what `restore` was given: a thousand windows take ten seconds."""
        if self._is_unread and self._packed is not None:
            self._is_unread = False
            packed = iter(self._packed)
            self._carried, self._recent, self._held = map(_unpack, packed, packed)

    def __len__(self) -> int:
        self._read()
        return len(self._carried) + len(self._held) + len(self._recent)

    def knows(self, identity: bytes) -> bool:
        """Tell whether an event is remembered, without remembering it."""
        self._read()
        return identity in self._held or identity in self._recent or identity in self._carried

    def is_new(self, identity: bytes, timestamp_ns: int | None, floor_ns: int | None) -> bool:
        """Remember an event and tell whether it was unknown.

        Args:
            identity: The event's identity.
            timestamp_ns: Its instant. None is held for as long as scans bring
                the event, since nothing tells when they will stop to.
            floor_ns: Instant, EVERYTHING or NOTHING.
        """
        self._read()
        if identity in self._held or identity in self._recent:
            return False
        self._packed = None
        if timestamp_ns is None:
            held = floor_ns != NOTHING
        else:
            held = floor_ns is EVERYTHING or timestamp_ns >= floor_ns
        instant = NO_TIMESTAMP if timestamp_ns is None else timestamp_ns
        (self._held if held else self._recent)[identity] = instant
        return identity not in self._carried

    def take(self, events: list[Event], floor_ns: int | None) -> list[Event]:
        """Remember a page's events and give those that were unknown.

        What `is_new` does for one after the other, in a third of the time
        where nothing of the page is known yet.

        Args:
            events: Of a page, in its order.
            floor_ns: As for `is_new`.
        """
        if not events:
            return events
        self._read()
        known = {event.identity: event.timestamp_ns for event in events}
        if (
            len(known) < len(events)
            or None in known.values()
            or not known.keys().isdisjoint(self._recent.keys())
            or not known.keys().isdisjoint(self._held.keys())
            or not known.keys().isdisjoint(self._carried.keys())
        ):
            return [e for e in events if self.is_new(e.identity, e.timestamp_ns, floor_ns)]
        instants = cast("dict[bytes, int]", known)
        self._packed = None
        if floor_ns is EVERYTHING:
            self._held.update(instants)
        elif floor_ns == NOTHING:
            self._recent.update(instants)
        else:
            for identity, at_ns in instants.items():
                (self._held if at_ns >= floor_ns else self._recent)[identity] = at_ns
        return events

    def trim(self, floor_ns: int | None, page_events: int, *, beside: int = 0) -> None:
        """Forget what a page made forgettable; to be called after each page.

        Args:
            floor_ns: As for `is_new`.
            page_events: Events of the page; the last two pages stay known
                whatever their size.
            beside: Identities that the source keeps elsewhere, for the bound
                on all of them.
        """
        self._read()
        self._page_events = max(self._page_events, page_events)
        self._recent_count = max(RECENT_COUNT, 2 * self._page_events)
        if floor_ns is not EVERYTHING and len(self._held) > self._recent_count:
            # The oldest come first where the API lists in that order, and
            # where it does not, `is_new` put them into `_recent` by itself.
            passed = list(takewhile(lambda item: item[1] < floor_ns, self._held.items()))
            if passed:
                self._packed = None
            for identity, instant in passed:
                del self._held[identity]
                self._recent[identity] = instant
        _drop_oldest(self._recent, self._recent_count)
        over = len(self) + beside - CAPACITY
        if over > 0:
            self._packed = None
            _drop_oldest(self._carried, max(0, len(self._carried) - over))
            _drop_oldest(self._held, max(0, CAPACITY - beside))
            if not self._warned:
                self._warned = True
                logger.warning(
                    "dedup window is full: repeats further apart than this many events are "
                    "shipped again; shorten lookback_ms or add a time filter",
                    extra={"source": self._source, "identities": CAPACITY},
                )

    def end_scan(self, floor_ns: int | None) -> None:
        """Carry over what the next scan can bring.

        That is: events at or after the floor, whatever this scan brought (an
        API that filters by another instant than it shows brings it again),
        and the last few of all.

        Args:
            floor_ns: Instant that the next scan asks from, EVERYTHING or
                NOTHING.
        """
        self._read()
        if not self._held and not self._recent and floor_ns == NOTHING:
            return
        latest = {**self._recent, **self._held}
        if floor_ns == NOTHING:
            latest = {**self._carried, **latest}
            _drop_oldest(latest, max(KEPT_COUNT, 2 * self._page_events))
            kept = latest
        else:
            kept = dict(
                islice(self._carried.items(), max(0, len(self._carried) - KEPT_COUNT), None)
            )
            if floor_ns is not EVERYTHING:
                kept.update(item for item in self._carried.items() if item[1] >= floor_ns)
                # An API that filters by another instant than it shows.
                latest = _bounded_below(latest, floor_ns)
            for identity in latest:
                kept.pop(identity, None)
            kept.update(latest)
        if latest or kept.keys() != self._carried.keys():
            self._packed = None
        self._carried, self._held, self._recent = kept, {}, {}

    def forget(self, identities: Iterable[bytes]) -> None:
        """Have events that were not shipped after all be unknown."""
        self._read()
        self._packed = None
        for identity in identities:
            for known in (self._carried, self._held, self._recent):
                known.pop(identity, None)

    def snapshot(self) -> list[bytes]:
        """Pack the three sets; unchanged, it costs nothing.

        Returns:
            For each set its identities end to end, then as many 64-bit
            instants in nanoseconds.
        """
        if self._packed is None:
            self._packed = []
            for known in (self._carried, self._recent, self._held):
                self._packed += [b"".join(known), _pack_instants(known.values())]
        return self._packed

    @classmethod
    def knowing(cls, source: str, identities: list[bytes]) -> DedupWindow:
        """Build one that remembers these, for one scan at least."""
        window = cls(source)
        window._carried = dict.fromkeys(identities, NO_TIMESTAMP)
        return window

    @classmethod
    def restore(cls, source: str, packed: list[bytes]) -> DedupWindow:
        """Rebuild from what `snapshot` returned."""
        window = cls(source)
        window._packed = packed
        window._is_unread = True
        return window


def _bounded_below(known: dict[bytes, int], floor_ns: int) -> dict[bytes, int]:
    """Keep what is at or after the floor, and the last few of the rest."""
    below = dict(item for item in known.items() if NO_TIMESTAMP < item[1] < floor_ns)
    _drop_oldest(below, RECENT_COUNT)
    return {
        identity: at_ns
        for identity, at_ns in known.items()
        if identity in below or not NO_TIMESTAMP < at_ns < floor_ns
    }


def _drop_oldest(known: dict[bytes, int], count: int) -> None:
    for identity in list(islice(known, max(0, len(known) - count))):
        del known[identity]


def _pack_instants(instants: Collection[int]) -> bytes:
    try:
        return array("q", instants).tobytes()
    except OverflowError:
        bounded = (min(max(NO_TIMESTAMP, at_ns), NOTHING) for at_ns in instants)
        return array("q", bounded).tobytes()


def _unpack(identities: bytes, instants: bytes) -> dict[bytes, int]:
    values = array("q")
    values.frombytes(instants)
    starts = range(0, len(identities), IDENTITY_BYTES)
    return {
        identities[at : at + IDENTITY_BYTES]: instant
        for at, instant in zip(starts, values, strict=True)
    }
