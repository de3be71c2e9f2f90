"""Reading a listing, scan after scan: nothing lost, nothing doubled."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pickletools
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from flicker.conceal import Concealer
from flicker.decode import DecodeOptions, PageDecoder
from flicker.dedup import KEPT_COUNT, DedupWindow
from flicker.pagination import Place, resolve_link
from flicker.position import Position, api_fingerprint, dump_position, load_position
from flicker.registry.partitions import POLL_STEP
from flicker.registry.shapes import check_states
from flicker.scan import EMPTY_PAGES, EMPTY_POLLS, REPEATED_PAGES, Scanner
from flicker.settings import Destination, Endpoint, Pagination, Secret, Source
from flicker.timefmt import SECOND_NS, format_rfc3339, parse_timestamp
from tests.outgoing import id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

URL = "https://api.example.com/v1/events"
NOON_NS = 1_735_732_800 * SECOND_NS
NOW_NS = NOON_NS + 86_400 * SECOND_NS
FUTURE = "2099-01-01T00:00:00Z"
PAGINGS = ("offset", "page", "cursor", "link")


@dataclass(frozen=True)
class Row:
    """An event as the API keeps it: `at_ns` orders, `shown` is what it tells."""

    id: str
    at_ns: int
    shown: str | None

    @property
    def body(self) -> dict[str, Any]:
        return {"id": self.id, "ts": self.shown}


def row(number: int, second: float | None = None) -> Row:
    at_ns = NOON_NS + int((number if second is None else second) * SECOND_NS)
    return Row(f"e{number}", at_ns, format_rfc3339(at_ns))


@dataclass
class Listing:
    """A vendor in memory; rows stand in order of arrival, the oldest first."""

    paging: str
    rows: list[Row] = field(default_factory=list)
    newest_first: bool = False
    never_ends: bool = False
    ignores_paging: bool = False
    filters_shown: bool = False
    queries: list[dict[str, str]] = field(default_factory=list)

    def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
        pairs = parse_qsl(urlsplit(url).query, strict_parsing=True)
        query = dict(pairs)
        assert len(query) == len(pairs), "a parameter is sent twice"
        self.queries.append(query)
        size = int(query["limit"])
        rows = self._rows(query)
        start = 0
        if not self.ignores_paging:
            start = int(query.get("offset", 0)) + (int(query.get("page", 1)) - 1) * size
        page = rows[start : start + size]
        following = None
        if self.paging in {"cursor", "link"} and (self.never_ends or size < len(rows)):
            last = page[-1][0] + (not self.newest_first) if page else query.get("cursor", 0)
            following = str(last)
        body: dict[str, Any] = {"events": [r.body for _, r in page]}
        links = {}
        if self.paging == "cursor":
            body["next"] = following
        elif following is not None:
            links["next"] = f"{URL}?{urlencode({**query, 'cursor': following})}"
        return json.dumps(body).encode(), links

    def _rows(self, query: dict[str, str]) -> list[tuple[int, Row]]:
        """Cursors stand between two rows of the whole list, and do not shift."""
        cursor = query.get("cursor")
        rows = list(enumerate(self.rows))
        if self.newest_first:
            rows = rows[: None if cursor is None else int(cursor)][::-1]
        elif cursor is not None:
            rows = rows[int(cursor) :]
        if "since" not in query:
            return rows
        since_ns = 0 if query["since"] == "0" else parse_timestamp(query["since"])
        assert since_ns is not None
        return [(number, r) for number, r in rows if self._passes(r, since_ns)]

    def _passes(self, r: Row, since_ns: int) -> bool:
        if not self.filters_shown:
            return r.at_ns >= since_ns
        shown_ns = parse_timestamp(r.shown or "")
        return shown_ns is None or shown_ns >= since_ns


def make_source(paging: str, *, size: int = 2, since: bool = False, **changes: Any) -> Source:
    kind: Any = "cursor" if paging == "link" else paging
    source = Source(
        name="vendor",
        endpoint=Endpoint(URL),
        destination=Destination(Endpoint("https://siem.example.com/")),
        results_field="events",
        timestamp_field="ts",
        id_field="id",
        time_filter_param="since" if since else None,
        pagination=Pagination(
            kind,
            page_size=size,
            limit_param="limit",
            offset_param="offset",
            page_param="page",
            cursor_param="cursor",
            next_cursor_field="next",
        ),
    )
    return replace(source, **changes)


class Reader:
    """Drives a Scanner as the source does, page by page."""

    def __init__(self, source: Source, listing: Listing, position: Position | None = None) -> None:
        self.source = source
        self.listing = listing
        self.scanner = Scanner(source, position or Position(DedupWindow(source.name)))
        self.concealer = Concealer(source.endpoint, source.params)
        self.decoder = PageDecoder(
            DecodeOptions(
                results_field=source.results_field,
                timestamp_field=source.timestamp_field,
                id_field=source.id_field,
                next_cursor_field="next",
            )
        )
        self.began_ns: int | None = None
        self.ids: list[str] = []
        self.warned: set[str] = set()

    def dump(self) -> dict[str, Any]:
        fingerprint = api_fingerprint(self.source)
        state = dump_position(self.scanner.position, fingerprint, self.concealer)
        check_states(Path("snapshot"), {(POLL_STEP, self.source.name): state})
        return state

    def crash(self) -> None:
        """Die and come back from what a snapshot holds."""
        self.warned |= self.scanner._said
        state = pickle.loads(pickle.dumps(self.dump()))
        fingerprint = api_fingerprint(self.source)
        position = load_position(state, self.source.name, fingerprint, self.concealer)
        self.scanner = Scanner(self.source, position)

    def page(self, now_ns: int = NOW_NS) -> bool:
        """Read one page; tells whether the poll is over."""
        body, links = self.listing.answer(self.scanner.request().url)
        links = {relation: resolve_link(URL, target) for relation, target in links.items()}
        events, is_over = self.scanner.take(self.decoder.decode(body), links, now_ns)
        self.ids += [id_of(event) for event in events]
        self.warned |= self.scanner._said
        return is_over

    def poll(
        self, between: Callable[[], None] = lambda: None, *, now_ns: int = NOW_NS, limit: int = 200
    ) -> int:
        """Read one poll, and give the number of its pages."""
        self.scanner.begin(now_ns if self.began_ns is None else self.began_ns)
        for pages in range(1, limit + 1):
            is_over = self.page(now_ns)
            between()
            if is_over:
                return pages
        pytest.fail("the poll does not end")

    @property
    def watermark(self) -> str | None:
        at_ns = self.scanner.position.last_timestamp_ns
        return None if at_ns is None else format_rfc3339(at_ns)


def read_all(paging: str, rows: Iterable[Row], **style: Any) -> Reader:
    listing_style = {
        name: style.pop(name)
        for name in ("newest_first", "never_ends", "ignores_paging", "filters_shown")
        if name in style
    }
    listing = Listing(paging, list(rows), **listing_style)
    reader = Reader(make_source(paging, **style), listing)
    reader.poll()
    return reader


def ids(numbers: Iterable[int]) -> list[str]:
    return [f"e{number}" for number in numbers]


# ------------------------------------------------------------------ the law


@dataclass
class Script:
    """What happens at page boundaries: arrivals, crashes; and when polls begin."""

    began_ns: int
    steps: list[tuple[int, bool]]
    fresh: list[tuple[float, str]]

    def play(self, reader: Reader) -> None:
        if not self.steps:
            return
        arrivals, crash = self.steps.pop(0)
        arrive(reader.listing, self.fresh[:arrivals])
        del self.fresh[:arrivals]
        if crash:
            reader.crash()


def arrive(listing: Listing, fresh: Iterable[tuple[float, str]]) -> None:
    """Append events; a step is the time since the one before, 0 is a tie."""
    for step, kind in fresh:
        last = listing.rows[-1] if listing.rows else row(0)
        if kind == "repeated" and listing.rows:
            listing.rows.append(last)
            continue
        made = row(len(listing.rows) + 1, 0)
        at_ns = last.at_ns + int(step * SECOND_NS)
        shown = {"missing": None, "garbled": "soon", "future": FUTURE}.get(
            kind, format_rfc3339(at_ns)
        )
        listing.rows.append(Row(made.id, at_ns, shown))


steps = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12)


def arrivals(*kinds: str) -> st.SearchStrategy[list[tuple[float, str]]]:
    usual = ["plain"] * 6 + ["repeated"]
    kind = st.sampled_from([*usual, *kinds])
    return st.lists(st.tuples(st.sampled_from([0, 0.4, 1, 7]), kind), max_size=14)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Source, Listing, Script]:
    paging = draw(st.sampled_from(PAGINGS))
    newest_first = draw(st.booleans())
    since = draw(st.booleans())
    listing = Listing(
        paging,
        newest_first=newest_first,
        never_ends=paging in {"cursor", "link"} and not newest_first and draw(st.booleans()),
        filters_shown=draw(st.booleans()),
    )
    # What is counted from a top that moves has to be recognised by its timestamps.
    is_told = newest_first and paging in {"offset", "page"} and not since
    events = arrivals(*([] if is_told else ["missing", "garbled", "future"]))
    arrive(listing, draw(events))
    source = make_source(
        paging,
        size=draw(st.integers(1, 5)),
        since=since,
        time_filter_format=draw(st.sampled_from(["rfc3339", "iso8601", "unix"])),
        lookback=timedelta(seconds=draw(st.sampled_from([0, 3]))),
        max_pages=draw(st.sampled_from([None, None, 1, 3])),
    )
    began_ns = NOON_NS + draw(st.sampled_from([0, 5, 20, 86_400])) * SECOND_NS
    return source, listing, Script(began_ns, draw(steps), draw(events))


@budget(max_examples=400, deadline=None)
@given(worlds())
def test_every_event_is_given_out_exactly_once(world: tuple[Source, Listing, Script]) -> None:
    """T01 T02 T03 T05 T07 T09 T10 T12 T51 T53: any listing, page size, order, paging, crash.

    Newer events arrive between polls and between pages, some after the poll
    began, so that it may end before them, with ties, without or
    with wrong timestamps, some listed twice; the process dies at any page
    boundary. Every event comes exactly once. The one exception is a listing
    that looks like one that ignores paging: as many known pages in a row.
    """
    source, listing, script = world
    reader = Reader(source, listing)
    reader.began_ns = script.began_ns
    for _ in range(60):
        reader.poll(lambda: script.play(reader))
        script.play(reader)
    arrive(listing, script.fresh)
    for _ in range(60):
        reader.poll()
    assume(not any("same page" in message for message in reader.warned))
    assert Counter(reader.ids) == Counter({r.id: 1 for r in listing.rows})


@budget(max_examples=150, deadline=None)
@given(worlds(), st.integers(0, 12))
def test_both_readings_of_a_snapshot_are_the_same(
    world: tuple[Source, Listing, Script], boundary: int
) -> None:
    """Poll, snapshot, poll on; rebuild from the snapshot: a partition's law."""
    source, listing, script = world
    first = Reader(source, listing)
    script.steps = [(arrived, False) for arrived, _ in script.steps]
    frozen: list[tuple[bytes, dict[str, Any], Listing, Script, int]] = []

    def note() -> None:
        script.play(first)
        state = first.dump()
        frozen.append(
            (
                pickle.dumps(state),
                state,
                copy.deepcopy(listing),
                copy.deepcopy(script),
                len(first.ids),
            )
        )

    for _ in range(60):
        first.poll(note)
    data, state, listing_then, script_then, given_out = frozen[min(boundary, len(frozen) - 1)]
    assert pickle.dumps(state) == data, "the snapshot changed after it was taken"
    second = Reader(source, listing_then)
    second.scanner = Scanner(
        source, load_position(state, source.name, api_fingerprint(source), second.concealer)
    )
    for _ in range(60):
        second.poll(lambda: script_then.play(second))
    assume(not any("same page" in message for message in first.warned | second.warned))
    rest = first.ids[given_out:]
    # A restart looks whether a listing shifted, and then may read its top sooner.
    assert sorted(second.ids) == sorted(rest) if listing.newest_first else second.ids == rest
    assert second.watermark == first.watermark


