"""Changing a registry while nothing runs on it."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from flicker.dedup import DedupWindow
from flicker.errors import RegistryError
from flicker.journal import AckJournal
from flicker.position import Position, dump_position, load_position
from flicker.registry.access import RemoteOptions, open_remote
from flicker.registry.exchange import parse_export
from flicker.registry.local import is_locked, open_registry
from flicker.registry.location import LINEAGE_NAME, S3Location, split_path
from flicker.registry.partitions import POLL_STEP, SHIP_STEP, edit_states, summarise
from flicker.registry.report import has_partitions, missing, read_manifest
from flicker.registry.states import (
    STEPS,
    names_in,
    owed_identities,
    read_settled,
    refuse_loss,
    unknown_source,
)
from flicker.registry.view import configured_in, dump_document, view_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flicker.registry.local import Registry
    from flicker.registry.states import States


def rewind(location: Path | S3Location, name: str, to_ns: int) -> int | None:
    """Have a source read again from an instant on.

    What it owes is delivered once, and not read again. What it never read is
    not passed over: where it was not read up to the instant yet, it goes on
    from where it stands.

    Args:
        location: Of the registry.
        name: Of the source.
        to_ns: The instant, in nanoseconds since 1970.

    Returns:
        The instant that it is read from; None for the beginning.

    Raises:
        RegistryError: No such source, or the registry is in use.
    """
    from_ns: int | None = to_ns

    def edit(states: States) -> States:
        nonlocal from_ns
        poll, ship = states.get((POLL_STEP, name)), states.get((SHIP_STEP, name))
        if poll is None:
            raise unknown_source(states, name)
        before = load_position(poll, name, None, None)
        from_ns = _last_safe_ns(before, to_ns)
        if before.scan is None and from_ns is not None and from_ns < to_ns:
            # Nothing was read from the instant on; all of it is yet to come.
            return {}
        # What the API is not asked to list again would be fetched never.
        pending = [
            entry
            for entry in before.pending
            if from_ns is not None and (entry.timestamp_ns is None or entry.timestamp_ns < from_ns)
        ]
        owed = owed_identities(states, name)
        position = Position(
            DedupWindow.knowing(name, [*owed, *(entry.identity for entry in pending)]),
            fetched=DedupWindow.knowing(name, owed),
            pending=pending,
            last_timestamp_ns=from_ns,
            start_ns=_start_ns(before, from_ns),
            rises=before.rises,
            falls=before.falls,
            shifts=before.shifts,
            most_entries=before.most_entries,
        )
        changes = {
            (step, name): states[step, name] for step in STEPS.values() if (step, name) in states
        }
        changes[POLL_STEP, name] = dump_position(position, poll["api"], None)
        if ship is not None:
            # What was delivered shall come again, that is the purpose.
            changes[SHIP_STEP, name] = {**ship, "delivered": b""}
        return changes

    _edit(location, "rewind", edit)
    return from_ns


def _last_safe_ns(position: Position, to_ns: int) -> int | None:
    """Give the last instant up to one that nothing is unread before, None for the beginning."""
    read = [position.last_timestamp_ns, position.swept_ns, position.start_ns]
    scan = position.scan
    if scan is not None and scan.rises and not scan.falls:
        # In ascending order all up to here has been read.
        read.append(scan.newest_ns)
    known = [at_ns for at_ns in read if at_ns is not None]
    if not known:
        # A finished scan without timestamps read all there was.
        return None if scan is not None else to_ns
    return min(to_ns, max(known))


def _start_ns(before: Position, from_ns: int | None) -> int | None:
    """Give the start of a source that is read from an instant on.

    A `start_time` such as `24h` would be counted from the next start, and what
    lies between the instant and then would be passed over.
    """
    if from_ns is None:
        return before.start_ns
    return 0 if before.start_ns is None else min(before.start_ns, from_ns)


def forget(location: Path | S3Location, name: str, *, is_forced: bool = False) -> None:
    """Drop all that is known of a source.

    Raises:
        RegistryError: No such source; or it owes events and this is not
            forced; or the registry is in use.
    """

    def edit(states: States) -> States:
        if name not in names_in(states):
            raise unknown_source(states, name)
        if not is_forced:
            refuse_loss(states, name)
        return {(step, name): None for step in STEPS.values()}

    _edit(location, "forget", edit)


def import_registry(
    location: Path | S3Location, data: bytes, *, is_forced: bool = False
) -> list[str]:
    """Put sources into a registry, in place of those of the same names.

    Args:
        location: Of the registry; it is created where there is none.
        data: What `parse_export` reads.
        is_forced: Replace a source also if it owes events.

    Returns:
        The names of the sources.

    Raises:
        RegistryError: The data cannot be read; or a source there owes events
            and this is not forced; or the registry is in use.
    """
    new = parse_export(data)
    names = sorted(names_in(new))

    def edit(states: States) -> States:
        for name in names:
            if not is_forced:
                refuse_loss(states, name)
        return {(step, name): new.get((step, name)) for name in names for step in STEPS.values()}

    _edit(location, "import", edit, is_new_allowed=True)
    return names


def _edit(
    location: Path | S3Location,
    purpose: str,
    edit: Callable[[States], States],
    *,
    is_new_allowed: bool = False,
) -> None:
    """Change a registry that nobody uses.

    Args:
        location: Of the registry.
        purpose: For whoever finds it held.
        edit: Gets the states, with the journal worked in, and gives those
            that change; None drops one.
        is_new_allowed: Whether the registry may be created.
    """
    with _opened(location, purpose, is_new_allowed=is_new_allowed) as registry:
        changes = edit(read_settled(registry.directory))
        if not changes:
            return
        # In this order a crash in between repeats events and loses none: what
        # the journal knows was delivered, and is forgotten first.
        try:
            for name in names_in(changes):
                AckJournal(registry.journal_dir, name).delete_all()
        except OSError as error:
            message = f"{registry.journal_dir} cannot be written: {error.strerror}"
            raise RegistryError(message) from None
        edit_states(registry.directory, changes)
        sources = summarise(registry.directory)["sources"]
        before = registry.view
        if isinstance(location, S3Location):
            # A registry that has generations is opened without its view.
            before = read_manifest(location)[1].api_sources
        view = view_of(sources, configured_in(before, sources), before)
        if registry.remote is not None:
            registry.remote.upload_edited(view["api_sources"])
        elif registry.view_path is not None:
            _write_view(registry.view_path, view)


def _write_view(path: Path, view: dict[str, Any]) -> None:
    try:
        write_atomically(path, dump_document(view))
    except OSError as error:
        message = f"the registry is changed, but {path} cannot be written: {error.strerror}"
        raise RegistryError(message) from None


@contextmanager
def _opened(
    location: Path | S3Location, purpose: str, *, is_new_allowed: bool
) -> Iterator[Registry]:
    if isinstance(location, S3Location):
        if not is_new_allowed:
            read_manifest(location)
        registry = open_remote(location, RemoteOptions(), purpose)
    else:
        directory, view_path = split_path(location)
        is_there = has_partitions(directory) or (view_path is not None and view_path.exists())
        if not is_there and not is_new_allowed:
            raise missing(location)
        if (directory / LINEAGE_NAME).exists():
            message = (
                f"{directory} is the working copy of a registry in S3, and would be replaced by "
                "it. Name that registry: --registry-file s3://BUCKET/KEY"
            )
            raise RegistryError(message)
        # The first process of a cluster is kept out by the lock of its number.
        for path in directory.glob("lock-[1-9]*"):
            if is_locked(path):
                message = f"the registry {location} is in use. Stop all of its processes"
                raise RegistryError(message)
        registry = open_registry(directory, view_path, is_to_run=False)
    with closing(registry):
        yield registry
