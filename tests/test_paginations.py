"""Each way of paging through a vendor's list, driven by the scanner's own partition."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from flicker.demo.servers import Response
from flicker.settings import Pagination
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi
from tests.test_source import SINCE, Drive, events, source_of

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
