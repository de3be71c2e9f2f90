"""Places, links and queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from flicker.decode import Page
from flicker.errors import ForeignLinkError
from flicker.pagination import (
    Place,
    add_query,
    first_place,
    next_place,
    page_params,
    parse_links,
    resolve_link,
)
from flicker.settings import Pagination

BASE = "https://api.example.com/v1/events?limit=2"
CURSOR = Pagination("cursor", cursor_param="after", next_cursor_field="Next")


def page(entries: int = 2, cursor: str | None = None, *, has_field: bool = False) -> Page:
    return Page([], entries, cursor, has_field, b"")


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        (['<https://a/s>; rel="self"', '<https://a/n>; rel="next"'], "https://a/n"),
        (['<https://a/s>; rel="self", <https://a/n>; rel="next"'], "https://a/n"),
        (['<https://a/n>; rel="next",<https://a/p>; rel="prev"'], "https://a/n"),
        (['<https://a/n?f=1,2&q=a;b>; rel="next"'], "https://a/n?f=1,2&q=a;b"),
        (["<https://a/n>;rel=next"], "https://a/n"),
        (['<https://a/n>; rel="last next prev"'], "https://a/n"),
        (['<https://a/n>; REL="Next"'], "https://a/n"),
        (['<https://a/n>; title="x, <y>; rel=next"; type=a/b ; rel = next'], "https://a/n"),
        (['<https://a/x>; title="a \\" b", <https://a/n>; rel="next"'], "https://a/n"),
        (["</v1?after=1>; rel=next"], "/v1?after=1"),
        ([', ,<https://a/n>; rel="next",'], "https://a/n"),
        (['nonsense, <https://a/n>; rel="next"'], "https://a/n"),
        (["<https://a/n%2Bx>; rel=next"], "https://a/n%2Bx"),
        (["<https://a/1>; rel=next", "<https://a/2>; rel=next"], "https://a/1"),
        (['<https://a/s>; rel="self"'], None),
        (['<https://a/n>; rel="nextish prenext"'], None),
        (['<https://a/n>; title="rel=next"'], None),
        (["<https://a/n"], None),
        ([""], None),
        ([], None),
    ],
)
def test_reads_the_next_link(lines: list[str], target: str | None) -> None:
    """T22 every form that RFC 8288 allows, and some that it does not."""
    assert parse_links(lines).get("next") == target


@given(st.text(alphabet='<>;,="\\ ren xt', max_size=60))
def test_no_header_line_is_too_much(text: str) -> None:
    """T22 whatever stands in it, a proper link behind it on the next line is found."""
    assert "last" in parse_links([text, "<https://a/>; rel=last"])


@pytest.mark.parametrize("text", ["<" * 60_000, " " * 60_000, "<a>" + " ;" * 30_000, "<a>;" * 9999])
@pytest.mark.timeout(20)
def test_hostile_header_lines_take_no_time(text: str) -> None:
    """T22 linear in the line's length."""
    assert "next" not in parse_links([text])


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/v1/events?after=1", "https://api.example.com/v1/events?after=1"),
        ("?after=1", "https://api.example.com/v1/events?after=1"),
        ("//api.example.com/x", "https://api.example.com/x"),
        ("https://API.example.com:443/x?q=%2B%3d,", "https://API.example.com:443/x?q=%2B%3d,"),
        (" https://api.example.com/x?u=me@there ", "https://api.example.com/x?u=me@there"),
    ],
)
def test_a_link_of_the_origin_is_kept_as_it_is(target: str, url: str) -> None:
    """T19 T24 T25 relative or absolute, nothing decoded, encoded or added."""
    assert resolve_link(BASE, target) == url


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.net/",
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com.evil.net/",
        "https://user:pw@api.example.com/",
        "https://api.example.com@evil.net/",
        "https://evil.net\\@api.example.com/",
        "https://api.example.com\\@evil.net/",
        "https:\\\\evil.net/",
        "//evil.net/v1",
        "https://93.184.216.34/",
        "https://api.example.com:99999/",
        "https://[::1/",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_a_link_off_the_origin_is_refused(target: str) -> None:
    """T24 credentials go nowhere else, and the message does not repeat the link."""
    try:
        url = resolve_link(BASE, target)
    except ForeignLinkError as error:
        assert "pw" not in str(error)  # noqa: PT017 - the other outcome is fine as well
    else:
        assert parse_url(url).host == "api.example.com"
        assert url.startswith("https://api.example.com/")


@given(st.text(alphabet="abc/:@\\?#.[]%\t\n net", max_size=30))
def test_whoever_reads_the_link_reads_the_same_host(tail: str) -> None:
    """T24 the library that connects must not see another host than the check saw."""
    for target in (tail, "https://" + tail, "https://api.example.com" + tail, "//" + tail):
        try:
            url = resolve_link(BASE, target)
        except ForeignLinkError:
            continue
        assert (parse_url(url).host or "").rstrip(".") == "api.example.com"


@pytest.mark.parametrize(
    ("pagination", "place", "read", "following"),
    [
        (None, Place("top"), page(9), None),
        (Pagination("offset"), Place("offset", 200), page(130), Place("offset", 330)),
        (Pagination("page"), Place("page", 3), page(1), Place("page", 4)),
        (CURSOR, Place("top"), page(cursor="a b", has_field=True), Place("cursor", "a b")),
        (CURSOR, Place("top"), page(has_field=True), None),
        (CURSOR, Place("top"), page(), Place("url", "https://a/n")),
        (CURSOR, Place("cursor", "x"), page(0, "y", has_field=True), Place("cursor", "y")),
    ],
)
def test_the_place_behind_a_page(
    pagination: Pagination | None, place: Place, read: Page, following: Place | None
) -> None:
    """T13 T17 offsets move by what came; a null cursor in the body outranks a link."""
    assert next_place(pagination, place, read, {"next": "https://a/n"}) == following


def test_the_queries_of_the_specification() -> None:
    """T27 as its example calls show them."""
    offset = Pagination("offset", limit_param="limit", offset_param="offset")
    assert page_params(offset, first_place(offset)) == [("limit", 100), ("offset", 0)]
    paged = Pagination("page", limit_param="per_page", page_param="page", start_page=0)
    assert page_params(paged, first_place(paged)) == [("per_page", 100), ("page", 0)]
    assert page_params(CURSOR, first_place(CURSOR)) == []
    assert page_params(CURSOR, Place("cursor", "c")) == [("after", "c")]


def test_a_query_is_added_and_encoded_once() -> None:
    """T19 T56 the endpoint's own stays as written; a plus sign must not become a space."""
    query = [("since", "2025-01-01T12:00:00+00:00"), ("c", "%2B=/|&é")]
    assert add_query("https://a/p?own=x%2By#f", query) == (
        "https://a/p?own=x%2By&since=2025-01-01T12:00:00%2B00:00&c=%252B%3D%2F%7C%26%C3%A9"
    )
    assert add_query("https://a/p", []) == "https://a/p"
