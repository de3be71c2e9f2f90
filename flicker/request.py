"""From a place in a listing to the request that asks for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flicker.pagination import add_query, page_params
from flicker.settings import SINCE, UNTIL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.pagination import Place
    from flicker.settings import ResponseFormat, Source

NUMBER_FORMATS = frozenset({"unix", "unix_ms"})
"""Time formats that are numbers in JSON."""

ACCEPTED: Mapping[ResponseFormat, str] = {
    "ndjson": "application/x-ndjson, application/jsonl, */*;q=0.5",
    "csv": "text/csv, */*;q=0.5",
}
"""What to ask for where it is not JSON. Anything else will do, since many call it plain text."""

Param = tuple[str, "str | int"]


@dataclass(frozen=True)
class PageRequest:
    """What to send.

    Attributes:
        url: Absolute; may hold secrets, hence no repr.
        method: `GET` or `POST`.
        body: JSON for `POST`, None for `GET`.
        response_format: Of what it asks for.
    """

    url: str = field(repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)
    response_format: ResponseFormat = "json"

    @property
    def headers(self) -> dict[str, str]:
        """Header lines that the forms of body and answer ask for."""
        lines = {} if self.body is None else {"Content-Type": "application/json"}
        if self.response_format in ACCEPTED:
            lines["Accept"] = ACCEPTED[self.response_format]
        return lines


@dataclass(frozen=True)
class Bounds:
    """The time that a scan asks for, as the API wants it written.

    Attributes:
        since: Lower bound, None to ask without.
        until: Upper bound, None to ask without.
    """

    since: str | None = None
    until: str | None = None


def page_request(source: Source, place: Place, bounds: Bounds) -> PageRequest:
    """Give the request for a place.

    A URL that the API made is followed to the letter; nothing is added to it,
    and a POST brings the same body along.

    Args:
        source: What to ask.
        place: Where in its listing.
        bounds: Left out where a token stands for them.
    """
    query: list[Param] = [(name, value.reveal()) for name, value in source.params]
    params = [*time_params(source, bounds), *page_params(source.pagination, place)]
    if source.location == "query":
        query.extend(params)
    url = str(place.value) if place.kind == "url" else add_query(source.endpoint.url, query)
    form = source.listing_format
    if source.method != "POST":
        return PageRequest(url, response_format=form)
    body = {} if source.body is None else json.loads(source.body.reveal())
    for path, value in params if source.location == "body" else ():
        put_at(body, path, value)
    return PageRequest(url, "POST", json.dumps(body).encode(), form)


def time_params(source: Source, bounds: Bounds) -> list[Param]:
    """Give the parameters that ask for a span of time."""
    params: list[Param] = []
    as_number = source.location == "body" and source.time_filter_format in NUMBER_FORMATS
    since, until = bounds.since, bounds.until
    if source.time_filter_param and since is not None:
        template = source.time_filter_template
        value: str | int = int(since) if as_number else since
        if template is not None:
            value = template.replace(SINCE, since).replace(UNTIL, until or "")
        params.append((source.time_filter_param, value))
    if source.time_filter_end_param and until is not None:
        params.append((source.time_filter_end_param, int(until) if as_number else until))
    return params


def put_at(body: dict[str, Any], path: str, value: str | int) -> None:
    """Put a value into a JSON object at a dotted path, making what is missing.

    As in a response, the longest key that is there wins, so that a key with
    dots in it is meant literally, and a number picks from a list.
    """
    segments = path.split(".")
    inside: Any = body
    while True:
        key, rest = _longest_key(inside, segments)
        if not rest:
            inside[key] = value
            return
        if not isinstance(inside[key], (dict, list)):
            inside[key] = {}
        inside, segments = inside[key], rest


def _longest_key(inside: Any, segments: list[str]) -> tuple[str | int, list[str]]:
    """Give the key that a path goes on with, made if it is missing, and the path behind it."""
    if isinstance(inside, list):
        return int(segments[0]), segments[1:]
    for length in range(len(segments), 0, -1):
        key = ".".join(segments[:length])
        if key in inside:
            return key, segments[length:]
    inside[segments[0]] = None
    return segments[0], segments[1:]
