"""From a place in a listing to the request that asks for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flicker.pagination import add_query, page_params
from flicker.settings import SINCE, UNTIL

if TYPE_CHECKING:
    from flicker.pagination import Place
    from flicker.settings import Source

NUMBER_FORMATS = frozenset({"unix", "unix_ms"})
"""Time formats that are numbers in JSON."""

Param = tuple[str, "str | int"]


@dataclass(frozen=True)
class PageRequest:
    """What to send.

    Attributes:
        url: Absolute; may hold secrets, hence no repr.
        method: `GET` or `POST`.
        body: JSON for `POST`, None for `GET`.
    """

    url: str = field(repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Header lines that the body asks for."""
        return {} if self.body is None else {"Content-Type": "application/json"}


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

    A URL that the API made is followed to the letter; nothing is added to it.

    Args:
        source: What to ask.
        place: Where in its listing.
        bounds: Left out where a token stands for them.
    """
    query: list[Param] = []
    merged: list[Param] = []
    if place.kind == "url":
        url = str(place.value)
    else:
        query = [(name, value.reveal()) for name, value in source.params]
        params = [*time_params(source, bounds), *page_params(source.pagination, place)]
        (merged if source.location == "body" else query).extend(params)
        url = add_query(source.endpoint.url, query)
    if source.method != "POST":
        return PageRequest(url)
    body = {} if source.body is None else json.loads(source.body.reveal())
    for path, value in merged:
        put_at(body, path, value)
    return PageRequest(url, "POST", json.dumps(body, ensure_ascii=False).encode())


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

    A key that is there with dots in it is meant literally.
    """
    if path in body:
        body[path] = value
        return
    *parents, last = path.split(".")
    for parent in parents:
        inner = body.get(parent)
        if not isinstance(inner, dict):
            inner = body[parent] = {}
        body = inner
    body[last] = value
