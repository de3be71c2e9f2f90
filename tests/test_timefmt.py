"""Timestamps as vendors write them, and as vendors want them."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flicker.timefmt import (
    SECOND_NS,
    TIME_FORMATS,
    floor_to,
    format_rfc3339,
    format_timestamp,
    parse_http_date,
    parse_start_time,
    parse_timestamp,
    strftime_problem,
)

LAST_NS = 253_402_300_800 * SECOND_NS - 1
# From here on a count of seconds reads as milliseconds.
LAST_UNIX_S = 10**11 - 1

instants = st.integers(min_value=0, max_value=LAST_NS)
forms = st.sampled_from((*TIME_FORMATS, "strftime:%Y-%m-%dT%H:%M:%S.%fZ", "strftime:%s"))


def ns(text: str, fraction_ns: int = 0) -> int:
    """Return the instant by the standard library's reading; whole seconds only."""
    moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1) * (
        SECOND_NS
    ) + fraction_ns


NOON = ns("2025-01-01 12:00:00")


@pytest.fixture(params=["cold", "warm"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each form read both with and without its minute having been met before."""
    monkeypatch.setattr("flicker.timefmt._minutes_read", {})
    if request.param == "warm":
        for minute in ("2025-01-01T12:00", "2025-01-01 12:00", "2018-01-09T21:20"):
            assert parse_timestamp(f"{minute}:00Z") is not None


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01T12:00:00Z", NOON),
        ("2025-01-01t12:00:00z", NOON),
        ("2025-01-01 12:00:00Z", NOON),
        ("2025-01-01 12:00:00 +0000", NOON),
        ("2025-01-01 12:00:00 UTC", NOON),
        ("  2025-01-01T12:00:00Z\n", NOON),
        ("2025-01-01T12:00:00.5Z", NOON + 500_000_000),
        ("2025-01-01T12:00:00.123Z", NOON + 123_000_000),
        ("2025-01-01T12:00:00,123Z", NOON + 123_000_000),
        ("2025-01-01T12:00:00.123456Z", NOON + 123_456_000),
        ("2018-01-09T21:20:02.7215374Z", ns("2018-01-09 21:20:02", 721_537_400)),
        ("2025-01-01T12:00:00.123456789Z", NOON + 123_456_789),
        ("2025-01-01T12:00:00.1234567899999Z", NOON + 123_456_789),
        ("2025-01-01T12:00:00.000000001+00:00", NOON + 1),
        ("2025-01-01T12:00:00.943+0000", NOON + 943_000_000),
        ("2025-01-01T09:00:00-03:00", NOON),
        ("2025-01-01T17:30:00+05:30", NOON),
        ("2025-01-01T14:00:00+02", NOON),
        ("2025-01-01T12:00:00-00:00", NOON),
        ("2022-05-12T19:13Z", ns("2022-05-12 19:13:00")),
        ("2022-05-12T19:13+01:00", ns("2022-05-12 18:13:00")),
        ("2025-01-01", ns("2025-01-01 00:00:00")),
        ("20250101T120000Z", NOON),
        ("20250101T120000.25+0000", NOON + 250_000_000),
        ("20250101T120000.512Z", NOON + 512_000_000),
        ("20250101T1730+05:30", NOON),
        ("Fri, 21 Nov 1997 09:55:06 -0600", ns("1997-11-21 15:55:06")),
        ("21 Nov 97 09:55 CST", ns("1997-11-21 15:55:00")),
        ("Fri, 21 Nov 1997 09:55:06 -0600 (CST)", ns("1997-11-21 15:55:06")),
        ("Fri, 21 Nov 1997 15:55:06 GMT", ns("1997-11-21 15:55:06")),
        ("1424476529", ns("2015-02-20 23:55:29")),
        ("1424476529.0", ns("2015-02-20 23:55:29")),
        ("1424476529.123", ns("2015-02-20 23:55:29", 123_000_000)),
        ("1424476529.123456789123", ns("2015-02-20 23:55:29", 123_456_789)),
        ("1424476529123", ns("2015-02-20 23:55:29", 123_000_000)),
        ("1424476529123456", ns("2015-02-20 23:55:29", 123_456_000)),
        ("1424476529123456789", ns("2015-02-20 23:55:29", 123_456_789)),
        ("1424476529123.456789", ns("2015-02-20 23:55:29", 123_456_789)),
        ("1.664383359927e+12", ns("2022-09-28 16:42:39", 927_000_000)),
        ("1.424476529E9", ns("2015-02-20 23:55:29")),
        ("14244765290e-1", ns("2015-02-20 23:55:29")),
    ],
)
def test_reads_every_form_that_vendors_write(text: str, expected: int) -> None:
    """T49 every form denotes its instant, to the nanosecond."""
    assert parse_timestamp(text) == expected
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("99999999999", 99_999_999_999),
        ("100000000000", 100_000_000),
        ("99999999999999", 99_999_999_999),
        ("100000000000000", 100_000_000),
        ("99999999999999999", 99_999_999_999),
        ("100000000000000000", 100_000_000),
    ],
)
def test_tells_epoch_units_apart_at_their_bounds(text: str, expected_s: int) -> None:
    """T49 an epoch number's unit follows from its size alone."""
    instant_ns = parse_timestamp(text)
    assert instant_ns is not None
    assert instant_ns // SECOND_NS == expected_s


def test_reads_one_instant_from_mixed_precision() -> None:
    """T49 one source may write milliseconds only where there are any."""
    texts = ("2025-01-01T12:00:00Z", "2025-01-01T12:00:00.000Z", "2025-01-01T12:00:00.0000000Z")
    assert {parse_timestamp(text) for text in texts} == {NOON}


def test_orders_by_instant_and_not_by_text() -> None:
    """T50 text puts `.5Z` before `Z` and ignores offsets; instants do not."""
    texts = ["2025-01-01T14:30:00+02:00", "2025-01-01T12:30:00.5Z", "2025-01-01T12:31:00Z"]
    read = [parse_timestamp(text) for text in texts]
    half_past = NOON + 1800 * SECOND_NS
    assert read == [half_past, half_past + 500_000_000, half_past + 60 * SECOND_NS]
    assert sorted(texts) != texts


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "true",
        "never",
        "NaN",
        "Infinity",
        "0",
        "0.0",
        "-0",
        "-1424476529",
        "-1e9",
        "1e-12",
        "1e30",
        "1e999",
        "1e999999999",
        "1e-999999999",
        "9" * 64,
        "1_424_476_529",
        "0x54E7C8F1",
        "1424476529.",
        ".5",
        "²",
        "١٤٢٤٤٧٦٥٢٩",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:00",
        "0000-00-00 00:00:00",
        "1969-12-31T23:59:59.999999999Z",
        "1970-01-01T00:00:00+02:00",
        "Mon, 01 Jan 0001 00:00:00 +0000",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:00:00-02:00",
        "2025-02-29T12:00:00Z",
        "2025-13-01T12:00:00Z",
        "2025-01-01T25:00:00Z",
        "2025-01-01T12:60:00Z",
        "2025-01-01T12:00:61Z",
        "2025-01-01T12:00:99Z",
        "2025-01-01T24:00:01Z",
        "2025-01-01T24:00:00.5Z",
        "2025-01-01T12:00:00.Z",
        "2025-01-01T12:00:00.²Z",
        "2025-01-01T12:00:00+00:60",
        "2025-01-01T12:00:00.5+24:00",
        "2025-01-01T12:00:00+5",
        "2025-01-01T12:00:00ZZ",
        "2025-01-01T12:00:00 CEST",
        "2025-01-01T",
        "Fri, 32 Nov 1997 09:55:06 -0600",
        "Fri, 21 Foo 1997 09:55:06 -0600",
        "Fri, 21 Nov 1997 09:55:06 CEST",
    ],
)
def test_reads_no_instant_from_what_is_none(text: str) -> None:
    """T51 T53 zero values, negatives and nonsense are no timestamp, and no exception."""
    assert parse_timestamp("2025-01-01T12:00:00Z") == NOON
    assert parse_timestamp(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-12-31T23:59:60Z", ns("2017-01-01 00:00:00")),
        ("2016-12-31T23:59:60.25Z", ns("2017-01-01 00:00:00", 250_000_000)),
        ("2016-12-31T18:59:60-05:00", ns("2017-01-01 00:00:00")),
        ("2024-12-31T24:00:00Z", ns("2025-01-01 00:00:00")),
        ("2024-12-31T24:00Z", ns("2025-01-01 00:00:00")),
        ("2024-02-28T24:00:00.000Z", ns("2024-02-29 00:00:00")),
    ],
)
def test_reads_leap_seconds_and_midnight_as_24(text: str, expected: int) -> None:
    """T51 `:60` and `24:00` are legal, though the standard library raises on them."""
    assert parse_timestamp(text) == expected


