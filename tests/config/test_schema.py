"""The JSON Schema for editors."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from flicker import config
from tests.config.files import FULL, one


def check(file: object) -> bool:
    """Tell whether a file fits the schema."""
    return bool(jsonschema.Draft202012Validator(config.json_schema()).is_valid(file))


def test_is_itself_valid() -> None:
    schema = config.json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(schema)


def test_describes_every_key() -> None:
    schema = config.json_schema()
    models = [schema, *schema["$defs"].values()]
    keys = {name: key for model in models for name, key in model["properties"].items()}
    assert {"api_sources", "next_cursor_field", "accept_invalid_certs"} <= set(keys)
    assert [name for name, key in keys.items() if not key.get("description")] == []
    assert [name for name, key in keys.items() if not key.get("title")] == []


def test_takes_a_file_with_every_key() -> None:
    assert check(FULL)


@pytest.mark.parametrize(
    "keys",
    [
        {"buffer_size": "${SIZE}"},
        {"tls": {"accept_invalid_certs": "${X:-true}"}},
        {"match_on": "a"},
        {"params": {"a": 1, "b": True, "c": "d"}, "headers": {"X-A": 1}},
        {"max_pages": "${PAGES}"},
        {"time_filter_format": "${FORMAT}"},
    ],
)
def test_takes_what_is_right(keys: dict[str, Any]) -> None:
    assert check(one(**keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"buffer_size": "100"},
        {"buffer_size": True},
        {"buffer_size": 0},
        {"polling_frequncy_ms": 1},
        {"time_filter_format": "rfc"},
        {"pagination": {"pagination_type": "page"}},
        {"destination": {}},
    ],
)
def test_refuses_what_is_wrong(keys: dict[str, Any]) -> None:
    assert not check(one(**keys))
