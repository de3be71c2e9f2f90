"""The route that most vendors have: a list of events, filtered and in pages."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlencode

import msgspec

from flicker.demo.servers import Request, Response, parse_instant
from tests.servers.vendors.emulator import NS_PER_MS, NS_PER_S, Ask, RefusedError, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.servers.vendors.emulator import Entry, VendorApi

    # When and in which place an event stands.
    Key = tuple[int, int]
    # Both inclusive.
    Bounds = tuple[int | None, int | None]
    Parse = Callable[[Any], int]

_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
# Nothing that base64 has.
_GAP = ":"


def rfc3339(text: str) -> int:
    """Read an instant with any fraction."""
    return parse_instant(text)


def rfc3339_seconds(text: str) -> int:
    """Read an instant without a fraction."""
    if not _SECONDS.fullmatch(text):
        raise ValueError
    return parse_instant(text)


def unix(text: str) -> int:
    """Read whole seconds."""
    return _whole(text) * NS_PER_S


def unix_ms(text: str) -> int:
    """Read whole milliseconds."""
    value = _whole(text)
    if value < 100_000_000_000:
        message = "these are seconds"
        raise ValueError(message)
    return value * NS_PER_MS


def day(text: str) -> int:
    """Read the beginning of a day."""
    if not _DAY.fullmatch(text):
        raise ValueError
    return parse_instant(f"{text}T00:00:00Z")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
        raise ValueError
    return int(str(value))


def iso(instant_ns: int, digits: int = 3, zone: str = "Z") -> str:
    """Write an instant with so many digits of a second."""
    moment = datetime.fromtimestamp(instant_ns // NS_PER_S, timezone.utc)
    fraction = f".{instant_ns % NS_PER_S:09d}"[: digits + 1] if digits else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{zone}"


def bounds(
    since: str | None = None,
    until: str | None = None,
    *,
    parse: Parse = rfc3339,
    required: bool = False,
    longest_s: float | None = None,
) -> Callable[[Ask], Bounds]:
    """Read bounds that are parameters of their own.

    Args:
        since: Name of the lower one.
        until: Name of the upper one.
        parse: Raises ValueError for what the vendor refuses.
        required: Whether those that are named must be there.
        longest_s: Span between them, beyond which the vendor refuses.
    """

    def read(ask: Ask) -> Bounds:
        since_ns, until_ns = (_read_bound(ask, name, parse, required) for name in (since, until))
        _check_span(since_ns, until_ns, longest_s)
        return since_ns, until_ns

    return read


def expression(
    param: str, pattern: str, *, parse: Parse = rfc3339, required: bool = False
) -> Callable[[Ask], Bounds]:
    """Read bounds that stand inside an expression.

    Args:
        param: That has it.
        pattern: With a group `since`, and one `until` where there may be one.
        parse: Raises ValueError for what the vendor refuses.
        required: Whether it must be there.
    """
    form = re.compile(pattern)

    def read(ask: Ask) -> Bounds:
        text = ask.take(param)
        if text is None:
            if required:
                raise RefusedError(f"{param} is required")
            return None, None
        match = form.fullmatch(text)
        if match is None:
            raise RefusedError(f"{param} is malformed: {text}")
        groups = match.groupdict()
        found = [groups.get(name) for name in ("since", "until")]
        since_ns, until_ns = (
            None if text is None else _parse(param, text, parse) for text in found
        )
        _check_span(since_ns, until_ns, None)
        return since_ns, until_ns

    return read


def _read_bound(ask: Ask, name: str | None, parse: Parse, required: bool) -> int | None:
    value = None if name is None else ask.take(name)
    if value is not None and name is not None:
        return _parse(name, value, parse)
    if required and name is not None:
        raise RefusedError(f"{name} is required")
    return None


def _parse(name: str, value: Any, parse: Parse) -> int:
    try:
        return parse(value)
    except ValueError:
        raise RefusedError(f"{name} is malformed: {value}") from None


def _check_span(since_ns: int | None, until_ns: int | None, longest_s: float | None) -> None:
    if since_ns is None or until_ns is None:
        return
    if until_ns < since_ns:
        raise RefusedError("the bounds are the wrong way round")
    if longest_s is not None and until_ns - since_ns > longest_s * NS_PER_S:
        raise RefusedError("the bounds are too far apart")


@dataclass(frozen=True)
class Page:
    """What an envelope is made of.

    Attributes:
        items: The records, as they stand in the log.
        entries: The same, with what the log knows about them.
        token: Of the next page; None where there is none.
        next_target: Path and query of the next page; None where there is none.
        has_more: Whether there is another page with anything on it.
        total: Of the records that pass the filter.
        origin: Of this server, to the client.
        target: Path and query of this page.
    """

    items: list[msgspec.Raw]
    entries: list[Entry]
    token: str | None
    next_target: str | None
    has_more: bool
    total: int
    origin: str
    target: str

    @property
    def next_url(self) -> str | None:
        """URL of the next page."""
        return None if self.next_target is None else self.origin + self.next_target


def links(page: Page) -> list[tuple[str, str]]:
    """Give the Link header with the next page, in a line of its own beside that of this one."""
    lines = [("Link", f'<{page.origin}{page.target}>; rel="self"')]
    if page.next_url is not None:
        lines.append(("Link", f'<{page.next_url}>; rel="next"'))
    return lines


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A route that lists a vendor's log.

    Attributes:
        envelope: The answer's body.
        headers: And its headers.
        bounds: Reads the time filter.
        paging: How the next page is asked for; `last_id` takes the id of the
            last event for a cursor. A cursor stands between two events and does
            not shift, a page or an offset counts from the first event.
        page_param: Name of the cursor, offset, number.
        with_cursor: Whether the time filter is sent with a cursor `again`, and
            then the same, or must `not` be, or `may`, and then is ignored; where a
            cursor has to be `alone`, the page size is not sent with it either.
        has_next: Whether a cursor is handed out while there is `more`, behind
            `each` page that is not empty, or `always`.
        gaps: Empty pages that lead on, before each page with events, where the
            server is told to have them: only a missing cursor is the end.
        next_path: Where the next page is, if elsewhere.
        locator_path: Where the next page is, if the cursor is the last part of
            its path.
        order: Of the timestamps or arrivals; equal ones in order of arrival.
        order_param: That may change it, and the values that do.
        ordered_by: What the order is of.
        filtered_by: What the time filter looks at.
        limit_param: Page size, as a number.
        default_limit: Page size where none is asked for.
        max_limit: Largest page size.
        over_limit: What happens beyond it.
        required: Parameters that have to be just so.
        choices: Parameters that may have one of these values.
        lane_of: Of a request.
    """

    envelope: Callable[[Page], object]
    headers: Callable[[Page], list[tuple[str, str]]] = lambda _: []
    bounds: Callable[[Ask], Bounds] = field(default_factory=bounds)
    paging: Literal["cursor", "offset", "page", "last_id", "none"] = "cursor"
    page_param: str = "cursor"
    with_cursor: Literal["again", "not", "may", "alone"] = "may"
    has_next: Literal["more", "each", "always"] = "more"
    gaps: int = 0
    next_path: str | None = None
    locator_path: str | None = None
    order: Literal["asc", "desc"] = "asc"
    order_param: tuple[str, Mapping[str, Literal["asc", "desc"]]] | None = None
    ordered_by: Literal["event", "arrival"] = "event"
    filtered_by: Literal["event", "arrival"] = "event"
    limit_param: str | None = "limit"
    default_limit: int = 100
    max_limit: int = 1000
    over_limit: Literal["cut", "refuse"] = "cut"
    required: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lane_of: Callable[[Request], str] = lambda _: ""

    def __call__(self, api: VendorApi, request: Request) -> Response:
        """Answer a request, or refuse it."""
        ask = Ask(request)
        log = api.log(self.lane_of(request))
        gaps = self.gaps if api.has_gaps else 0
        if self.locator_path is not None and request.path.startswith(self.locator_path):
            ask.finish()
            place = unquote(request.path.removeprefix(self.locator_path))
            nothing = (None, None)
            return self._write(request, log, self.default_limit, self.order, nothing, place, gaps)
        for name, text in self.required.items():
            if ask.take(name) != text:
                raise RefusedError(f"{name} has to be {text}")
        for name, values in self.choices.items():
            if ask.take(name) not in {None, *values}:
                raise RefusedError(f"{name} has to be one of {values}")
        is_sized = self.limit_param in ask.names
        limit = self._read_limit(ask)
        order = self._read_order(ask)
        asked = self.bounds(ask)
        place = ask.take(self.page_param)
        ask.finish()
        if self.with_cursor == "alone" and place is not None and is_sized:
            raise RefusedError(f"{self.limit_param} and a cursor exclude each other")
        return self._write(request, log, limit, order, asked, place, gaps)

    def _read_limit(self, ask: Ask) -> int:
        value = None if self.limit_param is None else ask.take(self.limit_param)
        if value is None:
            return self.default_limit
        limit = _parse(self.limit_param or "", value, _whole)
        if limit > self.max_limit and self.over_limit == "refuse":
            raise RefusedError(f"{self.limit_param} is above {self.max_limit}")
        return min(limit, self.max_limit)

    def _read_order(self, ask: Ask) -> Literal["asc", "desc"]:
        if self.order_param is None:
            return self.order
        name, values = self.order_param
        text = ask.take(name)
        if text is not None and text not in values:
            raise RefusedError(f"{name} has to be one of {list(values)}")
        return self.order if text is None else values[text]

    def _write(
        self,
        request: Request,
        log: list[Entry],
        limit: int,
        order: Literal["asc", "desc"],
        asked: Bounds,
        place: str | None,
        gaps: int,
    ) -> Response:
        after: Key | None = None
        if gaps:
            gaps, place = _pass_gap(gaps, place)
        if place is not None and self.paging == "cursor":
            after, asked = self._read_token(place, asked)
        since_ns, until_ns = asked
        passing = [
            entry
            for entry in log
            if (since_ns is None or entry.at(self.filtered_by) >= since_ns)
            and (until_ns is None or entry.at(self.filtered_by) <= until_ns)
        ]
        passing.sort(key=lambda entry: entry.key(self.ordered_by), reverse=order == "desc")
        start = self._find_start(passing, place, after, order, limit)
        entries = [] if gaps else passing[start : start + limit]
        has_more = start + len(entries) < len(passing)
        last = entries[-1].key(self.ordered_by) if entries else after or (0, -1)
        leads_on = {"more": has_more, "each": bool(entries), "always": True}[self.has_next]
        token = None
        if self.paging == "cursor" and leads_on:
            token = make_token(last, (since_ns, until_ns))
        if gaps:
            token = f"{gaps - 1}{_GAP}{place or ''}"
        page = Page(
            items=[msgspec.Raw(entry.raw) for entry in entries],
            entries=entries,
            token=token,
            next_target=None if token is None else self._next_target(request, token),
            has_more=has_more,
            total=len(passing),
            origin=origin_of(request),
            target=request.target,
        )
        return Response(200, self.headers(page), msgspec.json.encode(self.envelope(page)))

    def _read_token(self, token: str, asked: Bounds) -> tuple[Key, Bounds]:
        after, bounds_then = read_token(token)
        if self.with_cursor in {"not", "alone"} and asked != (None, None):
            raise RefusedError("a time filter and a cursor exclude each other")
        if self.with_cursor == "again" and asked != bounds_then:
            raise RefusedError("the time filter has to be the one that the cursor came with")
        return after, bounds_then

    def _find_start(
        self,
        passing: list[Entry],
        place: str | None,
        after: Key | None,
        order: str,
        limit: int,
    ) -> int:
        if place is None or self.paging == "none":
            return 0
        if self.paging == "offset":
            return _parse(self.page_param, place, _whole)
        if self.paging == "page":
            number = _parse(self.page_param, place, _whole)
            if number < 1:
                raise RefusedError(f"{self.page_param} starts at 1")
            return (number - 1) * limit
        if self.paging == "last_id":
            ids = [entry.value["id"] for entry in passing]
            if place not in ids:
                raise RefusedError(f"{self.page_param}: no such event")
            return ids.index(place) + 1
        assert after is not None
        keys = [entry.key(self.ordered_by) for entry in passing]
        return sum(key <= after if order == "asc" else key >= after for key in keys)

    def _next_target(self, request: Request, token: str) -> str:
        if self.locator_path is not None:
            return self.locator_path + quote(token, safe="")
        query = [(name, text) for name, text in request.query if name != self.page_param]
        if self.with_cursor == "not":
            ask = Ask(request)
            self.bounds(ask)
            query = [(name, text) for name, text in query if name in ask.names]
        path = self.next_path or request.path
        return f"{path}?{urlencode([*query, (self.page_param, token)])}"


def _pass_gap(gaps: int, place: str | None) -> tuple[int, str | None]:
    """Give how many empty pages are still before a place, and the place behind them."""
    if place is None or _GAP not in place:
        return gaps, place
    left, _, behind = place.partition(_GAP)
    return int(left), behind or None


def make_token(after: Key, asked: Bounds) -> str:
    """Make a cursor that stands behind a place and knows the filter of its scan."""
    return base64.b64encode(json.dumps([after, asked]).encode()).decode()


def read_token(token: object) -> tuple[Key, Bounds]:
    """Read a cursor, or refuse."""
    try:
        (at_ns, arrival), (since_ns, until_ns) = json.loads(
            base64.b64decode(str(token), validate=True)
        )
    except ValueError:
        raise RefusedError("the cursor is invalid or expired") from None
    return (at_ns, arrival), (since_ns, until_ns)