def test_odd_clock_values_do_not_spoil_what_is_read_after_them() -> None:
    """T51 neither `:60`, `24:00` nor a time before 1970 is kept for the rest of its minute."""
    assert parse_timestamp("2015-06-30T23:59:60Z") == ns("2015-07-01 00:00:00")
    assert parse_timestamp("2015-06-30T23:59:59Z") == ns("2015-06-30 23:59:59")
    assert parse_timestamp("2015-06-30T24:00:00Z") == ns("2015-07-01 00:00:00")
    assert parse_timestamp("2015-06-30T24:00:01Z") is None
    assert parse_timestamp("1969-12-31T23:59:30-01:00") == ns("1970-01-01 00:59:30")
    assert parse_timestamp("1969-12-31T23:59:30Z") is None
    assert parse_timestamp("9999-12-31T23:00:00Z") == LAST_NS + 1 - 3600 * SECOND_NS
    assert parse_timestamp("9999-12-31T23:00:00-02:00") is None


def test_reads_a_time_without_a_zone_as_utc() -> None:
    """T52 no local zone is ever guessed, so 01:30 is one instant all year round."""
    naive = parse_timestamp("2024-10-27T01:30:00")
    assert naive == parse_timestamp("2024-10-27T01:30:00Z") == ns("2024-10-27 01:30:00")
    assert parse_timestamp("2024-10-27T01:30:00.25") == ns("2024-10-27 01:30:00", 250_000_000)
    assert parse_timestamp("Sun, 27 Oct 2024 01:30:00") == naive