@budget(max_examples=60, deadline=None)
@given(worlds())
def test_a_snapshot_holds_builtins_only(world: tuple[Source, Listing, Script]) -> None:
    """Unpickling runs what a pickle names, so ours name nothing."""
    source, listing, script = world
    reader = Reader(source, listing)

    def check() -> None:
        script.play(reader)
        names = {code.name for code, _, _ in pickletools.genops(pickle.dumps(reader.dump()))}
        assert not names & {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "BUILD"}

    reader.poll(check)
    check()


# ------------------------------------------------------------ boundaries


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("paging", PAGINGS)
def test_a_straggler_of_the_last_instant_is_shipped(paging: str, newest_first: bool) -> None:
    """T01 T02 the inclusive bound brings back the last event, and one like it later."""
    reader = read_all(paging, map(row, range(5)), since=True, newest_first=newest_first)
    reader.listing.rows.append(row(9, 4))
    reader.poll()
    reader.poll()
    assert sorted(reader.ids) == [*ids(range(5)), "e9"]
    assert reader.listing.queries[-1]["since"] == "2025-01-01T12:00:04Z"


@pytest.mark.parametrize("lookback_s", [0, 60])
@pytest.mark.parametrize("paging", ["offset", "page", "cursor"])
def test_a_late_event_is_shipped_within_the_lookback(paging: str, lookback_s: int) -> None:
    """T04 older than the watermark: once within the lookback, not at all beyond."""
    reader = read_all(
        paging,
        map(row, range(50, 150)),
        size=30,
        since=True,
        lookback=timedelta(seconds=lookback_s),
    )
    for late, second in ((200, 100.5), (201, 85.5)):
        reader.listing.rows.insert(int(second) - 49, row(late, second))
    for _ in range(3):
        reader.poll()
    expected = Counter(ids(range(50, 150)))
    if lookback_s == 60:
        expected.update({"e200": 1})
    assert lookback_s == 0 or reader.listing.queries[-1]["since"] == "2025-01-01T12:01:29Z"
    if lookback_s == 60:
        expected.update({"e201": 0})
    assert Counter(reader.ids) == +expected


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("since", [False, True])
def test_a_crash_after_page_one_of_a_newest_first_listing_loses_nothing(
    paging: str, since: bool
) -> None:
    """T09 the watermark moves when a scan ends, not before."""
    listing = Listing(paging, [row(number) for number in range(7)], newest_first=True)
    reader = Reader(make_source(paging, since=since), listing)
    reader.scanner.begin(NOW_NS)
    reader.page()
    assert reader.ids == ["e6", "e5"]
    assert reader.watermark is None
    reader.crash()
    listing.rows.append(row(7))
    for _ in range(2):
        reader.poll()
    assert sorted(reader.ids) == ids(range(8))


