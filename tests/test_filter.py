"""Which events go out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.decode import DecodeOptions, PageDecoder
from flicker.filter import compile_filter, filter_text
from flicker.items import EventPage
from flicker.settings import Destination, Endpoint, Source


def select(bodies: list[str], match_on: list[str], exclude_on: list[str]) -> list[str]:
    source = Source(
        name="vendor",
        endpoint=Endpoint("https://api.example.com/"),
        destination=Destination(Endpoint("https://siem.example.com/")),
        match_on=tuple(map(re.compile, match_on)),
        exclude_on=tuple(map(re.compile, exclude_on)),
    )
    events = PageDecoder(DecodeOptions()).decode(f"[{','.join(bodies)}]".encode()).events
    page = compile_filter(source)(EventPage("vendor", events))
    assert page is None or page.events
    return [] if page is None else [event.raw.decode() for event in page.events]


START, STOP, SYSTEM = '{"type":"user.start"}', '{"type":"user.stop"}', '{"type":"system.start"}'


@pytest.mark.parametrize(
    ("match_on", "exclude_on", "left"),
    [
        ([], [], [START, STOP, SYSTEM]),
        ([r"user\.start", r"user\.stop"], [], [START, STOP]),
        ([], ["system"], [START, STOP]),
        (["start"], ["^.*system"], [START]),
        (["nothing"], [], []),
        ([], ["type"], []),
        ([r'^\{"type":"user\.start"\}$'], [], [START]),
    ],
)
def test_selects_by_any_pattern_and_by_no_exclusion(
    match_on: list[str], exclude_on: list[str], left: list[str]
) -> None:
    assert select([START, STOP, SYSTEM], match_on, exclude_on) == left


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{ "a" :\n[1.50, 1e400 ] }', '{"a":[1.50,1e400]}'),
        (rb'{"a":"\u0062\/\u00e9"}', '{"a":"b/é"}'),
        (rb'{"a":"\ud83d\ude00"}', '{"a":"😀"}'),
        (rb'{"a":"\"\\ \n\u0000\u0022"}', r'{"a":"\"\\ \n\u0000\u0022"}'),
        (rb'{"a":"\\u0062"}', r'{"a":"\\u0062"}'),
        (rb'{ "a b": "\ud83d c", "n": 1e400 }', r'{"a b":"\ud83d c","n":1e400}'),
        (rb'{"a":"\u0041\ude00\ud83d\u0042"}', r'{"a":"A\ude00\ud83dB"}'),
        (b'"just text"', '"just text"'),
    ],
)
def test_patterns_see_one_spelling_of_each_event(raw: bytes, text: str) -> None:
    """T46 T48 white space and escapes are the vendor's business, also beside a lone surrogate."""
    assert filter_text(raw) == text


def test_nesting_to_any_depth_is_matched() -> None:
    """T37 an exception here would stop every source."""
    raw = b"[" * 5000 + b' "deep" ' + b"]" * 5000
    assert filter_text(raw) == raw.decode().replace(" ", "")


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
)


@given(values)
def test_every_spelling_of_a_value_gives_one_text(value: Any) -> None:
    """T46 escaped or not, indented or not."""
    spellings = [
        json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
        for indent in (None, 2)
        for escaped in (True, False)
    ]
    texts = {filter_text(raw) for raw in spellings}
    assert len(texts) == 1
    assert json.loads(texts.pop()) == value