def test_keeps_both_halves_of_the_hour_that_clocks_repeat() -> None:
    """T52 01:30 summer time and 01:30 winter time are an hour apart."""
    summer = parse_timestamp("2024-10-27T01:30:00+01:00")
    winter = parse_timestamp("2024-10-27T01:30:00+00:00")
    assert summer is not None
    assert winter is not None
    assert winter - summer == 3600 * SECOND_NS


def test_reads_the_far_future_and_the_very_beginning() -> None:
    """T53 both are instants; whether to believe them is the watermark's business."""
    assert parse_timestamp("9999-12-31T23:59:59.999999999Z") == LAST_NS
    assert parse_timestamp("253402300799999999999") == LAST_NS
    assert parse_timestamp("1970-01-01T00:00:00Z") == 0
    assert parse_timestamp("1") == SECOND_NS


def test_milliseconds_read_do_not_become_seconds_sent() -> None:
    """T55 an event in epoch milliseconds filters by epoch seconds of the same instant."""
    instant_ns = parse_timestamp("1625045793351")
    assert instant_ns is not None
    assert format_timestamp(instant_ns, "unix") == "1625045793"
    assert format_timestamp(instant_ns, "iso8601") == "2021-06-30T09:36:33.351Z"


@pytest.mark.parametrize(
    ("fraction_ns", "rfc3339", "iso8601", "unix"),
    [
        (0, "2025-01-01T12:00:00Z", "2025-01-01T12:00:00.000Z", "1735732800"),
        (1, "2025-01-01T12:00:00Z", "2025-01-01T12:00:00.000Z", "1735732800"),
        (20_000_000, "2025-01-01T12:00:00.020Z", "2025-01-01T12:00:00.020Z", "1735732800"),
        (123_456_000, "2025-01-01T12:00:00.123456Z", "2025-01-01T12:00:00.123Z", "1735732800"),
        (999_999_999, "2025-01-01T12:00:00.999999Z", "2025-01-01T12:00:00.999Z", "1735732800"),
    ],
)
def test_writes_time_filters_floored_to_their_form(
    fraction_ns: int, rfc3339: str, iso8601: str, unix: str
) -> None:
    """T56 a fraction is sent only where there is one, and never more than six digits."""
    assert format_timestamp(NOON + fraction_ns, "rfc3339") == rfc3339
    assert format_timestamp(NOON + fraction_ns, "iso8601") == iso8601
    assert format_timestamp(NOON + fraction_ns, "unix") == unix


