"""A well-behaved vendor: one list of events, paged in any of the usual ways."""

from __future__ import annotations

import base64
import bisect
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import msgspec

from flicker.demo.servers import EmbeddedServer, Request, Response, parse_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    Event = Mapping[str, object] | bytes

Paging = Literal["offset", "page", "cursor", "link", "next_url", "next_header", "last_id"]
TimeFormat = Literal["rfc3339", "iso8601", "unix"]
# Instant in nanoseconds, number of arrival: no two events share a key.
Key = tuple[int, int]

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
# Epoch numbers at or above this are milliseconds: as seconds they are the year 5138.
_FIRST_MS = 100_000_000_000
_NO_INSTANT_NS = -1
_BEFORE_ALL: Key = (_NO_INSTANT_NS, -1)
_MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a vendor lists events; the defaults are the specification's names.

    Attributes:
        paging: `cursor` hands the next cursor out in the body, `link` in a Link
            header line of its own beside that of `self`, `next_url` as a
            relative URL in the body, `next_header` as a URL in the header
            NextPageUri; `last_id` takes the id of the last event for one.
        has_more_field: Dotted path of whether there is another page, if told.
        results_field: Dotted path of the list; empty for a root array.
        timestamp_field: Dotted path in an event; RFC 3339 text, or epoch
            seconds or milliseconds as a number. An event without one sorts
            before all and passes no time filter.
        order: Of the timestamps; equal ones stand in order of arrival.
        next_field: Dotted path of the next cursor, for `cursor`.
        never_ends: A next cursor or link is handed out for ever, ascending
            order only; otherwise it is null, or missing, on the last page.
        default_limit: Page size where the request names none.
        max_limit: Page sizes above it are silently cut to it.
        first_page: Number of the first page.
        beyond: What comes after the last page: an empty list, or 404 as
            Django REST framework does it. The first page always exists.
        ignores_paging: The same first page, whatever is asked.
        time_param: Of an inclusive lower bound.
        time_end_param: Of an inclusive upper bound, for offsets and pages.
        longest_s: What asks for a longer time gets 400, and so does what has no bounds.
        time_format: `rfc3339` takes any fraction and offset, `iso8601` exactly
            milliseconds and `Z`, `unix` whole seconds; everything else is 400.
        required_headers: By lower-case name; without them, 401.
        method: With `POST`, the parameters stand in a JSON object, at dotted
            paths; limit, offset and page have to be numbers there.
    """

    paging: Paging
    path: str = "/api/events"
    results_field: str = "events"
    timestamp_field: str = "timestamp"
    order: Literal["asc", "desc"] = "asc"
    limit_param: str = "limit"
    offset_param: str = "offset"
    page_param: str = "page"
    cursor_param: str = "cursor"
    next_field: str = "pagination.next_cursor"
    has_more_field: str | None = None
    never_ends: bool = False
    default_limit: int = 100
    max_limit: int = 1000
    first_page: int = 1
    beyond: Literal["empty", "404"] = "empty"
    ignores_paging: bool = False
    time_param: str | None = None
    time_end_param: str | None = None
    longest_s: float | None = None
    time_format: TimeFormat = "rfc3339"
    required_headers: Mapping[str, str] = field(default_factory=dict)
    method: Literal["GET", "POST"] = "GET"

    def __post_init__(self) -> None:
        if self.time_end_param is not None and self.paging not in {"offset", "page"}:
            message = "time_end_param is for offsets and pages"
            raise ValueError(message)
        if self.never_ends and (self.order == "desc" or self.paging not in {"cursor", "link"}):
            message = "never_ends is for ascending cursors and links"
            raise ValueError(message)
        if self.paging == "cursor" and not self.results_field:
            message = "a root array leaves no place for the next cursor"
            raise ValueError(message)


@dataclass(frozen=True)
class _Page:
    items: list[bytes]
    next_cursor: str | None = None
    has_more: bool = False


class _AskedWronglyError(Exception):
    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


class ListingApi(EmbeddedServer):
    """Lists events as a `Style` says; more may be added while it runs.

    Pages and offsets count from the start of the list as it is at that moment,
    so additions shift them. Cursors stand between two events and do not shift;
    an event added behind one is missed by whoever follows it, as at a vendor
    who pages by event time. Repeated and malformed parameters get 400, unknown
    ones are ignored.
    """

    def __init__(
        self,
        events: Iterable[Event],
        style: Style,
        *,
        before_reply: Callable[[Request], Response | None] | None = None,
        port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        client_ca: str | Path | None = None,
    ) -> None:
        """Bind the port.

        Args:
            events: Objects, or their JSON text where the bytes matter.
            style: How they are listed.
            before_reply: May answer a request in the list's stead; settable at
                any time.
            port: 0 for a free one.
            tls: Paths of the certificate chain and its key, in PEM.
            client_ca: PEM file that clients' certificates must be signed by.
        """
        super().__init__(port=port, tls=tls, client_ca=client_ca)
        self.style = style
        self.before_reply = before_reply
        self._lock = threading.Lock()
        self._keys: list[Key] = []
        self._raw: list[bytes] = []
        self._arrivals = 0
        self.add(events)

    @property
    def endpoint(self) -> str:
        """The URL to poll."""
        return self.url + self.style.path

    @property
    def raw_events(self) -> list[bytes]:
        """The bytes of every event as served, oldest first."""
        with self._lock:
            return list(self._raw)

    def add(self, events: Iterable[Event]) -> None:
        """Put events where their timestamps belong."""
        for event in events:
            raw = event if isinstance(event, bytes) else msgspec.json.encode(event)
            instant_ns = _read_instant(json.loads(raw), self.style.timestamp_field)
            with self._lock:
                key = (instant_ns, self._arrivals)
                self._arrivals += 1
                index = bisect.bisect(self._keys, key)
                self._keys.insert(index, key)
                self._raw.insert(index, raw)

    def answer(self, request: Request) -> Response:
        """Answer as the style says."""
        hook = self.before_reply
        response = None if hook is None else hook(request)
        if response is not None:
            return response
        style = self.style
        if request.path != style.path:
            return Response(404, body={"detail": "Not found."})
        if request.method != style.method:
            return Response(405, body={"detail": "Method not allowed."})
        if any(request.headers.get(name) != text for name, text in style.required_headers.items()):
            return Response(401, body={"detail": "Credentials were not provided."})
        try:
            page = self._find_page(self._read_params(request))
        except _AskedWronglyError as error:
            return Response(error.status, body={"detail": error.problem})
        return self._write_page(request, page)

    def _read_params(self, request: Request) -> Mapping[str, str]:
        style = self.style
        if style.method == "GET":
            if len(request.params) < len(request.query):
                problem = "a parameter is repeated"
                raise _AskedWronglyError(problem)
            return request.params
        if request.headers.get("content-type") != "application/json":
            problem = "expected JSON"
            raise _AskedWronglyError(problem, 415)
        params = dict(_flatten(json.loads(request.body)))
        numbers = {style.limit_param, style.offset_param, style.page_param}
        if any(isinstance(value, int) != (name in numbers) for name, value in params.items()):
            problem = "expected numbers for limit, offset and page, and text for the rest"
            raise _AskedWronglyError(problem)
        return {name: str(value) for name, value in params.items()}

    def _find_page(self, params: Mapping[str, str]) -> _Page:
        style = self.style
        limit = min(_read_number(params, style.limit_param, style.default_limit), style.max_limit)
        since_ns = self._read_instant(params, style.time_param)
        until_ns = self._read_instant(params, style.time_end_param)
        self._check_span(since_ns, until_ns)
        if style.paging not in {"offset", "page"}:
            return self._find_after(params, since_ns, limit)
        if style.paging == "offset":
            start = _read_number(params, style.offset_param, 0)
        else:
            start = (
                _read_number(params, style.page_param, style.first_page) - style.first_page
            ) * limit
        if start < 0:
            problem = "Invalid page."
            raise _AskedWronglyError(problem, 404)
        if style.ignores_paging:
            start = 0
        with self._lock:
            first = self._find_first(since_ns)
            last = self._find_last(until_ns)
            total = last - first
            if start and start >= total and style.beyond == "404":
                problem = "Invalid page."
                raise _AskedWronglyError(problem, 404)
            return _Page(self._slice(first, last, start, limit)[1])

    def _find_after(self, params: Mapping[str, str], since_ns: int | None, limit: int) -> _Page:
        style = self.style
        after: Key | None = None
        cursor = params.get(style.cursor_param)
        if cursor is not None and style.paging == "last_id":
            with self._lock:
                ids = [str(json.loads(raw).get("id")) for raw in self._raw]
                after = self._keys[ids.index(cursor)]
        elif cursor is not None:
            # A cursor carries the filter of its scan, since not every client repeats it.
            after, since_ns = _read_cursor(cursor)
        if style.ignores_paging:
            after = None
        with self._lock:
            first = self._find_first(since_ns)
            total = len(self._keys) - first
            if after is None:
                start = 0
            elif style.order == "asc":
                start = max(bisect.bisect_right(self._keys, after) - first, 0)
            else:
                start = len(self._keys) - bisect.bisect_left(self._keys, after)
            keys, items = self._slice(first, len(self._keys), start, limit)
        has_more = start + len(keys) < total
        if not style.never_ends and not has_more:
            return _Page(items)
        last = keys[-1] if keys else after
        return _Page(items, _make_cursor(last or _BEFORE_ALL, since_ns), has_more)

    def _find_first(self, since_ns: int | None) -> int:
        return 0 if since_ns is None else bisect.bisect_left(self._keys, (since_ns, -1))

    def _find_last(self, until_ns: int | None) -> int:
        if until_ns is None:
            return len(self._keys)
        return bisect.bisect_left(self._keys, (until_ns + 1, -1))

    def _check_span(self, since_ns: int | None, until_ns: int | None) -> None:
        longest_s = self.style.longest_s
        if longest_s is None:
            return
        if since_ns is None or until_ns is None:
            problem = "both bounds are required"
            raise _AskedWronglyError(problem)
        if not 0 < until_ns - since_ns <= longest_s * _NS_PER_S:
            problem = "the end is before the start, or the span is too long"
            raise _AskedWronglyError(problem)

    def _slice(
        self, first: int, last: int, start: int, limit: int
    ) -> tuple[list[Key], list[bytes]]:
        """Cut a page out of the events between two indices, in the style's order."""
        if self.style.order == "asc":
            part = slice(min(first + start, last), min(first + start + limit, last))
            return self._keys[part], self._raw[part]
        end = max(last - start, first)
        part = slice(max(end - limit, first), end)
        return self._keys[part][::-1], self._raw[part][::-1]

    def _write_page(self, request: Request, page: _Page) -> Response:
        style = self.style
        listed = b"[" + b",".join(page.items) + b"]"
        headers: list[tuple[str, str]] = []
        query = urlencode({**request.params, style.cursor_param: page.next_cursor or ""})
        following = f"{request.path}?{query}"
        if style.paging == "link":
            # The client's own name for us, or a link would leave its origin.
            origin = f"{self._scheme}://{request.headers.get('host', '')}"
            headers.append(("Link", f'<{origin}{request.target}>; rel="self"'))
            if page.next_cursor is not None:
                headers.append(("Link", f'<{origin}{following}>; rel="next"'))
        if style.paging == "next_header" and page.next_cursor is not None:
            host = f"{self._scheme}://{request.headers.get('host', '')}"
            headers.append(("NextPageUri", f"{host}{following}"))
        if not style.results_field:
            return Response(200, headers, listed)
        body: dict[str, object] = {}
        _put(body, style.results_field, msgspec.Raw(listed))
        if style.paging == "cursor":
            _put(body, style.next_field, page.next_cursor)
        if style.paging == "next_url":
            _put(body, style.next_field, None if page.next_cursor is None else following)
        if style.has_more_field is not None:
            _put(body, style.has_more_field, page.has_more)
        return Response(200, headers, msgspec.json.encode(body))

    def _read_instant(self, params: Mapping[str, str], name: str | None) -> int | None:
        style = self.style
        if name is None or name not in params:
            return None
        text = params[name]
        try:
            if style.time_format == "unix":
                if not _NUMBER.fullmatch(text):
                    raise ValueError
                return int(text) * _NS_PER_S
            if style.time_format == "iso8601" and not _MILLISECONDS.fullmatch(text):
                raise ValueError
            return parse_instant(text)
        except ValueError:
            problem = f"{name}: expected {style.time_format}"
            raise _AskedWronglyError(problem) from None


def _read_instant(event: object, path: str) -> int:
    value = event
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        return parse_instant(value)
    if isinstance(value, int | float):
        # Numbers beyond the whole unit do not occur in what tests list.
        return int(value) * (_NS_PER_MS if value >= _FIRST_MS else _NS_PER_S)
    return _NO_INSTANT_NS


def _read_number(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        problem = f"{name}: expected a number"
        raise _AskedWronglyError(problem)
    return int(text)


def _make_cursor(after: Key, since_ns: int | None) -> str:
    return base64.b64encode(json.dumps([*after, since_ns]).encode()).decode()


def _read_cursor(cursor: str) -> tuple[Key, int | None]:
    try:
        instant_ns, arrival, since_ns = json.loads(base64.b64decode(cursor, validate=True))
    except ValueError:
        problem = "the cursor is invalid or expired"
        raise _AskedWronglyError(problem) from None
    return (instant_ns, arrival), since_ns


def _flatten(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _flatten(member, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _put(body: dict[str, object], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        child = body.setdefault(name, {})
        assert isinstance(child, dict)
        body = child
    body[last] = value
