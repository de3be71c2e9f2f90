"""Configuration files made from a few keys, and what is said of them."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from flicker import config
from flicker.errors import ConfigError

if TYPE_CHECKING:
    from flicker.settings import Settings, Source

SECRET = "hunter2 sesame"
CURSOR = {
    "pagination_type": "cursor",
    "limit_param": "limit",
    "cursor_param": "cursor",
    "next_cursor_field": "next",
}
OFFSET = {"pagination_type": "offset", "limit_param": "limit", "offset_param": "skip"}
PAGE = {"pagination_type": "page", "limit_param": "per_page", "page_param": "page"}


def entry(**keys: object) -> dict[str, Any]:
    """Return a source with the least that one needs."""
    return {"name": "a", "endpoint": "https://api.example.com/logs", **keys}


def one(**keys: object) -> dict[str, Any]:
    """Return a file of one source, which has these keys too."""
    return {"api_sources": [entry(**keys)], "destination": {"endpoint": "https://siem.example"}}


FULL: dict[str, Any] = {
    "api_sources": [
        {
            **entry(),
            "headers": {"X-A": "a"},
            "basic": {"username": "u", "password": "p"},
            "api_key": "k",
            "params": {"p": "v"},
            "polling_frequency_ms": 1,
            "results_field": "r",
            "timestamp_field": "t",
            "message_field": "m",
            "id_field": "i",
            "time_filter_param": "since",
            "time_filter_format": "unix",
            "start_time": "1h",
            "lookback_ms": 0,
            "max_pages": 1,
            "max_response_bytes": 1,
            "timeout_ms": 1,
            "tls": {"accept_invalid_certs": True},
            "pagination": {**CURSOR, "page_size": 1},
            "buffer_size": 1,
            "flush_interval_ms": 1,
            "match_on": ["a"],
            "exclude_on": "b",
            "destination": {
                "type": "http",
                "endpoint": "https://siem.example",
                "headers": {"X-B": "b"},
                "auth": {"type": "bearer", "token": "t"},
                "api_key": "k",
                "basic": {"username": "u", "password": "p"},
                "require_auth": True,
                "compression": True,
                "format": "json",
                "concurrency": 1,
                "tls": {"accept_invalid_certs": True},
                "timeout_ms": 1,
            },
        }
    ],
    "retry": {"max_retries": 1, "initial_delay_ms": 1, "max_delay_ms": 1, "max_queue_size": 1},
    "dead_letter_path": "x",
}


def shipping(**keys: object) -> dict[str, Any]:
    """Return a file whose source has a destination with these keys too."""
    return one(destination={"endpoint": "https://siem.example", **keys})


def read(file: object, environ: dict[str, str] | None = None) -> Settings:
    """Parse a file given as text, or as values: JSON is YAML."""
    text = file if isinstance(file, str) else json.dumps(file, ensure_ascii=False)
    return config.parse(text, environ or {}, origin="test.yaml")


def source(environ: dict[str, str] | None = None, **keys: object) -> Source:
    """Return what a source with these keys is read as."""
    return read(one(**keys), environ).sources[0]


def problems(file: object, environ: dict[str, str] | None = None) -> dict[str, str]:
    """Return the messages of a file that must be refused, by path."""
    with pytest.raises(ConfigError) as caught:
        read(file, environ)
    found: dict[str, str] = {}
    for problem in caught.value.problems:
        found[problem.path] = "; ".join(filter(None, [found.get(problem.path), problem.message]))
    return found


def only(file: object, environ: dict[str, str] | None = None) -> tuple[str, str]:
    """Return path and message of a file's single problem."""
    found = problems(file, environ)
    assert len(found) == 1, found
    return next(iter(found.items()))


def shown(error: BaseException) -> str:
    """Return all that a user or a log may ever see of an error."""
    chain = [error, error.__cause__, error.__context__]
    return "\n".join([*traceback.format_exception(error), *map(repr, chain), *map(str, chain)])


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += places(item, (*path, key))
    return found


def put(file: dict[str, Any], path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """Return a copy of a file with another value at a path."""
    copy: dict[str, Any] = json.loads(json.dumps(file))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy
