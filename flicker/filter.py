"""Which events go out: `match_on` and `exclude_on`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from flicker.items import EventPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.settings import Source

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\n\r]+', re.DOTALL)
_KEPT_ESCAPES = frozenset('"\\bfnrt')


def filter_text(raw: bytes) -> str:
    r"""Give the text that patterns are matched against.

    The event's compact JSON: no white space between tokens, `\uXXXX` and `\/`
    resolved to their characters, numbers as the vendor wrote them. So a
    pattern means the same however the vendor spells its JSON.
    """
    try:
        text = msgspec.json.format(raw, indent=-1).decode()
    except (msgspec.DecodeError, RecursionError):
        # A lone surrogate, or deep nesting: valid JSON that msgspec gives up on.
        text = _SPACE.sub(lambda match: match[1] or "", raw.decode("utf-8", "replace"))
    return _ESCAPE.sub(_resolve, text) if "\\" in text else text


def _resolve(match: re.Match[str]) -> str:
    high, low, code, other = match.groups()
    if other is not None:
        return match[0] if other in _KEPT_ESCAPES else other
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))
    unit = int(code, 16)
    character = chr(unit)
    if unit < 0x20 or character in '"\\' or 0xD800 <= unit < 0xE000:
        return match[0]
    return character


def compile_filter(source: Source) -> Callable[[EventPage], EventPage | None]:
    """Compile a source's patterns.

    Returns:
        A function from a page to the page of those events that match at least
        one of `match_on`, where there are any, and none of `exclude_on`; None
        where none is left.
    """
    wanted = [pattern.search for pattern in source.match_on]
    unwanted = [pattern.search for pattern in source.exclude_on]
    if not wanted and not unwanted:
        return lambda page: page if page.events else None

    def passes(raw: bytes) -> bool:
        text = filter_text(raw)
        if wanted and not any(search(text) for search in wanted):
            return False
        return not any(search(text) for search in unwanted)

    def select(page: EventPage) -> EventPage | None:
        events = [event for event in page.events if passes(event.raw)]
        return EventPage(page.source, events) if events else None

    return select
