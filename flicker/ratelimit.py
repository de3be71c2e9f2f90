"""How long a server asks us to stay away, in the dialects vendors speak."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from flicker.timefmt import SECOND_NS, parse_http_date, parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# A server that names a day away is not to be believed for longer than an hour at a time.
MAX_WAIT = timedelta(hours=1)
# A reset that is over already would otherwise be asked for again at once, and again.
PAST_RESET_WAIT = timedelta(seconds=1)

_RESET_HEADERS = ("x-rate-limit-reset", "x-ratelimit-reset", "ratelimit-reset")
_REMAINING_HEADERS = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")

_SECONDS = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*", re.ASCII)
# A structured field (RFC 9651) repeats the number for each window: `160, 160;w=1`.
_FIRST_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?)\s*(?:[,;]|$)", re.ASCII)

# Vendors' waits are below these sizes and dates above them: 1e9 s is September 2001.
_FIRST_EPOCH_S = 1e9
_FIRST_EPOCH_MS = 1e12
# AWS throttles with a 400, Salesforce with a 403; only the body tells.
_THROTTLED = re.compile(
    rb'"(?:__type|code|errorCode)"\s*:\s*"(?:[^"]*#)?(?:Throttl\w*|TooManyRequests\w*'
    rb'|RequestLimitExceeded|REQUEST_LIMIT_EXCEEDED|RequestThrottled\w*|SlowDown)"',
)


def wait_asked_for(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Read from a refusal's headers how long to stay away.

    `Retry-After` comes first, then the first readable one of the reset headers:
    a number below 1e9 is seconds from now, from 1e9 an epoch in seconds, from
    1e12 in milliseconds; anything else is an HTTP or ISO date. Dates and
    epochs are measured from the server's own `Date` where it sends one, so that
    a skewed clock on either side changes nothing.

    A reset header says when the quota is refilled and stands on every answer of
    some vendors, a 503 among them. While a remaining-quota header says that
    there is quota left, it asks for nothing.

    Args:
        headers: Names in any letter case.
        now: Aware instant to measure from where the server sends no `Date`.

    Returns:
        From zero to `MAX_WAIT`, and `PAST_RESET_WAIT` for a reset that is over;
        None where the server asks for nothing readable.
    """
    folded = _fold(headers)
    server_ns = parse_http_date(folded.get("date", ""))
    now_s = now.timestamp() if server_ns is None else server_ns / SECOND_NS
    wait_s = _retry_after_s(folded.get("retry-after", ""), now_s)
    if wait_s is not None:
        return _wait(wait_s)
    remaining = _remaining(folded)
    if 0 not in remaining and any(number > 0 for number in remaining):
        return None
    resets = (_reset_s(folded.get(name, ""), now_s) for name in _RESET_HEADERS)
    wait_s = next((reset_s for reset_s in resets if reset_s is not None), None)
    if wait_s is None:
        return None
    return _wait(wait_s) if wait_s > 0 else PAST_RESET_WAIT


def is_quota_exhausted(headers: Mapping[str, str]) -> bool:
    """Return whether a remaining-quota header reads zero, which makes a 403 a rate limit.

    Args:
        headers: Names in any letter case.
    """
    return 0 in _remaining(_fold(headers))


def is_throttled(body: bytes) -> bool:
    """Return whether a refusal's body says that it is a rate limit, whatever its status."""
    return _THROTTLED.search(body) is not None


def _fold(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _remaining(folded: Mapping[str, str]) -> list[float]:
    numbers = (_first_number(folded.get(name, "")) for name in _REMAINING_HEADERS)
    return [number for number in numbers if number is not None]


def _first_number(value: str) -> float | None:
    match = _FIRST_NUMBER.match(value)
    return None if match is None else float(match[1])


def _retry_after_s(value: str, now_s: float) -> float | None:
    match = _SECONDS.fullmatch(value)
    if match is not None:
        return float(match[1])
    instant_ns = parse_http_date(value)
    return None if instant_ns is None else instant_ns / SECOND_NS - now_s


def _reset_s(value: str, now_s: float) -> float | None:
    number = _first_number(value)
    if number is None:
        instant_ns = parse_timestamp(value)
        return None if instant_ns is None else instant_ns / SECOND_NS - now_s
    if number >= _FIRST_EPOCH_MS:
        return number / 1000 - now_s
    return number if number < _FIRST_EPOCH_S else number - now_s


def _wait(wait_s: float) -> timedelta:
    return timedelta(seconds=min(max(wait_s, 0.0), MAX_WAIT.total_seconds()))
