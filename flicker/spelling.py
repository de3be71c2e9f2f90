"""Texts found however they are spelt: as they are, or escaped, or in Base64."""

from __future__ import annotations

import html
import re
import sys
from base64 import b64encode
from functools import cached_property, lru_cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MIN_SECRET_CHARS = 6
"""Shorter values (`1`, `json`) are no credentials, and turn up anywhere."""

MAX_LAYERS = 4
"""Of escapes: a query in a link in a link, quoted in JSON, makes four."""

_STARS = "***"
# Each branch begins with a character of its own, so that texts without any are passed quickly.
_ESCAPES = re.compile(
    r"%(?:[0-7][0-9A-Fa-f]|[89A-Fa-f][0-9A-Fa-f](?:%[89A-Fa-f][0-9A-Fa-f])*)"
    r"|\\(?:u(?:[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|[0-9A-Fa-f]{4})"
    r"|[\"'\\/bfnrt])"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|amp|lt|gt|quot|apos);"
)
_BASE64 = frozenset(ascii_letters + digits + "+/")
_FROM_URL_SAFE = str.maketrans("-_", "+/")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Found(NamedTuple):
    """Where a text stands.

    Attributes:
        number: Which of the texts it is.
    """

    start: int
    end: int
    number: int


class Spellings:
    """Looks for texts in any spelling.

    Escapes are undone layer by layer, and each layer is searched as it reads
    then. A pattern with all spellings of each character would be one pass,
    but takes a second to compile for a handful of long tokens.

    Args:
        texts: The short ones among them are not looked for.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._wanted = [
            (wanted, number)
            for number, text in enumerate(self.texts)
            # What looks like an escape in the text itself is undone with the others.
            for wanted in {_blank(reading.text) for reading in _readings(text)}
            if len(wanted) >= MIN_SECRET_CHARS
        ]

    def find(self, text: str) -> list[Found]:
        """Give each place of each text; they may overlap, and come in no order."""
        found = set()
        for reading in _readings(text):
            searched = _blank(reading.text)
            for wanted, number in self._wanted:
                for at in _places(searched, wanted):
                    starts = reading.starts
                    found.add(Found(starts[at], starts[at + len(wanted)], number))
        return list(found)

    def hide(self, text: str) -> str:
        """Put stars in the place of the texts, for people to read.

        Of Base64 that has one of them in it, nothing is left.
        """
        places = {(start, end) for start, end, _ in self.find(text)}
        places |= set(self._find_encoded(text))
        pieces, shown_to = [], 0
        for start, end in sorted(places):
            if end > shown_to:
                # One that overlaps the last shares its stars.
                pieces += [text[shown_to:start], _STARS] if start >= shown_to else []
                shown_to = end
        return "".join(pieces) + text[shown_to:]

    @cached_property
    def _encoded(self) -> set[str]:
        return {
            encoded
            for text in self.texts
            if len(text) >= MIN_SECRET_CHARS
            # HTTP Basic has id and secret percent-encoded in it (RFC 6749, section 2.3.1).
            for form in {text, quote(text, safe=""), quote_plus(text)}
            for encoded in _base64_of(form)
        }

    def _find_encoded(self, text: str) -> Iterator[tuple[int, int]]:
        for reading in _readings(text):
            searched = reading.text.translate(_FROM_URL_SAFE)
            for encoded in self._encoded:
                end = 0
                for at in _places(searched, encoded):
                    if at < end:
                        # In what was given already; a server may repeat itself endlessly.
                        continue
                    start, end = at, at + len(encoded)
                    while start > 0 and searched[start - 1] in _BASE64:
                        start -= 1
                    while end < len(searched) and searched[end] in _BASE64:
                        end += 1
                    end += len(searched[end : end + 2]) - len(searched[end : end + 2].lstrip("="))
                    yield reading.starts[start], reading.starts[end]


def _base64_of(text: str) -> Iterator[str]:
    """Give what Base64 has of a text, wherever the text stands in what is encoded."""
    octets = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        encoded = b64encode(bytes(before) + octets).decode()
        # The first and the last character may have bits of what stands beside it.
        yield encoded[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]


def _blank(text: str) -> str:
    """Take plus signs for blanks, as forms have it."""
    return text.replace("+", " ")


def _places(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


class _Reading:
    """A text as it reads with some layers of escapes undone.

    Args:
        text: The whole of it.
        outer: The reading with one layer more, None for the text itself.
    """

    def __init__(self, text: str, outer: _Reading | None = None) -> None:
        self.text = text
        self._outer = outer

    def inner(self) -> _Reading | None:
        """Give the reading with one layer less, None where there is none."""
        text = _ESCAPES.sub(lambda match: _undone(match[0])[0], self.text)
        return None if text == self.text else _Reading(text, self)

    @cached_property
    def starts(self) -> Sequence[int]:
        """Where each character began in the text itself, and where the last one ended."""
        if self._outer is None:
            return range(len(self.text) + 1)
        outer = self._outer.starts
        starts: list[int] = []
        at = 0
        for match in _ESCAPES.finditer(self._outer.text):
            starts.extend(outer[at : match.start()])
            at = match.start()
            for width in _undone(match[0])[1]:
                starts.append(outer[at])
                at += width
        return [*starts, *outer[at:]]


def _readings(text: str) -> Iterator[_Reading]:
    """Give a text as it is, then with one layer of escapes undone after another."""
    reading: _Reading | None = _Reading(text)
    for _ in range(1 + MAX_LAYERS):
        if reading is None:
            return
        yield reading
        reading = reading.inner()


@lru_cache(maxsize=512)
def _undone(escape: str) -> tuple[str, list[int]]:
    """Give the characters that an escape stands for, and the length of each one's escape."""
    if escape[0] == "%":
        octets = bytes.fromhex(escape.replace("%", ""))
        text = octets.decode("utf-8", "surrogateescape")
        return text, [3 * len(each.encode("utf-8", "surrogateescape")) for each in text]
    if escape[:2] == "&#":
        number = int(escape[3:-1], 16) if escape[2] in "xX" else int(escape[2:-1])
        return chr(number) if number <= sys.maxunicode else "\ufffd", [len(escape)]
    if escape[0] == "&":
        return html.unescape(escape), [len(escape)]
    if escape[1] == "u":
        text = bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be", "surrogatepass")
        return text, [3 * len(each.encode("utf-16-be", "surrogatepass")) for each in text]
    return _CONTROLS.get(escape[1], escape[1]), [len(escape)]
