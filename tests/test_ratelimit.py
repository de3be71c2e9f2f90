"""How long servers ask us to stay away, in each vendor's dialect."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.ratelimit import (
    MAX_WAIT,
    PAST_RESET_WAIT,
    is_quota_exhausted,
    is_throttled,
    wait_asked_for,
)

NOW = datetime(2022, 5, 12, 19, 12, 30, tzinfo=timezone.utc)
NOW_S = int(NOW.timestamp())
NOW_TEXT = "Thu, 12 May 2022 19:12:30 GMT"
RESET_HEADERS = ("x-rate-limit-reset", "x-ratelimit-reset", "ratelimit-reset")


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("0", 0),
        ("1.5", 1.5),
        ("-5", 0),
        ("-1.5", 0),
        ("86400", 3600),
        ("Thu, 12 May 2022 19:12:42 GMT", 12),
        ("Thursday, 12-May-22 19:12:42 GMT", 12),
        ("Thu May 12 19:12:42 2022", 12),
        ("Thu, 12 May 2022 19:12:00 GMT", 0),
    ],
)
def test_reads_retry_after(value: str, expected_s: float) -> None:
    """T29 seconds, fractions, dates, zero and less; a day is believed for an hour at a time."""
    assert wait_asked_for({"retry-after": value}, NOW) == timedelta(seconds=expected_s)


@pytest.mark.parametrize(
    "value",
    ["", "soon", "nan", "inf", "1e3", "²", "5 minutes", "2, 2", "Thu, 32 May 2022 1:1:1 GMT"],
)
def test_reads_nothing_from_a_garbled_retry_after(value: str) -> None:
    """T29 garbage leaves the wait to the caller's own backoff."""
    assert wait_asked_for({"retry-after": value}, NOW) is None


@pytest.mark.parametrize("value", ["9" * 12, "9" * 10_000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_absurd_retry_after_can_still_be_added_to_a_date(value: str) -> None:
    """T29 no number of digits raises, here or in the caller's arithmetic."""
    assert wait_asked_for({"retry-after": value}, NOW) == MAX_WAIT


def test_retry_after_wins_over_reset_headers() -> None:
    """T30 a secondary limit's wait is not the quota's."""
    headers = {"retry-after": "7", "x-ratelimit-reset": str(NOW_S + 900)}
    assert wait_asked_for(headers, NOW) == timedelta(seconds=7)


def test_a_garbled_retry_after_leaves_the_word_to_reset_headers() -> None:
    """T29 what cannot be read does not hide what can."""
    headers = {"retry-after": "soon", "x-ratelimit-reset": "9"}
    assert wait_asked_for(headers, NOW) == timedelta(seconds=9)


@pytest.mark.parametrize("name", RESET_HEADERS)
@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        (str(NOW_S + 20), 20),
        (f"{NOW_S + 20}.5", 20.5),
        (str((NOW_S + 20) * 1000 + 250), 20.25),
        ("20", 20),
        ("0.25", 0.25),
        ("2.0e1", 20),
        ("160, 160;w=1", 160),
        ("16;w=60", 16),
        ("2022-05-12T19:13Z", 30),
        ("2022-05-12T19:12:40.500Z", 10.5),
        ("2022-05-12T21:13:00+02:00", 30),
        ("Thu, 12 May 2022 19:13:00 GMT", 30),
        ("999999999", 3600),
        (str(NOW_S + 86_400), 3600),
        ("9" * 10_000, 3600),
    ],
)
def test_reads_every_dialect_of_reset_headers(name: str, value: str, expected_s: float) -> None:
    """T30 epoch, milliseconds, delta, float delta, structured field, ISO to the minute, date."""
    assert wait_asked_for({name: value}, NOW) == timedelta(seconds=expected_s)


def test_reads_header_names_in_any_letter_case() -> None:
    """T30 `X-Ratelimit-Reset` and `x-rateLimit-reset` are one header."""
    assert wait_asked_for({"X-Ratelimit-Reset": "5"}, NOW) == timedelta(seconds=5)
    assert wait_asked_for({"Retry-After": "5"}, NOW) == timedelta(seconds=5)
    assert is_quota_exhausted({"X-RateLimit-Remaining": "0"})


@pytest.mark.parametrize(
    "value", ["-3", "0", str(NOW_S - 60), "2022-05-12T19:12Z", "Thu, 12 May 2022 19:12:00 GMT"]
)
def test_a_reset_in_the_past_still_waits_a_moment(value: str) -> None:
    """T30 a quota that was to be refilled by now is not hammered."""
    assert wait_asked_for({"x-ratelimit-reset": value}, NOW) == PAST_RESET_WAIT


