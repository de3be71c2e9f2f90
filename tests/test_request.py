"""From a place in a listing to the request that asks for it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from flicker.decode import DecodeOptions, PageDecoder
from flicker.pagination import Place, next_place
from flicker.request import Bounds, PageRequest, page_request, put_at
from flicker.settings import Destination, Endpoint, Pagination, Secret, Source

URL = "https://api.example.com/logs"
BOUNDS = Bounds("1735732800", "1735736400")
CURSOR = Pagination(
    "cursor",
    page_size=4,
    limit_param="page.limit",
    cursor_param="page.after",
    next_cursor_field="next",
)
LINK = Pagination("next_url", page_size=4, limit_param="limit", next_url_field="next")


def source_of(**more: Any) -> Source:
    facts: dict[str, Any] = {
        "name": "s",
        "endpoint": Endpoint(URL),
        "destination": Destination(Endpoint("https://siem.example")),
        "method": "POST",
        "location": "body",
        "time_filter_param": "filter.since",
        "time_filter_format": "unix",
    }
    return Source(**{**facts, **more})


def body_of(request: PageRequest) -> Any:
    assert request.body is not None
    return json.loads(request.body)


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ({}, "a", {"a": 7}),
        ({}, "a.b.c", {"a": {"b": {"c": 7}}}),
        ({"a": {"x": 1}}, "a.b", {"a": {"x": 1, "b": 7}}),
        ({"a.b": None}, "a.b", {"a.b": 7}),
        ({"a.b": {}}, "a.b.c", {"a.b": {"c": 7}}),
        ({"a": {"b.c": None}}, "a.b.c", {"a": {"b.c": 7}}),
        ({"a.b": {}, "a": {}}, "a.b.c", {"a.b": {"c": 7}, "a": {}}),
        ({"a": None}, "a.b", {"a": {"b": 7}}),
        ({"a": [{"x": 1}, {"x": 2}]}, "a.1.b", {"a": [{"x": 1}, {"x": 2, "b": 7}]}),
        ({"a": [0, None]}, "a.1", {"a": [0, 7]}),
    ],
)
def test_puts_a_value_at_its_path(body: dict[str, Any], path: str, expected: object) -> None:
    put_at(body, path, 7)
    assert body == expected


def test_a_body_has_numbers_where_the_vendor_has_numbers() -> None:
    source = source_of(
        body=Secret('{"sort": "asc"}'),
        time_filter_end_param="filter.until",
        pagination=CURSOR,
    )
    request = page_request(source, Place("cursor", "x"), BOUNDS)
    assert request.method == "POST"
    assert request.url == URL
    assert request.headers == {"Content-Type": "application/json"}
    assert body_of(request) == {
        "sort": "asc",
        "filter": {"since": 1735732800, "until": 1735736400},
        "page": {"limit": 4, "after": "x"},
    }


@pytest.mark.parametrize(
    ("form", "accepted"), [("csv", "text/csv"), ("ndjson", "application/x-ndjson"), ("json", "")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_asks_for_the_form_it_reads(form: Any, accepted: str, method: Any) -> None:
    """What is not JSON is often called plain text, so anything else will do."""
    request = page_request(source_of(method=method, response_format=form), Place("top"), BOUNDS)
    first, _, rest = request.headers.get("Accept", "").partition(",")
    assert (first, rest.endswith("*/*;q=0.5")) == (accepted, form != "json")
    assert ("Content-Type" in request.headers) == (method == "POST")


def test_a_body_has_text_for_instants_that_are_text() -> None:
    source = source_of(time_filter_format="rfc3339")
    request = page_request(source, Place("top"), Bounds("2025-01-01T12:00:00Z"))
    assert body_of(request) == {"filter": {"since": "2025-01-01T12:00:00Z"}}


@pytest.mark.parametrize("kind", ["offset", "page"])
def test_offsets_and_pages_are_numbers(kind: Any) -> None:
    pagination = Pagination(kind, offset_param="from", page_param="from")
    request = page_request(source_of(pagination=pagination), Place(kind, 200), Bounds())
    assert body_of(request) == {"from": 200}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("30401068764886351", "30401068764886351"),
        ('"30401068764886351"', "30401068764886351"),
        ("1725646291", "1725646291"),
        ('"a+b/c=%2B|"', "a+b/c=%2B|"),
    ],
)
@pytest.mark.parametrize("location", ["body", "query"])
def test_a_cursor_comes_back_as_it_was_written(location: Any, written: str, sent: str) -> None:
    """T20: beyond 2^53, and never as a float."""
    page = PageDecoder(DecodeOptions(results_field="events", next_cursor_field="next")).decode(
        b'{"events": [], "next": ' + written.encode() + b"}"
    )
    place = next_place(CURSOR, Place("top"), page, {})
    assert place is not None
    request = page_request(source_of(location=location, pagination=CURSOR), place, Bounds())
    if location == "body":
        assert body_of(request)["page"]["after"] == sent
    else:
        assert ("page.after", sent) in parse_qsl(urlsplit(request.url).query)


def test_a_body_of_any_text_can_be_sent() -> None:
    """T46: half a character in the configuration stops no worker."""
    source = source_of(body=Secret('{"q": "\\ud83d \u20ac"}'))
    assert body_of(page_request(source, Place("top"), Bounds())) == {"q": "\ud83d \u20ac"}


def test_a_parameter_may_be_repeated() -> None:
    source = source_of(
        method="GET",
        location="query",
        params=(("actions", Secret("a")), ("actions", Secret("b c"))),
    )
    request = page_request(source, Place("top"), Bounds())
    assert request == PageRequest(f"{URL}?actions=a&actions=b%20c")
    assert request.body is None
    assert request.headers == {}


def test_both_bounds_may_have_one_name() -> None:
    source = source_of(
        method="GET",
        location="query",
        time_filter_param="created",
        time_filter_end_param="created",
    )
    request = page_request(source, Place("top"), BOUNDS)
    assert request.url == f"{URL}?created=1735732800&created=1735736400"


def test_both_bounds_may_stand_in_one_expression() -> None:
    source = source_of(time_filter_template="[{since} TO {until}]", time_filter_param="query")
    request = page_request(source, Place("top"), BOUNDS)
    assert body_of(request) == {"query": "[1735732800 TO 1735736400]"}


def test_static_parameters_of_a_post_stay_in_its_query() -> None:
    source = source_of(params=(("tenant", Secret("t")),), pagination=CURSOR)
    assert page_request(source, Place("top"), Bounds()).url == f"{URL}?tenant=t"


def test_a_post_may_have_its_paging_in_the_query() -> None:
    source = source_of(location="query", body=Secret('{"sort": "asc"}'), pagination=CURSOR)
    request = page_request(source, Place("cursor", "x"), BOUNDS)
    assert body_of(request) == {"sort": "asc"}
    assert request.url == f"{URL}?filter.since=1735732800&page.limit=4&page.after=x"


def test_a_link_of_the_api_gets_the_same_body_and_no_query() -> None:
    """T25: nothing is added to the URL; what the first POST asked for, the next ones do too."""
    following = f"{URL}?token=a%2Fb"
    source = source_of(pagination=LINK, params=(("tenant", Secret("t")),))
    request = page_request(source, Place("url", following), BOUNDS)
    assert request.url == following
    assert body_of(request) == {"filter": {"since": 1735732800}, "limit": 4}
    plain = source_of(method="GET", location="query", pagination=LINK)
    assert page_request(plain, Place("url", following), BOUNDS) == PageRequest(following)


def test_a_request_shows_neither_url_nor_body() -> None:
    request = page_request(source_of(body=Secret('{"token": "s3cret"}')), Place("top"), BOUNDS)
    assert "s3cret" not in repr(request)
    assert URL not in repr(request)