@pytest.mark.parametrize("since", [False, True])
@pytest.mark.parametrize("paging", ["offset", "page"])
def test_a_full_page_of_insertions_between_two_pages_ends_no_scan(paging: str, since: bool) -> None:
    """T10 newest first: page 2 is page 1 once more, and the rest still stands behind it."""
    listing = Listing(paging, [row(number) for number in range(6)], newest_first=True)
    reader = Reader(make_source(paging, since=since), listing)
    fresh = [row(6), row(7)]

    def insert() -> None:
        listing.rows += fresh
        fresh.clear()

    reader.poll(insert)
    assert sorted(reader.ids) == ids(range(6))
    reader.poll()
    assert sorted(reader.ids) == ids(range(8))
    assert not reader.warned


@pytest.mark.parametrize("paging", ["offset", "page"])
@pytest.mark.parametrize("arrivals", [10, 15, 20, 25, 40, 60])
@pytest.mark.parametrize("max_pages", [None, 2])
def test_a_listing_that_shifts_by_whole_pages_loses_nothing(
    paging: str, arrivals: int, max_pages: int | None
) -> None:
    """T09 T10: what comes during a pause of a newest-first scan looks like pages met before."""
    listing = Listing(paging, [row(number) for number in range(100)], newest_first=True)
    reader = Reader(make_source(paging, size=10, since=True, max_pages=max_pages), listing)
    reader.scanner.begin(NOW_NS)
    for _ in range(2):
        reader.page()
    listing.rows += [row(100 + number) for number in range(arrivals)]
    for _ in range(12):
        reader.poll()
    assert Counter(reader.ids) == Counter(ids(range(100 + arrivals)))


