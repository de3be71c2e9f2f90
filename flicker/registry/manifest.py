"""The object `registry.json`: who holds the registry, where its state is, how far it is.

People and the Rust Flicker read `version` and `api_sources` in it, as they
read the file of a local registry.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from flicker.errors import RegistryError
from flicker.registry.view import VERSION, dump_document
from flicker.timefmt import format_instant, parse_timestamp

MAX_NAME_CHARS = 200

_PARTITION_NAME = re.compile(r"part-[0-9]{1,6}\.sqlite3")


class OtherVersionError(RegistryError):
    """Another Flicker wrote the manifest, in a form that this one does not know."""


@dataclass(frozen=True)
class StoredPartition:
    """A recovery partition in the store.

    Attributes:
        key: Of the object.
        size: In bytes.
        sha256: In hexadecimal.
    """

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Generation:
    """One consistent state of all sources.

    Attributes:
        name: Its number and a random part, so that no two writers share one.
        written_at: When it was uploaded, as RFC 3339.
        instance: Who uploaded it.
        partitions: By the name of the file that Bytewax opens.
    """

    name: str
    written_at: str
    instance: str
    partitions: dict[str, StoredPartition]

    @property
    def number(self) -> int:
        """How many generations there were up to this one."""
        return int(self.name.partition("-")[0])

    @property
    def written_s(self) -> float | None:
        """`written_at` in seconds since 1970."""
        written_ns = parse_timestamp(self.written_at)
        return None if written_ns is None else written_ns / 1e9


@dataclass(frozen=True)
class Lease:
    """Who may write, and until when.

    Attributes:
        instance: The holder.
        expires_at: In seconds since 1970, by the store's clock.
    """

    instance: str
    expires_at: float


@dataclass(frozen=True)
class Manifest:
    """All that `registry.json` says.

    Attributes:
        api_sources: The readable view of each source.
        generation: The newest, None before the first.
        previous: Those before it that are kept, newest first.
        lease: None while nobody holds the registry.
    """

    api_sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    generation: Generation | None = None
    previous: tuple[Generation, ...] = ()
    lease: Lease | None = None

    @property
    def names(self) -> set[str]:
        """The generations that it names."""
        return {one.name for one in (self.generation, *self.previous) if one is not None}


def dump_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON."""
    generation = manifest.generation
    lease = manifest.lease
    document: dict[str, Any] = {"version": VERSION, "api_sources": manifest.api_sources}
    if generation is not None:
        document |= _dump_generation(generation)
        document["previous"] = [_dump_generation(older) for older in manifest.previous]
    document["lease"] = (
        None
        if lease is None
        else {"instance": lease.instance, "expires_at": format_instant(lease.expires_at)}
    )
    return dump_document(document)


def _dump_generation(generation: Generation) -> dict[str, Any]:
    return {
        "generation": generation.name,
        "written_at": generation.written_at,
        "instance": generation.instance,
        "partitions": {
            name: {"key": part.key, "size": part.size, "sha256": part.sha256}
            for name, part in generation.partitions.items()
        },
    }


def parse_manifest(data: bytes, location: object) -> Manifest:
    """Read a manifest.

    Args:
        data: The object's content; also what the Rust Flicker wrote, which
            has no generation and no lease.
        location: For messages.

    Raises:
        OtherVersionError: It is of another version.
        RegistryError: It is damaged.
    """
    try:
        document = json.loads(data)
        version, sources = document["version"], document["api_sources"]
        sources = {name: dict(view) for name, view in sources.items()}
        if version == VERSION:
            return Manifest(
                sources,
                _parse_newest(document),
                tuple(_parse_generation(older) for older in document.get("previous", ())),
                _parse_lease(document.get("lease")),
            )
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        message = (
            f"the registry {location} is damaged ({type(error).__name__}: {error}). Restore it "
            "from a backup or an older version of the object, or delete it to start afresh"
        )
        raise RegistryError(message) from None
    message = (
        f"the registry {location} is of version {version!r}, and this Flicker reads version "
        f"{VERSION}. Run the Flicker that wrote it, or a newer one"
    )
    raise OtherVersionError(message)


def _parse_newest(document: dict[str, Any]) -> Generation | None:
    if document.get("generation") is not None:
        return _parse_generation(document)
    if document.get("partitions") or document.get("previous"):
        message = "it has partitions, and no generation"
        raise ValueError(message)
    return None


def _parse_generation(document: dict[str, Any]) -> Generation:
    partitions = {}
    for name, part in document["partitions"].items():
        # It becomes the name of a file here.
        if not _PARTITION_NAME.fullmatch(name):
            message = "a partition has a name that no partition has"
            raise ValueError(message)
        partitions[name] = StoredPartition(
            str(part["key"]), int(part["size"]), str(part["sha256"]).lower()
        )
    if not partitions:
        message = "its generation has no partitions"
        raise ValueError(message)
    generation = Generation(
        str(document["generation"]),
        str(document["written_at"]),
        str(document["instance"]),
        partitions,
    )
    if generation.number < 0:
        message = "its generation has no number"
        raise ValueError(message)
    return generation


def _parse_lease(document: dict[str, Any] | None) -> Lease | None:
    if document is None:
        return None
    expires_ns = parse_timestamp(document["expires_at"])
    if expires_ns is None:
        message = "the lease's expires_at is no instant"
        raise ValueError(message)
    # It is shown to people, and is whatever stands in the object.
    instance = "".join(char if char.isprintable() else "?" for char in str(document["instance"]))
    return Lease(instance[:MAX_NAME_CHARS], expires_ns / 1e9)