@given(instants, forms)
def test_written_filters_hold_no_plus(instant_ns: int, form: str) -> None:
    """T56 `+00:00` left bare in a query string arrives as a space, so it is never written."""
    text = format_timestamp(instant_ns, form)
    assert quote(text, safe=":") == text


@pytest.mark.parametrize(
    ("fraction_ns", "fraction"),
    [(0, ""), (500_000_000, ".500"), (1_000, ".000001"), (1, ".000000001"), (10, ".000000010")],
)
def test_writes_records_exactly_with_the_fewest_digits(fraction_ns: int, fraction: str) -> None:
    assert format_rfc3339(NOON + fraction_ns) == f"2025-01-01T12:00:00{fraction}Z"


def test_writes_instants_before_1970_as_a_lookback_may_need_them() -> None:
    assert format_rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_timestamp(-1, "unix") == "-1"
    assert floor_to(-1, "iso8601") == -1_000_000


def test_refuses_to_write_what_no_calendar_holds() -> None:
    with pytest.raises(OverflowError):
        format_rfc3339(LAST_NS + 1)


@given(instants, forms)
@example(LAST_NS, "rfc3339")
@example(LAST_NS, "iso8601")
def test_parse_undoes_format_down_to_the_floor(instant_ns: int, form: str) -> None:
    if form in {"unix", "strftime:%s"}:
        # Zero is no timestamp, and beyond the bound seconds read as milliseconds.
        instant_ns = SECOND_NS + instant_ns % (LAST_UNIX_S * SECOND_NS)
    if form == "unix_ms":
        # Below 1e11 milliseconds read as seconds.
        instant_ns = 10**17 + instant_ns % (LAST_UNIX_S * SECOND_NS)
    assert parse_timestamp(format_timestamp(instant_ns, form)) == floor_to(instant_ns, form)