@pytest.mark.parametrize("paging", ["offset", "page"])
@pytest.mark.parametrize("since", [False, True])
@pytest.mark.parametrize("pause", ["max_pages", "crash", "failure"])
def test_what_expires_while_a_scan_pauses_hides_nothing(
    paging: str, since: bool, pause: str
) -> None:
    """T11: the rest moves up to places that were read."""
    listing = Listing(paging, [row(number) for number in range(60)])
    max_pages = 2 if pause == "max_pages" else None
    reader = Reader(make_source(paging, size=10, since=since, max_pages=max_pages), listing)
    reader.scanner.begin(NOW_NS)
    for _ in range(2):
        reader.page()
    del listing.rows[:10]
    if pause == "crash":
        reader.crash()
    elif pause == "failure":
        reader.scanner.check_place()
    while reader.scanner.in_scan:
        reader.poll()
    assert Counter(reader.ids) == Counter(ids(range(60)))


@pytest.mark.parametrize("since", [False, True])
def test_a_page_that_fills_up_behind_us_is_read_again(since: bool) -> None:
    """T03 T13 it was short, and the next one has events: what came between stands in it."""
    listing = Listing("page", [row(number) for number in range(3)])
    reader = Reader(make_source("page", since=since), listing)
    fresh = [[], [row(3), row(4)], []]

    def insert() -> None:
        listing.rows += fresh.pop(0) if fresh else []

    reader.poll(insert)
    reader.poll()
    assert sorted(reader.ids) == ids(range(5))


@pytest.mark.parametrize("paging", ["offset", "page"])
@pytest.mark.parametrize(("total", "expired"), [(7, 1), (7, 3), (7, 6), (3000, 1), (4000, 1900)])
def test_events_that_expire_shift_no_new_event_out_of_sight(
    paging: str, total: int, expired: int
) -> None:
    """T11 an append-only listing whose oldest events go away is read on where it now stands."""
    reader = read_all(paging, map(row, range(total)), size=2 if total < 10 else 300)
    del reader.listing.rows[:expired]
    reader.poll()
    reader.crash()
    reader.listing.rows += [row(total), row(total + 1)]
    for _ in range(2):
        reader.poll()
    assert reader.ids == ids(range(total + 2))


@pytest.mark.parametrize("paging", ["offset", "page"])
def test_a_listing_that_was_emptied_is_read_from_its_start(paging: str) -> None:
    """T11 nothing that was known is left."""
    reader = read_all(paging, map(row, range(7)))
    reader.listing.rows = [row(number) for number in range(10, 13)]
    for _ in range(2):
        reader.poll()
    assert reader.ids == ids([*range(7), *range(10, 13)])


@pytest.mark.parametrize("paging", ["offset", "page"])
def test_an_append_only_listing_is_continued_and_not_read_again(paging: str) -> None:
    """The known event at the place costs its repetition, not that of the listing."""
    reader = read_all(paging, map(row, range(100)), size=10)
    reader.listing.queries.clear()
    reader.listing.rows.append(row(100))
    assert reader.poll() <= 3
    assert int(reader.listing.queries[0][paging]) == {"offset": 99, "page": 10}[paging]
    assert reader.ids == ids(range(101))


@pytest.mark.parametrize("total", [1, 2, 3, 50])
@pytest.mark.parametrize("shown", [True, False])
def test_a_newest_first_offset_listing_is_noticed_whatever_it_shows(
    total: int, shown: bool
) -> None:
    """T10 with one event, or without timestamps, the order shows only when events arrive."""
    rows = [row(number) for number in range(total)]
    listing = Listing(
        "offset", rows if shown else [replace(r, shown=None) for r in rows], newest_first=True
    )
    reader = Reader(make_source("offset", size=10), listing)
    reader.poll()
    listing.rows += [replace(row(number), shown=None) for number in (60, 61)]
    reader.poll()
    reader.poll()
    assert sorted(reader.ids) == sorted(ids([*range(total), 60, 61]))


def test_the_watermark_is_the_newest_event_in_any_order() -> None:
    """T12 T50 the greatest instant, not the last and not the greatest text."""
    shown = ["2025-01-01T12:00:05Z", "2025-01-01T14:00:05.5+02:00", "2025-01-01T12:00:01Z"]
    rows = [Row(f"e{n}", NOON_NS, text) for n, text in enumerate(shown)]
    assert read_all("cursor", rows, since=True).watermark == "2025-01-01T12:00:05.500Z"


@pytest.mark.parametrize(
    "shown",
    [FUTURE, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "", "0", "-5", "24:00", None],
)
@pytest.mark.parametrize("paging", PAGINGS)
def test_a_wrong_timestamp_moves_nothing_and_is_shipped_once(
    paging: str, shown: str | None
) -> None:
    """T51 T53 the event goes out, the watermark stays among the others."""
    rows = [row(0), Row("odd", NOON_NS, shown), row(1)]
    reader = read_all(paging, rows, since=True, filters_shown=True)
    reader.listing.rows.append(row(2))
    for _ in range(3):
        reader.poll()
    assert Counter(reader.ids) == Counter(["odd", *ids(range(3))])
    assert reader.watermark == "2025-01-01T12:00:02Z"


def test_an_event_of_the_future_moves_the_watermark_when_its_time_has_come() -> None:
    """T53 T54 a vendor's clock runs an hour ahead of ours."""
    reader = Reader(make_source("cursor", since=True), Listing("cursor", [row(0), row(1, 3600)]))
    for now_ns, watermark in (
        (NOON_NS + 60 * SECOND_NS, "2025-01-01T12:00:00Z"),
        (NOON_NS + 3600 * SECOND_NS, "2025-01-01T13:00:00Z"),
        (NOON_NS - 3600 * SECOND_NS, "2025-01-01T13:00:00Z"),
    ):
        reader.poll(now_ns=now_ns)
        assert reader.watermark == watermark
    assert reader.ids == ids(range(2))


