"""Values that are wrong only together."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.config.files import CURSOR, OFFSET, PAGE, entry, one, only, read, shipping, source

if TYPE_CHECKING:
    from pathlib import Path

BASIC = {"username": "u", "password": "p"}


def test_two_sources_of_one_name_are_refused() -> None:
    """T66: positions are kept by name."""
    file = one()
    file["api_sources"].append(entry(endpoint="https://other.example"))
    path, message = only(file)
    assert path == "api_sources[1].name"
    assert "api_sources[0]" in message


def test_two_names_for_one_endpoint_are_two_sources() -> None:
    """T66: what is polled twice under two names has two positions."""
    file = one()
    file["api_sources"].append(entry(name="b"))
    assert [item.name for item in read(file).sources] == ["a", "b"]


def test_a_source_needs_a_destination() -> None:
    path, message = only({"api_sources": [entry()]})
    assert path == "api_sources[0].destination"
    assert "is required and missing" in message


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"basic": BASIC, "headers": {"authorization": "x"}}, "headers.authorization"),
        ({"api_key": "k", "headers": {"x-api-key": "x"}}, "headers.x-api-key"),
        ({"api_key": "k", "headers": {"Authorization": "x"}}, None),
        ({"api_key": "k", "basic": BASIC}, None),
        (
            {"api_key": "k", "basic": BASIC, "headers": {"AUTHORIZATION": "x"}},
            "headers.AUTHORIZATION",
        ),
        ({"api_key": "k", "basic": BASIC, "headers": {"X-API-KEY": "x"}}, "headers.X-API-KEY"),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "headers.x-a"),
        ({"start_time": "1h"}, "start_time"),
        ({"time_filter_template": "x:>{since}"}, "time_filter_template"),
        ({"max_pages": 1, "pagination": {**PAGE, "max_pages": 1}}, "pagination.max_pages"),
        ({"tls": {}, "endpoint": "http://h"}, None),
        ({"tls": {"accept_invalid_certs": True}, "endpoint": "http://h"}, "tls"),
        ({"params": {"skip": 1}, "pagination": OFFSET}, "params.skip"),
        ({"params": {"limit": 1}, "pagination": OFFSET}, "params.limit"),
        ({"params": {"cursor": 1}, "pagination": CURSOR}, "params.cursor"),
        ({"params": {"page": 1}, "pagination": PAGE}, "params.page"),
        ({"params": {"since": 1}, "time_filter_param": "since"}, "params.since"),
        ({"endpoint": "https://h?skip=1", "pagination": OFFSET}, "endpoint"),
        ({"endpoint": "https://h?limit", "pagination": OFFSET}, "endpoint"),
        ({"endpoint": "https://h?cur%73or=", "pagination": CURSOR}, "endpoint"),
        ({"endpoint": "https://h?a=b&page=1", "pagination": PAGE}, "endpoint"),
        ({"endpoint": "https://h?since=1", "time_filter_param": "since"}, "endpoint"),
        (
            {"time_filter_param": "limit", "pagination": OFFSET},
            "pagination.limit_param",
        ),
    ],
)
def test_in_a_source(keys: dict[str, Any], path: str | None) -> None:
    if path is None:
        assert read(one(**keys))
    else:
        assert only(one(**keys))[0] == f"api_sources[0].{path}"


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text("x", encoding="ascii")
    path, message = only(shipping(tls={"key_path": str(pem)}))
    assert path == "api_sources[0].destination.tls.key_path"
    assert "cert_path" in message


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"api_key": "k", "basic": BASIC}, ("api_key", "basic")),
        ({"api_key": "k", "auth": {"type": "bearer", "token": "t"}}, ("api_key", "auth")),
        ({"basic": BASIC, "auth": {"type": "basic", **BASIC}}, ("basic", "auth")),
        (
            {"basic": BASIC, "auth": {"type": "header", "name": "authorization", "value": "v"}},
            ("basic", "auth"),
        ),
    ],
)
def test_two_ways_of_authentication_in_one_header_are_both_named(
    keys: dict[str, Any], names: tuple[str, str]
) -> None:
    path, message = only(shipping(**keys))
    assert path == "api_sources[0].destination"
    assert all(f"`{name}`" in message for name in names)
    assert "header Authorization" in message


@pytest.mark.parametrize(
    "keys",
    [
        {"api_key": "k", "headers": {"Authorization": "x"}},
        {
            "auth": {"type": "header", "name": "Authorization", "value": "v"},
            "headers": {"authorization": "x"},
        },
    ],
)
def test_a_header_of_a_destination_is_not_sent_twice(keys: dict[str, Any]) -> None:
    path, _ = only(shipping(**keys))
    assert path.startswith("api_sources[0].destination.headers.")


def test_a_time_filter_needs_no_timestamp_field() -> None:
    assert source(time_filter_param="since", start_time="1h").start_time == timedelta(hours=1)


SPAN = {"time_filter_param": "since", "time_filter_end_param": "until"}
DAY = 86_400_000


@pytest.mark.parametrize(
    ("keys", "key", "wanted"),
    [
        ({"time_filter_end_param": "until"}, "time_filter_end_param", "`time_filter_param`"),
        ({"max_window_ms": 1000}, "max_window_ms", "`time_filter_param`"),
        ({"max_age_ms": 1000}, "max_age_ms", "`time_filter_param`"),
        ({"lookback_ms": 1000}, "lookback_ms", "`time_filter_param`"),
        (
            {**SPAN, "pagination": {**CURSOR, "persist_cursor": True}},
            "pagination.persist_cursor",
            "leads up to that and no further",
        ),
        (
            {"time_filter_param": "since", "max_window_ms": 1000},
            "max_window_ms",
            "`time_filter_end_param`",
        ),
        ({"time_filter_param": "since", "delay_ms": 1}, "delay_ms", "`time_filter_end_param`"),
        (
            {"time_filter_param": "q", "time_filter_template": "at:>{since}", "delay_ms": 1},
            "delay_ms",
            "`{until}`",
        ),
        ({**SPAN, "max_window_ms": 1000, "lookback_ms": 1000}, "max_window_ms", "write 1001 or"),
        (
            {**SPAN, "max_window_ms": 999, "time_filter_format": "unix"},
            "max_window_ms",
            "write 1000 or",
        ),
        # Both bounds are rounded down: 2.5 s are 2 s, and a lookback of 1.5 s is 2 s.
        (
            {**SPAN, "max_window_ms": 2500, "lookback_ms": 1500, "time_filter_format": "unix"},
            "max_window_ms",
            "write 3000 or",
        ),
        (
            {
                **SPAN,
                "max_window_ms": DAY * 3 // 2,
                "lookback_ms": DAY // 2,
                "time_filter_format": "date",
            },
            "max_window_ms",
            f"write {2 * DAY} or",
        ),
        (
            {
                **SPAN,
                "max_window_ms": 3_599_999,
                "time_filter_format": "strftime:%Y-%m-%dT%H",
            },
            "max_window_ms",
            "write 3600000 or",
        ),
        ({**SPAN, "max_age_ms": 1000, "delay_ms": 1000}, "max_age_ms", "write 1001 or"),
        (
            {**SPAN, "max_age_ms": DAY - 1, "time_filter_format": "date"},
            "max_age_ms",
            f"write {DAY} or",
        ),
    ],
)
def test_a_window_that_leads_nowhere_is_refused(
    keys: dict[str, Any], key: str, wanted: str
) -> None:
    """T59: it would be asked for again and again, and nothing behind it ever."""
    path, message = only(one(**keys))
    assert path == f"api_sources[0].{key}"
    assert wanted in message


@pytest.mark.parametrize(
    "keys",
    [
        {**SPAN, "max_window_ms": 1001, "lookback_ms": 1000, "max_age_ms": 1001, "delay_ms": 1000},
        {**SPAN, "max_window_ms": 3000, "lookback_ms": 1500, "time_filter_format": "unix"},
        {**SPAN, "max_window_ms": DAY, "max_age_ms": DAY, "time_filter_format": "date"},
        {"time_filter_param": "since", "max_age_ms": DAY, "delay_ms": 0},
        {
            "time_filter_param": "q",
            "time_filter_template": "{since}..{until}",
            "max_window_ms": 1000,
            "delay_ms": 1000,
        },
        {"time_filter_param": "at", "time_filter_end_param": "at", "max_window_ms": 1000},
    ],
)
def test_the_shortest_window_that_gets_on_is_taken(keys: dict[str, Any]) -> None:
    assert read(one(**keys))


def test_other_mistakes_do_not_hide_behind_a_window() -> None:
    """A format that does not exist is said, and is not counted with."""
    path, _ = only(one(**SPAN, max_window_ms=1, time_filter_format="strftime:%Q"))
    assert path == "api_sources[0].time_filter_format"