@given(instants)
@example(LAST_NS)
def test_parse_undoes_the_exact_form(instant_ns: int) -> None:
    assert parse_timestamp(format_rfc3339(instant_ns)) == instant_ns


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001
    st.integers(min_value=-23 * 60 - 59, max_value=23 * 60 + 59),
    st.sampled_from("T "),
)
def test_agrees_with_the_standard_library(moment: datetime, offset: int, separator: str) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    microseconds = (aware - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
    text = aware.isoformat(separator)
    assert parse_timestamp(text) == microseconds * 1000
    assert parse_timestamp(text) == microseconds * 1000


@given(st.integers(), forms)
def test_floor_is_idempotent_and_never_above(instant_ns: int, form: str) -> None:
    floored = floor_to(instant_ns, form)
    assert floored <= instant_ns
    assert floor_to(floored, form) == floored


@given(st.text() | st.text(alphabet="0123456789-+:.,TtZz eE", max_size=40))
@example("\ud800")
@example("2025-01-01T12:00:00.\u0661Z")
def test_parse_never_raises(text: str) -> None:
    instant_ns = parse_timestamp(text)
    assert instant_ns is None or 0 <= instant_ns <= LAST_NS


@given(st.from_regex(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,12})?(Z|[+-]\d\d:\d\d)?\Z"))
def test_reads_the_same_again(text: str) -> None:
    """What is kept of the first reading never changes the second."""
    assert parse_timestamp(text) == parse_timestamp(text)


@pytest.mark.parametrize(
    "text",
    ["9" * 1_000_000, "1e" + "9" * 60, " " * 1_000_000, "2025-01-01T12:00:00." + "1" * 1_000_000],
)
def test_hostile_text_costs_nothing(text: str) -> None:
    parse_timestamp("2025-01-01T12:00:00Z")
    began = time.process_time()
    assert parse_timestamp(text) is None
    assert time.process_time() - began < 0.1


def test_reads_and_writes_more_minutes_than_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill passes through every minute of a week; none is mistaken, and few are kept."""
    kept: tuple[dict[str, int], dict[int, str]] = ({}, {})
    monkeypatch.setattr("flicker.timefmt._minutes_read", kept[0])
    monkeypatch.setattr("flicker.timefmt._minutes_written", kept[1])
    for instant_ns in range(NOON, NOON + 10_000 * 60 * SECOND_NS, 60 * SECOND_NS):
        assert parse_timestamp(format_rfc3339(instant_ns)) == instant_ns
    assert format_rfc3339(NOON) == "2025-01-01T12:00:00Z"
    assert all(0 < len(minutes) <= 4096 for minutes in kept)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun Nov  6 08:49:37 UTC 1994",
    ],
)
def test_reads_the_three_http_dates(text: str) -> None:
    assert parse_http_date(text) == ns("1994-11-06 08:49:37")


@pytest.mark.parametrize("text", ["", "1424476529", "2025-01-01T12:00:00Z", "x" * 1_000_000])
def test_takes_nothing_else_for_an_http_date(text: str) -> None:
    assert parse_http_date(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01T12:00:00Z", NOON),
        (" 2025-01-01T13:00:00+01:00 ", NOON),
        ("2025-01-01", NOON - 12 * 3600 * SECOND_NS),
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta(0)),
    ],
)
def test_reads_start_times(text: str, expected: int | timedelta) -> None:
    assert parse_start_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "24",
        "1735732800",
        "yesterday",
        "24 hours",
        "-7d",
        "1.5h",
        "7D",
        "²d",
        "20250101",
        "1969-01-01T00:00:00Z",
        "2025-02-30",
        "x" * 1_000_000,
    ],
)
def test_says_what_a_start_time_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r'instant .* such as "2025-01-01T00:00:00Z" .* "24h"'):
        parse_start_time(text)


@pytest.mark.parametrize("text", ["3000w", "999999999999999w"])
def test_refuses_a_span_that_leads_beyond_1970(text: str) -> None:
    with pytest.raises(ValueError, match="longer than 50 years"):
        parse_start_time(text)


def test_complaints_do_not_repeat_the_text() -> None:
    with pytest.raises(ValueError, match="is neither") as caught:
        parse_start_time("ghp_secret")
    assert "ghp_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("unix_ms", "1735732800123"),
        ("date", "2025-01-01"),
        ("strftime:%Y-%m-%dT%H:%M:%SZ", "2025-01-01T12:00:00Z"),
        ("strftime:%m/%d/%Y", "01/01/2025"),
        ("strftime:900%Y%m%d%H%M%S" + "0" * 39, "90020250101120000" + "0" * 39),
        ("strftime:%s", "1735732800"),
        ("strftime:%Y-%m-%dT%H:%M:%S.%f", "2025-01-01T12:00:00.123456"),
        ("strftime:100%% %d %b %Y", "100% 01 Jan 2025"),
    ],
)
def test_writes_instants_as_vendors_want_them(form: str, text: str) -> None:
    """T56 floored, and in UTC wherever the machine is."""
    assert format_timestamp(1_735_732_800_123_456_789, form) == text


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("%Y-%m-%d", None),
        ("%s", None),
        ("%Y%j", None),
        ("%Y-%m", "the day"),
        ("%H:%M", "the day"),
        ("", "the day"),
        ("%Y-%m-%dT%I:%M", "%H"),
        ("%Y-%m-%dT%Q", "%Q"),
        ("%Y-%m-%d%", "%"),
    ],
)
def test_a_pattern_has_to_tell_an_instant(pattern: str, words: str | None) -> None:
    problem = strftime_problem(pattern)
    assert problem is None if words is None else words in str(problem)
