"""Field paths compiled into decoders."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flicker.json_fields import compile_body, compile_columns, compile_fields
from flicker.json_text import present, split_list, walk_path
from tests.test_json_text import keys, paths, values

objects = st.dictionaries(keys, values, max_size=4)
several_paths = st.lists(paths, max_size=3, unique=True)


@given(objects, several_paths)
def test_compiled_paths_find_what_walking_finds(event: dict[str, Any], asked: list[str]) -> None:
    """T47 the fast way is the slow way, for any nesting and any two paths at once."""
    raw = json.dumps(event).encode()
    assert compile_fields(asked)(raw) == [present(walk_path(raw, path)) for path in asked]


@given(st.lists(objects, max_size=4), several_paths)
def test_columns_are_what_walking_finds_in_each(
    events: list[dict[str, Any]], asked: list[str]
) -> None:
    """T47 or there are none."""
    raws = [json.dumps(event).encode() for event in events]
    columns = compile_columns(asked)(raws)
    if columns is not None:
        found = [[present(token) for token in column] for column in columns]
        assert found == [[present(walk_path(raw, path)) for raw in raws] for path in asked]


def test_columns_are_there_where_they_should_be() -> None:
    """For flat and nested paths and gaps, but not where an entry is no object."""
    extract = compile_columns(["id", "actor.name"])
    raws = [b'{"id":1,"actor":{"name":"x"}}', b'{"actor":null,"id":null}', b'{"actor.name":"y"}']
    columns = extract(raws)
    assert columns is not None
    assert [[present(token) for token in column] for column in columns] == [
        [b"1", None, None],
        [b'"x"', None, b'"y"'],
    ]
    assert extract([*raws, b"[]"]) is None
    assert compile_columns(["items.0"])(raws) is None


@given(objects, paths, several_paths)
def test_a_body_is_taken_apart_as_walking_takes_it_apart(
    body: dict[str, Any], list_path: str, asked: list[str]
) -> None:
    """T47 or not at all."""
    raw = json.dumps(body).encode()
    skeleton = compile_body(list_path, asked)(raw)
    if skeleton is not None:
        found = walk_path(raw, list_path)
        assert found is not None
        assert list(map(bytes, skeleton.items)) == split_list(found)
        assert skeleton.tokens == [walk_path(raw, path) for path in asked]


def test_a_body_is_taken_apart_in_one_go_where_it_can_be() -> None:
    """The list in the root, at a key, and in keys; not where there is none."""
    body = b'{"data":{"items":[ 1 , {} ]},"meta":{"next":null},"more":true}'
    skeleton = compile_body("data.items", ["meta.next", "more", "gone"])(body)
    assert skeleton is not None
    # Views, which nobody has to copy.
    assert skeleton.items == [msgspec.Raw(b"1"), msgspec.Raw(b"{}")]
    assert skeleton.tokens == [b"null", b"true", None]
    # Where one is looked for, views would hide it.
    assert compile_body("", ["next"])(b'[1,"a",null]') == ([b"1", b'"a"', b"null"], [None])
    for unfit in (b'{"data":{"items":null}}', b'{"data":[]}', b"[]", b"{}", b'{"data'):
        assert compile_body("data.items", [])(unfit) is None
