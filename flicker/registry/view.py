"""The registry's readable view: what people see, and start from in need."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
PLACE_KEYS = ("last_timestamp", "cursor", "offset", "page")

logger = logging.getLogger(__name__)


def read_view(view_path: Path | None, *, is_new: bool) -> dict[str, dict[str, Any]]:
    """Read the view, which nobody can do without where the partitions are gone."""
    if view_path is None or not view_path.exists() or view_path.stat().st_size == 0:
        return {}
    try:
        view = json.loads(view_path.read_bytes())
        version, sources = view["version"], view["api_sources"]
        sources = {name: dict(seen) for name, seen in sources.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        if is_new:
            message = (
                f"the registry {view_path} is damaged, and {view_path}.d, which it could be "
                "restored from, is gone. Restore either from a backup, or delete the file to start "
                "afresh"
            )
            raise RegistryError(message) from None
        logger.warning("the registry's view is damaged and is written anew")
        return {}
    if version != VERSION:
        message = (
            f"the registry {view_path} is of version {version!r}, and this Flicker reads version "
            f"{VERSION}. Run the Flicker that wrote it, or a newer one"
        )
        raise RegistryError(message)
    return sources


def view_of(
    sources: Mapping[str, Any], configured: set[str], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give the readable view of snapshots.

    Args:
        sources: As `partitions.summarise` gives them.
        configured: Names in the configuration; others are marked as retired.
        before: The view's sources as they were. What a source has read and
            not delivered is in its snapshots only, so the view goes on
            telling up to where all had been delivered.
    """
    views: dict[str, Any] = {}
    for name, source in sources.items():
        view = views[name] = dict(source)
        if not _is_settled(view):
            delivered = settled_part((before or {}).get(name, {}))
            if not _is_owing(view) and not view.get("pending_entries"):
                # The scans before the one that runs are delivered of.
                delivered["last_timestamp"] = view.get("last_timestamp")
            view["delivered_up_to"] = delivered
        if name not in configured:
            view["retired"] = True
    return {"version": VERSION, "api_sources": views}


def configured_in(view: Mapping[str, Any], sources: Mapping[str, Any]) -> set[str]:
    """Give the names that were configured when a view was written."""
    return {name for name in sources if not view.get(name, {}).get("retired")}


def settled_part(view: Mapping[str, Any]) -> dict[str, Any]:
    """Give the part of a source's view that all before it was delivered of.

    Args:
        view: The source's, in the readable view; also as the Rust Flicker
            wrote it, with `last_timestamp` and `cursor` only.
    """
    if not _is_settled(view):
        return dict(view.get("delivered_up_to", {}))
    return {key: view[key] for key in PLACE_KEYS if key in view}


def _is_settled(view: Mapping[str, Any]) -> bool:
    return not view.get("scanning") and not _is_owing(view)


def _is_owing(view: Mapping[str, Any]) -> bool:
    return bool(view.get("buffered_events") or view.get("undelivered_batches"))


def dump_document(document: Mapping[str, Any]) -> bytes:
    """Write a document of the registry as JSON, for people to read as well."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # Half a character, which a vendor may have written, as JSON's escape.
    return text.encode(errors="backslashreplace") + b"\n"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old or the new one.

    Raises:
        OSError: The old one is still there.
    """
    file, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
