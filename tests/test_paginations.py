"""Each way of paging through a vendor's list, driven by the scanner's own partition."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from flicker.demo.servers import Request, Response
from flicker.settings import Pagination
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi
from tests.test_source import SINCE, Drive, events, said, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Any = {"page_size": 4, "limit_param": "limit"}
WAYS = {
    "link_header": (Style(paging="link", time_param=SINCE), Pagination("link_header", **LIMIT)),
    "next_url": (
        Style(paging="next_url", next_field="meta.@next.url", time_param=SINCE),
        Pagination("next_url", next_url_field="meta.@next.url", **LIMIT),
    ),
    "next_header": (
        Style(paging="next_header", time_param=SINCE),
        Pagination("next_url", next_url_header="NextPageUri", **LIMIT),
    ),
    "last_id": (
        Style(paging="last_id", has_more_field="has_more", order="desc", time_param=SINCE),
        Pagination(
            "cursor",
            cursor_param="cursor",
            cursor_from_last="id",
            has_more_field="has_more",
            **LIMIT,
        ),
    ),
    "has_more": (
        Style(paging="cursor", has_more_field="has_more", never_ends=True, time_param=SINCE),
        Pagination(
            "cursor",
            cursor_param="cursor",
            next_cursor_field="pagination.next_cursor",
            has_more_field="has_more",
            persist_cursor=True,
            **LIMIT,
        ),
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[tuple[ListingApi, Pagination]]:
    style, pagination = WAYS[request.param]
    with ListingApi(events(*range(18)), style) as api:
        yield api, pagination


def test_reads_all_once_and_what_comes_later(way: tuple[ListingApi, Pagination]) -> None:
    """T14, T17, T19: to the end, again from there, and nothing twice."""
    api, pagination = way
    drive = Drive(source_of(api.endpoint, pagination))
    drive.until_scanned()
    assert len(drive.ids) == 18
    api.add(events(18, 19, 20, 21, 22))
    drive.until(lambda: len(drive.ids) == 23)
    drive.until_scanned()
    drive.until_scanned()
    assert sorted(drive.ids) == list(range(23))


def test_goes_on_at_any_page(way: tuple[ListingApi, Pagination]) -> None:
    """T60: a snapshot behind each page leads to the rest, once."""
    api, pagination = way
    source = source_of(api.endpoint, pagination)
    drive = Drive(source)
    drive.until(lambda: len(drive.ids) == 18)
    for number, packed in enumerate(drive.snapshots, 1):
        resumed = Drive(source, resume_state=pickle.loads(packed))
        rest = list(chain.from_iterable(drive.pages[number:]))
        resumed.until(lambda resumed=resumed, rest=rest: len(resumed.ids) >= len(rest))
        resumed.until_scanned()
        assert sorted(resumed.ids) == sorted(rest)


def test_none_asks_once(way: tuple[ListingApi, Pagination]) -> None:
    """One request a poll, whatever the answer leads to."""
    api, _ = way
    source = source_of(api.endpoint, Pagination("none", page_size=7, limit_param="limit"))
    drive = Drive(source)
    drive.until(lambda: len(drive.ids) == 7)
    assert [request.params["limit"] for request in api.requests] == ["7"] * len(api.requests)


def test_no_more_ends_a_poll_though_a_cursor_leads_on() -> None:
    """T15, T27: as 1Password says it; without the flag an empty page would be asked for."""
    style, pagination = WAYS["has_more"]
    with ListingApi(events(*range(8)), style) as api:
        drive = Drive(source_of(api.endpoint, pagination, poll_interval=timedelta(hours=1)))
        drive.until_scanned()
        assert sorted(drive.ids) == list(range(8))
        assert len(api.requests) == 2


@pytest.mark.parametrize("persists", [True, False])
def test_a_token_that_persists_replaces_the_time_filter(persists: bool) -> None:
    """T25: the vendor's cursor knows where it stands; one that goes stale is not kept."""
    style, pagination = WAYS["has_more"]
    with ListingApi(events(*range(6)), style) as api:
        source = source_of(
            api.endpoint,
            replace(pagination, persist_cursor=persists),
            start_time=1_577_836_800_000_000_000,
        )
        drive = Drive(source)
        drive.until(lambda: len(drive.ids) == 6)
        drive.until_scanned()
        assert SINCE in api.requests[0].params
        count = len(api.requests)
        drive.until(lambda: len(api.requests) > count)
        params = api.requests[count].params
        assert ("cursor" in params) == persists
        assert (SINCE in params) == (not persists)


