"""The object `registry.json`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from flicker.errors import RegistryError
from flicker.registry.location import S3Location
from flicker.registry.manifest import (
    Generation,
    Lease,
    Manifest,
    StoredPartition,
    dump_manifest,
    parse_manifest,
)

LOCATION = S3Location("bucket", "path/registry.json")
PART = StoredPartition("path/registry.json.d/x/part-0.sqlite3", 4096, "ab" * 32)
SOURCES: dict[str, dict[str, Any]] = {
    "okta": {"last_timestamp": "2025-01-01T00:00:00Z", "cursor": "ü\u2028", "page": 3}
}


def make_generation(number: int) -> Generation:
    return Generation(
        f"{number:012d}-0a1b2c3d",
        "2025-01-01T12:00:00Z",
        "host-1",
        {"part-0.sqlite3": PART, "part-1.sqlite3": replace(PART, size=0)},
    )


FULL = Manifest(
    SOURCES,
    make_generation(7),
    (make_generation(6), make_generation(5)),
    Lease("host-1", 1_735_732_800.0),
)


def document(**changes: Any) -> bytes:
    return json.dumps({**json.loads(dump_manifest(FULL)), **changes}).encode()


@pytest.mark.parametrize(
    "manifest",
    [FULL, Manifest(), replace(FULL, lease=None), Manifest(SOURCES, None, (), FULL.lease)],
)
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert parse_manifest(dump_manifest(manifest), LOCATION) == manifest


def test_people_and_the_rust_flicker_find_what_they_look_for() -> None:
    text = dump_manifest(FULL).decode()
    written = json.loads(text)
    assert list(written)[:2] == ["version", "api_sources"]
    assert written["version"] == 1
    assert written["api_sources"] == SOURCES
    assert written["generation"] == "000000000007-0a1b2c3d"
    assert written["partitions"]["part-0.sqlite3"] == {
        "key": PART.key,
        "size": 4096,
        "sha256": "ab" * 32,
    }
    assert (written["written_at"], written["instance"]) == ("2025-01-01T12:00:00Z", "host-1")
    assert written["lease"] == {"instance": "host-1", "expires_at": "2025-01-01T12:00:00.000Z"}
    assert "ü" in text
    assert text.endswith("}\n")


def test_reads_what_the_rust_flicker_wrote() -> None:
    data = json.dumps({"version": 1, "api_sources": SOURCES}).encode()
    assert parse_manifest(data, LOCATION) == Manifest(SOURCES)


def test_half_a_character_is_written_as_its_escape() -> None:
    """A vendor's cursor may hold what no UTF-8 can, and the upload must go on."""
    manifest = Manifest({"s": {"cursor": "a\ud800b"}})
    assert b"a\\ud800b" in dump_manifest(manifest)
    assert parse_manifest(dump_manifest(manifest), LOCATION) == manifest


def test_a_generation_knows_its_number_and_time() -> None:
    generation = make_generation(41)
    assert generation.number == 41
    assert generation.written_s == 1_735_732_800.0
    assert replace(generation, written_at="lately").written_s is None


def test_a_manifest_knows_the_generations_that_it_names() -> None:
    assert FULL.names == {f"{number:012d}-0a1b2c3d" for number in (7, 6, 5)}
    assert Manifest().names == set()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("host-ü 1", "host-ü 1"),
        ("a\x1b[31m\nb\u202e", "a?[31m?b?"),
        ("x" * 5000, "x" * 200),
        (7, "7"),
    ],
)
def test_a_holder_is_shown_on_one_short_line(written: object, shown: str) -> None:
    lease = {"instance": written, "expires_at": "2025-01-01T12:00:00Z"}
    found = parse_manifest(document(lease=lease), LOCATION)
    assert found.lease == Lease(shown, 1_735_732_800.0)


def partitions(name: str = "part-0.sqlite3", **changes: Any) -> dict[str, Any]:
    return {name: {"key": "k", "size": 1, "sha256": "ab", **changes}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"version": 1}',
        b"[" * 100_000,
        document(api_sources=[]),
        document(api_sources={"s": None}),
        document(api_sources={"s": "text"}),
        document(partitions={}),
        document(partitions=[]),
        document(partitions=partitions("../x")),
        document(partitions=partitions("part-0.sqlite3/../../x")),
        document(partitions=partitions("part-0.sqlite3\n")),
        document(partitions=partitions("part-\u0660.sqlite3")),
        document(partitions=partitions("/etc/part-0.sqlite3")),
        document(partitions=partitions("other.sqlite3")),
        document(partitions=partitions(size="many")),
        document(partitions=partitions(size=float("inf"))),
        document(partitions={"part-0.sqlite3": {"size": 1, "sha256": "ab"}}),
        document(partitions={"part-0.sqlite3": None}),
        document(generation="first"),
        document(generation=None),
        document(generation=None, previous=[]),
        document(generation=None, partitions={}),
        document(generation="-3-x"),
        document(previous=[{"generation": "1-x"}]),
        document(previous=[7]),
        document(previous=7),
        document(lease={}),
        document(lease={"instance": "x"}),
        document(lease={"instance": "x", "expires_at": "soon"}),
        document(lease={"instance": "x", "expires_at": None}),
        document(lease="mine"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(RegistryError) as caught:
        parse_manifest(data, LOCATION)
    text = str(caught.value)
    assert "s3://bucket/path/registry.json is damaged" in text
    assert "Restore it" in text
    assert "\n" not in text


@pytest.mark.parametrize("version", [2, 9, None, "1"])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(RegistryError, match=f"of version {version!r}, and this Flicker reads ver"):
        parse_manifest(document(version=version), LOCATION)


def test_of_another_version_nothing_else_is_read() -> None:
    with pytest.raises(RegistryError, match="of version 2"):
        parse_manifest(document(version=2, partitions=None, lease=7), LOCATION)
