"""The next request from this page: places in a listing, and how to ask for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from flicker.errors import ForeignLinkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flicker.decode import Page
    from flicker.settings import Pagination

NEXT_URL = "\0next_url"
"""Stands among the Link relations for a URL that came in body or header."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class Place(NamedTuple):
    """Where in a listing a request reads; the shape that snapshots keep.

    Attributes:
        kind: `top`, `offset`, `page`, `cursor` or `url`.
        value: A number for offsets and pages, exact text for cursors and
            URLs, None at the top.
    """

    kind: str
    value: int | str | None = None

    @property
    def is_token(self) -> bool:
        """Whether the API made it up, so that the API can also refuse it."""
        return self.kind in {"cursor", "url"}


def first_place(pagination: Pagination | None) -> Place:
    """Give the place that a scan from the start begins at."""
    if pagination is None or pagination.has_tokens or pagination.type == "none":
        return Place("top")
    if pagination.type == "offset":
        return Place("offset", 0)
    return Place("page", pagination.start_page)


def next_place(
    pagination: Pagination | None, place: Place, page: Page, links: dict[str, str]
) -> Place | None:
    """Give the place behind a page, None where the API says there is none.

    Args:
        pagination: The source's, or None for a listing of one page.
        place: Where the page was read.
        page: What was read there.
        links: Targets of the response's Link headers by relation; for
            `next_url`, the URL under NEXT_URL.
    """
    if pagination is None or pagination.type == "none":
        return None
    if pagination.type == "offset":
        # By what came, not by page_size: servers cap page sizes silently, and
        # some return a few more than asked for.
        return Place("offset", int(place.value or 0) + page.entries)
    if pagination.type == "page":
        return Place("page", int(place.value or 0) + 1)
    if pagination.type != "cursor":
        rel = NEXT_URL if pagination.type == "next_url" else pagination.rel.lower()
        target = links.get(rel)
        return Place("url", target) if target else None
    if page.cursor is not None:
        return Place("cursor", page.cursor)
    target = (
        None if page.has_cursor_field else links.get((pagination.next_cursor_field or "").lower())
    )
    return Place("url", target) if target else None


def is_dead_end(pagination: Pagination | None, page: Page, links: dict[str, str]) -> bool:
    """Tell whether a page with events says that there is more, and not where.

    An empty page that does is the end: some vendors say so for ever. Where the
    cursor is an event's, events without one say that too: the end has none.
    """
    if pagination is None or page.entries == 0:
        return False
    if pagination.cursor_from_last is not None and page.has_more is None:
        return page.cursor is None and page.entries > page.skipped
    return (
        pagination.has_tokens
        and page.has_more is True
        and next_place(pagination, Place("top"), page, links) is None
    )


def describe_dead_end(pagination: Pagination) -> str:
    """Say what such a page has and what it lacks."""
    if pagination.cursor_from_last is not None:
        return (
            f'has events, and none with a cursor at cursor_from_last "{pagination.cursor_from_last}'
            '": nobody knows what is behind them. Check cursor_from_last against the response'
        )
    if pagination.type == "link_header":
        missing = f'no Link header with the relation "{pagination.rel}"'
    elif pagination.next_url_header is not None:
        missing = f'no header "{pagination.next_url_header}"'
    elif pagination.next_url_field is not None:
        missing = f'no URL at next_url_field "{pagination.next_url_field}"'
    else:
        missing = f'no cursor at next_cursor_field "{pagination.next_cursor_field}"'
    return (
        f'says at has_more_field "{pagination.has_more_field}" that there is more, and has '
        f"{missing}. Check both against the response, and leave has_more_field out if it is always"
        " true"
    )


def next_url(pagination: Pagination | None, page: Page, headers: Mapping[str, str]) -> str | None:
    """Give the URL of the next page as the API wrote it, for `next_url`.

    Args:
        pagination: The source's.
        page: What was read.
        headers: Of the response, names in lower case.
    """
    if pagination is None or pagination.type != "next_url":
        return None
    if pagination.next_url_header is not None:
        return headers.get(pagination.next_url_header.lower())
    return page.cursor


def page_params(pagination: Pagination | None, place: Place) -> list[tuple[str, str | int]]:
    """Give the parameters that ask for a place, besides the constant ones."""
    if pagination is None:
        return []
    params: list[tuple[str, str | int]] = []
    if pagination.limit_param and not is_cursor_alone(pagination, place):
        params.append((pagination.limit_param, pagination.page_size))
    param = {
        "offset": pagination.offset_param,
        "page": pagination.page_param,
        "cursor": pagination.cursor_param,
    }.get(place.kind)
    if param and place.value is not None:
        params.append((param, place.value))
    return params


def is_cursor_alone(pagination: Pagination | None, place: Place) -> bool:
    """Tell whether nothing goes with the cursor that asks for a place."""
    return pagination is not None and pagination.cursor_only and place.kind == "cursor"


def add_query(url: str, query: Iterable[tuple[str, str | int]]) -> str:
    """Append parameters to a URL, leaving its own query string as it is.

    Colons stay readable, as RFC 3986, section 3.4 allows; all else that means
    something in a URL is percent-encoded (a `+` would be read as a space).
    """
    added = "&".join(
        f"{quote(name, safe=':')}={quote(str(value), safe=':')}" for name, value in query
    )
    if not added:
        return url
    scheme, netloc, path, own, _ = urlsplit(url)
    return urlunsplit((scheme, netloc, path, f"{own}&{added}" if own else added, ""))


def resolve_link(base: str, target: str) -> str:
    """Resolve a link against the request's URL, refusing other origins.

    Raises:
        ForeignLinkError: The link leaves the configured scheme, host or port,
            or carries user information: credentials would leave with it.
    """
    try:
        url = urljoin(base, target.strip())
        if origin_of(url) == origin_of(base) and "@" not in urlsplit(url).netloc:
            return url
        where = urlsplit(url).hostname or "nowhere"
    except ValueError:
        where = "a URL that cannot be read"
    message = (
        f"links to {where}, off the configured origin, and credentials go nowhere else. If the "
        "API moved, change the endpoint"
    )
    raise ForeignLinkError(message)


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Give a URL's scheme, host and port, with the default port filled in.

    Source: RFC 6454, section 4.

    Raises:
        ValueError: The URL or its port cannot be read.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").rstrip(".")
    return scheme, host, parts.port or DEFAULT_PORTS.get(scheme)


_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*(?:\"(?:[^\"\\]|\\.)*\"|[^,;\"])*)*)")
_PARAM = re.compile(r";\s*([\w!#$&+\-.^`|~*]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]*))")


def parse_links(values: Iterable[str]) -> dict[str, str]:
    """Read Link header lines into targets by relation.

    Args:
        values: Each header line's value; one may hold several links.

    Returns:
        The first target for each relation, relations in lower case. What is
        no link is passed over.

    Source: RFC 8288, section 3.
    """
    links: dict[str, str] = {}
    for value in values:
        at = 0
        while match := _LINK.search(value, at):
            at = match.end()
            target, params = match.groups()
            for name, quoted, plain in _PARAM.findall(params):
                if name.lower() == "rel":
                    for relation in (quoted or plain).lower().split():
                        links.setdefault(relation, target)
                    break
    return links
