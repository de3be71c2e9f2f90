"""Paths, lists and scalars of JSON as bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.json_text import (
    cut_list,
    scalar_text,
    split_list,
    split_value,
    text_at,
    walk_path,
)

keys = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "0", ""])
values = st.recursive(
    st.sampled_from([None, 1, "x", "\ud800", [0, {"a": 1}]]),
    lambda below: st.dictionaries(keys, below, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "a.a", "a.0", "b.b.b"])


@given(st.dictionaries(keys, values, max_size=4), paths)
def test_a_list_is_cut_out_where_the_path_leads(event: dict[str, Any], path: str) -> None:
    """T45 whatever else reads the same, and every other byte stays."""
    raw = json.dumps(event).encode()
    found = walk_path(raw, path)
    cut = cut_list(raw, path)
    assert (cut is not None) == (found is not None and found[:1] == b"[")
    if cut is not None and found is not None:
        before, items, behind = cut
        assert before + found + behind == raw
        assert items == split_list(found)
        assert walk_path(before + b"7" + behind, path) == b"7"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (rb'{"b":[1],"c":"[1]","a":[1]}', 23),
        (rb'{"b":["a[",["]",1]],"a":[",["]}', 24),
        (rb'{"a":[1],"a":[1]}', 13),
        (rb'{ "a" : [1] , "b":[1]}', 8),
        ('{"é":[1],"a":[1]}'.encode(), 14),
    ],
)
def test_a_list_is_told_from_text_that_reads_the_same(text: bytes, start: int) -> None:
    """T44 T46 in strings, across strings, and under a key that comes twice."""
    cut = cut_list(text, "a")
    assert cut is not None
    assert len(cut[0]) == start


def test_text_that_reads_the_same_thousands_of_times_costs_no_more_than_its_length() -> None:
    """Who writes the events does not choose how long they take."""
    text = b'{"x":[' + b",".join([b'["a"]'] * 40_000) + b'],"l":["a"],"y":1}'
    started_s = time.process_time()
    cut = cut_list(text, "l")
    assert time.process_time() - started_s < 2
    assert cut is not None
    assert cut[1:] == ([b'"a"'], b',"y":1}')


@pytest.mark.parametrize("text", [b"1,2", b"", b"{}],[{}", b"[1", b"{} {}", b"1]", b"//"])
def test_one_value_is_one(text: bytes) -> None:
    """T41 not two, none or half of one."""
    with pytest.raises(msgspec.DecodeError):
        split_value(text)
    assert split_value(b' {"a":NaN}\r') == b'{"a":null}'


def test_a_long_number_beside_what_is_no_json_is_no_fault() -> None:
    """Python makes no int of so many digits, and the page would be asked for again for ever."""
    digits = b"7" * 5000
    assert split_list(b"[%b,NaN]" % digits) == [digits, b"null"]


def test_text_of_scalars() -> None:
    """T20 lists and objects have none."""
    assert [scalar_text(token) for token in (None, b"", b"[1]", b"{}", b"-1.0")] == [
        *[None] * 4,
        "-1.0",
    ]


def test_text_at_a_path_of_an_event() -> None:
    """T43 T47 an entry may be no object."""
    assert text_at(rb'{"a":{"uri":"https:\/\/b\/c"}}', "a.uri") == "https://b/c"
    for event in (b'{"a":{"uri":null}}', b'{"a":{"uri":[]}}', b"{}", b'"a"', b"1"):
        assert text_at(event, "a.uri") is None
