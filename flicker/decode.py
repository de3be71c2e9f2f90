"""From a response's bytes to a page of events.

The list and what stands beside it, such as the next cursor, are found in one
pass over the body; an event stays the vendor's bytes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flicker.errors import RetryableError
from flicker.events import Event, EventReader, Readings, confined, tell_repeats_apart
from flicker.formats import FormatError, csv_entries, decode_text, ndjson_entries
from flicker.json_fields import compile_body
from flicker.json_text import (
    UNREADABLE,
    scalar_text,
    split_list,
    split_object,
    walk_path,
)
from flicker.render import compile_envelope
from flicker.settings import ResponseFormat  # noqa: TC001 - msgspec reads the annotation
from flicker.verdict import find_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flicker.json_fields import Text

_NO_MORE = frozenset({b"false", b"null", b"0", b"no", b""})
"""What a field for further pages holds where there are none."""

HTML_MESSAGE = (
    "is HTML, not data (a login page, a proxy or a captive portal answers instead of the API). "
    "Check the endpoint and the network's way to it"
)


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


class UnreadablePageError(RetryableError):
    """The answer is no page; it may be one next time, so nothing moves."""


class ErrorBodyError(UnreadablePageError):
    """The body says that the request failed, whatever the status says.

    Attributes:
        excerpt: The vendor's own words, on one line; no part of the message,
            since they may quote what has to be redacted first. Then they are to
            be cut short.
    """

    def __init__(self, message: str, excerpt: str = "") -> None:
        super().__init__(message)
        self.excerpt = excerpt


class DecodeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What pages of one source look like.

    Attributes:
        source_name: What records say of where they come from.
        results_field: Path of the list of events; empty for a root array.
        timestamp_field: Path inside an event, or None.
        message_field: Path inside an event, or None.
        id_field: Path inside an event, or several that are the id together, or
            None.
        next_cursor_field: Path inside the body, or None.
        cursor_from_last: Path inside an event, or None: the cursor is of the last
            one that has something there.
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

    source_name: str = ""
    results_field: str = ""
    timestamp_field: str | None = None
    message_field: str | None = None
    id_field: str | tuple[str, ...] | None = None
    next_cursor_field: str | None = None
    cursor_from_last: str | None = None
    has_more_field: str | None = None
    results_optional: bool = False
    success_field: str | None = None
    error_field: str | None = None
    decode_field: str | None = None
    explode_field: str | None = None
    response_format: ResponseFormat = "json"


class PageDecoder:
    """Reads the pages of one source."""

    def __init__(self, options: DecodeOptions) -> None:
        self.options = options
        ids = options.id_field
        id_paths = [ids] if isinstance(ids, str) else list(ids or ())
        columns = (options.timestamp_field, options.message_field, *id_paths)
        self._columns = [path for path in columns if path]
        paths = (options.next_cursor_field, options.has_more_field)
        self._body_paths = [path for path in paths if path is not None]
        self._next_cursor_at = 0 if options.next_cursor_field is not None else None
        self._has_more_at = (
            len(self._body_paths) - 1 if options.has_more_field is not None else None
        )
        self._extract = compile_body(options.results_field, self._body_paths)
        self._envelop = compile_envelope(options.source_name)
        self._reader = EventReader(
            timestamp_field=options.timestamp_field,
            message_field=options.message_field,
            id_field=ids,
            decode_field=options.decode_field,
            explode_field=options.explode_field,
        )

    @property
    def allows_empty_body(self) -> bool:
        """Whether a body without a byte is a page like any other.

        In JSON an empty listing is a list all the same.
        """
        return self.options.response_format != "json"

    def decode(
        self,
        body: bytes,
        content_type: str = "",
        *,
        within: bytes | None = None,
        on_outline: Callable[[Page], None] | None = None,
    ) -> Page:
        """Read one response body.

        Args:
            body: Decompressed bytes; empty means no events (as with 204).
            content_type: Value of the header, consulted for its charset.
            within: Identity of the listed record that this is the content of;
                events without an id of their own are the same only within it.
            on_outline: Told what is known before the events are read, which
                takes longer: all but them, and what comes of them.

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
            entries: Sequence[Text]
            if self.options.response_format == "json":
                self._raise_for_failure(document)
                entries, tokens = self._skeleton(document)
            else:
                is_csv = self.options.response_format == "csv"
                entries = csv_entries(body, self._columns) if is_csv else ndjson_entries(body)
                tokens = [None for _ in self._body_paths]
            has_cursor_field, cursor = self._cursor(tokens, entries)
            has_more = self._has_more(tokens)
        except FormatError as error:
            raise UnreadablePageError(str(error)) from None
        except UNREADABLE as error:
            raise UnreadablePageError(_describe_unreadable(body, content_type, error)) from None
        if on_outline is not None:
            on_outline(Page([], len(entries), cursor, has_cursor_field, b"", has_more))
        readings, undecoded = self._reader.read(
            [raw for raw in entries if raw != b"null"] if b"null" in entries else entries
        )
        if within is not None:
            readings = Readings.of(confined(reading, within) for reading in readings.rows())
        identities = readings.identities
        digest = blake2b(b"".join(identities), digest_size=8).digest()
        last = readings.rows(-1) if entries and entries[-1] != b"null" else []
        if len(set(identities)) < len(identities):
            readings = Readings.of(tell_repeats_apart(readings.rows()))
        if self.options.explode_field is not None:
            explode = self._reader.explode
            readings = Readings.of(part for row in readings.rows() for part in explode(row))
            last = explode(last[0])[:1] if last else []
        return Page(
            self._envelop(readings),
            len(entries),
            cursor,
            has_cursor_field,
            digest,
            has_more,
            skipped=len(entries) - len(identities),
            undecoded=undecoded,
            last_entry=last[0].identity if last else None,
        )

    def _raise_for_failure(self, document: bytes) -> None:
        failure = find_failure(
            document, success_field=self.options.success_field, error_field=self.options.error_field
        )
        if failure is not None:
            raise ErrorBodyError(failure.message, failure.excerpt)

    def _skeleton(self, document: bytes) -> tuple[Sequence[Text], list[bytes | None]]:
        """Give the entries and, of each path inside the body, what is there."""
        found = self._extract(document)
        if found is not None:
            return found.items, found.tokens
        entries = self._entries(document)
        if document[:1] != b"{":
            # A list has no fields.
            return entries, [None for _ in self._body_paths]
        return entries, [walk_path(document, path) for path in self._body_paths]

    def _entries(self, body: bytes) -> list[bytes]:
        found = walk_path(body, self.options.results_field)
        if found is None and self.options.results_optional and body[:1] == b"{":
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
        where = (
            f'results_field "{self.options.results_field}"'
            if self.options.results_field
            else "the root"
        )
        return f"has no list at {where} ({shape}). Check results_field against the response"

    def _has_more(self, tokens: list[bytes | None]) -> bool | None:
        token = tokens[self._has_more_at] if self._has_more_at is not None else None
        return None if token is None else token.strip().strip(b'"').lower() not in _NO_MORE

    def _cursor(
        self, tokens: list[bytes | None], entries: Sequence[Text]
    ) -> tuple[bool, str | None]:
        if self.options.cursor_from_last is not None:
            return True, self._cursor_of_last(self.options.cursor_from_last, entries)
        token = tokens[self._next_cursor_at] if self._next_cursor_at is not None else None
        if token is None:
            return False, None
        token = token.strip()
        parts = split_list(token) if token[:1] == b"[" else [token]
        texts = [scalar_text(part.strip()) for part in parts]
        if token[:1] == b"{" or (token[:1] == b"[" and None in texts):
            path = self.options.next_cursor_field
            message = (
                f'has an object or a list of them at "{path}", where a cursor is text, a number or '
                "a list of such. Check next_cursor_field against the response"
            )
            raise UnreadablePageError(message)
        # Some vendors hand out several parts, and take them joined by commas.
        text = ",".join(part for part in texts if part is not None) if texts[:1] != [None] else None
        # Vendors end with null, false, "", blanks or a number 0.
        return True, None if text is None or not text.strip() or token == b"0" else text

    def _cursor_of_last(self, path: str, entries: Sequence[Text]) -> str | None:
        for entry in map(bytes, reversed(entries)):
            token = walk_path(entry, path) if entry[:1] == b"{" else None
            text = scalar_text(token and token.strip())
            if text:
                return text
        return None


def _describe_unreadable(body: bytes, content_type: str, error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read"
    kind = content_type.split(";", maxsplit=1)[0].strip() or "no content type"
    return f"is not one JSON document ({len(body)} bytes of {kind})"