@pytest.mark.parametrize(("asked", "given_out"), [(2, 5), (5, 2)])
@pytest.mark.parametrize("paging", PAGINGS)
def test_pages_of_another_size_than_asked_for_end_nothing(
    paging: str, asked: int, given_out: int
) -> None:
    """T13 servers cap page sizes, and some send a few more."""

    class Stubborn(Listing):
        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            return super().answer(url.replace(f"limit={asked}", f"limit={given_out}"))

    listing = Stubborn(paging, [row(number) for number in range(12)])
    reader = Reader(make_source(paging, size=asked), listing)
    reader.poll()
    assert reader.ids == ids(range(12))


# ----------------------------------------------------- the ends of a scan


class Scripted(Listing):
    """Answers one body after the other, the last for ever."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        super().__init__("cursor")
        self.bodies = list(bodies)

    def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
        self.queries.append(dict(parse_qsl(urlsplit(url).query)))
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        return json.dumps(body).encode(), {}


def cursor_page(following: object, *rows: Row) -> dict[str, Any]:
    return {"events": [r.body for r in rows], "next": following}


def test_an_empty_page_ends_the_scan_and_its_link_is_kept() -> None:
    """T14 (a) the next poll goes on from the link that the empty page came with."""
    reader = read_all("link", map(row, range(3)), never_ends=True, since=True)
    reader.crash()
    reader.listing.rows.append(row(3))
    reader.listing.queries.clear()
    reader.poll()
    assert reader.listing.queries[0]["cursor"] == "3"
    assert reader.ids == ids(range(4))


@pytest.mark.parametrize("newest_first", [False, True])
def test_events_behind_an_empty_page_are_reached(newest_first: bool) -> None:
    """T14 (b) at once where the next poll would start at the top, else by the next poll."""
    seen = [row(5), row(4), row(3)] if newest_first else [row(0), row(1), row(2)]
    behind = row(1) if newest_first else row(9)
    reader = Reader(
        make_source("cursor", size=3),
        Scripted(
            cursor_page("a", *seen), cursor_page("b"), cursor_page("c"), cursor_page(None, behind)
        ),
    )
    assert reader.poll() == (4 if newest_first else 2)
    reader.poll()
    reader.poll()
    assert reader.ids == [*(r.id for r in seen), behind.id]


LOST_PLACES: dict[str, dict[str, Any]] = {
    "newest first": {"order": "desc"},
    "not persistent": {"order": "asc", "persist_cursor": False},
    "delay": {"delay": timedelta(seconds=1)},
    "window": {"max_window": timedelta(seconds=3600)},
    "newest first window": {"order": "desc", "max_window": timedelta(seconds=3600)},
}
"""Sources whose next scan does not go on from the token that the last one ended with."""


def make_forgetful(kind: str, **pagination: Any) -> Source:
    changes = dict(LOST_PLACES[kind])
    if "persist_cursor" in changes:
        pagination["persist_cursor"] = changes.pop("persist_cursor")
    if changes.keys() & {"delay", "max_window"}:
        changes["time_filter_end_param"] = "until"
    source = make_source("cursor", since=True, start_time=NOON_NS, **changes)
    return replace(source, pagination=replace(source.pagination, **pagination))


def gap(name: str, length: int) -> list[dict[str, Any]]:
    return [cursor_page(f"{name}{number}") for number in range(length)]


@pytest.mark.parametrize("kind", LOST_PLACES)
@pytest.mark.parametrize("length", [1, EMPTY_PAGES, EMPTY_PAGES + 1, 3 * EMPTY_PAGES])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_stands_behind_empty_pages_is_read_before_their_scan_counts(
    kind: str, length: int, is_first: bool
) -> None:
    """T14 (b) where the next scan would ask for something else, also if the process dies."""
    seen = [] if is_first else [cursor_page("a", row(5), row(4))]
    listing = Scripted(*seen, *gap("b", length), cursor_page(None, row(2)))
    reader = Reader(make_forgetful(kind), listing)
    for _ in range(1 + length // EMPTY_PAGES):
        position = reader.scanner.position
        assert (position.last_timestamp_ns, position.swept_ns) == (None, None)
        assert reader.poll() <= 1 + EMPTY_PAGES
        reader.crash()
    assert reader.ids == [*([] if is_first else ["e5", "e4"]), "e2"]
    assert reader.scanner.position.scan is None
    asked = {(query["since"], query.get("until")) for query in listing.queries}
    assert len(asked) == 1
    assert reader.warned == set()


@pytest.mark.parametrize("kind", LOST_PLACES)
def test_empty_pages_without_end_are_not_followed_for_ever(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T14 each empty page with a link of its own: after some polls the scan counts as read."""
    pages = [cursor_page(f"c{number}") for number in range(500)]
    reader = Reader(make_forgetful(kind), Scripted(cursor_page("x", row(3), row(1)), *pages))
    assert reader.poll() == 1 + EMPTY_PAGES
    assert [reader.poll() for _ in range(EMPTY_POLLS - 1)] == [EMPTY_PAGES] * (EMPTY_POLLS - 1)
    position = reader.scanner.position
    assert position.scan is None
    assert max(position.last_timestamp_ns or 0, position.swept_ns or 0) >= row(3).at_ns
    # It is known by now, and what is new is not kept waiting for the end of that.
    assert [reader.poll() for _ in range(2)] == [EMPTY_PAGES] * 2
    assert position.scan is None
    [warning] = [record.message for record in caplog.records]
    assert "set stop_on_empty: false" in warning


