"""One wrong value, one problem, at the path the user typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.config.files import CURSOR, OFFSET, PAGE, one, only, problems, shipping

if TYPE_CHECKING:
    from pathlib import Path

NEXT = {"pagination_type": "next_url"}
NO_HOME = "~no-user-of-this-name"


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"name": ""}, "name", "is empty"),
        ({"name": 7}, "name", "put the value in quotes"),
        ({"name": "a\nb"}, "name", "control character"),
        ({"name": " a"}, "name", "white space"),
        ({"name": "a" * 201}, "name", "at most 200"),
        ({"polling_frequency_ms": 0}, "polling_frequency_ms", "at least 1"),
        ({"polling_frequency_ms": "30000"}, "polling_frequency_ms", "without quotes"),
        ({"polling_frequency_ms": 1.5}, "polling_frequency_ms", "whole number"),
        ({"polling_frequency_ms": 10**30}, "polling_frequency_ms", "at most"),
        ({"buffer_size": True}, "buffer_size", "not true or false"),
        ({"buffer_size": None}, "buffer_size", "is empty"),
        ({"flush_interval_ms": 0}, "flush_interval_ms", "at least 1"),
        ({"timeout_ms": 0}, "timeout_ms", "at least 1"),
        ({"lookback_ms": -1}, "lookback_ms", "at least 0"),
        ({"max_pages": 0}, "max_pages", "at least 1"),
        ({"timestamp_field": ""}, "timestamp_field", "is empty"),
        ({"time_filter_format": "rfc3393"}, "time_filter_format", "Did you mean `rfc3339`?"),
        ({"time_filter_param": " since"}, "time_filter_param", "white space"),
        ({"match_on": ["ok", "a("]}, "match_on[1]", "unterminated subpattern at position 1"),
        ({"exclude_on": "["}, "exclude_on", "unterminated character set at position 0"),
        ({"exclude_on": ""}, "exclude_on", "is empty"),
        ({"match_on": "a{99999999999999999999}"}, "match_on", "too large"),
        ({"api_key": ""}, "api_key", "is empty"),
        ({"api_key": None}, "api_key", "is empty"),
        ({"basic": None}, "basic", "is empty"),
        ({"api_key": "a\nb"}, "api_key", "control character"),
        ({"api_key": "a "}, "api_key", "white space"),
        ({"api_key": "a\u2014b"}, "api_key", "Latin-1"),
        ({"basic": {"username": "u"}}, "basic.password", "is required and missing"),
        ({"basic": {"username": "u:v", "password": ""}}, "basic.username", "colon"),
        ({"basic": {"username": "", "password": ""}}, "basic.username", "empty"),
        ({"basic": {"username": "u", "password": "\n"}}, "basic.password", "line break"),
        ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers.X-A", "control character"),
        ({"headers": {"X-A": None}}, "headers.X-A", "is empty"),
        ({"headers": {"X-A": ["a"]}}, "headers.X-A", "must be text, not a list"),
        ({"headers": {"X-A": True}}, "headers.X-A", "put the value in quotes"),
        ({"headers": {"X:A": "a"}}, "headers.<key at line 1>", "no header name"),
        ({"headers": {"Content-Length": 1}}, "headers.Content-Length", "Flicker itself"),
        ({"headers": ["X-A"]}, "headers", "must be a mapping"),
        ({"params": {"p": {}}}, "params.p", "must be text, not a mapping"),
        ({"params": {"p": None}}, "params.p", "is empty"),
        ({"pagination": "cursor"}, "pagination", "must be a mapping"),
        ({"pagination": {}}, "pagination.pagination_type", "is required and missing"),
        (
            {"pagination": {"pagination_type": "ofset"}},
            "pagination.pagination_type",
            "Did you mean `offset`?",
        ),
        ({"pagination": {**PAGE, "page_size": True}}, "pagination.page_size", "whole number"),
        ({"pagination": {**PAGE, "start_page": -1}}, "pagination.start_page", "at least 0"),
        (
            {"pagination": {**CURSOR, "next_cursor_field": ""}},
            "pagination.next_cursor_field",
            "is empty",
        ),
        (
            {"pagination": {"pagination_type": "offset"}},
            "pagination.offset_param",
            "is required and missing",
        ),
        (
            {"pagination": {**OFFSET, "cursor_param": "c"}},
            "pagination.cursor_param",
            "belongs to pagination_type `cursor`",
        ),
        (
            {"pagination": {**CURSOR, "cursor_from_last": "id"}},
            "pagination",
            "has both `next_cursor_field` and `cursor_from_last`",
        ),
        (
            {"pagination": {"pagination_type": "next_url"}},
            "pagination",
            "either `next_url_field` or `next_url_header`",
        ),
        (
            {"pagination": {**PAGE, "rel": "next"}},
            "pagination.rel",
            "belongs to pagination_type `link_header`",
        ),
        ({"time_filter_format": "strftime:%H"}, "time_filter_format", "does not tell the day"),
        ({"time_filter_format": "unixms"}, "time_filter_format", "Did you mean `unix_ms`?"),
        (
            {"time_filter_param": "q", "time_filter_template": "created:>now"},
            "time_filter_template",
            "has no `{since}`",
        ),
        (
            {"time_filter_param": "q", "time_filter_template": "{sinse} {since}"},
            "time_filter_template",
            "Did you mean `{since}`?",
        ),
        (
            {"initial_lookback_ms": 5},
            "initial_lookback_ms",
            "told by `start_time`, as in `start_time: 24h`, or, where",
        ),
        (
            {"pagination": {**NEXT, "next_url_field": "a", "next_url_header": "b"}},
            "pagination",
            "has both `next_url_field` and `next_url_header`: keep one",
        ),
        (
            {"pagination": NEXT},
            "pagination",
            "needs either `next_url_field` or `next_url_header`",
        ),
        ({"start_time": "soon", "timestamp_field": "t"}, "start_time", "24h"),
        ({"start_time": 1735689600, "timestamp_field": "t"}, "start_time", "instant"),
        ({"polling_frequncy_ms": 1}, "polling_frequncy_ms", "`polling_frequency_ms`"),
        ({"page_size": 1}, "page_size", "belongs in `pagination`"),
        ({"retry": {}}, "retry", "belongs in the top level"),
        ({"zzz": 1}, "zzz", "Known here: api_key, api_key_header"),
        ({"tls": {"ca_cert_path": "/missing.pem"}}, "tls.ca_cert_path", "/missing.pem"),
        ({"tls": {"ca_cert_path": "-----BEGIN X"}}, "tls.ca_cert_path", "not what stands"),
        ({"tls": {"cert_path": f"{NO_HOME}/a.pem"}}, "tls.cert_path", "home directory"),
        ({"destination": None}, "destination", "is empty"),
        ({"destination": {}}, "destination.endpoint", "is required and missing"),
        ({"destination": "https://siem.example"}, "destination", "must be a mapping"),
    ],
)
def test_in_a_source(keys: dict[str, Any], path: str, words: str) -> None:
    found_path, message = only(one(**keys))
    assert found_path == f"api_sources[0].{path}"
    assert words in message


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"type": "https"}, "type", "must be `http`"),
        ({"format": "xml"}, "format", "`json` or `ndjson`"),
        ({"compression": "gzip"}, "compression", "true or false"),
        ({"concurrency": 0}, "concurrency", "at least 1"),
        ({"concurrency": 65}, "concurrency", "at most 64"),
        ({"auth": None}, "auth", "is empty"),
        ({"auth": {"type": "baerer"}}, "auth.type", "Did you mean `bearer`?"),
        ({"auth": {"token": "t"}}, "auth.type", "is required and missing"),
        ({"auth": {"type": "bearer"}}, "auth.token", "is required and missing"),
        (
            {"auth": {"type": "bearer", "token": "t", "username": "u"}},
            "auth.username",
            "belongs to type `basic`",
        ),
        ({"auth": {"type": "bearer", "token": "Bearer t"}}, "auth.token", "leave it out"),
        ({"auth": {"type": "bearer", "token": 123}}, "auth.token", "in quotes"),
        ({"auth": {"type": "header", "name": "a b", "value": "v"}}, "auth.name", "header name"),
        ({"token": "t"}, "token", "belongs in `auth`"),
        ({"require_auth": True}, "require_auth", "no credentials"),
    ],
)
def test_in_a_destination(keys: dict[str, Any], path: str, words: str) -> None:
    found_path, message = only(shipping(**keys))
    assert found_path == f"api_sources[0].destination.{path}"
    assert words in message


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("", "absolute URL"),
        ("api.example.com/logs", "absolute URL"),
        ("ftp://h/", "absolute URL"),
        ("https:///logs", "names no host"),
        ("https://:80/", "names no host"),
        ("https://u:hunter2@h/", "as `basic`"),
        ("https://hunter2@h/", "as `basic`"),
        ("https://h/#x", "fragment"),
        ("https://h:0/", "port"),
        ("https://h:65536/", "port"),
        ("https://h:port/", "port"),
        ("https://h:/", "colon"),
        ("https://h/a b", "white space"),
        ("https://h/\n", "white space"),
        ("https://h\x00/", "control character"),
        ("https://h\\@other/", "backslash"),
        ("https://[::1/", "no URL"),
        ("https://[x::1]/", ""),
        ("https://a..b/", "host name"),
    ],
)
def test_endpoints(endpoint: str, words: str) -> None:
    path, message = only(one(endpoint=endpoint))
    assert path == "api_sources[0].endpoint"
    assert words in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("retry", "path", "words"),
    [
        ({"max_retries": -1}, "retry.max_retries", "at least 0"),
        ({"initial_delay_ms": 0}, "retry.initial_delay_ms", "at least 1"),
        ({"initial_delay_ms": 60001}, "retry.max_delay_ms", "less than `initial_delay_ms`"),
        ({"max_queue_size": 0}, "retry.max_queue_size", "at least 1"),
        ({"max_retires": 1}, "retry.max_retires", "`max_retries`"),
    ],
)
def test_in_retry(retry: dict[str, Any], path: str, words: str) -> None:
    found_path, message = only({**one(), "retry": retry})
    assert found_path == path
    assert words in message


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (f"{NO_HOME}/x", "home directory"),
        ("a\0b", "control characters"),
        ("a" * 300, "cannot be written"),
    ],
)
def test_a_dead_letter_path_must_be_usable(written: str, words: str) -> None:
    path, message = only({**one(), "dead_letter_path": written})
    assert path == "dead_letter_path"
    assert words in message


def test_a_dead_letter_path_is_no_directory(tmp_path: Path) -> None:
    path, message = only({**one(), "dead_letter_path": str(tmp_path)})
    assert path == "dead_letter_path"
    assert "directory" in message


@pytest.mark.parametrize("sources", [[], {}, None, "x"])
def test_there_is_a_list_of_sources(sources: object) -> None:
    path, _ = only({**one(), "api_sources": sources})
    assert path == "api_sources"


def test_a_key_of_a_source_at_the_top_level_is_sent_home() -> None:
    path, message = only({**one(), "polling_frequency_ms": 1})
    assert path == "polling_frequency_ms"
    assert "an entry of `api_sources`" in message


def test_all_problems_are_found_at_once_in_the_order_of_the_file() -> None:
    file = """
    api_sources:
    - name: a
      endpoint: nowhere
      pagination: {pagination_type: page, page_param: p, page_size: 0}
      start_time: 1h
    - name: a
      endpoint: https://h
      api_key: ${UNSET}
      api_key: x
    retry: {initial_delay_ms: 5, max_delay_ms: 4}
    destination: {endpoint: https://siem.example, api_key: x, basic: {}}
    """
    assert list(problems(file)) == [
        "api_sources[0].endpoint",
        "api_sources[0].pagination.page_size",
        "api_sources[0].start_time",
        "api_sources[1].name",
        "api_sources[1].api_key",
        "retry.max_delay_ms",
        "destination.basic.username",
        "destination.basic.password",
        "destination",
    ]
