"""JSON as bytes: paths, lists and scalars, without parsing what is not asked for.

JSON in all but a detail (NaN, a lone surrogate, a bare control character)
takes a slower way to the same end.
"""

from __future__ import annotations

import json
import re
from json import decoder as json_decoder
from typing import Any

import msgspec

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_scan_string: Any = vars(json_decoder)["scanstring"]

UNREADABLE = (msgspec.DecodeError, RecursionError)
"""What the functions here raise for what is no JSON, or is nested too deeply."""


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
        members = split_object(text)
        for length in range(len(segments), 0, -1):
            member = members.get(".".join(segments[:length]))
            if member is not None:
                found = _walk(member, segments[length:])
                if found is not None:
                    return found
    elif start == b"[" and segments[0].isdigit():
        items = split_list(text)
        index = int(segments[0])
        if index < len(items):
            return _walk(items[index], segments[1:])
    return None


def split_object(text: bytes) -> dict[str, bytes]:
    """Give the members of an object as JSON texts; of two equal keys, the last.

    Raises:
        msgspec.DecodeError: The text is no object.
        RecursionError: The text is nested too deeply.
    """
    try:
        return {key: bytes(value) for key, value in _OBJECT.decode(text).items()}
    except UNREADABLE:
        return _Lenient(text).members()


def split_list(text: bytes) -> list[bytes]:
    """Give the items of a list as JSON texts.

    Raises:
        msgspec.DecodeError: The text is no list.
        RecursionError: The text is nested too deeply.
    """
    try:
        return [bytes(item) for item in _LIST.decode(text)]
    except UNREADABLE:
        return _Lenient(text).items()


def split_value(text: bytes) -> bytes:
    """Give the one JSON value of a text, such as a line, without the white space.

    Raises:
        msgspec.DecodeError: The text is no value, or several.
        RecursionError: The text is nested too deeply.
    """
    values = split_list(b"[" + text + b"]")
    if len(values) != 1:
        message = "not one JSON value"
        raise msgspec.DecodeError(message)
    return values[0]


def cut_list(text: bytes, path: str) -> tuple[bytes, list[bytes], bytes] | None:
    """Cut a JSON value around the list at a dotted path.

    Returns:
        What stands before the list, its items, and what stands behind it; None
        where the path leads to no list, or to an empty one.
    """
    found = walk_path(text, path)
    items = split_list(found) if found is not None and found[:1] == b"[" else []
    if found is None or not items:
        return None
    start = text.find(found)
    if start < 0:
        return None
    if start == text.rfind(found):
        return text[:start], items, text[start + len(found) :]
    # The same text stands elsewhere too.
    document = text.decode()
    try:
        span = _span_at(document, 0, path.split("."))
    except UNREADABLE:
        return None
    if span is None:
        return None
    start, end = span
    return document[:start].encode(), items, document[end:].encode()


def _span_at(text: str, offset: int, segments: list[str]) -> tuple[int, int] | None:
    """Tell where the value is that `_walk` finds, counted from an offset."""
    if not segments:
        return offset, offset + len(text)
    if text.lstrip()[:1] == "{":
        members = {key: (start, end) for key, start, end in _Lenient(text).spans("{", "}")}
        for length in range(len(segments), 0, -1):
            key = ".".join(segments[:length])
            if key in members:
                start, end = members[key]
                found = _span_at(text[start:end], offset + start, segments[length:])
                if found is not None:
                    return found
    elif text.lstrip()[:1] == "[" and segments[0].isdigit():
        elements = _Lenient(text).spans("[", "]")
        if int(segments[0]) < len(elements):
            _, start, end = elements[int(segments[0])]
            return _span_at(text[start:end], offset + start, segments[1:])
    return None


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

    def __init__(self, text: bytes | str) -> None:
        self._text = text if isinstance(text, str) else text.decode()
        # Python refuses to make an int of some thousand digits.
        decoder = json.JSONDecoder(strict=False, parse_int=str)
        self._value_end: Any = vars(decoder)["scan_once"]

    def members(self) -> dict[str, bytes]:
        return {key: self._value(*span) for key, *span in self.spans("{", "}")}

    def items(self) -> list[bytes]:
        return [self._value(*span) for _, *span in self.spans("[", "]")]

    def _value(self, start: int, end: int) -> bytes:
        return self._as_json(self._text[start:end])

    def spans(self, opening: str, closing: str) -> list[tuple[str, int, int]]:
        """Give where each value begins and ends, with its key in an object."""
        try:
            return self._scan(opening, closing)
        except (ValueError, StopIteration, IndexError) as error:
            message = "JSON is malformed"
            raise msgspec.DecodeError(message) from error

    def _scan(self, opening: str, closing: str) -> list[tuple[str, int, int]]:
        parts: list[tuple[str, int, int]] = []
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
            parts.append((key, at, end))
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
    except UNREADABLE:
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
        return string_text(token) if b"\\" in token else token[1:-1].decode()
    return token.decode() if token[:1] in b"-0123456789" else None


def text_at(event: bytes, path: str) -> str | None:
    """Read the string or number at a dotted path of an event.

    Returns:
        None where there is neither; a list of events may hold what is no
        object, and then has no paths.
    """
    return scalar_text(present(walk_path(event, path)))


def present(token: bytes | msgspec.Raw | None) -> bytes | None:
    """Give a token's JSON text; None where there is nothing or `null`."""
    if token is None:
        return None
    text = bytes(token).strip()
    return None if text == b"null" else text
