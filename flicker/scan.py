"""How a source is read: which page next, which events are new, when to stop.

No clock, no thread and no network here; whoever drives a `Scanner` brings
pages and gets events. What it promises: an event that the API serves is given
out once, wherever between two pages the reading is broken off and resumed.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING

from flicker.dedup import EVERYTHING, NOTHING
from flicker.pagination import Place, add_query, first_place, next_place, page_query
from flicker.position import Scan
from flicker.timefmt import floor_to, format_timestamp

if TYPE_CHECKING:
    from flicker.decode import Event, Page
    from flicker.position import Position
    from flicker.settings import Source

MET_COUNT = 4096
"""Pages and tokens that the loop guard remembers."""

EMPTY_PAGES = 5
"""Empty pages that a newest-first scan follows links through before it ends.

Elsewhere the first one ends the scan, since the next poll goes on from its
link; a newest-first listing starts over at the top and would never get there.
"""

NEWEST_FIRST_FALLS = 2
"""Events older than the one before, with none newer, that prove the order."""

logger = logging.getLogger(__name__)


class Scanner:
    """Reads one source, scan after scan.

    Args:
        source: What to read.
        position: Where to go on; kept up to date, page by page.
    """

    def __init__(self, source: Source, position: Position) -> None:
        self._source = source
        self.position = position
        self._first_place = first_place(source.pagination)
        self._said: set[str] = set()

    @property
    def in_scan(self) -> bool:
        """Whether a scan was begun and has not ended."""
        return self.position.scan is not None

    def begin(self, now_ns: int) -> None:
        """Start a scan, or go on with the one that `max_pages` cut.

        Args:
            now_ns: The instant from which a relative `start_time` counts.
        """
        position = self.position
        if position.scan is not None:
            position.scan.pages = 0
            return
        if position.start_ns is None and self._source.start_time is not None:
            start = self._source.start_time
            position.start_ns = (
                start if isinstance(start, int) else now_ns - int(start.total_seconds() * 10**9)
            )
        since_ns = self._since_ns(position.last_timestamp_ns)
        since = None
        if since_ns is not None and self._source.time_filter_param:
            since = format_timestamp(since_ns, self._source.time_filter_format)
        place = self._first_place
        if position.place is not None:
            place = position.place
            since = position.place_since if place.is_token else since
        position.scan = Scan(place=place, since=since)

    def request_url(self) -> str:
        """Give the URL of the next page; may hold secrets.

        A link is followed verbatim; nothing is added to it.
        """
        scan = self._scan
        source = self._source
        if scan.place.kind == "url":
            return str(scan.place.value)
        query = [(name, value.reveal()) for name, value in source.params]
        if scan.since is not None and source.time_filter_param:
            query.append((source.time_filter_param, scan.since))
        query += page_query(source.pagination, scan.place)
        return add_query(source.endpoint.url, query)

    def take(self, page: Page, links: dict[str, str], now_ns: int) -> tuple[list[Event], bool]:
        """Take the page that was asked for and move the position behind it.

        Args:
            page: What came.
            links: Absolute targets of its Link headers by relation.
            now_ns: Events later than this do not move the watermark.

        Returns:
            The page's new events, and whether this poll is over.
        """
        scan = self._scan
        self._note_order(page, now_ns)
        events = self._new_events(page)
        scan.pages += 1
        place = scan.place
        following = next_place(self._source.pagination, place, page, links)
        repeated = self._is_repeated_page(page)
        first_request, scan.first_request = scan.first_request, False
        if page.entries:
            scan.last_place = place
            scan.empty_pages = 0
        else:
            scan.empty_pages += 1
        if following is None:
            self._end(None)
        elif repeated and not following.is_token:
            self._warn_once("the API sends the same page for every page number or offset")
            self._end(None)
        elif following.is_token and (following == place or self._is_met(following, first_request)):
            if following != place:
                self._warn_once("the API's cursors go in a circle")
            self._end(following if following == place else None)
        elif repeated and page.entries:
            self._warn_once("the API sends the same page for every cursor")
            self._end(following)
        elif page.entries == 0 and not self._looks_behind_empty_page(following):
            self._end(self._place_behind(place, following))
        else:
            scan.place = following
            max_pages = self._source.max_pages
            return events, max_pages is not None and scan.pages >= max_pages
        return events, True

    def take_refusal(self) -> bool:
        """Take it that the API refuses the place asked for, if it can.

        Stored cursors expire, and pages beyond the last are refused by some.
        Nothing is lost: the scan starts over from the watermark.

        Returns:
            Whether the place was ours to give up; else the refusal means
            something else.
        """
        scan = self._scan
        position = self.position
        if scan.place.is_token:
            self._warn_once("the API refuses the cursor; starting over from the last timestamp")
            if scan.rises and not scan.falls and scan.newest_ns is not None:
                # In ascending order all up to here has been read.
                self._move_watermark(scan.newest_ns)
            position.place = position.place_since = position.scan = None
            return True
        return False

    def take_missing_page(self) -> bool:
        """Take a 404 for a page number as the end of the listing, if it can be.

        Returns:
            Whether the scan ended or went a page back; False at the first
            page, where 404 means that there is no such API.
        """
        scan = self._scan
        if scan.place.kind != "page" or scan.place == self._first_place:
            return False
        if scan.first_request:
            # The listing shrank below the page that we stood at.
            scan.place = Place("page", int(scan.place.value or 0) - 1)
        else:
            self._end(scan.last_place)
        return True

    @property
    def _scan(self) -> Scan:
        if self.position.scan is None:
            message = "no scan was begun"
            raise RuntimeError(message)
        return self.position.scan

    def _since_ns(self, watermark_ns: int | None) -> int | None:
        if watermark_ns is None:
            return self.position.start_ns
        return watermark_ns - int(self._source.lookback.total_seconds() * 10**9)

    def _floor_ns(self, newest_ns: int | None) -> int | None:
        """Give the instant that the next scan asks from, if this one saw the newest."""
        if self._source.time_filter_param and self._source.timestamp_field:
            known = [at for at in (self.position.last_timestamp_ns, newest_ns) if at is not None]
            since_ns = self._since_ns(max(known, default=None))
            if since_ns is None:
                return EVERYTHING
            return floor_to(since_ns, self._source.time_filter_format)
        pagination = self._source.pagination
        if (
            not self._source.time_filter_param
            and pagination is not None
            and pagination.type != "cursor"
            and not self.position.newest_first
        ):
            return NOTHING
        return EVERYTHING

    def _note_order(self, page: Page, now_ns: int) -> None:
        scan = self._scan
        for event in page.events:
            at_ns = event.timestamp_ns
            if at_ns is None or at_ns > now_ns:
                continue
            if scan.latest_ns is not None:
                scan.rises = scan.rises or at_ns > scan.latest_ns
                scan.falls += at_ns < scan.latest_ns
            scan.latest_ns = at_ns
            if scan.newest_ns is None or at_ns > scan.newest_ns:
                scan.newest_ns = at_ns
        if scan.rises:
            self.position.newest_first = False
        elif scan.falls >= NEWEST_FIRST_FALLS:
            self.position.newest_first = True

    def _new_events(self, page: Page) -> list[Event]:
        window = self.position.window
        floor_ns = self._floor_ns(self._scan.newest_ns)
        # Without a time filter it falls to us not to begin before the start.
        start_ns = None if self._source.time_filter_param else self.position.start_ns
        events = []
        for event in page.events:
            at_ns = event.timestamp_ns
            if start_ns is not None and at_ns is not None and at_ns < start_ns:
                continue
            if window.is_new(event.identity, at_ns, floor_ns):
                events.append(event)
        window.trim(floor_ns, len(page.events))
        return events

    def _is_repeated_page(self, page: Page) -> bool:
        return page.entries > 0 and not self._remember(page.digest)

    def _is_met(self, place: Place, first_request: bool) -> bool:
        met = False
        if first_request and self._scan.place.is_token:
            self._remember(_digest(self._scan.place))
        if not self._remember(_digest(place)):
            met = True
        return met

    def _remember(self, digest: bytes) -> bool:
        met = self._scan.met
        if digest in met:
            return False
        met.append(digest)
        del met[:-MET_COUNT]
        return True

    def _looks_behind_empty_page(self, following: Place) -> bool:
        return (
            following.is_token
            and self.position.newest_first
            and self._scan.empty_pages < EMPTY_PAGES
        )

    def _place_behind(self, place: Place, following: Place) -> Place:
        """Give the place to go on at when an empty page ended the listing."""
        if following.is_token:
            return following
        # The last page with events may not have been full: it is read again.
        return self._scan.last_place or place if place.kind == "page" else place

    def _end(self, place: Place | None) -> None:
        """End the scan: the watermark moves, and the place stays if it can.

        Args:
            place: Where an append-only listing goes on.
        """
        scan = self._scan
        position = self.position
        if scan.newest_ns is not None and self._source.timestamp_field:
            self._move_watermark(scan.newest_ns)
        if place is not None and (
            position.newest_first or (not place.is_token and self._source.time_filter_param)
        ):
            place = None
        position.place = place
        position.place_since = scan.since if place is not None and place.is_token else None
        position.scan = None
        floor_ns = self._floor_ns(None)
        if floor_ns is EVERYTHING and place is not None:
            floor_ns = NOTHING
        position.window.end_scan(floor_ns)

    def _move_watermark(self, newest_ns: int) -> None:
        last_ns = self.position.last_timestamp_ns
        if last_ns is None or newest_ns > last_ns:
            self.position.last_timestamp_ns = newest_ns

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, extra={"source": self._source.name})


def _digest(place: Place) -> bytes:
    return blake2b(repr(place).encode(), digest_size=8).digest()
