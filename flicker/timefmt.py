"""Reading and writing timestamps, exact to the nanosecond.

An instant is an int: nanoseconds since 1970-01-01T00:00:00Z. A datetime stops
at microseconds, so a watermark kept as one falls below the event it came from.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flicker.settings import TimeFormat

SECOND_NS = 1_000_000_000

_MILLISECOND_NS = 1_000_000
_MICROSECOND_NS = 1_000
_MINUTE_NS = 60 * SECOND_NS
_HOUR_NS = 60 * _MINUTE_NS
_DAY_NS = 24 * _HOUR_NS
_RESOLUTION_NS: dict[TimeFormat, int] = {
    "rfc3339": _MICROSECOND_NS,
    "iso8601": _MILLISECOND_NS,
    "unix": SECOND_NS,
    "unix_ms": _MILLISECOND_NS,
    "date": _DAY_NS,
}

TIME_FORMATS = tuple(_RESOLUTION_NS)
STRFTIME = "strftime:"
_DIRECTIVE = re.compile(r"%(.?)")
_DIRECTIVES: dict[str, int] = {
    **dict.fromkeys("f", _MICROSECOND_NS),
    **dict.fromkeys("Ss", SECOND_NS),
    **dict.fromkeys("M", _MINUTE_NS),
    **dict.fromkeys("HI", _HOUR_NS),
    **dict.fromkeys("dj", _DAY_NS),
    **dict.fromkeys("YymbBpzZ%", 0),
}
"""What a `strftime:` pattern may hold, and how fine an instant it tells."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_DAY = _EPOCH.toordinal()
_DAY_S = 86_400
_LAST_NS = (date.max.toordinal() + 1 - _EPOCH_DAY) * _DAY_S * SECOND_NS - 1

# The longest form anybody writes is half as long; it bounds what hostile text can cost.
_MAX_CHARS = 64
_FRACTION_DIGITS = 9
_LAST_HOUR = 23
_MIDNIGHT_HOUR = 24
_LAST_MINUTE = 59
_LEAP_SECOND = 60

# Below each bound a number counts so many nanoseconds: a date of this century in seconds,
# milliseconds, microseconds and nanoseconds is three digits longer each time.
_EPOCH_UNITS = ((10**11, SECOND_NS), (10**14, _MILLISECOND_NS), (10**17, _MICROSECOND_NS))

