"""How a source is read: which page next, which events are new, when to stop.

No clock, no thread and no network here; whoever drives a `Scanner` brings
pages and gets events. What it promises: an event that the API serves is given
out once, wherever between two pages the reading is broken off and resumed.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from operator import gt, lt
from typing import TYPE_CHECKING

from flicker.bounds import TimeBounds, span_ns
from flicker.dedup import EVERYTHING, NOTHING, DedupWindow
from flicker.entries import Entries
from flicker.json_text import text_at
from flicker.pagination import Place, first_place, is_cursor_alone, is_dead_end, next_place
from flicker.position import Pending, Scan
from flicker.request import Bounds, PageRequest, page_request
from flicker.timefmt import floor_to

if TYPE_CHECKING:
    from flicker.decode import Page
    from flicker.events import Event
    from flicker.position import Position
    from flicker.settings import Source

MET_COUNT = 4096
"""Pages and tokens that the loop guard remembers."""

EMPTY_PAGES = 5
"""Empty pages in a row that one poll follows links through.

Only where the link would be lost: elsewhere the first one ends the scan, since
the next poll goes on from its link. A scan that starts over at the top, or asks
for another time, would never get there.
"""

EMPTY_POLLS = 5
"""Polls that go on so, each from where the one before it stopped, until the
listing is taken for one that has no end."""

MANY_EMPTY_PAGES = 100
"""The same for `stop_on_empty: false`, which says that only a missing link is the end:
then a poll rests there, and the next one goes on."""

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
        if source.fetch_each is None or not len(position.fetched):
            position.fetched = DedupWindow(source.name)
        self._first_place = first_place(source.pagination)
        self._said: set[str] = set()
        self._bounds = TimeBounds(source, position)
        self._is_resumed = position.scan is not None
        self._has_ends = True
        """Whether the API is thought to hand out no link where its listing ends."""
        self.entries = Entries(position)
        self.is_behind = False
        """Whether the last scan ended before the present, so that the next is due at once."""

    @property
    def in_scan(self) -> bool:
        """Whether a scan was begun and has not ended."""
        return self.position.scan is not None

    @property
    def is_at_token(self) -> bool:
        """Whether what is asked for next is a place that the API made up."""
        return self.position.scan is not None and self.position.scan.place.is_token

    @property
    def is_mid_scan(self) -> bool:
        """Whether a page of the scan was read already."""
        return self.position.scan is not None and not self.position.scan.first_request

    def begin(self, now_ns: int) -> bool:
        """Start a scan, or go on with the one that `max_pages` cut.

        Args:
            now_ns: The instant from which spans are counted.

        Returns:
            Whether there is anything to ask for yet.
        """
        position = self.position
        self.is_behind = False
        if self._is_resumed and self._bounds.is_outdated(now_ns):
            self._abandon_scan()
        self._is_resumed = False
        if position.scan is not None:
            position.scan.pages = 0
            position.scan.started_ns = now_ns
            self.check_place()
            return True
        if position.start_ns is None:
            position.start_ns = self._bounds.start_ns(now_ns)
        place = position.place or self._first_place
        scan = Scan(place=place, started_ns=now_ns, until_ns=now_ns)
        if place.is_token:
            scan.since = position.place_since
        elif self._source.time_filter_param and not self._bounds.set_bounds(scan, now_ns):
            return False
        position.scan = scan
        return True

    def _abandon_scan(self) -> None:
        """Drop the scan, so that the next one starts over from the watermark."""
        scan = self._scan
        if scan.rises and not scan.falls and scan.newest_ns is not None:
            # In ascending order all up to here has been read.
            self._move_watermark(scan.newest_ns)
        self.position.scan = None

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
        return self._request_at(self._scan, self._scan.place)

    def _request_at(self, scan: Scan, place: Place) -> PageRequest:
        is_alone = is_cursor_alone(self._source.pagination, place)
        is_told = is_alone or (self._persists and place.is_token)
        bounds = Bounds() if is_told else Bounds(scan.since, scan.until)
        return page_request(self._source, place, bounds)

    def guess_next(
        self, place: Place, page: Page, links: dict[str, str]
    ) -> tuple[Place, PageRequest] | None:
        """Guess what will be asked for behind a page before its events are read.

        Changes nothing, and may be asked on any thread. A wrong guess costs a
        request, so none is made where the page may be the last of a poll.

        Args:
            place: Of the page.
            page: What is known of it.
            links: Absolute targets of its Link headers by relation.

        Returns:
            The place and its request; None for no guess.
        """
        scan = self.position.scan
        if (
            scan is None
            or scan.first_request
            or scan.check_place is not None
            or scan.resume_place is not None
            or page.has_more is False
            or page.entries < max(1, self.position.most_entries)
            or self._source.max_pages is not None
            or self._source.fetch_each is not None
        ):
            return None
        following = next_place(self._source.pagination, place, page, links)
        if following is None or following == place:
            return None
        return following, self._request_at(scan, following)

    @property
    def place(self) -> Place:
        """The place of the next page."""
        return self._scan.place

    @property
    def pending(self) -> Pending | None:
        """The entry whose events are to be fetched before the listing is read on."""
        return self.entries.current

    def take_fetched(self, page: Page) -> list[Event]:
        """Take the events of the pending entry, and go on to the next one.

        Returns:
            Those that are new: an event that has an identity of its own may be
            in several entries.
        """
        entry = self.position.pending[0]
        self.entries.leave()
        fetched = self.position.fetched
        floor_ns = self._floor_ns(None)
        events = [
            event
            for event in page.events
            if fetched.is_new(event.identity, entry.timestamp_ns, floor_ns)
        ]
        fetched.trim(floor_ns, len(page.events), beside=len(self.position.window))
        return events

    def take(self, page: Page, links: dict[str, str], now_ns: int) -> tuple[list[Event], bool]:
        """Take the page that was asked for and move the position behind it.

        Args:
            page: What came.
            links: Absolute targets of its Link headers by relation.
            now_ns: Events later than this do not move the watermark.

        Returns:
            The page's new events, and whether this poll is over. Where they
            are to be fetched one by one, none of them: they are pending.
        """
        events, is_over = self._take(page, links, now_ns)
        each = self._source.fetch_each
        if each is None:
            return events, is_over
        without_url = []
        for event in events:
            url = text_at(event.raw, each.url_field)
            if url:
                self.entries.add(Pending(event.identity, url, event.timestamp_ns))
            else:
                self._warn_once("an entry of the listing has no URL to fetch; shipping it as it is")
                without_url.append(event)
        return without_url, is_over

    def _take(self, page: Page, links: dict[str, str], now_ns: int) -> tuple[list[Event], bool]:
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
            is_lost = is_dead_end(self._source.pagination, page, links)
            (self._end_at_dead_end if is_lost else self._end)(kept)
            return events, True
        scan.place = following
        return events, is_cut or self._rests_in_gap

    def _end_at_dead_end(self, place: Place | None) -> None:
        """End a scan where the API says that there is more, and does not say where.

        The watermark stays, unless the oldest events came first: what is behind
        this page has to be asked for again.

        Args:
            place: Where this page is, if it is to be kept.
        """
        scan = self._scan
        self._warn_once(
            "the API does not say where the listing goes on; asking again from the last position"
        )
        self._abandon_scan()
        if place is not None and scan.until is None:
            self.position.place, self.position.place_since = place, scan.since

    def _goes_back_to_check(self) -> bool:
        """Go back to where `check_place` wants to look, if it does."""
        scan = self._scan
        if scan.check_place is None or self._is_newest_first:
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
            self._has_ends = True
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
            return self._ends_at_empty_page(following), kept
        return self._has_caught_up(page, following, now_ns), kept

    def take_refusal(self, now_ns: int | None = None) -> bool:
        """Take it that the API refuses the place asked for, if it can.

        Stored cursors expire, pages beyond the last are refused by some, and
        so is what has grown older than `max_age` since the scan began. Nothing
        is lost: the scan starts over from the watermark.

        Args:
            now_ns: The instant that ages are counted from; None to heed none.

        Returns:
            Whether the place was ours to give up; else the refusal means
            something else.
        """
        position = self.position
        if self._scan.place.is_token:
            self._warn_once("the API refuses the cursor; starting over from the last timestamp")
            if self._scan.empty_pages >= EMPTY_PAGES:
                # It did not outlive the rest, and would not the next time either.
                self._has_ends = False
            self._abandon_scan()
            position.place = position.place_since = None
            return True
        if now_ns is not None and self._bounds.is_outdated(now_ns):
            self._abandon_scan()
            return True
        return False

    def take_end_of_offsets(self) -> bool:
        """Take a refusal of an offset or page as the vendor's bound on them, if it can be.

        Some refuse offsets beyond some thousands. Where the oldest events come
        first, the next scan goes on from the newest instant that was read.

        Returns:
            Whether it does.
        """
        scan = self._scan
        newest_ns = scan.newest_ns
        if (
            scan.place.is_token
            or scan.first_request
            or newest_ns is None
            or scan.falls
            or not scan.rises
            or not self._source.time_filter_param
            or not self._source.timestamp_field
        ):
            return False
        since_ns = newest_ns - span_ns(self._source.lookback)
        if floor_to(since_ns, self._source.time_filter_format) <= (scan.since_ns or 0):
            return False
        self._warn_once(
            "the API refuses to page on; asking for what follows the last timestamp instead"
        )
        # Its window was not read to the end.
        scan.window_end_ns = scan.until_ns = None
        self._end(None)
        self.is_behind = True
        return True

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
    def _is_newest_first(self) -> bool:
        """Whether new events come in before the old ones.

        What the listing shows counts more than what the configuration says.
        """
        is_said = self._source.order == "desc" and not self.position.ascending
        return is_said or self.position.newest_first

    @property
    def _scan(self) -> Scan:
        if self.position.scan is None:
            message = "no scan was begun"
            raise RuntimeError(message)
        return self.position.scan

    def _floor_ns(self, newest_ns: int | None) -> int | None:
        """Give the instant that the next scan asks from, if this one saw the newest."""
        if self._source.time_filter_param and self._source.timestamp_field:
            if self._is_newest_first:
                # A scan that has to start over asks from the old watermark.
                newest_ns = None
            known = [at for at in (self.position.last_timestamp_ns, newest_ns) if at is not None]
            since_ns = self._bounds.since_ns(max(known, default=None))
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
        if self._is_newest_first:
            return False
        is_untold = position.last_timestamp_ns is None and (
            position.scan is None or position.scan.newest_ns is None
        )
        return position.ascending or position.place is not None or is_untold

    def _note_order(self, page: Page, now_ns: int) -> None:
        scan = self._scan
        position = self.position
        bound_ns = scan.until_ns if scan.until is not None else None
        instants = [
            event.timestamp_ns
            for event in page.events
            if event.timestamp_ns is not None and event.timestamp_ns <= now_ns
        ]
        if not instants:
            return
        before = instants if scan.latest_ns is None else [scan.latest_ns, *instants]
        rises, falls = sum(map(lt, before, before[1:])), sum(map(gt, before, before[1:]))
        scan.latest_ns = instants[-1]
        scan.rises = scan.rises or rises > 0
        scan.falls += falls
        position.rises += rises
        position.falls += falls
        # An API may filter by another instant than it shows, or by whole days:
        # behind the bound not all has been asked for.
        newest_ns = max(instants) if bound_ns is None else min(max(instants), bound_ns)
        if scan.newest_ns is None or newest_ns > scan.newest_ns:
            scan.newest_ns = newest_ns
        while position.rises + position.falls > ORDER_MEMORY:
            position.rises //= 2
            position.falls //= 2

    def _new_events(self, page: Page) -> list[Event]:
        window = self.position.window
        floor_ns = self._floor_ns(self._scan.newest_ns)
        events = page.events
        if self.position.start_ns is not None and not self._source.time_filter_param:
            events = [event for event in events if not self._is_before_start(event)]
        events = window.take(events, floor_ns)
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

    @property
    def _keeps_token(self) -> bool:
        """Whether the next scan goes on from the token that this one ends with."""
        if self._scan.until is not None:
            # It leads on to the end of the window, not beyond.
            return False
        pagination = self._source.pagination
        if pagination is not None and pagination.persist_cursor is not None:
            return pagination.persist_cursor
        return not self._is_newest_first

    def _ends_at_empty_page(self, following: Place) -> bool:
        """Judge whether an empty page is the end, though a place is said to be behind it."""
        pagination = self._source.pagination
        if pagination is None or not following.is_token:
            return True
        if pagination.stop_on_empty is not None:
            # Tokens that go in a circle have ended the scan by now.
            return pagination.stop_on_empty
        if self._keeps_token:
            return True
        if self._scan.empty_pages < EMPTY_PAGES * (EMPTY_POLLS if self._has_ends else 1):
            return False
        self._has_ends = False
        self._warn_once(
            "the API leads on from one empty page to the next; what may stand behind them is not "
            "asked for. If it hands out no cursor or link at its end, set stop_on_empty: false"
        )
        return True

    @property
    def _rests_in_gap(self) -> bool:
        """Whether to leave what is behind so many empty pages to the next poll."""
        pagination = self._source.pagination
        empty_pages = self._scan.empty_pages
        if pagination is None or not empty_pages or pagination.stop_on_empty:
            return False
        if pagination.stop_on_empty is None:
            return empty_pages % EMPTY_PAGES == 0
        if empty_pages % MANY_EMPTY_PAGES:
            return False
        self._warn_once(
            "the API leads on behind a hundred empty pages; going on with the next poll. If its"
            " links never end, leave stop_on_empty out"
        )
        return True

    @property
    def leads_on_for_ever(self) -> bool:
        """Whether there were more empty pages in a row than any gap has."""
        scan = self.position.scan
        return scan is not None and scan.empty_pages >= 10 * MANY_EMPTY_PAGES

    def _has_caught_up(self, page: Page, following: Place, now_ns: int) -> bool:
        """Tell whether all is read that was there when the poll began.

        A busy API has something new on every page, and a scan of it would
        never end: the watermark would stand still and polling_frequency_ms
        would mean nothing. What came since the poll began is left to the next:
        it goes on from the token if that is kept, or else from the watermark, and
        that only where the page was not full, so that nothing late stands behind it.
        """
        position = self.position
        started_ns = self._scan.started_ns
        position.most_entries = max(position.most_entries, page.entries)
        return (
            position.ascending
            # What is asked for up to an instant ends by itself; what is asked for
            # up to today does not.
            and (self._scan.until is None or self._bounds.is_coarse)
            and (
                (following.is_token and self._is_kept(following))
                or page.entries < position.most_entries
            )
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
        if scan.window_end_ns is not None:
            position.swept_ns = max(position.swept_ns or 0, scan.window_end_ns)
            self.is_behind = True
        else:
            self._bounds.follow_the_present(scan)
        if place is not None and not self._is_kept(place):
            place = None
        position.place = place
        position.anchor = None if place is None or place.is_token else scan.last_anchor
        position.place_since = scan.since if place is not None and place.is_token else None
        position.scan = None
        floor_ns = self._floor_ns(None)
        if floor_ns is EVERYTHING and place is not None:
            floor_ns = NOTHING
        position.window.end_scan(floor_ns)
        position.fetched.end_scan(floor_ns)

    def _is_kept(self, place: Place) -> bool:
        """Tell whether the next scan goes on from a place, where this one ends at it."""
        if not place.is_token:
            return not self._source.time_filter_param and self._is_append_only()
        return self._keeps_token

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