@pytest.mark.parametrize("kind", LOST_PLACES)
@pytest.mark.parametrize("stop_on_empty", [True, False])
def test_the_configuration_says_what_an_empty_page_means(
    kind: str, stop_on_empty: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """T14 no guess then: the end at once, or no page too many to follow."""
    length = 3 * EMPTY_PAGES * EMPTY_POLLS
    listing = Scripted(*gap("b", length), cursor_page(None, row(2)))
    reader = Reader(make_forgetful(kind, stop_on_empty=stop_on_empty), listing)
    assert reader.poll() == (1 if stop_on_empty else length + 1)
    assert reader.scanner.position.scan is None
    assert caplog.records == []


def test_a_token_that_dies_between_two_polls_holds_no_window_up() -> None:
    """T14, T18: else each poll would find the same empty pages, and the same dead token."""
    source = make_forgetful("window")
    reader = Reader(source, Scripted(*(cursor_page(f"c{number}") for number in range(500))))
    assert reader.poll() == EMPTY_PAGES
    reader.scanner.begin(NOW_NS)
    assert reader.scanner.take_refusal(NOW_NS)
    assert reader.scanner.position.swept_ns is None
    assert reader.poll() == EMPTY_PAGES
    assert reader.scanner.position.swept_ns == NOON_NS + 3600 * SECOND_NS


def test_a_repeated_cursor_ends_the_scan() -> None:
    """T15 the API hands the same cursor out until there is more; nothing is shipped twice."""
    listing = Scripted(cursor_page("c", row(0)), cursor_page("c", row(1)))
    reader = Reader(make_source("cursor"), listing)
    assert [reader.poll() for _ in range(3)] == [2, 1, 1]
    assert [query.get("cursor") for query in listing.queries] == [None, "c", "c", "c"]
    assert reader.ids == ids(range(2))


def test_cursors_in_a_circle_end_the_scan(caplog: pytest.LogCaptureFixture) -> None:
    """T16 A, B, A: with a warning that says so, once."""
    reader = Reader(
        make_source("cursor"),
        Scripted(
            *[cursor_page("AB"[number % 2], row(number % 4)) for number in range(40)],
        ),
    )
    with caplog.at_level(logging.WARNING):
        assert [reader.poll() for _ in range(3)] == [3, 3, 3]
    assert [r.message for r in caplog.records] == ["the API's cursors go in a circle"]
    assert vars(caplog.records[0])["source"] == "vendor"


@pytest.mark.parametrize("end", [None, "", "  ", False, 0, ...])
def test_every_mark_of_the_end_ends_the_scan(end: object) -> None:
    """T17 null, nothing, blanks, false and zero are no cursors."""
    last = {"events": [row(1).body]} if end is ... else cursor_page(end, row(1))
    reader = Reader(make_source("cursor"), Scripted(cursor_page("c", row(0)), last))
    assert reader.poll() == 2
    assert reader.scanner.position.place is None


def test_an_expired_cursor_starts_over_from_the_watermark() -> None:
    """T18 stored or met in mid-scan: it is dropped, and nothing is lost or doubled."""
    reader = read_all("cursor", map(row, range(5)), never_ends=True, since=True)
    reader.listing.rows += [row(number) for number in range(5, 9)]
    reader.scanner.begin(NOW_NS)
    assert reader.scanner.take_refusal()
    reader.scanner.begin(NOW_NS)
    reader.page()
    assert reader.listing.queries[-1] == {"limit": "2", "since": "2025-01-01T12:00:04Z"}
    reader.crash()
    assert reader.scanner.take_refusal()
    assert not reader.scanner.in_scan
    reader.poll()
    assert reader.ids == ids(range(9))


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("refused_after", range(1, 5))
def test_a_cursor_refused_in_mid_scan_loses_nothing(refused_after: int, newest_first: bool) -> None:
    """T18 newest first the watermark stays where it was; what is read again is known."""
    listing = Listing("cursor", [row(number) for number in range(9)], newest_first=newest_first)
    reader = Reader(make_source("cursor", since=True), listing)
    reader.scanner.begin(NOW_NS)
    for _ in range(refused_after):
        reader.page()
    assert reader.scanner.take_refusal()
    assert (reader.watermark is None) == newest_first
    reader.poll()
    assert sorted(reader.ids) == ids(range(9))


def test_a_refusal_at_the_top_is_not_the_cursors() -> None:
    """T18 T28 an offset or a first request that is refused is for a human."""
    for paging in ("offset", "page", "cursor"):
        reader = Reader(make_source(paging), Listing(paging))
        reader.scanner.begin(NOW_NS)
        assert not reader.scanner.take_refusal()
        assert not reader.scanner.take_missing_page()
        assert reader.scanner.in_scan


def test_a_refused_cursor_without_a_time_filter_repeats_none_of_the_last_events() -> None:
    """T18 the API serves all once more; the last events are known, older ones are not."""
    total = KEPT_COUNT + 10
    reader = read_all("cursor", map(row, range(total)), size=500, never_ends=True)
    reader.scanner.begin(NOW_NS)
    reader.scanner.take_refusal()
    reader.poll()
    assert Counter(reader.ids) == Counter([*ids(range(total)), *ids(range(10))])


def test_a_link_to_itself_ends_the_scan() -> None:
    """T23 and the next poll asks there again."""
    url = f"{URL}?cursor=9"

    class Self(Scripted):
        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            body, _ = super().answer(url)
            return body, {"next": f"{URL}?cursor=9"}

    reader = Reader(make_source("link"), Self({"events": [row(0).body]}, {"events": [row(1).body]}))
    assert [reader.poll() for _ in range(2)] == [2, 1]
    assert reader.scanner.position.place == Place("url", url)
    assert reader.ids == ids(range(2))


@pytest.mark.parametrize("since", [False, True])
@pytest.mark.parametrize("paging", ["offset", "page"])
def test_a_server_that_ignores_paging_is_asked_a_bounded_number_of_times(
    paging: str, since: bool
) -> None:
    """T26 the same page for every number; new events still arrive, none twice."""
    reader = read_all(
        paging, map(row, range(3)), size=10, since=since, ignores_paging=True, newest_first=True
    )
    reader.listing.rows.append(row(3))
    assert reader.poll() == 1 + REPEATED_PAGES
    assert sorted(reader.ids) == ids(range(4))
    assert reader.warned == {"the API sends the same page for every page number or offset"}


@pytest.mark.parametrize("timestamp_field", ["ts", None])
@pytest.mark.parametrize("paging", PAGINGS)
def test_equal_events_without_an_id_are_all_read_and_read_once(
    paging: str, timestamp_field: str | None
) -> None:
    """T08 the last of them too, at which the next poll begins where it counts events."""
    twin = row(2)
    listing = Listing(paging, [row(1), twin, twin, twin])
    source = make_source(paging, size=10, id_field=None, timestamp_field=timestamp_field)
    reader = Reader(source, listing)
    reader.poll()
    assert len(reader.ids) == len(set(reader.ids)) == 4
    reader.poll()
    reader.crash()
    reader.poll()
    assert len(reader.ids) == 4
    listing.rows.append(row(3))
    reader.poll()
    assert len(reader.ids) == len(set(reader.ids)) == 5
    assert not reader.warned


def test_equal_pages_of_a_newest_first_listing_hide_nothing_behind_them() -> None:
    """T05 T26 one event listed twice, at one event a page."""
    for newest_first in (False, True):
        rows = [row(0), row(1), row(1), row(2), row(3)]
        reader = read_all("page", rows, size=1, newest_first=newest_first)
        assert sorted(reader.ids) == ids(range(4))


@pytest.mark.parametrize("start_page", [0, 1])
def test_pages_are_counted_from_the_configured_number(start_page: int) -> None:
    """T27 a base of zero misses no first page."""
    pagination = Pagination(
        "page", page_size=2, limit_param="limit", page_param="page", start_page=start_page
    )

    class Based(Listing):
        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            asked = int(dict(parse_qsl(urlsplit(url).query))["page"])
            number = asked - start_page + 1
            return super().answer(url.replace(f"page={asked}", f"page={number}"))

    listing = Based("page", [row(number) for number in range(5)])
    reader = Reader(make_source("page", pagination=pagination), listing)
    reader.poll()
    assert reader.ids == ids(range(5))


@pytest.mark.parametrize("paging", ["offset", "page"])
def test_a_missing_page_is_the_end_of_the_listing(paging: str) -> None:
    """T11 T27 some answer 404 behind the last page, also when the listing has shrunk."""
    listing = Listing(paging, [row(number) for number in range(7)])
    reader = Reader(make_source(paging), listing)

    def poll() -> None:
        reader.scanner.begin(NOW_NS)
        while reader.scanner.in_scan:
            query = dict(parse_qsl(urlsplit(reader.scanner.request().url).query))
            start = int(query.get("offset", 0)) + (int(query.get("page", 1)) - 1) * 2
            if start and start >= len(listing.rows):
                assert reader.scanner.take_missing_page()
            else:
                reader.page()

    poll()
    poll()
    del listing.rows[:5]
    poll()
    listing.rows += [row(7), row(8), row(9)]
    poll()
    assert reader.ids == ids(range(10))


def test_max_pages_cuts_a_scan_that_the_next_poll_goes_on_with() -> None:
    """T09 newest first: the watermark waits for the whole scan."""
    rows = [row(number) for number in range(8)]
    reader = read_all("cursor", rows, since=True, newest_first=True, max_pages=2)
    assert reader.ids == ids([7, 6, 5, 4])
    assert reader.watermark is None
    reader.crash()
    reader.poll()
    assert sorted(reader.ids) == ids(range(8))
    assert reader.watermark == rows[-1].shown


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("since", [False, True])
def test_a_poll_of_a_busy_api_ends_with_what_came_after_it_began(paging: str, since: bool) -> None:
    """T26 else polling_frequency_ms means nothing, and the watermark never moves."""
    listing = Listing(paging, [row(number) for number in range(5)], never_ends=True)
    reader = Reader(make_source(paging, size=2, since=since), listing)
    reader.began_ns = NOON_NS + 5 * SECOND_NS

    def arrive_one() -> None:
        listing.rows.append(row(len(listing.rows)))

    assert reader.poll(arrive_one, limit=12) <= 12
    assert reader.watermark is not None
    for _ in range(4):
        reader.began_ns += 10 * SECOND_NS
        reader.poll(arrive_one, limit=12)
    reader.poll()
    assert sorted(reader.ids) == sorted(r.id for r in listing.rows)


@pytest.mark.parametrize("persists", [None, False])
def test_late_events_behind_one_of_now_are_read_whether_the_cursor_is_kept_or_not(
    persists: bool | None,
) -> None:
    """T02 T26 a full page that ends with the present may have older events behind it."""
    present = NOON_NS + 60 * SECOND_NS
    rows = [*map(row, range(9)), row(9, 60)]
    late = [row(number, 58 + number / 100) for number in range(10, 20)]
    listing = Listing("cursor", [*rows, *late])
    source = make_source("cursor", size=10, since=True)
    assert source.pagination is not None
    source = replace(source, pagination=replace(source.pagination, persist_cursor=persists))
    reader = Reader(source, listing)
    for _ in range(2):
        reader.began_ns = present
        reader.poll(now_ns=present + SECOND_NS)
        present += 5 * SECOND_NS
    assert reader.ids == ids(range(20))


def test_a_poll_of_a_busy_api_ends_though_its_cursor_is_not_kept() -> None:
    """T26 at the first page that is not full."""
    listing = Listing("cursor", [row(number) for number in range(5)], never_ends=True)
    source = make_source("cursor", size=2, since=True)
    assert source.pagination is not None
    source = replace(source, pagination=replace(source.pagination, persist_cursor=False))
    reader = Reader(source, listing)
    reader.began_ns = NOON_NS + 5 * SECOND_NS
    assert reader.poll(lambda: listing.rows.append(row(len(listing.rows))), limit=12) <= 12
    reader.began_ns = None
    reader.poll()
    assert reader.ids == [r.id for r in listing.rows]


# ---------------------------------------------------------- what is asked


def test_a_cursor_is_sent_as_it_came() -> None:
    """T19 T20 percent-encoded once, and every digit kept."""
    cursors: list[object] = ["a+b=/%2B|&c d", "%3D%3D", 30401068764886351, 1725646291, "ü:1"]
    listing = Scripted(
        *[cursor_page(cursor, row(number)) for number, cursor in enumerate(cursors)],
        cursor_page(None),
    )
    reader = Reader(make_source("cursor", size=1), listing)
    reader.poll()
    assert [query.get("cursor") for query in listing.queries[1:]] == [str(c) for c in cursors]


def test_a_link_is_followed_as_it_came() -> None:
    """T19 T25 nothing is decoded, encoded, added or repeated."""
    link = f"{URL}?after=a%2Bb%3D%3D%7Cc&since=2024-01-01T00%3A00%3A00%2B00%3A00&limit=7"

    class Linked(Scripted):
        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            body, _ = super().answer(url)
            return body, {"next": link}

    source = make_source("link", since=True, params=(("tenant", Secret("acme-secret")),))
    reader = Reader(source, Linked({"events": [row(0).body]}))
    reader.scanner.begin(NOW_NS)
    reader.page()
    assert reader.scanner.request().url == link
    reader.crash()
    assert reader.scanner.request().url == link


@pytest.mark.parametrize(
    ("form", "since"),
    [
        ("rfc3339", "2021-06-30T09:36:33.351Z"),
        ("iso8601", "2021-06-30T09:36:33.351Z"),
        ("unix", "1625045793"),
    ],
)
def test_milliseconds_are_asked_for_in_the_filters_own_unit(form: Any, since: str) -> None:
    """T55 T56 a timestamp in milliseconds becomes seconds where these are asked for."""
    rows = [Row("e0", 1_625_045_793_351_000_000, "1625045793351")]
    reader = read_all("cursor", rows, since=True, time_filter_format=form)
    reader.poll()
    assert reader.listing.queries[-1]["since"] == since
    assert reader.ids == ["e0"]


def test_the_query_holds_all_that_was_configured() -> None:
    """T56 the endpoint's own parameters, the static ones, and nothing to be misread."""
    source = make_source(
        "offset", since=True, start_time=NOON_NS, params=(("q", Secret("a+b &c")),)
    )
    source = replace(source, endpoint=Endpoint(f"{URL}?tenant=x%2By#top"))
    scanner = Scanner(source, Position(DedupWindow("vendor")))
    scanner.begin(NOW_NS)
    assert scanner.request().url == (
        f"{URL}?tenant=x%2By&q=a%2Bb%20%26c&since=2025-01-01T12:00:00Z&limit=2&offset=0"
    )


@pytest.mark.parametrize("since", [False, True])
@pytest.mark.parametrize("start", [NOON_NS + 3 * SECOND_NS, timedelta(seconds=86_397)])
def test_a_source_begins_at_its_start_time(start: int | timedelta, since: bool) -> None:
    """Without a filter the earlier events are left out here; no lookback reaches before it."""
    rows = [row(number) for number in range(6)]
    reader = read_all(
        "page", rows, size=9, since=since, start_time=start, lookback=timedelta(hours=1)
    )
    reader.crash()
    reader.poll(now_ns=NOW_NS + 3600 * SECOND_NS)
    assert reader.ids == ids([3, 4, 5])


def test_a_long_lookback_asks_for_nothing_before_1970() -> None:
    """T53 a negative number of seconds is refused by many."""
    reader = read_all(
        "page",
        [Row("e0", 5 * SECOND_NS, "1970-01-01T00:00:05Z")],
        since=True,
        time_filter_format="unix",
        lookback=timedelta(days=1),
    )
    reader.poll()
    assert reader.listing.queries[-1]["since"] == "0"


def test_sources_of_one_endpoint_are_independent() -> None:
    """T66 two names, two positions."""
    listing = Listing("cursor", [row(number) for number in range(3)])
    readers = [Reader(make_source("cursor", name=name), listing) for name in ("a", "b")]
    for reader in readers:
        reader.poll()
        assert reader.ids == ids(range(3))


def test_an_order_that_is_told_counts_until_the_listing_tells_another() -> None:
    """One event a poll shows no order; a cursor of a newest-first listing leads to older ones."""
    told = make_source("cursor", order="desc", since=True)
    reader = Reader(told, Listing("cursor", [row(1)], newest_first=True, never_ends=True))
    reader.poll()
    assert reader.scanner.position.place is None
    untold = Reader(make_source("cursor", since=True), Listing("cursor", [row(1)], never_ends=True))
    untold.poll()
    assert untold.scanner.position.place is not None
    wrong = Reader(told, Listing("cursor", [row(n) for n in range(1, 6)], never_ends=True))
    wrong.poll()
    assert wrong.scanner.position.place is not None