@pytest.mark.parametrize(("stop_on_empty", "expected"), [(True, [0]), (False, [0, 1])])
def test_an_empty_page_that_leads_on(stop_on_empty: bool, expected: list[int]) -> None:
    """T14: the end of the data at one vendor, a gap in it at another."""

    def page(ids: list[int], cursor: str | None) -> Response:
        return Response(200, body={"events": events(*ids), "next": cursor})

    script = [page([0], "a"), page([], "b"), page([1], None)]
    pagination = Pagination(
        "cursor", cursor_param="c", next_cursor_field="next", stop_on_empty=stop_on_empty
    )
    with ScriptedApi(script) as api:
        source = source_of(
            api.url, pagination, time_filter_param=None, poll_interval=timedelta(hours=1)
        )
        drive = Drive(source)
        drive.until_scanned()
        assert drive.ids == expected


def test_the_template_has_the_instant_where_it_says() -> None:
    """T56: GitHub's phrase, Graph's filter."""
    with ListingApi(events(*range(3)), Style(paging="link")) as api:
        source = source_of(
            api.endpoint,
            Pagination("link_header"),
            time_filter_param="phrase",
            time_filter_template="action:x created:>={since}",
            time_filter_format="unix_ms",
            start_time=1_735_732_800_123_000_000,
        )
        drive = Drive(source)
        drive.until(lambda: api.requests)
        assert api.requests[0].params["phrase"] == "action:x created:>=1735732800123"


class Newest:
    """A newest-first listing by cursor, two events a page; all but the first may lead nowhere."""

    def __init__(self, count: int) -> None:
        self.events = events(*range(count))
        self.way_on: dict[str, object] = {}
        self.dead_ends = 0

    def respond(self, request: Request) -> Response:
        since = request.params.get(SINCE, "")
        listed = [event for event in self.events if str(event["timestamp"]) >= since][::-1]
        ids = [str(event["id"]) for event in listed]
        at = ids.index(request.params["c"]) + 1 if "c" in request.params else 0
        page = listed[at : at + 2]
        body: dict[str, object] = {"events": page, "has_more": at + 2 < len(listed)}
        body["next"] = ids[at + 1] if body["has_more"] else None
        if at > 0 and body["has_more"] and self.dead_ends > 0:
            self.dead_ends -= 1
            del body["next"]
            body |= self.way_on
        return Response(body=body)


NEWEST = Pagination("cursor", cursor_param="c", next_cursor_field="next", has_more_field="has_more")