_NUMBER = re.compile(
    r"(?P<whole>\d+)(?:\.(?P<fraction>\d+))?(?:[eE](?P<exponent>[+-]?\d{1,3}))?", re.ASCII
)
_ISO = re.compile(
    r"(?P<year>\d{4})-?(?P<month>\d\d)-?(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r" ?(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
# What follows the seconds in the forms worth a short cut, and in those worth a shorter one.
_TAIL = re.compile(r"(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_CLOCK = r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
_ZONE = r"(?P<zone>[A-Za-z]{1,4}|[+-]\d\d:?\d\d)"
_MAIL_DATE = re.compile(
    r"(?:[A-Za-z]{3,9},? *)?(?P<day>\d\d?)[ -](?P<month>[A-Za-z]{3})[ -](?P<year>\d{4}|\d\d) +"
    rf"{_CLOCK}(?: *{_ZONE})?(?: *\([^()]*\))?",
    re.ASCII,
)
_C_DATE = re.compile(
    rf"[A-Za-z]{{3}} +(?P<month>[A-Za-z]{{3}}) +(?P<day>\d\d?) +{_CLOCK} +(?:{_ZONE} +)?"
    r"(?P<year>\d{4})",
    re.ASCII,
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_ZONE_HOURS = {
    **dict.fromkeys(("Z", "UT", "UTC", "GMT"), 0),
    **dict.fromkeys(("EDT",), -4),
    **dict.fromkeys(("EST", "CDT"), -5),
    **dict.fromkeys(("CST", "MDT"), -6),
    **dict.fromkeys(("MST", "PDT"), -7),
    **dict.fromkeys(("PST",), -8),
}
_SHORT_YEAR_DIGITS = 2
_SHORT_YEAR_PIVOT = 50

_SPAN = re.compile(r"(?P<count>\d{1,15})(?P<unit>ms|s|m|h|d|w)", re.ASCII)
_SPAN_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_MAX_SPAN = timedelta(days=50 * 365)

# Events of one page share their minutes, so the dear part of a timestamp, its date, is
# worked out once a minute. Measured for milliseconds and Z: 1 us against 5.5 us to read.
_MAX_CACHED_MINUTES = 4_096
_MAX_CACHED_SECONDS = 10_000
_MINUTE_CHARS = len("2025-01-01T12:00:")
_SECOND_CHARS = len("2025-01-01T12:00:00")


class _SecondsRead(dict[str, int]):
    """Instants of seconds by the text that is written of them; any other is a KeyError."""

    def __missing__(self, text: str) -> int:
        instant_ns = parse_timestamp(text + "Z")
        if instant_ns is None or _text_of_second(instant_ns // SECOND_NS) != text:
            raise KeyError(text)
        if len(self) >= _MAX_CACHED_SECONDS:
            self.clear()
        self[text] = instant_ns
        return instant_ns


_minutes_read: dict[str, int] = {}
_seconds_read = _SecondsRead()
_minutes_written: dict[int, str] = {}
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))
_SECONDS_READ = {text: number * SECOND_NS for number, text in enumerate(_TWO_DIGITS)}
_TAILS_READ = {
    "Z": 0,
    **{f".{number:03d}Z": number * _MILLISECOND_NS for number in range(1000)},
}
_FRACTION_UNITS = tuple(10 ** (_FRACTION_DIGITS - digits) for digits in range(_FRACTION_DIGITS + 1))


def parse_timestamp(text: str) -> int | None:
    """Read any timestamp a vendor writes; never raises, never slow.

    Understood are ISO 8601 and RFC 3339 (extended and basic, down to the date
    alone), RFC 2822 and the HTTP dates, and epoch numbers in s, ms, us or ns,
    told apart by size: below 1e11, 1e14, 1e17. Where no zone is written, UTC is
    meant. A leap second is the second after it, 24:00 the next midnight. Digits
    beyond nanoseconds are cut off.

    Args:
        text: A JSON string's content or a JSON number's token. White space
            around it is ignored.

    Returns:
        Nanoseconds since 1970 (UTC), up to the end of year 9999. None where
        there is no readable timestamp, which includes everything before 1970
        and numbers of zero or less: such are the zero values of Go, .NET and C.
    """
    minute_ns = _minutes_read.get(text[:_MINUTE_CHARS])
    second_ns = _SECONDS_READ.get(text[17:19])
    if minute_ns is None or second_ns is None:
        return _parse_any(text)
    tail = text[19:]
    tail_ns = _TAILS_READ.get(tail)
    if tail_ns is not None:
        return minute_ns + second_ns + tail_ns
    found = _TAIL.fullmatch(tail)
    if found is None:
        return _parse_any(text)
    digits, zone = found.groups()
    instant_ns = minute_ns + second_ns
    if digits is not None:
        instant_ns += int(digits) * _FRACTION_UNITS[len(digits)]
    if zone == "Z":
        return instant_ns
    offset_s = _offset_s(zone)
    return None if offset_s is None else _in_range(instant_ns - offset_s * SECOND_NS)


def parse_written(texts: list[str]) -> list[int] | None:
    """Read timestamps that `format_rfc3339` would write so, but for a fraction of `.000`.

    Returns:
        What `parse_timestamp` gives for each, in a fraction of the time; None
        where one of them is written otherwise.
    """
    try:
        return [
            _seconds_read[text[:_SECOND_CHARS]] + _TAILS_READ[text[_SECOND_CHARS:]]
            for text in texts
        ]
    except KeyError:
        return None


def parse_http_date(text: str) -> int | None:
    """Read a date as mail and HTTP write it.

    Args:
        text: `Fri, 21 Nov 1997 09:55:06 -0600`, or one of the two obsolete
            forms: `Friday, 21-Nov-97 09:55:06 GMT`, `Fri Nov 21 09:55:06 1997`.

    Returns:
        Nanoseconds since 1970 (UTC); None where the text is no such date, its
        zone is an unknown name, or it is before 1970.

    Source: RFC 2822, section 3.3; RFC 9110, section 5.6.7.
    """
    if len(text) > _MAX_CHARS:
        return None
    text = text.strip()
    match = _MAIL_DATE.fullmatch(text) or _C_DATE.fullmatch(text)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == _SHORT_YEAR_DIGITS:
        year += 2000 if year < _SHORT_YEAR_PIVOT else 1900
    return _instant_of(match, year, _MONTHS.get(match["month"].lower(), 0))


def format_timestamp(instant_ns: int, form: TimeFormat) -> str:
    """Write an instant as an API's time filter wants it, floored to what the form can express.

    Floored, because a bound rounded up asks for less than was meant. There is
    never a `+` in the text, which a query string would turn into a space.

    Args:
        instant_ns: Nanoseconds since 1970, within the years 1 to 9999.
        form: `rfc3339` has a fraction only where there is one, of at most 6
            digits since many servers refuse more; `iso8601` always has
            milliseconds; `unix` is whole seconds, `unix_ms` milliseconds;
            `date` is the day in UTC; `strftime:` and a pattern is that, in UTC.

    Raises:
        OverflowError: The instant is outside the years 1 to 9999.
    """
    if form == "rfc3339":
        return format_rfc3339(floor_to(instant_ns, form))
    seconds, rest_ns = divmod(instant_ns, SECOND_NS)
    if form == "unix":
        return str(seconds)
    if form == "unix_ms":
        return str(instant_ns // _MILLISECOND_NS)
    if form == "date":
        return _text_of_second(seconds)[:10]
    if form.startswith(STRFTIME):
        when = _EPOCH + timedelta(seconds=seconds, microseconds=rest_ns // _MICROSECOND_NS)
        pattern = form[len(STRFTIME) :]
        # What %s gives depends on the zone of the machine.
        pattern = _DIRECTIVE.sub(lambda m: str(seconds) if m[1] == "s" else m[0], pattern)
        return when.strftime(pattern)
    return f"{_text_of_second(seconds)}.{rest_ns // _MILLISECOND_NS:03d}Z"


def format_rfc3339(instant_ns: int) -> str:
    """Write an instant exactly, with the fewest of 0, 3, 6 or 9 digits that do.

    Raises:
        OverflowError: The instant is outside the years 1 to 9999.
    """
    seconds, rest_ns = divmod(instant_ns, SECOND_NS)
    text = _text_of_second(seconds)
    if not rest_ns:
        return text + "Z"
    if not rest_ns % _MILLISECOND_NS:
        return f"{text}.{rest_ns // _MILLISECOND_NS:03d}Z"
    if not rest_ns % _MICROSECOND_NS:
        return f"{text}.{rest_ns // _MICROSECOND_NS:06d}Z"
    return f"{text}.{rest_ns:09d}Z"


def format_instant(seconds: float) -> str:
    """Write an instant in UTC with milliseconds.

    Args:
        seconds: Since 1970.
    """
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return when.isoformat(timespec="milliseconds")[:-6] + "Z"


def floor_to(instant_ns: int, form: TimeFormat) -> int:
    """Return the instant that the text of `format_timestamp` denotes: never a later one."""
    return instant_ns - instant_ns % resolution_ns(form)


def resolution_ns(form: TimeFormat) -> int:
    """Return the nanoseconds between two instants that a form can tell apart."""
    known = _RESOLUTION_NS.get(form)
    if known is not None:
        return known
    return min(_DIRECTIVES[one] for one in _DIRECTIVE.findall(form) if _DIRECTIVES[one])


def strftime_problem(pattern: str) -> str | None:
    """Tell what keeps a pattern from telling an instant, None where nothing does."""
    found = _DIRECTIVE.findall(pattern)
    unknown = [one for one in found if one not in _DIRECTIVES]
    if unknown:
        known = " ".join(f"%{one}" for one in _DIRECTIVES)
        return f"has %{unknown[0]}, which is not among {known}"
    has_day = "j" in found or ("d" in found and set(found) & set("mbB"))
    if "s" not in found and not (set(found) & set("Yy") and has_day):
        return "does not tell the day: it needs %Y, %m and %d, or %s"
    if "I" in found and "p" not in found:
        return "has %I without %p, and so half of each day: write %H"
    return None


def parse_start_time(text: str) -> int | timedelta:
    """Read where a source without a position begins.

    Args:
        text: An instant such as `2025-01-01T00:00:00Z` (or just its date; UTC
            where no zone is written) or a span such as `500ms`, `90s`, `15m`,
            `24h`, `7d` or `2w`. An epoch number is refused: it is more often a
            span whose unit was forgotten.

    Returns:
        Nanoseconds since 1970 (UTC) for an instant, a timedelta for a span.

    Raises:
        ValueError: Neither of the two; the message says what to write, and
            does not repeat the text.
    """
    text = text.strip()
    span = _SPAN.fullmatch(text)
    if span is not None:
        try:
            length = int(span["count"]) * _SPAN_UNITS[span["unit"]]
        except OverflowError:
            length = timedelta.max
        if length > _MAX_SPAN:
            message = "is longer than 50 years; write a shorter span, or an instant"
            raise ValueError(message)
        return length
    instant_ns = None if text.isdigit() else _parse_iso(text)
    if instant_ns is None:
        message = (
            'is neither an instant from 1970 on such as "2025-01-01T00:00:00Z" nor a span back '
            'from now such as "90s", "15m", "24h", "7d" or "2w"; write one of them'
        )
        raise ValueError(message)
    return instant_ns


def _parse_any(text: str) -> int | None:
    if len(text) > _MAX_CHARS:
        return None
    text = text.strip()
    if text.isdigit() and text.isascii():
        count = int(text)
        return _in_range(count * _unit_ns(count)) if count else None
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return _instant_of_number(number)
    instant_ns = _parse_iso(text)
    return parse_http_date(text) if instant_ns is None else instant_ns


def _instant_of_number(match: re.Match[str]) -> int | None:
    whole, fraction, exponent = match.group("whole", "fraction", "exponent")
    # Integers only: a float holds an epoch of nanoseconds to the nearest 256 ns.
    mantissa = int(whole + (fraction or ""))
    shift = int(exponent or 0) - len(fraction or "")
    scaled, divisor = mantissa * 10 ** max(shift, 0), 10 ** max(-shift, 0)
    instant_ns = scaled * _unit_ns(scaled // divisor) // divisor
    return _in_range(instant_ns) if instant_ns else None


def _unit_ns(size: int) -> int:
    for bound, unit_ns in _EPOCH_UNITS:
        if size < bound:
            return unit_ns
    return 1


def _in_range(instant_ns: int) -> int | None:
    return instant_ns if 0 <= instant_ns <= _LAST_NS else None


def _parse_iso(text: str) -> int | None:
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    instant_ns = _instant_of(match, int(match["year"]), int(match["month"]))
    # Seconds that start where they do in the extended form: all separators are there.
    if instant_ns is not None and match.start("second") == _MINUTE_CHARS:
        _remember_minute(text[:_MINUTE_CHARS], match, instant_ns)
    return instant_ns


def _remember_minute(text: str, match: re.Match[str], instant_ns: int) -> None:
    """Keep the instant a minute's text denotes in UTC, whatever zone follows it here."""
    offset_s = _offset_s(match["zone"])
    if offset_s is None or match["second"] not in _SECONDS_READ or match["hour"] == "24":
        return
    local_ns = instant_ns + offset_s * SECOND_NS
    if local_ns < 0:
        return
    if len(_minutes_read) >= _MAX_CACHED_MINUTES:
        _minutes_read.clear()
    _minutes_read[text] = local_ns - local_ns % _MINUTE_NS


def _instant_of(match: re.Match[str], year: int, month: int) -> int | None:
    """Put together what a pattern found in its day, clock and zone groups; None if impossible."""
    try:
        days = date(year, month, int(match["day"])).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    hour, minute, second = (int(part or 0) for part in match.group("hour", "minute", "second"))
    fraction_ns = int((match["fraction"] or "")[:_FRACTION_DIGITS].ljust(_FRACTION_DIGITS, "0"))
    offset_s = _offset_s(match["zone"])
    on_the_clock = hour <= _LAST_HOUR and minute <= _LAST_MINUTE and second <= _LEAP_SECOND
    at_midnight = hour == _MIDNIGHT_HOUR and not (minute or second or fraction_ns)
    if offset_s is None or not (on_the_clock or at_midnight):
        return None
    seconds = days * _DAY_S + hour * 3600 + minute * 60 + second - offset_s
    instant_ns = seconds * SECOND_NS + fraction_ns
    return _in_range(instant_ns)


@lru_cache(maxsize=64)
def _offset_s(zone: str | None) -> int | None:
    """Return how many seconds a zone is ahead of UTC; None for one that does not exist."""
    if zone is None:
        return 0
    if zone[0] not in "+-":
        hours = _ZONE_HOURS.get(zone.upper())
        return None if hours is None else hours * 3600
    hour, minute = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    if hour > _LAST_HOUR or minute > _LAST_MINUTE:
        return None
    offset_s = hour * 3600 + minute * 60
    return -offset_s if zone[0] == "-" else offset_s


def _text_of_second(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    text = _minutes_written.get(minutes)
    if text is None:
        # Aware, so that no local zone can creep in; its offset is cut off again.
        text = (_EPOCH + timedelta(minutes=minutes)).isoformat()[:_MINUTE_CHARS]
        if len(_minutes_written) >= _MAX_CACHED_MINUTES:
            _minutes_written.clear()
        _minutes_written[minutes] = text
    return text + _TWO_DIGITS[second]
