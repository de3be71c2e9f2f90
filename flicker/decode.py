"""From a response's bytes to a page of events, copying rather than parsing.

Field paths are compiled once into msgspec decoders that skip over everything
but the timestamp, the id and the message; an event stays the vendor's bytes.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flicker.errors import RetryableError
from flicker.formats import FormatError, ResponseFormat, csv_entries, decode_text, ndjson_entries
from flicker.json_text import (
    UNREADABLE,
    compile_fields,
    cut_list,
    scalar_text,
    split_list,
    split_object,
    split_value,
    string_text,
    walk_path,
)
from flicker.timefmt import parse_timestamp
from flicker.verdict import find_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_MORE = frozenset({b"false", b"null", b"0", b"no", b""})
"""What a field for further pages holds where there are none."""

IDENTITY_BYTES = 16

HTML_MESSAGE = (
    "is HTML, not data (a login page, a proxy or a captive portal answers instead of the API). "
    "Check the endpoint and the network's way to it"
)


class Event(NamedTuple):
    """One entry of the vendor's log.

    Attributes:
        identity: 16 bytes by which a repeat is known: a digest of the value
            of `id_field` or, without a usable one, of the event's bytes and of
            how often they came before in the page.
        id: What the record's `id` says: the value of `id_field` as text, else
            the identity in hexadecimal.
        timestamp_ns: Nanoseconds since 1970, or None where unreadable.
        message: JSON text of a string, or `null`.
        raw: The event exactly as the vendor wrote it.
    """

    identity: bytes
    id: str
    timestamp_ns: int | None
    message: bytes
    raw: bytes


class Page(NamedTuple):
    """One API response, read.

    Attributes:
        events: In the vendor's order.
        entries: Length of the vendor's list, skipped entries included: what
            an offset has to move by.
        cursor: Exact text of the next cursor, None at the end.
        has_cursor_field: Whether `next_cursor_field` exists in the body.
        digest: Equal for pages with the same events in the same order.
        has_more: What the API says of further pages; None where it does not.
        skipped: Entries that are null, and so no events.
        undecoded: Entries without JSON at `decode_field`, which are events
            themselves.
        last_entry: Identity that the first event of the last entry has where a
            page begins with that entry; None where that is no event.
    """

    events: list[Event]
    entries: int
    cursor: str | None
    has_cursor_field: bool
    digest: bytes
    has_more: bool | None = None
    skipped: int = 0
    undecoded: int = 0
    last_entry: bytes | None = None


def split_identities(joined: bytes) -> list[bytes]:
    """Take identities apart that snapshots and journals hold end to end."""
    return [joined[at : at + IDENTITY_BYTES] for at in range(0, len(joined), IDENTITY_BYTES)]


class UnreadablePageError(RetryableError):
    """The answer is no page; it may be one next time, so nothing moves."""


class ErrorBodyError(UnreadablePageError):
    """The body says that the request failed, whatever the status says.

    Attributes:
        excerpt: The vendor's own words, on one line; no part of the message,
            since they may quote what has to be redacted first.
    """

    def __init__(self, message: str, excerpt: str = "") -> None:
        super().__init__(message)
        self.excerpt = excerpt


class PageDecoder:
    """Reads the pages of one source.

    Args:
        results_field: Path of the list of events; empty for a root array.
        timestamp_field: Path inside an event, or None.
        message_field: Path inside an event, or None.
        id_field: Path inside an event, or several that are the id together, or
            None.
        next_cursor_field: Path inside the body, or None.
        cursor_from_last: Path inside the last event, or None.
        has_more_field: Path inside the body, or None.
        results_optional: Whether an object without the list has no events.
        success_field: Path inside the body of what has to be affirmative, or
            None.
        error_field: Path inside the body of what has to be absent or empty, or
            None.
        decode_field: Path inside an entry of the string whose JSON is the
            event, or None.
        explode_field: Path inside an event of the list that holds several, or
            None.
        response_format: What a body is. Paths inside the body are JSON's only.
    """

    def __init__(
        self,
        *,
        results_field: str = "",
        timestamp_field: str | None = None,
        message_field: str | None = None,
        id_field: str | Sequence[str] | None = None,
        next_cursor_field: str | None = None,
        cursor_from_last: str | None = None,
        has_more_field: str | None = None,
        results_optional: bool = False,
        success_field: str | None = None,
        error_field: str | None = None,
        decode_field: str | None = None,
        explode_field: str | None = None,
        response_format: ResponseFormat = "json",
    ) -> None:
        self._results_field = results_field
        self._results_optional = results_optional
        self._next_cursor_field = next_cursor_field
        self._cursor_from_last = cursor_from_last
        self._has_more_field = has_more_field
        self._success_field = success_field
        self._error_field = error_field
        self._embedded = compile_fields([decode_field]) if decode_field is not None else None
        self._explode_field = explode_field
        self._response_format = response_format
        id_paths = [id_field] if isinstance(id_field, str) else list(id_field or ())
        paths = [path for path in (timestamp_field, message_field, *id_paths) if path is not None]
        unique = list(dict.fromkeys(paths))
        self._extract = compile_fields(unique) if unique else None
        self._timestamp_at = None if timestamp_field is None else unique.index(timestamp_field)
        self._message_at = None if message_field is None else unique.index(message_field)
        self._id_at = unique.index(id_paths[0]) if len(id_paths) == 1 else None
        self._ids_at = [unique.index(path) for path in id_paths] if len(id_paths) > 1 else None

    @property
    def allows_empty_body(self) -> bool:
        """Whether a body without a byte is a page like any other.

        In JSON an empty listing is a list all the same.
        """
        return self._response_format != "json"

    def decode(self, body: bytes, content_type: str = "", *, within: bytes | None = None) -> Page:
        """Read one response body.

        Args:
            body: Decompressed bytes; empty means no events (as with 204).
            content_type: Value of the header, consulted for its charset.
            within: Identity of the listed record that this is the content of;
                events without an id of their own are the same only within it.

        Returns:
            The page. Entries of the list that are `null` are no events and
            are left out.

        Raises:
            ErrorBodyError: The body says that the request failed.
            UnreadablePageError: Not of the format, or no list where it should
                be. The message names keys of the body, never values.
        """
        body = decode_text(body, content_type)
        document = body.strip()
        if not document:
            return Page([], 0, None, has_cursor_field=False, digest=b"")
        if document[:1] == b"<":
            raise UnreadablePageError(HTML_MESSAGE)
        try:
            if self._response_format == "json":
                self._raise_for_failure(document)
                entries = self._entries(document)
            else:
                read = ndjson_entries if self._response_format == "ndjson" else csv_entries
                entries, document = read(body), b""
            has_cursor_field, cursor = self._cursor(document, entries)
            has_more = self._has_more(document)
        except FormatError as error:
            raise UnreadablePageError(str(error)) from None
        except UNREADABLE as error:
            raise UnreadablePageError(_describe_unreadable(body, content_type, error)) from None
        undecoded = 0
        if self._embedded is None:
            events = [self._event(raw) for raw in entries if raw != b"null"]
        else:
            pairs = [(raw, self._embedded_object(raw)) for raw in entries if raw != b"null"]
            undecoded = sum(inner is None for _, inner in pairs)
            events = [
                self._event(raw) if inner is None else self._event(inner, raw)
                for raw, inner in pairs
            ]
        if within is not None:
            events = [_confined(event, within) for event in events]
        identities = [event.identity for event in events]
        digest = blake2b(b"".join(identities), digest_size=8).digest()
        last = events[-1] if events and entries[-1] != b"null" else None
        if len(set(identities)) < len(identities):
            events = _tell_repeats_apart(events)
        if self._explode_field is not None:
            events = [part for event in events for part in self._explode(event)]
            last = self._explode(last)[0] if last is not None else None
        return Page(
            events,
            len(entries),
            cursor,
            has_cursor_field,
            digest,
            has_more,
            skipped=len(entries) - len(identities),
            undecoded=undecoded,
            last_entry=None if last is None else last.identity,
        )

    def _raise_for_failure(self, document: bytes) -> None:
        failure = find_failure(
            document, success_field=self._success_field, error_field=self._error_field
        )
        if failure is not None:
            raise ErrorBodyError(failure.message, failure.excerpt)

    def _entries(self, body: bytes) -> list[bytes]:
        found = walk_path(body, self._results_field)
        if found is None and self._results_optional and body[:1] == b"{":
            return []
        if found is None:
            raise UnreadablePageError(self._describe_missing(body))
        found = found.strip()
        if found == b"null":
            return []
        if found[:1] != b"[":
            raise UnreadablePageError(self._describe_missing(body))
        return split_list(found)

    def _describe_missing(self, body: bytes) -> str:
        if body[:1] == b"{":
            keys = ", ".join(sorted(split_object(body))[:20]) or "none"
            shape = f"found keys: {keys}"
        elif body[:1] == b"[":
            shape = (
                'the body is a list itself; if that is the list of events, set results_field: ""'
            )
        else:
            shape = "the body is neither an object nor a list"
        where = f'results_field "{self._results_field}"' if self._results_field else "the root"
        return f"has no list at {where} ({shape}). Check results_field against the response"

    def _has_more(self, body: bytes) -> bool | None:
        if self._has_more_field is None or body[:1] != b"{":
            return None
        token = walk_path(body, self._has_more_field)
        if token is None:
            return None
        return token.strip().strip(b'"').lower() not in _NO_MORE

    def _cursor(self, body: bytes, entries: list[bytes]) -> tuple[bool, str | None]:
        if self._cursor_from_last is not None:
            last = entries[-1] if entries else b""
            token = walk_path(last, self._cursor_from_last) if last[:1] == b"{" else None
            return True, scalar_text(token and token.strip()) or None
        if self._next_cursor_field is None or body[:1] != b"{":
            return False, None
        token = walk_path(body, self._next_cursor_field)
        if token is None:
            return False, None
        token = token.strip()
        parts = split_list(token) if token[:1] == b"[" else [token]
        texts = [scalar_text(part.strip()) for part in parts]
        if token[:1] == b"{" or (token[:1] == b"[" and None in texts):
            message = (
                f'has an object or a list of them at "{self._next_cursor_field}", where a cursor '
                "is text, a number or a list of such. Check next_cursor_field against the response"
            )
            raise UnreadablePageError(message)
        # Some vendors hand out several parts, and take them joined by commas.
        text = ",".join(part for part in texts if part is not None) if texts[:1] != [None] else None
        # Vendors end with null, false, "", blanks or a number 0.
        return True, None if text is None or not text.strip() or token == b"0" else text

    def _event(self, raw: bytes, outer: bytes = b"") -> Event:
        timestamp_ns = None
        message = b"null"
        event_id = None
        if self._extract is not None and raw[:1] == b"{":
            found = self._extract(raw)
            if outer:
                pairs = zip(found, self._extract(outer), strict=True)
                found = [here if here is not None else there for here, there in pairs]
            if self._timestamp_at is not None:
                text = scalar_text(found[self._timestamp_at])
                timestamp_ns = None if text is None else parse_timestamp(text)
            if self._message_at is not None:
                message = _message_of(found[self._message_at])
            if self._id_at is not None:
                event_id = scalar_text(found[self._id_at])
            elif self._ids_at is not None:
                event_id = _joined([scalar_text(found[at]) for at in self._ids_at])
        # An id of "" or 0 is a placeholder: events that share it differ.
        if event_id and event_id != "0":
            identity = blake2b(
                event_id.encode("utf-8", "replace"), digest_size=IDENTITY_BYTES, person=b"id"
            ).digest()
            return Event(identity, event_id, timestamp_ns, message, raw)
        # What the vendor lists twice is two, though it may embed the same.
        identity = blake2b(outer or raw, digest_size=IDENTITY_BYTES).digest()
        return Event(identity, identity.hex(), timestamp_ns, message, raw)

    def _embedded_object(self, raw: bytes) -> bytes | None:
        token = self._embedded(raw)[0] if self._embedded is not None and raw[:1] == b"{" else None
        text = string_text(token) if token is not None else None
        if text is None:
            return None
        try:
            value = split_value(text.encode())
        except UNREADABLE:
            return None
        return value if value[:1] == b"{" else None

    def _explode(self, record: Event) -> list[Event]:
        """Give an event for each element of the list at `explode_field`.

        Elements are known by their bytes, since a vendor may add one anywhere.
        """
        cut = cut_list(record.raw, self._explode_field) if self._explode_field is not None else None
        if cut is None:
            return [record]
        before, elements, behind = cut
        events = []
        counts: Counter[bytes] = Counter()
        for index, element in enumerate(elements):
            event = self._event(before + element + behind)
            # An id inside the element is the event's own.
            if _has_id(record) or not _has_id(event):
                met = counts[element].to_bytes(8, "big")
                counts[element] += 1
                identity = blake2b(
                    record.identity + met + element, digest_size=IDENTITY_BYTES, person=b"element"
                ).digest()
                event = event._replace(identity=identity, id=f"{record.id}:{index}")
            if event.timestamp_ns is None:
                event = event._replace(timestamp_ns=record.timestamp_ns)
            if event.message == b"null":
                event = event._replace(message=record.message)
            events.append(event)
        return events


def _has_id(event: Event) -> bool:
    # What is known by its bytes has their digest for an id.
    return event.id != event.identity.hex()


def _confined(event: Event, within: bytes) -> Event:
    if _has_id(event):
        return event
    identity = blake2b(event.identity, digest_size=IDENTITY_BYTES, key=within).digest()
    return event._replace(identity=identity, id=identity.hex())


def _tell_repeats_apart(events: list[Event]) -> list[Event]:
    """Give equal events without an id identities of their own, but for the first.

    A vendor that lists two of them in one answer means two. Those with an id
    stay what they are: one event, listed twice.
    """
    told = []
    counts: Counter[bytes] = Counter()
    for event in events:
        count = counts[event.identity]
        counts[event.identity] += 1
        if count and not _has_id(event):
            identity = blake2b(
                event.identity + count.to_bytes(8, "big"),
                digest_size=IDENTITY_BYTES,
                person=b"repeat",
            ).digest()
            told.append(event._replace(identity=identity, id=identity.hex()))
        else:
            told.append(event)
    return told


def _joined(parts: list[str | None]) -> str | None:
    """Join the parts of an id, so that different parts never read the same."""
    if any(part in {None, "", "0"} for part in parts):
        return None
    return "|".join(str(part).replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def _message_of(token: bytes | None) -> bytes:
    """Give the message as a JSON string; objects and numbers as their text."""
    if token is None:
        return b"null"
    return token if token[:1] == b'"' else msgspec.json.encode(token.decode())


def _describe_unreadable(body: bytes, content_type: str, error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read"
    kind = content_type.split(";", maxsplit=1)[0].strip() or "no content type"
    return f"is not one JSON document ({len(body)} bytes of {kind})"
