"""How a source is read: which page next, which events are new, when to stop.

No clock, no thread and no network here; whoever drives a `Scanner` brings
pages and gets events. What it promises: an event that the API serves is given
out once, wherever between two pages the reading is broken off and resumed.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from flicker.dedup import EVERYTHING, NOTHING
from flicker.pagination import Place, add_query, first_place, next_place, page_query
from flicker.position import Scan
from flicker.request import PageRequest
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

REPEATED_PAGES = 2
"""How often in a row, within one poll, a page has to be the one before it
again to end the scan.

Once proves nothing: a newest-first listing into which as many events came as a
page holds sends the same page once more, and so do equal events. And only the
page directly before counts: where several pages came in, all of them come again.
"""

OFFSET_STEP = 1000
"""How far an offset goes back to look for events that it knows: less than the
identities kept, so that it cannot leap over them."""

ORDER_MEMORY = 1000
"""Steps up or down by which the order of a listing is judged."""

MICROSECOND = timedelta(microseconds=1)

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

    @property
    def is_mid_scan(self) -> bool:
        """Whether a page of the scan was read already."""
        return self.position.scan is not None and not self.position.scan.first_request

    def begin(self, now_ns: int) -> None:
        """Start a scan, or go on with the one that `max_pages` cut.

        Args:
            now_ns: The instant from which a relative `start_time` counts.
        """
        position = self.position
        if position.scan is not None:
            position.scan.pages = 0
            position.scan.started_ns = now_ns
            self.check_place()
            return
        if position.start_ns is None and self._source.start_time is not None:
            start = self._source.start_time
            position.start_ns = start if isinstance(start, int) else now_ns - _span_ns(start)
        since_ns = self._since_ns(position.last_timestamp_ns)
        since = None
        if since_ns is not None and self._source.time_filter_param:
            since = format_timestamp(since_ns, self._source.time_filter_format)
        place = self._first_place
        if position.place is not None:
            place = position.place
            since = position.place_since if place.is_token else since
        position.scan = Scan(place=place, since=since, started_ns=now_ns)

    def check_place(self) -> None:
        """Have it looked at whether the listing shifted since the last page.

        To be called where time passed between two pages: after a restart, a
        failure or a pause. Offsets and pages count from the first event, and
        the oldest may have expired. The next request stays the same one; the
        one after it goes back to the events that were read last.
        """
        scan = self.position.scan
        if scan is None:
            return
        scan.repeats = 0
        if scan.check_place is None and not scan.first_request and not scan.place.is_token:
            scan.check_place, scan.check_anchor = scan.last_place, scan.last_anchor

    def request(self) -> PageRequest:
        """Give the request for the next page.

        A link is followed verbatim; nothing is added to it.
        """
        scan = self._scan
        source = self._source
        if scan.place.kind == "url":
            return PageRequest(str(scan.place.value))
        query = [(name, value.reveal()) for name, value in source.params]
        if (
            scan.since is not None
            and source.time_filter_param
            and not (self._persists and scan.place.is_token)
        ):
            template = source.time_filter_template or "{since}"
            query.append((source.time_filter_param, template.replace("{since}", scan.since)))
        query += page_query(source.pagination, scan.place)
        return PageRequest(add_query(source.endpoint.url, query))

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
        scan.pages += 1
        max_pages = self._source.max_pages
        is_cut = max_pages is not None and scan.pages >= max_pages
        back = self._place_before_shift(page)
        if back is not None:
            scan.place, scan.resume_place = back, None
            return [], is_cut
        place = scan.place
        if scan.resume_place is None and self._is_behind_a_gap(page):
            scan.place = self._step_back(place)
            return [], is_cut
        self._note_order(page, now_ns)
        events = self._new_events(page)
        resume_place, scan.resume_place = scan.resume_place, None
        if resume_place is not None and not events and page.events:
            first = page.events[0].identity
            if self.position.anchor in {None, first}:
                # Nothing shifted: on to where the check was made from.
                scan.place = resume_place
                scan.first_request = False
                return events, False
        following = next_place(self._source.pagination, place, page, links)
        scan.repeats = scan.repeats + 1 if self._is_repeated_page(page) else 0
        if scan.first_request and place.is_token:
            self._remember(_digest(place))
        scan.first_request = False
        if page.entries:
            self._note_last_place(place, page)
            scan.empty_pages = 0
        else:
            scan.empty_pages += 1
        if self._goes_back_to_check():
            scan.resume_place = following if page.entries else None
            return events, False
        is_end, kept = self._judge_end(page, following, now_ns)
        if is_end or following is None:
            if kept is None and self._persists and place.is_token:
                kept = place
            self._end(kept)
            return events, True
        scan.place = following
        return events, is_cut

    def _goes_back_to_check(self) -> bool:
        """Go back to where `check_place` wants to look, if it does."""
        scan = self._scan
        if scan.check_place is None or self.position.newest_first:
            scan.check_place = None
            return False
        scan.place, scan.check_place = scan.check_place, None
        self.position.anchor = scan.check_anchor
        scan.first_request = True
        # Looking back leads nowhere, so `max_pages` does not count it.
        scan.pages -= 2
        return True

    def _judge_end(
        self, page: Page, following: Place | None, now_ns: int
    ) -> tuple[bool, Place | None]:
        """Judge whether a page ends the scan.

        Returns:
            That, and the place at which an append-only listing then goes on.
        """
        scan = self._scan
        if following is None:
            return True, None
        if page.has_more is False:
            return True, following if following.is_token else scan.last_place
        if following.is_token:
            if following == scan.place:
                return True, following
            if not self._remember(_digest(following)):
                self._warn_once("the API's cursors go in a circle")
                return True, None
        if scan.repeats >= REPEATED_PAGES:
            what = "cursor" if following.is_token else "page number or offset"
            self._warn_once(f"the API sends the same page for every {what}")
            return True, following if following.is_token else None
        kept = following if following.is_token else scan.last_place
        if page.entries == 0:
            return not self._looks_behind_empty_page(following), kept
        return self._has_caught_up(page, following, now_ns), kept

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
        """Take a 404 for a page or an offset as the listing's end, if it can be.

        Returns:
            Whether the scan ended or went a page back; False at the first
            page, where 404 means that there is no such API.
        """
        scan = self._scan
        if scan.place.is_token or scan.place in {Place("top"), self._first_place}:
            return False
        if scan.first_request:
            # The listing shrank below the place that we stood at.
            scan.is_probing = True
            scan.place = self._step_back(scan.place)
        elif not self._goes_back_to_check():
            self._end(scan.last_place)
        return True

    @property
    def _scan(self) -> Scan:
        if self.position.scan is None:
            message = "no scan was begun"
            raise RuntimeError(message)
        return self.position.scan

    def _since_ns(self, watermark_ns: int | None) -> int | None:
        start_ns = self.position.start_ns
        if watermark_ns is None:
            return start_ns
        return max(watermark_ns - _span_ns(self._source.lookback), start_ns or 0)

    def _floor_ns(self, newest_ns: int | None) -> int | None:
        """Give the instant that the next scan asks from, if this one saw the newest."""
        if self._source.time_filter_param and self._source.timestamp_field:
            if self.position.newest_first:
                # A scan that has to start over asks from the old watermark.
                newest_ns = None
            known = [at for at in (self.position.last_timestamp_ns, newest_ns) if at is not None]
            since_ns = self._since_ns(max(known, default=None))
            if since_ns is None:
                return EVERYTHING
            return floor_to(since_ns, self._source.time_filter_format)
        pagination = self._source.pagination
        if (
            not self._source.time_filter_param
            and pagination is not None
            and pagination.type in {"offset", "page"}
            and self._is_append_only()
        ):
            return NOTHING
        return EVERYTHING

    def _is_append_only(self) -> bool:
        """Judge whether new events come in behind those that were read.

        Where timestamps can tell, they have to have told so once; from then on
        the anchor watches over it.
        """
        position = self.position
        if position.newest_first:
            return False
        is_untold = position.last_timestamp_ns is None and (
            position.scan is None or position.scan.newest_ns is None
        )
        return position.ascending or position.place is not None or is_untold

    def _note_order(self, page: Page, now_ns: int) -> None:
        scan = self._scan
        position = self.position
        for event in page.events:
            at_ns = event.timestamp_ns
            if at_ns is None or at_ns > now_ns:
                continue
            latest_ns, scan.latest_ns = scan.latest_ns, at_ns
            if latest_ns is not None and at_ns > latest_ns:
                scan.rises = True
                position.rises += 1
            elif latest_ns is not None and at_ns < latest_ns:
                scan.falls += 1
                position.falls += 1
            if scan.newest_ns is None or at_ns > scan.newest_ns:
                scan.newest_ns = at_ns
        while position.rises + position.falls > ORDER_MEMORY:
            position.rises //= 2
            position.falls //= 2

    def _new_events(self, page: Page) -> list[Event]:
        window = self.position.window
        floor_ns = self._floor_ns(self._scan.newest_ns)
        events = [
            event
            for event in page.events
            if not self._is_before_start(event)
            and window.is_new(event.identity, event.timestamp_ns, floor_ns)
        ]
        window.trim(floor_ns, len(page.events))
        return events

    def _is_before_start(self, event: Event) -> bool:
        """Tell what a time filter would have left out, where there is none."""
        start_ns, at_ns = self.position.start_ns, event.timestamp_ns
        if start_ns is None or at_ns is None or self._source.time_filter_param:
            return False
        return at_ns < start_ns

    def _place_before_shift(self, page: Page) -> Place | None:
        """Look whether the listing is what it was when we left it.

        A page or an offset counts from the listing's first event. Where the
        oldest events expire, or events are put in before those that were read,
        what stood at our place stands elsewhere, and reading on from it would
        pass over events for ever.

        Returns:
            Where to look instead of taking this page; None to take it.
        """
        scan = self._scan
        position = self.position
        place = scan.place
        if (
            not scan.first_request
            or place.is_token
            or place in {Place("top"), self._first_place}
            or (position.anchor is None and not scan.is_probing)
        ):
            return None
        first = page.events[0] if page.events else None
        is_known = first is not None and (
            position.window.knows(first.identity) or self._is_before_start(first)
        )
        if scan.is_probing:
            return None if is_known else self._step_back(place)
        if first is not None and first.identity == position.anchor:
            return None
        scan.is_probing = True
        if is_known and not position.ascending:
            self._warn_once("the API puts new events in before the old; reading all of it again")
            position.shifts = True
            return self._first_place
        logger.info(
            "the listing is not where it was; looking for the events last read",
            extra={"source": self._source.name},
        )
        return self._step_back(place)

    def _is_behind_a_gap(self, page: Page) -> bool:
        """Tell whether the page before may have been filled up since it was read.

        Events that came in after a page was read, and that were enough to
        begin the next one, stand in both. Then the page before is read again,
        unless it turned out that the server's pages are of that size.
        """
        scan = self._scan
        pagination = self._source.pagination
        if pagination is None or scan.place.kind != "page":
            return False
        before, scan.last_entries = scan.last_entries, page.entries
        if scan.entries_again is not None:
            if page.entries == scan.entries_again:
                scan.full_entries = page.entries
            scan.entries_again = None
            return False
        full = scan.full_entries or pagination.page_size
        if not before or not page.entries or before >= full or page.digest in scan.met:
            return False
        scan.entries_again = before
        return True

    def _step_back(self, place: Place) -> Place:
        step = OFFSET_STEP if place.kind == "offset" else 1
        first = int(self._first_place.value or 0)
        return Place(place.kind, max(first, int(place.value or 0) - step))

    def _note_last_place(self, place: Place, page: Page) -> None:
        """Note where an append-only listing is to be read on.

        Not behind the last event but at it, or at its page: the event known
        to be there tells whether the listing shifted.
        """
        scan = self._scan
        if place.kind == "page":
            scan.last_place = place
            scan.last_anchor = page.events[0].identity if page.events else None
        elif place.kind == "offset":
            behind = int(place.value or 0) + page.entries
            scan.last_place = Place("offset", behind if page.last_entry is None else behind - 1)
            scan.last_anchor = page.last_entry

    def _is_repeated_page(self, page: Page) -> bool:
        if self._scan.place.is_token or page.entries == 0:
            return page.entries > 0 and not self._remember(page.digest)
        before, self._scan.met = self._scan.met, [page.digest]
        return before == [page.digest]

    def _remember(self, digest: bytes) -> bool:
        met = self._scan.met
        if digest in met:
            return False
        met.append(digest)
        del met[:-MET_COUNT]
        return True

    @property
    def _persists(self) -> bool:
        """Whether tokens are meant to outlive a scan, and stand for the time filter."""
        pagination = self._source.pagination
        return pagination is not None and pagination.persist_cursor is True

    def _looks_behind_empty_page(self, following: Place) -> bool:
        pagination = self._source.pagination
        if pagination is not None and pagination.stop_on_empty is not None:
            # Tokens that go in a circle have ended the scan by now.
            return following.is_token and not pagination.stop_on_empty
        return (
            following.is_token
            and self.position.newest_first
            and self._scan.empty_pages < EMPTY_PAGES
        )

    def _has_caught_up(self, page: Page, following: Place, now_ns: int) -> bool:
        """Tell whether all is read that was there when the poll began.

        A busy API has something new on every page, and a scan of it would
        never end: the watermark would stand still and polling_frequency_ms
        would mean nothing. What came since the poll began is left to the next:
        it goes on from the token, or else from the watermark, and that only
        where the page was not full, so that nothing late stands behind it.
        """
        position = self.position
        started_ns = self._scan.started_ns
        position.most_entries = max(position.most_entries, page.entries)
        return (
            position.ascending
            and (following.is_token or page.entries < position.most_entries)
            and any(
                event.timestamp_ns is not None and started_ns <= event.timestamp_ns <= now_ns
                for event in page.events
            )
        )

    def _end(self, place: Place | None) -> None:
        """End the scan: the watermark moves, and the place stays if it can.

        Args:
            place: Where an append-only listing goes on.
        """
        scan = self._scan
        position = self.position
        if scan.newest_ns is not None and self._source.timestamp_field:
            self._move_watermark(scan.newest_ns)
        pagination = self._source.pagination
        if place is not None and (
            (
                not pagination.persist_cursor
                if pagination is not None and pagination.persist_cursor is not None
                else position.newest_first
            )
            if place.is_token
            else self._source.time_filter_param or not self._is_append_only()
        ):
            place = None
        position.place = place
        position.anchor = None if place is None or place.is_token else scan.last_anchor
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


def _span_ns(span: timedelta) -> int:
    return span // MICROSECOND * 1000


def _digest(place: Place) -> bytes:
    return blake2b(repr(place).encode(), digest_size=8).digest()
