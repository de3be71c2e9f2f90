"""What a registry holds and who holds it, also while it is in use."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.registry.local import is_locked
from flicker.registry.location import S3Location, split_path
from flicker.registry.partitions import summarise
from flicker.registry.view import configured_in, read_view, view_of

if TYPE_CHECKING:
    from pathlib import Path

    from flicker.registry.manifest import Manifest
    from flicker.registry.store import S3Store


@dataclass
class Report:
    """What is known of a registry.

    Attributes:
        registry: Where it is.
        holder: Who has it, None where nobody does.
        expires_at: When the holder's lease runs out, in seconds since 1970.
        written_at: When it was saved last, in seconds since 1970.
        now: The present, by the same clock.
        api_sources: The readable view of each source.
    """

    registry: str
    holder: str | None = None
    expires_at: float | None = None
    written_at: float | None = None
    now: float = field(default_factory=time.time)
    api_sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def age_s(self) -> float | None:
        """Seconds since it was saved."""
        return None if self.written_at is None else max(0.0, self.now - self.written_at)


def inspect(location: Path | S3Location) -> Report:
    """Look into a registry.

    Raises:
        RegistryError: There is none, or it cannot be read.
    """
    if isinstance(location, S3Location):
        return _inspect_remote(location)
    directory, view_path = split_path(location)
    is_new = not has_partitions(directory)
    try:
        view = read_view(view_path, is_new=is_new)
        if is_new:
            if not view or view_path is None:
                raise missing(location)
            seen_at = view_path.stat().st_mtime
            return Report(str(location), written_at=seen_at, api_sources=view)
        found = summarise(directory)["sources"]
        written_at = _written_at(directory)
        locks = sorted(path for path in directory.glob("lock-[0-9]*") if is_locked(path))
        holders = [f"process {path.read_text(encoding='ascii').strip()}" for path in locks]
    except OSError as error:
        message = f"the registry {location} cannot be read: {error.strerror}"
        raise RegistryError(message) from None
    sources = view_of(found, configured_in(view, found), view)["api_sources"]
    return Report(str(location), ", ".join(holders) or None, None, written_at, api_sources=sources)


def _written_at(directory: Path) -> float | None:
    """Give when the partitions were written last; reading makes an empty log."""
    written = []
    for path in [*directory.glob("part-*.sqlite3"), *directory.glob("part-*.sqlite3-wal")]:
        # A flow that ends meanwhile deletes its log.
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_size:
                written.append(status.st_mtime)
    return max(written, default=None)


def _inspect_remote(location: S3Location) -> Report:
    _, manifest, now = read_manifest(location)
    lease = manifest.lease
    if lease is not None and lease.expires_at <= now:
        lease = None
    return Report(
        str(location),
        lease.instance if lease is not None else None,
        lease.expires_at if lease is not None else None,
        manifest.generation.written_s if manifest.generation is not None else None,
        now,
        manifest.api_sources,
    )


def read_manifest(location: S3Location) -> tuple[S3Store, Manifest, float]:
    """Read `registry.json`.

    Returns:
        The store, what the object says, and the store's time in seconds
        since 1970.

    Raises:
        RegistryError: There is none, or it cannot be read.
    """
    # These load boto3, which takes half a second.
    from flicker.registry.manifest import parse_manifest  # noqa: PLC0415
    from flicker.registry.store import S3Store, patiently  # noqa: PLC0415

    store = S3Store(location)
    found = patiently(lambda: store.get(location.key))
    if found is None:
        raise missing(location)
    return store, parse_manifest(found.data, location), found.read_at


def has_partitions(directory: Path) -> bool:
    """Tell whether a directory holds recovery partitions."""
    return any(directory.glob("part-*.sqlite3"))


def missing(location: Path | S3Location) -> RegistryError:
    """Say that there is no registry."""
    return RegistryError(f"there is no registry at {location}. Name it with --registry-file")
