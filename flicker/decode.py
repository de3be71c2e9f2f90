"""From a response's bytes to a page of events, copying rather than parsing.

Field paths are compiled once into msgspec decoders that skip over everything
but the timestamp, the id and the message; an event stays the vendor's bytes.
Bodies that are JSON in all but a detail (NaN, a lone surrogate, bytes that are
no UTF-8) take a slower way to the same end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from json import decoder as json_decoder
from typing import Any, NamedTuple

import msgspec

from flicker.errors import RetryableError
from flicker.timefmt import parse_timestamp

_NO_MORE = frozenset({b"false", b"null", b"0", b"no", b""})
"""What a field for further pages holds where there are none."""

IDENTITY_BYTES = 16

HTML_MESSAGE = (
    "is HTML, not JSON (a login page, a proxy or a captive portal answers instead of the API). "
    "Check the endpoint and the network's way to it"
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_scan_string: Any = vars(json_decoder)["scanstring"]
_UNREADABLE = (msgspec.DecodeError, RecursionError)


class Event(NamedTuple):
    """One entry of the vendor's log.

    Attributes:
        identity: 16 bytes by which a repeat is known: a digest of the value
            of `id_field` or, without a usable one, of the event's bytes.
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
    """

    events: list[Event]
    entries: int
    cursor: str | None
    has_cursor_field: bool
    digest: bytes
    has_more: bool | None = None


def split_identities(joined: bytes) -> list[bytes]:
    """Take identities apart that snapshots and journals hold end to end."""
    return [joined[at : at + IDENTITY_BYTES] for at in range(0, len(joined), IDENTITY_BYTES)]


class UnreadablePageError(RetryableError):
    """The answer is no page; it may be one next time, so nothing moves."""


def walk_path(text: bytes, path: str) -> bytes | None:
    """Find the JSON text of the value at a dotted path.

    At every level the longest key that is present wins, so that `a.b` finds
    `{"a.b": 1}` before `{"a": {"b": 1}}`. A number picks from a list.

    Args:
        text: A whole JSON value.
        path: Dotted path; the empty path is the value itself.

    Returns:
        The value's own bytes, or None where the path leads nowhere.

    Raises:
        msgspec.DecodeError: The text is no JSON.
        RecursionError: The text is nested too deeply.
    """
    return _walk(text, path.split(".")) if path else text


def _walk(text: bytes, segments: list[str]) -> bytes | None:
    if not segments:
        return text
    start = text.lstrip()[:1]
    if start == b"{":
        members = _split_object(text)
        for length in range(len(segments), 0, -1):
            member = members.get(".".join(segments[:length]))
            if member is not None:
                found = _walk(member, segments[length:])
                if found is not None:
                    return found
    elif start == b"[" and segments[0].isdigit():
        items = _split_list(text)
        index = int(segments[0])
        if index < len(items):
            return _walk(items[index], segments[1:])
    return None


def _split_object(text: bytes) -> dict[str, bytes]:
    try:
        return {key: bytes(value) for key, value in _OBJECT.decode(text).items()}
    except _UNREADABLE:
        return _Lenient(text).members()


def _split_list(text: bytes) -> list[bytes]:
    try:
        return [bytes(item) for item in _LIST.decode(text)]
    except _UNREADABLE:
        return _Lenient(text).items()


class _Lenient:
    """Cuts JSON as Python's own reader understands it.

    msgspec refuses lone surrogates, NaN and bare control characters even in
    what it skips. Events with them exist (vendors truncate strings between two
    UTF-16 units, Python's json writes NaN, hand-made JSON has line breaks in
    its strings), and one of them must not hold up its page for ever.
    """

    _SPACE = re.compile(r"[ \t\n\r]*")
    _STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
    _CONTROL = re.compile(r"[\x00-\x1f]")
    _CONSTANT = re.compile(r'("(?:[^"\\]|\\.)*")|(-?Infinity|NaN)')

    def __init__(self, text: bytes) -> None:
        self._text = text.decode()
        self._value_end: Any = vars(json.JSONDecoder(strict=False))["scan_once"]

    def members(self) -> dict[str, bytes]:
        return dict(self._parts("{", "}"))

    def items(self) -> list[bytes]:
        return [value for _, value in self._parts("[", "]")]

    def _parts(self, opening: str, closing: str) -> list[tuple[str, bytes]]:
        try:
            return self._scan(opening, closing)
        except (ValueError, StopIteration, IndexError) as error:
            message = "JSON is malformed"
            raise msgspec.DecodeError(message) from error

    def _scan(self, opening: str, closing: str) -> list[tuple[str, bytes]]:
        parts: list[tuple[str, bytes]] = []
        at = self._skip(0)
        self._expect(at, opening)
        at = self._skip(at + 1)
        if self._text[at] == closing:
            self._expect_end(at + 1)
            return parts
        while True:
            key = ""
            if opening == "{":
                self._expect(at, '"')
                key, at = _scan_string(self._text, at + 1, False)  # noqa: FBT003
                at = self._skip(at)
                self._expect(at, ":")
                at = self._skip(at + 1)
            _, end = self._value_end(self._text, at)
            parts.append((key, self._as_json(self._text[at:end])))
            at = self._skip(end)
            if self._text[at] == closing:
                self._expect_end(at + 1)
                return parts
            self._expect(at, ",")
            at = self._skip(at + 1)

    def _as_json(self, text: str) -> bytes:
        """Replace what JSON has no word for; a receiver would refuse it."""
        if self._CONTROL.search(text):
            text = self._STRING.sub(
                lambda string: self._CONTROL.sub(
                    lambda control: f"\\u{ord(control[0]):04x}", string[0]
                ),
                text,
            )
        if "NaN" in text or "Infinity" in text:
            text = self._CONSTANT.sub(lambda match: match[1] or "null", text)
        return text.encode()

    def _skip(self, at: int) -> int:
        match = self._SPACE.match(self._text, at)
        return match.end() if match else at

    def _expect(self, at: int, character: str) -> None:
        if self._text[at] != character:
            raise ValueError(character)

    def _expect_end(self, at: int) -> None:
        if self._skip(at) != len(self._text):
            raise ValueError(at)


def string_text(token: bytes) -> str | None:
    """Read a JSON string token; None for anything else."""
    if token[:1] != b'"':
        return None
    if b"\\" not in token:
        return token[1:-1].decode()
    try:
        return _STRING.decode(token)
    except _UNREADABLE:
        # A lone surrogate has no UTF-8. Spelt out, two that differ still do.
        text = json.loads(token)
        return str(text).encode("utf-8", "backslashreplace").decode()


def scalar_text(token: bytes | None) -> str | None:
    """Read a JSON string or number as exact text; None for anything else.

    A number keeps every digit the vendor wrote: Box cursors exceed 2^53.
    """
    if not token:
        return None
    if token[:1] == b'"':
        return string_text(token)
    return token.decode() if token[:1] in b"-0123456789" else None


def decode_text(body: bytes, content_type: str) -> bytes:
    """Turn a body into UTF-8 without a byte order mark.

    Args:
        body: The response body, already decompressed.
        content_type: Value of the header of that name, for its charset.

    Returns:
        Valid UTF-8. Bytes that make no sense become U+FFFD: one bad byte in
        a name must not hold up a page.
    """
    if body.isascii():
        # UTF-16 and UTF-32 JSON is full of zero bytes; JSON itself has none.
        return body.decode(_utf_family(body), "replace").encode() if b"\0" in body[:4] else body
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    elif body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        return body.decode(_utf_family(body), "replace").lstrip("\ufeff").encode()
    try:
        body.decode()
    except UnicodeDecodeError:
        charset = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
        if charset and charset[1].lower().replace("_", "-") in (
            "iso-8859-1",
            "latin-1",
            "windows-1252",
            "cp1252",
        ):
            return body.decode("cp1252", "replace").encode()
        return body.decode("utf-8", "replace").encode()
    return body


def _utf_family(body: bytes) -> str:
    """Source: RFC 4627, section 3: the zero bytes tell the encoding."""
    if body[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if body[:3] == b"\0\0\0":
        return "utf-32-be"
    if body[1:4] == b"\0\0\0":
        return "utf-32-le"
    return "utf-16-be" if body[:1] == b"\0" else "utf-16-le"


_Token = bytes | msgspec.Raw | None
_Extractor = Callable[[bytes], "list[bytes | None]"]


def _compile_fields(paths: list[str]) -> _Extractor:
    """Compile dotted paths into one pass over an event.

    Returns:
        A function from an event's bytes to the JSON text at each path, in
        order, None where there is nothing or `null`.
    """
    tree: dict[str, Any] = {}
    fast = all(_add_to_tree(tree, path, number) for number, path in enumerate(paths))

    def slow(event: bytes) -> list[bytes | None]:
        return [_present(walk_path(event, path)) for path in paths]

    if not fast or not paths:
        return slow
    decoder = msgspec.json.Decoder(_struct_of(tree))
    getters = [_getters_of(tree, path) for path in paths]
    partly_literal = [path.count(".") > 1 for path in paths]

    def extract(event: bytes) -> list[bytes | None]:
        try:
            skeleton = decoder.decode(event)
        except (msgspec.ValidationError, *_UNREADABLE):
            return slow(event)
        found: list[bytes | None] = []
        for number, ways in enumerate(getters):
            token: Any = None
            for way in ways:
                token = skeleton
                for name in way:
                    token = getattr(token, name, None)
                if token is not None and token is not msgspec.UNSET:
                    break
            else:
                token = walk_path(event, paths[number]) if partly_literal[number] else None
            found.append(_present(token))
        return found

    return extract


def _present(token: _Token) -> bytes | None:
    if token is None:
        return None
    text = bytes(token).strip()
    return None if text == b"null" else text


def _add_to_tree(tree: dict[str, Any], path: str, number: int) -> bool:
    """Add a path and its literal spelling; False where a Struct cannot tell."""
    segments = path.split(".")
    if any(segment.isdigit() for segment in segments):
        return False
    for way in ([path], segments):
        node = tree
        for segment in way[:-1]:
            node = node.setdefault(segment, {})
            if not isinstance(node, dict):
                return False
        leaf = node.setdefault(way[-1], number)
        if isinstance(leaf, dict):
            return False
    return True


def _field_names(tree: dict[str, Any]) -> dict[str, str]:
    return {key: f"f{number}" for number, key in enumerate(tree)}


def _struct_of(tree: dict[str, Any]) -> type[msgspec.Struct]:
    names = _field_names(tree)
    fields = [
        (
            names[key],
            _struct_of(below) | None if isinstance(below, dict) else msgspec.Raw,
            None if isinstance(below, dict) else msgspec.UNSET,
        )
        for key, below in tree.items()
    ]
    return msgspec.defstruct("Skeleton", fields, rename={name: key for key, name in names.items()})


def _getters_of(tree: dict[str, Any], path: str) -> list[list[str]]:
    ways = [[path]] if "." not in path else [[path], path.split(".")]
    getters = []
    for way in ways:
        names, node = [], tree
        for segment in way:
            names.append(_field_names(node)[segment])
            node = node[segment]
        getters.append(names)
    return getters


class PageDecoder:
    """Reads the pages of one source.

    Args:
        results_field: Path of the list of events; empty for a root array.
        timestamp_field: Path inside an event, or None.
        message_field: Path inside an event, or None.
        id_field: Path inside an event, or None.
        next_cursor_field: Path inside the body, or None.
        cursor_from_last: Path inside the last event, or None.
        has_more_field: Path inside the body, or None.
    """

    def __init__(
        self,
        *,
        results_field: str = "",
        timestamp_field: str | None = None,
        message_field: str | None = None,
        id_field: str | None = None,
        next_cursor_field: str | None = None,
        cursor_from_last: str | None = None,
        has_more_field: str | None = None,
    ) -> None:
        self._results_field = results_field
        self._next_cursor_field = next_cursor_field
        self._cursor_from_last = cursor_from_last
        self._has_more_field = has_more_field
        roles = [
            (role, path)
            for role, path in (
                ("timestamp", timestamp_field),
                ("message", message_field),
                ("id", id_field),
            )
            if path is not None
        ]
        unique = list(dict.fromkeys(path for _, path in roles))
        self._extract = _compile_fields(unique) if unique else None
        index = {role: unique.index(path) for role, path in roles}
        self._timestamp_at = index.get("timestamp")
        self._message_at = index.get("message")
        self._id_at = index.get("id")

    def decode(self, body: bytes, content_type: str = "") -> Page:
        """Read one response body.

        Args:
            body: Decompressed bytes; empty means no events (as with 204).
            content_type: Value of the header, consulted for its charset.

        Returns:
            The page. Entries of the list that are `null` are no events and
            are left out.

        Raises:
            UnreadablePageError: No JSON, or no list where it should be. The
                message names keys of the body, never values.
        """
        body = decode_text(body, content_type).strip()
        if not body:
            return Page([], 0, None, has_cursor_field=False, digest=b"")
        if body[:1] == b"<":
            raise UnreadablePageError(HTML_MESSAGE)
        try:
            entries = self._entries(body)
            has_cursor_field, cursor = self._cursor(body, entries)
            has_more = self._has_more(body)
        except _UNREADABLE as error:
            raise UnreadablePageError(_describe_unreadable(body, content_type, error)) from None
        events = [self._event(raw) for raw in entries if raw != b"null"]
        digest = blake2b(b"".join([event.identity for event in events]), digest_size=8).digest()
        return Page(events, len(entries), cursor, has_cursor_field, digest, has_more)

    def _entries(self, body: bytes) -> list[bytes]:
        found = walk_path(body, self._results_field)
        if found is None:
            raise UnreadablePageError(self._describe_missing(body))
        found = found.strip()
        if found == b"null":
            return []
        if found[:1] != b"[":
            raise UnreadablePageError(self._describe_missing(body))
        return _split_list(found)

    def _describe_missing(self, body: bytes) -> str:
        if body[:1] == b"{":
            keys = ", ".join(sorted(_split_object(body))[:20]) or "none"
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
        parts = _split_list(token) if token[:1] == b"[" else [token]
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

    def _event(self, raw: bytes) -> Event:
        timestamp_ns = None
        message = b"null"
        event_id = None
        if self._extract is not None and raw[:1] == b"{":
            found = self._extract(raw)
            if self._timestamp_at is not None:
                text = scalar_text(found[self._timestamp_at])
                timestamp_ns = None if text is None else parse_timestamp(text)
            if self._message_at is not None:
                message = _message_of(found[self._message_at])
            if self._id_at is not None:
                event_id = scalar_text(found[self._id_at])
        # An id of "" or 0 is a placeholder: events that share it differ.
        if event_id and event_id != "0":
            identity = blake2b(
                event_id.encode("utf-8", "replace"), digest_size=IDENTITY_BYTES, person=b"id"
            ).digest()
            return Event(identity, event_id, timestamp_ns, message, raw)
        identity = blake2b(raw, digest_size=IDENTITY_BYTES).digest()
        return Event(identity, identity.hex(), timestamp_ns, message, raw)


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