@pytest.mark.parametrize("skew", [timedelta(hours=-2), timedelta(minutes=5), timedelta(days=400)])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retry-after", "Thu, 12 May 2022 19:13:00 GMT"),
        ("x-rate-limit-reset", str(NOW_S + 30)),
        ("x-ratelimit-reset", "2022-05-12T19:13Z"),
        ("x-ratelimit-reset", "30"),
    ],
)
def test_measures_from_the_servers_own_clock(name: str, value: str, skew: timedelta) -> None:
    """T30 our clock and the server's may disagree; the wait is the server's."""
    headers = {"date": NOW_TEXT, name: value}
    assert wait_asked_for(headers, NOW + skew) == timedelta(seconds=30)


def test_measures_from_our_clock_where_the_servers_is_unreadable() -> None:
    """T30 a garbled `Date` is as good as none."""
    headers = {"date": "yesterday", "x-ratelimit-reset": str(NOW_S + 30)}
    assert wait_asked_for(headers, NOW) == timedelta(seconds=30)


def test_takes_the_first_reset_header_that_can_be_read() -> None:
    """T30 an unreadable dialect does not hide a readable one."""
    headers = {"x-rate-limit-reset": "later", "ratelimit-reset": "4"}
    assert wait_asked_for(headers, NOW) == timedelta(seconds=4)


def test_a_reset_asks_for_nothing_while_quota_is_left() -> None:
    """T30 GitHub names the reset on every answer; a 503 among them is no reason to wait for it."""
    headers = {"x-ratelimit-remaining": "4999", "x-ratelimit-reset": str(NOW_S + 2400)}
    assert wait_asked_for(headers, NOW) is None
    assert wait_asked_for({**headers, "retry-after": "3"}, NOW) == timedelta(seconds=3)
    exhausted = {**headers, "x-ratelimit-remaining": "0"}
    assert wait_asked_for(exhausted, NOW) == timedelta(seconds=2400)
    one_of_two = {**headers, "ratelimit-remaining": "0"}
    assert wait_asked_for(one_of_two, NOW) == timedelta(seconds=2400)


def test_no_header_asks_for_nothing() -> None:
    """T30 silence is not a wait of zero."""
    assert wait_asked_for({}, NOW) is None
    assert wait_asked_for({"date": NOW_TEXT, "content-type": "text/html"}, NOW) is None


@pytest.mark.parametrize(
    "name", ["x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining"]
)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", True),
        (" 0 ", True),
        ("0.0", True),
        ("0, 0;w=1", True),
        ("0;w=60", True),
        ("1", False),
        ("10", False),
        ("4999, 0;w=1", False),
        ("-1", False),
        ("", False),
        ("none", False),
        ("0 of 10", False),
    ],
)
def test_tells_a_used_up_quota_from_a_refusal(name: str, value: str, *, expected: bool) -> None:
    """T31 a 403 is a rate limit only where the remaining quota reads zero."""
    assert is_quota_exhausted({name: value}) is expected


def test_a_403_without_quota_headers_is_no_rate_limit() -> None:
    """T31 nothing about quotas means the credentials are to blame."""
    assert not is_quota_exhausted({"x-ratelimit-limit": "0", "content-type": "application/json"})


@given(
    st.sampled_from(("retry-after", *RESET_HEADERS)),
    st.text() | st.text(alphabet="0123456789.,;-+eE:TZ ", max_size=30),
    st.sampled_from(
        ("", NOW_TEXT, "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT")
    ),
)
def test_every_wait_is_within_its_bounds(name: str, value: str, date: str) -> None:
    """T29 T30 whatever a server writes, the answer is a usable wait or none."""
    wait = wait_asked_for({name: value, "date": date}, NOW)
    assert wait is None or timedelta(0) <= wait <= MAX_WAIT


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"__type":"ThrottlingException","message":"Rate exceeded"}', True),
        (b'{"__type": "com.amazon.coral.availability#ThrottlingException"}', True),
        (b'[{"message":"...","errorCode":"REQUEST_LIMIT_EXCEEDED"}]', True),
        (b'{"code":"TooManyRequests"}', True),
        (b'{"__type":"InvalidNextTokenException","message":"ThrottlingException"}', False),
        (b'{"errorCode":"MALFORMED_QUERY"}', False),
        (b"", False),
    ],
)
def test_bodies_that_say_that_a_refusal_is_a_rate_limit(body: bytes, expected: bool) -> None:
    """T31: AWS answers 400, Salesforce 403."""
    assert is_throttled(body) is expected
