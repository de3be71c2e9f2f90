"""Asking for time in windows: all of it once, and no more at a time than the vendor allows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from flicker.pagination import NEXT_URL
from flicker.settings import Pagination
from flicker.timefmt import SECOND_NS, format_rfc3339, format_timestamp, parse_timestamp
from tests.test_scan import FUTURE, NOON_NS, URL, Reader, make_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flicker.settings import Source

DAY_NS = 86_400 * SECOND_NS
PAGINGS = ("offset", "page", "cursor", "next_url", "none")
COMPACT = "strftime:%Y%m%dT%H%M%SZ"
FORMATS = ("rfc3339", "iso8601", "unix", "unix_ms", "date", COMPACT)
SPAN = ("since", "until")
GAP = "the position is older than max_age_ms"


class RefusedError(Exception):
    """The vendor says 400."""


@dataclass(frozen=True)
class Row:
    """An event: when it happened, when the vendor had it, and what instant it shows."""

    id: str
    at_ns: int
    there_ns: int
    shown: str | None


def row(number: int, second: float, *, late: float = 0) -> Row:
    at_ns = NOON_NS + int(second * SECOND_NS)
    return Row(f"e{number}", at_ns, at_ns + int(late * SECOND_NS), format_rfc3339(at_ns))


@dataclass
class Vendor:
    """Lists by both bounds, the lower one inclusive.

    Attributes:
        longest_ns: Longer spans are refused, or clipped to their first part.
        keeps_ns: What begins longer ago is refused.
        most_rows: Offsets from here on are refused.
    """

    rows: list[Row]
    paging: str = "offset"
    form: str = "rfc3339"
    size: int = 2
    newest_first: bool = False
    ends_before: bool = False
    longest_ns: int | None = None
    clips: bool = False
    keeps_ns: int | None = None
    most_rows: int | None = None
    clock_ns: int = 0
    spans: list[tuple[int | None, int | None]] = field(default_factory=list)

    def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
        pairs = parse_qsl(urlsplit(url).query, strict_parsing=True)
        query = dict(pairs)
        assert len(query) == len(pairs), "a parameter is sent twice"
        since_ns, until_ns = self._instant(query.get("since")), self._instant(query.get("until"))
        self.spans.append((since_ns, until_ns))
        rows = self._rows(since_ns, until_ns)
        start = int(query.get("offset", 0)) + (int(query.get("page", 1)) - 1) * self.size
        if self.most_rows is not None and start >= self.most_rows:
            raise RefusedError
        if "cursor" in query:
            bounds, _, last = query["cursor"].partition("/")
            assert bounds == f"{since_ns} {until_ns}", "the bounds changed under a cursor"
            start = 1 + [r.id for r in rows].index(last)
        page = rows[start:] if self.paging == "none" else rows[start : start + self.size]
        following = None
        if page and start + len(page) < len(rows):
            following = f"{since_ns} {until_ns}/{page[-1].id}"
        body: dict[str, Any] = {"events": [{"id": r.id, "ts": r.shown} for r in page]}
        links = {}
        if self.paging == "cursor":
            body["next"] = following
        elif self.paging == "next_url" and following is not None:
            links[NEXT_URL] = f"{URL}?{urlencode({**query, 'cursor': following})}"
        return json.dumps(body).encode(), links

    def _instant(self, text: str | None) -> int | None:
        if text is None:
            return None
        if text == "0":
            return 0
        at_ns = parse_timestamp(text)
        assert at_ns is not None
        assert format_timestamp(at_ns, self.form) == text
        return at_ns

    def _rows(self, since_ns: int | None, until_ns: int | None) -> list[Row]:
        if since_ns is not None and until_ns is not None:
            assert since_ns <= until_ns
            if self.longest_ns is not None and until_ns - since_ns > self.longest_ns:
                if not self.clips:
                    raise RefusedError
                until_ns = since_ns + self.longest_ns
        if self.keeps_ns is not None and (since_ns or 0) < self.clock_ns - self.keeps_ns:
            raise RefusedError
        rows = [r for r in self.rows if r.there_ns <= self.clock_ns]
        rows = [r for r in rows if since_ns is None or r.at_ns >= since_ns]
        if until_ns is not None:
            # Until a day means to its end, for most.
            length_ns = DAY_NS if self.form == "date" and not self.ends_before else 1
            last_ns = until_ns + length_ns - 1 - self.ends_before
            rows = [r for r in rows if r.at_ns <= last_ns]
        return sorted(rows, key=lambda r: r.at_ns, reverse=self.newest_first)


def make_windowed(vendor: Vendor, **changes: Any) -> Source:
    kind: Any = vendor.paging
    pagination = Pagination(
        kind,
        page_size=vendor.size,
        offset_param="offset",
        page_param="page",
        cursor_param="cursor",
        next_cursor_field="next",
    )
    defaults: dict[str, Any] = {
        "since": True,
        "time_filter_end_param": "until",
        "time_filter_format": vendor.form,
        "pagination": pagination,
    }
    return make_source("offset", **{**defaults, **changes})


class Clock:
    """Both the vendor's and ours, but for the vendor's never going backwards."""

    def __init__(self, vendor: Vendor, now_ns: int) -> None:
        self._vendor = vendor
        self.now_ns = now_ns
        self.move(0)

    def move(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self._vendor.clock_ns = max(self._vendor.clock_ns, self.now_ns)


class WindowReader(Reader):
    """Drives a Scanner through its windows, and watches their bounds."""

    def __init__(self, source: Source, vendor: Vendor, now_ns: int) -> None:
        super().__init__(source, vendor)  # type: ignore[arg-type]
        self.vendor = vendor
        self.clock = Clock(vendor, now_ns)
        self.bounds: tuple[str | None, str | None] | None = None
        self.scans: list[tuple[str | None, str | None]] = []

    def read_page(self) -> bool:
        scan = self.scanner.position.scan
        assert scan is not None
        bounds = scan.since, scan.until
        assert self.bounds in {None, bounds}, "the bounds changed within a scan"
        if self.bounds is None:
            self.scans.append(bounds)
        self.bounds = bounds
        is_over = self.page(self.clock.now_ns)
        if not self.scanner.in_scan:
            self.bounds = None
        return is_over

    def read(self, between: Callable[[], None] = lambda: None, *, limit: int = 2000) -> int:
        """Poll until nothing is due at once, and give the number of polls."""
        for polls in range(1, limit + 1):
            if not self.scanner.begin(self.clock.now_ns):
                return polls
            while not self.read_page():
                between()
            is_due = self.scanner.is_behind or self.scanner.in_scan
            between()
            if not is_due:
                return polls
        pytest.fail("the windows do not end")

    def seconds(self) -> list[tuple[float | None, float | None]]:
        """Give the spans asked for, in seconds since noon, each once in a row."""
        spans = [
            tuple(None if at is None else (at - NOON_NS) / SECOND_NS for at in span)
            for span in self.vendor.spans
        ]
        return [s for at, s in enumerate(spans) if not at or s != spans[at - 1]]  # type: ignore[misc]


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def after_noon(second: float) -> int:
    return NOON_NS + int(second * SECOND_NS)


def ids(rows: Iterable[Row]) -> list[str]:
    return [r.id for r in rows]


# ------------------------------------------------------------------ the law


@dataclass
class World:
    """A source, its vendor, and what happens at page boundaries and between polls."""

    source: Source
    vendor: Vendor
    start_ns: int
    polls: list[int]
    boundaries: list[tuple[int, bool]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    form = draw(st.sampled_from(FORMATS))
    unit_ns = DAY_NS if form == "date" else SECOND_NS
    delay = draw(st.sampled_from([0, 1, 2.5]))
    lookback = draw(st.sampled_from([0, 0, 1.5, 4]))
    window = int(-(-lookback // 1)) + 1 + draw(st.sampled_from([0, 0.5, 2, 15]))
    rows = []
    for number, (quarter, kind, lateness) in enumerate(
        draw(
            st.lists(
                st.tuples(
                    st.integers(0, 240),
                    st.sampled_from(["plain"] * 6 + ["none", "future", "ahead", "behind"]),
                    st.sampled_from([0, 0.5, 1]),
                ),
                max_size=24,
            )
        )
    ):
        at_ns = NOON_NS + quarter * unit_ns // 4
        shown = {
            "none": None,
            "future": FUTURE,
            "ahead": format_rfc3339(at_ns + 5 * unit_ns),
            "behind": format_rfc3339(at_ns - 5 * unit_ns),
        }.get(kind, format_rfc3339(at_ns))
        rows.append(Row(f"e{number}", at_ns, at_ns + int(lateness * delay * unit_ns), shown))
    vendor = Vendor(
        rows,
        paging=draw(st.sampled_from(PAGINGS)),
        form=form,
        size=draw(st.integers(1, 4)),
        newest_first=draw(st.booleans()),
        ends_before=draw(st.booleans()),
        longest_ns=int(window * unit_ns),
    )

    def span(units: float) -> timedelta:
        return timedelta(microseconds=int(units * unit_ns) // 1000)

    has_start = draw(st.booleans())
    source = make_windowed(
        vendor,
        delay=span(delay),
        lookback=span(lookback),
        max_window=span(window),
        max_age=None if has_start else span(600),
        start_time=NOON_NS if has_start else None,
        max_pages=draw(st.sampled_from([None, None, 1, 3])),
        timestamp_field=draw(st.sampled_from(["ts", "ts", "ts", None])),
    )
    moves = st.sampled_from([0, unit_ns // 4, unit_ns, 3 * unit_ns, 40 * unit_ns, -2 * unit_ns])
    return World(
        source,
        vendor,
        NOON_NS + draw(st.sampled_from([0, 3, 50])) * unit_ns,
        draw(st.lists(moves, max_size=6)),
        draw(
            st.lists(
                st.tuples(st.sampled_from([0, 0, unit_ns // 4, unit_ns]), st.booleans()),
                max_size=30,
            )
        ),
    )


@budget(max_examples=250, deadline=None)
@given(worlds())
def test_every_event_is_read_exactly_once(world: World) -> None:
    """T54 T57 T59: any format, paging, order, delay, lookback, window, clock and crash.

    Events come as late as `delay_ms` says, without timestamps or with others
    than those that the vendor filters by; time stands still, passes within a
    scan, and the machine's clock goes backwards; the end of a span is among it
    or not; the process dies at any page boundary. The vendor refuses spans that
    are longer than the window, and bounds the wrong way round.
    """
    reader = WindowReader(world.source, world.vendor, world.start_ns)

    def between() -> None:
        if world.boundaries:
            move_ns, is_crash = world.boundaries.pop(0)
            reader.clock.move(move_ns)
            if is_crash:
                reader.crash()

    for move_ns in world.polls:
        reader.read(between)
        reader.clock.move(move_ns)
    # Past all that was, and past the day that it belongs to.
    reader.clock.move(200 * (DAY_NS if world.vendor.form == "date" else SECOND_NS))
    reader.read(between)
    reader.read()
    assert Counter(reader.ids) == Counter({r.id: 1 for r in world.vendor.rows})


# ------------------------------------------------------------- what is asked


def test_a_long_gap_is_asked_for_in_windows_one_after_the_other() -> None:
    """T57 T59 each begins where the one before ended, quiet or not."""
    vendor = Vendor([row(0, 1), row(1, 2), row(2, 95)], longest_ns=10 * SECOND_NS)
    source = make_windowed(
        vendor, start_time=NOON_NS, max_window=seconds(10), delay=seconds(5), max_pages=4
    )
    reader = WindowReader(source, vendor, after_noon(100.5))
    assert reader.read() == 10
    assert reader.seconds() == [
        *((begin, begin + 10) for begin in range(0, 90, 10)),
        (90, 95.5),
    ]
    assert reader.ids == ids(vendor.rows)
    assert reader.watermark == vendor.rows[-1].shown


@pytest.mark.parametrize("fields", [{"timestamp_field": None}, {}])
def test_windows_move_on_where_no_event_tells_its_time(fields: dict[str, Any]) -> None:
    """T59 a source without timestamp_field, and a vendor whose events have none."""
    rows = [replace(row(number, 7 * number), shown=None) for number in range(8)]
    vendor = Vendor(rows, longest_ns=10 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(10), **fields)
    reader = WindowReader(source, vendor, after_noon(25))
    reader.read()
    reader.crash()
    reader.clock.move(30 * SECOND_NS)
    reader.read()
    assert reader.seconds() == [(0, 10), (10, 20), (20, 25), (20, 30), (30, 40), (40, 50), (50, 55)]
    assert reader.ids == ids(rows)


@pytest.mark.parametrize("ends_before", [False, True])
def test_what_happened_at_the_end_of_a_window_is_read_once(ends_before: bool) -> None:
    """T02 whether or not the vendor counts the end among the span."""
    rows = [row(number, 10) for number in range(3)]
    vendor = Vendor(rows, longest_ns=10 * SECOND_NS, ends_before=ends_before)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(10))
    reader = WindowReader(source, vendor, after_noon(30))
    reader.read()
    assert reader.ids == ids(rows)


def test_spans_that_the_vendor_clips_are_not_asked_for() -> None:
    """T57 it would leave out the rest of a longer one, and say nothing."""
    rows = [row(number, 6 * number) for number in range(10)]
    vendor = Vendor(rows, longest_ns=20 * SECOND_NS, clips=True)
    for window, expected in ((20, ids(rows)), (60, ids(rows[:4]))):
        source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(window))
        reader = WindowReader(source, vendor, after_noon(60))
        reader.read()
        assert reader.ids == expected


def test_a_window_reaches_back_by_the_lookback_and_gets_on_all_the_same() -> None:
    """T04 what comes late is read by the next window, also with the shortest that is allowed."""
    rows = [row(0, 4), row(1, 9, late=16), row(2, 30)]
    vendor = Vendor(rows, form="unix", longest_ns=3 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(3), lookback=seconds(2))
    reader = WindowReader(source, vendor, after_noon(10))
    reader.read()
    assert reader.ids == ["e0"]
    reader.clock.move(15 * SECOND_NS)
    reader.read()
    reader.clock.move(15 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows)


@pytest.mark.parametrize("settled", [False, True])
def test_an_event_is_waited_for_as_long_as_the_delay_says(settled: bool) -> None:
    """T04 a later one that is there sooner would take the position past it."""
    rows = [row(0, 10, late=4), row(1, 12)]
    vendor = Vendor(rows)
    reader = WindowReader(
        make_windowed(vendor, start_time=NOON_NS, delay=seconds(5 if settled else 0)),
        vendor,
        after_noon(13),
    )
    for _ in range(3):
        reader.read()
        reader.clock.move(5 * SECOND_NS)
    assert reader.ids == (ids(rows) if settled else ["e1"])


def test_a_day_that_is_asked_for_too_early_is_asked_for_again() -> None:
    """T04 the bound is a whole day, so what is younger than delay_ms comes with it."""
    midnight = NOON_NS + DAY_NS // 2
    late = Row("e0", midnight - SECOND_NS, midnight + 60 * SECOND_NS, "2025-01-01T23:59:59Z")
    early = Row("e1", midnight + SECOND_NS, midnight + SECOND_NS, "2025-01-02T00:00:01Z")
    vendor = Vendor([late, early], form="date")
    # The day that is asked for up to has begun, and all of it is served.
    source = make_windowed(vendor, start_time=NOON_NS, delay=seconds(90))
    reader = WindowReader(source, vendor, midnight + 80 * SECOND_NS - 30 * SECOND_NS)
    reader.read()
    reader.clock.move(50 * SECOND_NS)
    reader.read()
    reader.clock.move(DAY_NS)
    reader.read()
    assert sorted(reader.ids) == ["e0", "e1"]


def test_bounds_stay_as_they_were_over_a_restart_in_the_middle() -> None:
    """T60 the same request, however long the pause; then the windows go on."""
    rows = [row(number, number) for number in range(9)]
    vendor = Vendor(rows, longest_ns=6 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(6))
    reader = WindowReader(source, vendor, after_noon(20))
    reader.scanner.begin(reader.clock.now_ns)
    reader.read_page()
    reader.read_page()
    reader.crash()
    reader.clock.move(3600 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows)
    assert reader.seconds()[:2] == [(0, 6), (6, 12)]


def test_a_source_with_windows_and_without_a_beginning_begins_one_window_ago() -> None:
    """T57 else the first request asks for all there is; a pause after it is read as a whole."""
    rows = [row(0, 5), row(1, 92), row(2, 130)]
    vendor = Vendor(rows, longest_ns=10 * SECOND_NS)
    source = make_windowed(vendor, max_window=seconds(10), delay=seconds(2), timestamp_field=None)
    reader = WindowReader(source, vendor, after_noon(100))
    reader.read()
    assert reader.seconds() == [(88, 98)]
    reader.crash()
    reader.clock.move(60 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows[1:])
    assert reader.seconds()[1] == (98, 108)


def test_windows_that_are_configured_later_pass_over_nothing() -> None:
    """T57 a source that was read without them goes on from where it stands."""
    rows = [row(number, 7 * number) for number in range(10)]
    vendor = Vendor(rows[:3])
    source = make_windowed(vendor, time_filter_end_param=None)
    reader = WindowReader(source, vendor, after_noon(15))
    reader.read()
    reader.source = make_windowed(vendor, max_window=seconds(10), delay=seconds(1))
    reader.crash()
    vendor.rows += rows[3:]
    vendor.longest_ns = 10 * SECOND_NS
    reader.clock.move(60 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows)


# -------------------------------------------------------------------- clocks


@pytest.mark.parametrize("form", FORMATS)
def test_a_clock_that_goes_backwards_asks_for_nothing_until_it_is_back(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T54 and says so once; what comes meanwhile is read then."""
    vendor = Vendor([row(0, 1)], form=form)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=timedelta(days=2))
    reader = WindowReader(source, vendor, after_noon(10 * DAY_NS // SECOND_NS))
    reader.read()
    asked = len(vendor.spans)
    reader.clock.move(-9 * DAY_NS)
    vendor.rows.append(row(1, 10 * 86_400 + 7))
    for _ in range(3):
        assert not reader.scanner.begin(reader.clock.now_ns)
    assert len(vendor.spans) == asked
    assert [r.message for r in caplog.records] == [
        "the position is later than this machine's clock; waiting for it"
    ]
    reader.clock.move(11 * DAY_NS)
    reader.read()
    assert reader.ids == ["e0", "e1"]


@pytest.mark.parametrize("form", ["rfc3339", "unix", COMPACT])
def test_a_span_without_length_is_not_asked_for(form: str) -> None:
    """T54 many vendors refuse it; as soon as time has passed, the same events come."""
    vendor = Vendor([row(0, 10), row(1, 10)], form=form)
    source = make_windowed(vendor, start_time=NOON_NS)
    reader = WindowReader(source, vendor, after_noon(10))
    reader.read()
    assert not reader.scanner.begin(reader.clock.now_ns)
    vendor.rows.append(row(2, 10))
    reader.clock.move(SECOND_NS)
    reader.read()
    assert reader.seconds() == [(0, 10), (10, 11)]
    assert reader.ids == ids(vendor.rows)


def test_an_event_of_the_future_takes_no_window_with_it() -> None:
    """T51 nor one that shows a later instant than the vendor filters by."""
    rows = [
        replace(row(0, 1), shown=FUTURE),
        replace(row(1, 2), shown=format_rfc3339(after_noon(45))),
        row(2, 15),
        row(3, 40),
    ]
    vendor = Vendor(rows, longest_ns=10 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(10))
    reader = WindowReader(source, vendor, after_noon(50))
    reader.read()
    assert reader.ids == ids(rows)


# ----------------------------------------------------------------------- age


def gaps(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    records = [vars(r) for r in caplog.records if r.message.startswith(GAP)]
    return [(r["source"], r["position"], r["asked_from"]) for r in records]


@pytest.mark.parametrize("form", ["rfc3339", "unix", "date"])
def test_a_source_without_position_begins_as_far_back_as_the_vendor_keeps(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T58 rounded to what is not older; nothing is left out that was ever promised."""
    rows = [row(number, 43_200 * number) for number in range(20)]
    keeps_ns = 4 * DAY_NS
    vendor = Vendor(rows, form=form, keeps_ns=keeps_ns)
    source = make_windowed(vendor, max_age=timedelta(days=4), max_window=timedelta(days=1))
    reader = WindowReader(source, vendor, after_noon(9.25 * 86_400 + 0.5))
    reader.read()
    first_ns = vendor.spans[0][0]
    assert first_ns is not None
    assert first_ns >= vendor.clock_ns - keeps_ns
    expected = [r for r in rows if first_ns <= r.at_ns <= vendor.clock_ns]
    assert reader.ids == ids(expected)
    assert gaps(caplog) == []


def test_a_position_that_is_too_old_is_left_behind_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T58 no refusal for ever; the log tells from when to when events are missing."""
    vendor = Vendor([row(0, 1), row(1, 400), row(2, 960)], keeps_ns=100 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_age=seconds(100), max_window=seconds(30))
    reader = WindowReader(source, vendor, after_noon(50))
    reader.read()
    reader.crash()
    reader.clock.move(950 * SECOND_NS)
    for _ in range(3):
        # The vendor is away, the scan begins anew.
        reader.scanner.begin(reader.clock.now_ns)
        reader.scanner.position.scan = None
    reader.read()
    assert reader.ids == ["e0", "e2"]
    assert gaps(caplog) == [("vendor", "2025-01-01T12:00:30Z", "2025-01-01T12:15:00Z")]


def test_a_lookback_beyond_what_the_vendor_keeps_leaves_nothing_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T58 it is cut short, which is not worth a warning."""
    vendor = Vendor([row(0, 1), row(1, 480)], keeps_ns=100 * SECOND_NS)
    source = make_windowed(
        vendor, start_time=after_noon(420), max_age=seconds(100), lookback=seconds(300)
    )
    reader = WindowReader(source, vendor, after_noon(500))
    for _ in range(9):
        reader.read()
        reader.clock.move(20 * SECOND_NS)
    assert reader.ids == ["e1"]
    assert gaps(caplog) == []


@pytest.mark.parametrize("seen", [[], [row(0, 1)]], ids=["nothing ever", "one"])
@pytest.mark.parametrize("has_end", [False, True])
def test_a_source_where_nothing_happens_has_no_gap(
    has_end: bool, seen: list[Row], caplog: pytest.LogCaptureFixture
) -> None:
    """T58 T59 it was asked all the time; neither is its state written at each poll."""
    vendor = Vendor([*seen], keeps_ns=100 * SECOND_NS)
    source = make_windowed(
        vendor,
        start_time=NOON_NS,
        max_age=seconds(100),
        time_filter_end_param="until" if has_end else None,
    )
    reader = WindowReader(source, vendor, after_noon(10))
    states = []
    for _ in range(100):
        reader.read()
        states.append(reader.dump())
        reader.crash()
        reader.clock.move(10 * SECOND_NS)
    changes = sum(before != after for before, after in pairwise(states))
    assert gaps(caplog) == []
    assert 10 <= changes <= 50
    vendor.rows.append(row(1, 1005))
    reader.clock.move(10 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(vendor.rows)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("paging", PAGINGS[:-1])
def test_an_unfinished_scan_is_not_gone_on_with_when_it_is_too_old(
    paging: str, newest_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """T58 after a long pause; in ascending order what was read of it is no gap."""
    rows = [row(number, 5 + number) for number in range(8)]
    vendor = Vendor(rows, paging=paging, newest_first=newest_first, keeps_ns=100 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_age=seconds(100))
    reader = WindowReader(source, vendor, after_noon(50))
    reader.scanner.begin(reader.clock.now_ns)
    reader.read_page()
    reader.read_page()
    reader.crash()
    reader.bounds = None
    reader.clock.move(60 * SECOND_NS)
    reader.read()
    assert vendor.spans[-1][0] == after_noon(10)
    read = rows[4:] if newest_first else [*rows[:4], *rows[5:]]
    assert sorted(reader.ids) == ids(read)
    read_to_ns = NOON_NS if newest_first else rows[3].at_ns
    assert gaps(caplog) == [("vendor", format_rfc3339(read_to_ns), "2025-01-01T12:00:10Z")]


def test_a_cursor_that_is_sent_alone_is_never_too_old(caplog: pytest.LogCaptureFixture) -> None:
    """T58 T17 the vendor counts from it, not from the bound that the scan began with."""

    class Bookmarks(Vendor):
        """Gives a cursor on each page, and takes it without a bound."""

        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            pairs = dict(parse_qsl(urlsplit(url).query))
            assert ("cursor" in pairs) != ("since" in pairs)
            if "since" in pairs:
                rows = self._rows(parse_timestamp(pairs["since"]), None)
                start = len(self.rows) - len(rows)
            else:
                start = int(pairs["cursor"])
            page = self.rows[start : start + self.size]
            events = [{"id": r.id, "ts": r.shown} for r in page]
            return json.dumps({"events": events, "next": str(start + len(page))}).encode(), {}

    rows = [row(number, 5 + number) for number in range(8)]
    vendor = Bookmarks(rows, paging="cursor", keeps_ns=100 * SECOND_NS)
    source = make_windowed(
        vendor, start_time=NOON_NS, max_age=seconds(100), time_filter_end_param=None
    )
    assert source.pagination is not None
    source = replace(source, pagination=replace(source.pagination, persist_cursor=True))
    reader = WindowReader(source, vendor, after_noon(50))
    reader.scanner.begin(reader.clock.now_ns)
    reader.read_page()
    reader.read_page()
    reader.crash()
    reader.clock.move(60 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows)
    assert gaps(caplog) == []


@pytest.mark.parametrize("paging", ["offset", "cursor"])
def test_a_scan_that_has_grown_too_old_is_given_up_when_it_is_refused(paging: str) -> None:
    """T58 the vendor was away for long; the process was not."""
    rows = [row(number, 40 + number) for number in range(8)]
    vendor = Vendor(rows, paging=paging, keeps_ns=100 * SECOND_NS)
    source = make_windowed(vendor, start_time=after_noon(40), max_age=seconds(100))
    reader = WindowReader(source, vendor, after_noon(50))
    reader.scanner.begin(reader.clock.now_ns)
    reader.read_page()
    if paging == "offset":
        assert not reader.scanner.take_refusal(reader.clock.now_ns)
    reader.clock.move(93 * SECOND_NS)
    with pytest.raises(RefusedError):
        reader.read_page()
    assert reader.scanner.take_refusal(reader.clock.now_ns)
    assert not reader.scanner.in_scan
    reader.bounds = None
    reader.read()
    assert reader.ids == ids([*rows[:2], *rows[3:]])


def test_max_pages_does_not_make_a_scan_too_old() -> None:
    """T58 a first scan begins at the edge of what is kept, and would start over at each poll."""
    rows = [row(number, 10 + number) for number in range(30)]
    vendor = Vendor(rows, paging="cursor", newest_first=True)
    source = make_windowed(vendor, max_age=seconds(100), max_pages=1)
    reader = WindowReader(source, vendor, after_noon(105))
    for _ in range(20):
        reader.scanner.begin(reader.clock.now_ns)
        reader.read_page()
        reader.clock.move(SECOND_NS)
    assert sorted(reader.ids) == sorted(ids(rows))


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("max_age", [None, 100])
@pytest.mark.parametrize("max_window", [None, 20])
@pytest.mark.parametrize("paging", ["offset", "page"])
def test_offsets_that_are_refused_are_gone_around_by_time(
    paging: str, max_window: int | None, max_age: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """T28 oldest first: the next request asks from the last timestamp on; none is skipped."""
    rows = [row(number, number // 3) for number in range(90)]
    vendor = Vendor(rows, paging=paging, size=4, most_rows=24)
    source = make_windowed(
        vendor,
        start_time=NOON_NS,
        max_window=None if max_window is None else seconds(max_window),
        max_age=None if max_age is None else seconds(max_age),
    )
    reader = WindowReader(source, vendor, after_noon(60))
    refusals = read_around_refusals(reader)
    assert reader.ids == ids(rows)
    assert refusals <= 6
    assert len(vendor.spans) < 60
    assert len([r for r in caplog.records if "refuses to page on" in r.message]) == 1


def read_around_refusals(reader: WindowReader) -> int:
    """Read as the source does; gives the number of refusals that were taken."""
    refusals = 0
    while reader.scanner.begin(reader.clock.now_ns):
        while reader.scanner.in_scan:
            try:
                reader.read_page()
            except RefusedError:
                assert reader.scanner.take_end_of_offsets()
                reader.bounds = None
                refusals += 1
        if not reader.scanner.is_behind:
            break
    return refusals


@pytest.mark.parametrize(
    ("newest_first", "step"), [(True, 1), (False, 0)], ids=["newest first", "all at one instant"]
)
def test_offsets_that_cannot_be_gone_around_are_an_error_and_lose_nothing(
    newest_first: bool, step: int
) -> None:
    """T28 the same request is sent again until someone helps."""
    rows = [row(number, 1 + step * number) for number in range(12)]
    vendor = Vendor(rows, newest_first=newest_first, most_rows=6)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(20))
    reader = WindowReader(source, vendor, after_noon(60))
    reader.scanner.begin(reader.clock.now_ns)
    for _ in range(3):
        reader.read_page()
    for _ in range(3):
        before = reader.dump()
        with pytest.raises(RefusedError):
            reader.read_page()
        assert not reader.scanner.take_end_of_offsets()
        assert not reader.scanner.take_refusal(reader.clock.now_ns)
        assert reader.dump() == before
    vendor.most_rows = None
    reader.crash()
    reader.read()
    assert sorted(reader.ids) == sorted(ids(rows))


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("refused_after", range(1, 4))
def test_a_cursor_refused_in_the_middle_of_a_window_loses_nothing(
    refused_after: int, newest_first: bool
) -> None:
    """T18 its window is read from where it is certain that all before was."""
    rows = [row(number, number) for number in range(9)]
    vendor = Vendor(rows, paging="cursor", newest_first=newest_first, longest_ns=20 * SECOND_NS)
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(20))
    reader = WindowReader(source, vendor, after_noon(60))
    reader.scanner.begin(reader.clock.now_ns)
    for _ in range(refused_after):
        reader.read_page()
    assert reader.scanner.take_refusal(reader.clock.now_ns)
    assert reader.scanner.position.swept_ns is None
    reader.bounds = None
    reader.read()
    assert sorted(reader.ids) == ids(rows)


@pytest.mark.parametrize("persist", [None, True])
def test_a_cursor_does_not_outlive_the_bound_it_came_with(persist: bool | None) -> None:
    """T10 it leads to the end of the span, where nothing will ever come."""

    class Endless(Vendor):
        """Gives a cursor to go on with on the last page, too."""

        def answer(self, url: str) -> tuple[bytes, dict[str, str]]:
            pairs = dict(parse_qsl(urlsplit(url).query))
            if "cursor" in pairs:
                until_ns = int(pairs["cursor"])
                rows = []
            else:
                since_ns, until_ns = (parse_timestamp(pairs[name]) or 0 for name in SPAN)
                rows = self._rows(since_ns, until_ns)
            events = [{"id": r.id, "ts": r.shown} for r in rows]
            return json.dumps({"events": events, "next": str(until_ns)}).encode(), {}

    rows = [row(number, 7 * number) for number in range(9)]
    vendor = Endless(rows, paging="cursor")
    source = make_windowed(vendor, start_time=NOON_NS, max_window=seconds(10))
    assert source.pagination is not None
    source = replace(source, pagination=replace(source.pagination, persist_cursor=persist))
    reader = WindowReader(source, vendor, after_noon(30))
    reader.read()
    reader.clock.move(30 * SECOND_NS)
    reader.read()
    assert reader.ids == ids(rows)


def test_a_busy_vendor_does_not_end_a_window_before_its_end() -> None:
    """T26 its events show when they were stored, which is after the poll began."""
    rows = [
        replace(row(number, 0.5 * number), shown=format_rfc3339(after_noon(20 + 0.5 * number)))
        for number in range(18)
    ]
    vendor = Vendor(rows, paging="cursor")
    source = make_windowed(vendor, start_time=NOON_NS, delay=seconds(10))
    reader = WindowReader(source, vendor, after_noon(19.9))
    reader.clock.move(0)
    reader.scanner.begin(reader.clock.now_ns)
    reader.clock.move(20 * SECOND_NS)
    while not reader.read_page():
        pass
    assert reader.ids == ids(rows)