@pytest.mark.parametrize("way_on", [{}, {"next": None}, {"next": ""}])
def test_more_without_a_cursor_is_asked_for_again(
    way_on: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """T27: taken for the end, the older events would be lost."""
    listing = Newest(10)
    listing.way_on, listing.dead_ends = way_on, 2
    with ScriptedApi(listing.respond) as api:
        drive = Drive(source_of(api.url, NEWEST, order="desc"))
        drive.until_scanned()
        assert drive.ids == list(range(10))[::-1]
    (line,) = said(caplog)
    assert 'has_more_field "has_more"' in line.reason
    assert 'next_cursor_field "next"' in line.reason


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_more_that_never_has_a_cursor_hangs_nothing_and_passes_nothing_over(order: Any) -> None:
    """T27: the page is shipped, and what is behind it comes as soon as the API leads there."""
    listing = Newest(10)
    listing.dead_ends = 10**6
    with ScriptedApi(listing.respond) as api:
        drive = Drive(source_of(api.url, NEWEST, order=order))
        drive.until(lambda: drive.ids == [9, 8, 7, 6])
        listing.events += events(10)
        drive.until(lambda: 10 in drive.ids)
        assert drive.state["last_timestamp"] is None
        listing.dead_ends = 0
        drive.until(lambda: len(drive.ids) == 11)
        drive.until_scanned()
        assert sorted(drive.ids) == list(range(11))


def test_where_the_oldest_come_first_more_without_a_cursor_is_asked_for_by_time() -> None:
    """T27: from the newest event on, as often as it takes."""

    def respond(request: Request) -> Response:
        listed = [
            event
            for event in events(*range(10))
            if str(event["timestamp"]) >= request.params.get(SINCE, "")
        ]
        return Response(body={"events": listed[:6], "has_more": True})

    with ScriptedApi(respond) as api:
        drive = Drive(source_of(api.url, NEWEST))
        drive.until(lambda: drive.ids == list(range(10)))


def test_once_fails_where_more_has_no_cursor() -> None:
    """T27: its exit code tells that not all was read."""
    page = Response(body={"events": events(0), "has_more": True})
    with ScriptedApi(lambda _: page) as api:
        drive = Drive(source_of(api.url, NEWEST), once=True)
        drive.until(lambda: drive.is_over)
        assert drive.runtime.failed == {"s"}


def test_events_without_the_cursor_of_the_last_are_no_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is behind them was never asked for, and nothing said so."""
    pagination = Pagination("cursor", cursor_param="after", cursor_from_last="seq")

    def respond(request: Request) -> Response:
        if request.params.get("after") == "s0":
            return Response(body={"events": events(1, 2)})
        return Response(body={"events": [{**events(0)[0], "seq": "s0"}, *events(1, 2)]})

    with ScriptedApi(respond) as api:
        drive = Drive(source_of(api.url, pagination), once=True)
        drive.until(lambda: drive.is_over)
        assert drive.runtime.failed == {"s"}
        assert drive.ids == [0, 1, 2]
        assert 'cursor_from_last "seq"' in said(caplog)[0].reason
    # Who is not in a hurry asks again from the start.
    with ScriptedApi(respond) as api:
        drive = Drive(source_of(api.url, pagination))
        drive.until(lambda: any("goes on" in record.getMessage() for record in said(caplog)))
    # `null` is no event.
    with ScriptedApi([Response(body={"events": [None, None]})]) as api:
        drive = Drive(source_of(api.url, pagination), once=True)
        drive.until(lambda: drive.is_over)
        assert drive.runtime.failed == set()


def test_more_behind_an_empty_page_without_a_cursor_is_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T27: some vendors say that there is more for ever."""
    script = [
        Response(body={"events": events(0), "has_more": True, "next": "a"}),
        Response(body={"events": [], "has_more": True, "next": None}),
    ]
    with ScriptedApi(script) as api:
        drive = Drive(source_of(api.url, NEWEST, poll_interval=timedelta(hours=1)))
        drive.until_scanned()
        assert drive.ids == [0]
    assert said(caplog) == []


@pytest.mark.parametrize(
    ("pagination", "missing"),
    [
        (Pagination("link_header", rel="older", has_more_field="more"), '"older"'),
        (Pagination("next_url", next_url_field="a.b", has_more_field="more"), '"a.b"'),
        (Pagination("next_url", next_url_header="X-Next", has_more_field="more"), '"X-Next"'),
        (
            Pagination("cursor", cursor_param="c", cursor_from_last="x", has_more_field="more"),
            'cursor_from_last "x"',
        ),
    ],
)
def test_more_without_a_way_there_is_said_in_the_words_of_the_configuration(
    pagination: Pagination, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedApi([Response(body={"events": events(0), "more": True})]) as api:
        drive = Drive(source_of(api.url, pagination))
        drive.until(lambda: said(caplog))
    assert missing in said(caplog)[0].reason
