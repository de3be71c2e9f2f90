"""Reading and editing the snapshots in Bytewax's recovery partitions, as plain data.

Bytewax brings an SQLite of its own. Two SQLite libraries must never have one
file open in one process: POSIX locks belong to the process, so when one library
closes the file, the other's locks are gone, and the file ends up malformed
(measured; https://sqlite.org/howtocorrupt.html, section 2.2.1). While a flow
runs, this module therefore runs as a process of its own:
`python -m flicker.registry.partitions DIRECTORY` obeys a command of JSON on each
line of its input. What edits or checks a store is called before Bytewax opens it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sqlite3
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flicker.errors import RegistryError
from flicker.memory import map_large_blocks
from flicker.registry.places import view_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

FLOW_ID = "flicker"
POLL_STEP = f"{FLOW_ID}.poll"
BUFFER_STEP = f"{FLOW_ID}.buffer"
SHIP_STEP = f"{FLOW_ID}.ship"

StateKey = tuple[str, str]
"""Step id and source name."""

SCHEMA_VERSION = 5
"""Of a partition of Bytewax 0.21, by which it would migrate an older one."""

_CREATED = "created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP"
SCHEMA: dict[tuple[str, str], str] = {
    ("table", "parts"): (
        f"CREATE TABLE parts ( {_CREATED}, "
        "part_index INTEGER PRIMARY KEY NOT NULL CHECK (part_index >= 0), "
        "part_count INTEGER NOT NULL CHECK (part_count > 0), "
        "CHECK (part_index < part_count) ) STRICT"
    ),
    ("table", "exs"): (
        f"CREATE TABLE exs ( {_CREATED}, ex_num INTEGER NOT NULL PRIMARY KEY, "
        "worker_count INTEGER NOT NULL CHECK (worker_count > 0), "
        "resume_epoch INTEGER NOT NULL ) STRICT"
    ),
    ("table", "fronts"): (
        f"CREATE TABLE fronts ( {_CREATED}, ex_num INTEGER NOT NULL, "
        "worker_index INTEGER NOT NULL CHECK (worker_index >= 0), "
        "worker_frontier INTEGER NOT NULL, PRIMARY KEY (ex_num, worker_index) ) STRICT"
    ),
    ("index", "sqlite_autoindex_fronts_1"): "",
    ("table", "commits"): (
        f"CREATE TABLE commits ( {_CREATED}, part_index INTEGER PRIMARY KEY NOT NULL, "
        "commit_epoch INTEGER NOT NULL ) STRICT"
    ),
    ("table", "snaps"): (
        f"CREATE TABLE snaps ( {_CREATED}, step_id TEXT NOT NULL, state_key TEXT NOT NULL, "
        "snap_epoch INTEGER NOT NULL, ser_change BLOB, "
        "PRIMARY KEY (step_id, state_key, snap_epoch) ) STRICT"
    ),
    ("index", "sqlite_autoindex_snaps_1"): "",
}
"""Definition of all that is in a partition by type and name, white space aside.

Kept here, not taken from a partition made for the purpose: a disk that is full
or a temporary directory that is read-only would end in a panic of Bytewax's."""

HINT_TABLE = ("table", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)")
HINT = ("snaps", "sqlite_autoindex_snaps_1", "10 3 1 1")
"""What SQLite is told of the table: few rows. Bytewax reads all states in the order of
their keys; told nothing, SQLite sorts them, with all they hold, in a temporary file."""

FIRST_EPOCH = 1
"""Where Bytewax begins, and where it panics over a state to resume from."""

LOCK_WAIT_S = 10.0

_RESTORE = "Restore it from a backup, or delete it to start afresh"


class _PlainUnpickler(pickle.Unpickler):
    """Reads builtins only: a pickle that names a global could run anything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        message = f"names {module_name}.{global_name}"
        raise pickle.UnpicklingError(message)


def load_plain(data: bytes) -> Any:
    """Unpickle builtins.

    Raises:
        pickle.UnpicklingError: The pickle names a global, or is damaged.
    """
    try:
        return _PlainUnpickler(BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever they like
        message = f"is damaged ({type(error).__name__})"
        raise pickle.UnpicklingError(message) from None


def check_partitions(
    directory: Path, take: Callable[[StateKey, Any], None] = lambda _key, _state: None
) -> None:
    """Check all that Bytewax could read, before Bytewax opens it and unpickles.

    Every row of every epoch has to be plain data, and nothing may be in the
    files but the tables that Bytewax makes: a view in place of a table would
    show Bytewax something else than was checked.

    Args:
        directory: The recovery partitions.
        take: Is shown each state that Bytewax will resume from, plain builtins,
            on the way: all of them may be hundreds of megabytes.

    Raises:
        RegistryError: A partition is damaged, or something could run code.
    """
    paths = _partition_paths(directory)
    partitions: list[sqlite3.Connection] = []
    numbers: list[tuple[int, int]] = []
    has_rows = has_executions = False
    with contextlib.ExitStack() as opened:
        for path in paths:
            with _said_of(path):
                partition = opened.enter_context(contextlib.closing(_open_partition(path)))
                _check_schema(path, partition)
                numbers += partition.execute("SELECT part_index, part_count FROM parts")
                has_executions |= bool(partition.execute("SELECT 1 FROM exs LIMIT 1").fetchall())
                has_rows |= bool(partition.execute("SELECT 1 FROM snaps LIMIT 1").fetchall())
                (verdict,) = partition.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError(" ".join(verdict.split()))
                partitions.append(partition)
        with _said_of(directory):
            epoch = _resume_epoch(partitions)
        for path, partition in zip(paths, partitions, strict=True):
            with _said_of(path):
                _check_rows(path, partition, epoch, take)
    is_whole = sorted(numbers) == [(number, len(paths)) for number in range(len(paths))]
    if not is_whole or (has_rows and not has_executions):
        what = "states without an execution" if is_whole else "other partitions than it says"
        raise RegistryError(f"the registry {directory} is damaged (it has {what}). {_RESTORE}")


def _check_rows(
    path: Path,
    partition: sqlite3.Connection,
    resume_epoch: int,
    take: Callable[[StateKey, Any], None],
) -> None:
    newest = {
        (step_id, name): epoch
        for step_id, name, epoch in partition.execute(
            "SELECT step_id, state_key, MAX(snap_epoch) FROM snaps WHERE snap_epoch < ?"
            " GROUP BY step_id, state_key",
            (resume_epoch,),
        )
    }
    for step_id, name, epoch, data in partition.execute(
        "SELECT step_id, state_key, snap_epoch, ser_change FROM snaps"
    ):
        if data is None:
            continue
        key = (step_id, name)
        state = _load_row(path, key, data, f", epoch {epoch}")
        if newest.get(key) == epoch:
            take(key, state)


def _check_schema(path: Path, partition: sqlite3.Connection) -> None:
    (version,) = partition.execute("PRAGMA user_version").fetchone()
    found = [
        (kind, name, " ".join((sql or "").split()))
        for kind, name, sql in partition.execute("SELECT type, name, sql FROM sqlite_master")
    ]
    if not found:
        raise RegistryError(f"the registry's file {path} is damaged (it is empty). {_RESTORE}")
    expected = {(*key, sql) for key, sql in SCHEMA.items()}
    wrong = sorted(expected.symmetric_difference(found) - {HINT_TABLE})
    if len(found) > len(set(found)):
        wrong = found
    if not wrong and HINT_TABLE in found and _hints(partition) != [HINT]:
        wrong = [HINT_TABLE]
    if wrong or version != SCHEMA_VERSION:
        what = f"{wrong[0][0]} {wrong[0][1]!r}" if wrong else f"version {version}"
        message = (
            f"the registry's file {path} is not what Bytewax makes ({what}), and opening it could "
            f"run code. {_RESTORE}"
        )
        raise RegistryError(message)


def iter_states(directory: Path) -> Iterator[tuple[StateKey, Any]]:
    """Read the snapshots that Bytewax would resume from now, one at a time.

    Returns:
        Step and source, and the state, plain builtins.

    Raises:
        RegistryError: A partition is damaged, or a row could run code.
    """
    with _opened(directory) as partitions, _said_of(directory):
        for key, data in _resumable_rows(partitions):
            yield key, _load_row(directory, key, data)


def read_states(directory: Path) -> dict[StateKey, Any]:
    """Read the snapshots that Bytewax would resume from now.

    Returns:
        State by step and source, plain builtins.

    Raises:
        RegistryError: As `iter_states`.
    """
    return dict(iter_states(directory))


def drop_unfinished(directory: Path) -> None:
    """Delete the rows that an execution wrote and did not live to finish.

    Bytewax resumes before them and leaves them. Once the next execution has
    passed their epoch, what it did not overwrite would count as its own: a
    buffer that is empty since the dead execution had flushed it, beside an
    outbox that never got the batch. To be called before Bytewax opens the
    store, in a cluster by its first process.

    Raises:
        RegistryError: A partition is damaged, in use or not writable.
    """
    with _opened(directory, alone=True) as partitions, _said_of(directory):
        epoch = _resume_epoch(partitions)
        for partition in partitions:
            _drop_from(partition, epoch)
            _hint(partition)
            partition.execute("COMMIT")


def _hint(partition: sqlite3.Connection) -> None:
    """Have SQLite read states in the order of their keys; once is enough."""
    known = partition.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()
    if known is None:
        # Nothing else makes the table.
        partition.execute("ANALYZE parts")
        partition.execute("DELETE FROM sqlite_stat1")
        partition.execute("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", HINT)


def _hints(partition: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return partition.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall()


def edit_states(directory: Path, changes: Mapping[StateKey, Any | None]) -> None:
    """Replace states, so that Bytewax resumes from the new ones.

    A crash leaves all the old ones or all the new ones; where a store has
    several partitions, that holds for each of them. What unfinished epochs
    left is dropped. No process may have the store open. Afterwards each
    partition is one file, with no log beside it.

    Args:
        directory: The recovery partitions.
        changes: Plain builtins by step and source; None forgets the state.

    Raises:
        RegistryError: A partition is damaged, in use or not writable, or it
            is not known which of several a new state belongs to.
    """
    pickles = {
        key: None if state is None else pickle.dumps(state) for key, state in changes.items()
    }
    with _opened(directory, alone=True) as partitions, _said_of(directory):
        epoch = _resume_epoch(partitions)
        homes = {key: _find_home(directory, partitions, key) for key in pickles}
        for partition in partitions:
            _drop_from(partition, epoch)
        if epoch == FIRST_EPOCH and any(pickles.values()):
            # Nothing was finished yet; the states are what this execution did.
            epoch += 1
            partitions[0].execute(
                "INSERT INTO exs (ex_num, worker_count, resume_epoch)"
                " SELECT IFNULL(MAX(ex_num) + 1, 0), 1, ? FROM exs",
                (epoch,),
            )
        for partition in partitions:
            for key, data in pickles.items():
                partition.execute("DELETE FROM snaps WHERE step_id = ? AND state_key = ?", key)
                if data is not None and partition is homes[key]:
                    partition.execute(
                        "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change)"
                        " VALUES (?, ?, ?, ?)",
                        (*key, epoch - 1, data),
                    )
        for partition in partitions:
            partition.execute("COMMIT")


def _find_home(
    directory: Path, partitions: list[sqlite3.Connection], key: StateKey
) -> sqlite3.Connection:
    """Find the partition that Bytewax writes a state to.

    A row in another one would stay there and count beside the later ones.
    """
    for partition in partitions:
        if partition.execute(
            "SELECT 1 FROM snaps WHERE step_id = ? AND state_key = ?", key
        ).fetchone():
            return partition
    if len(partitions) > 1:
        message = (
            f"the registry {directory} has {len(partitions)} partitions, and only Bytewax knows "
            f"which of them source {key[1]!r} belongs to. Use a registry that Flicker made"
        )
        raise RegistryError(message)
    return partitions[0]


def _drop_from(partition: sqlite3.Connection, epoch: int) -> None:
    partition.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,))


def _partition_paths(directory: Path) -> list[Path]:
    # Bytewax opens whatever is called so, not only what it made itself.
    paths = sorted(directory.glob("*.sqlite3"))
    if not paths:
        message = f"the registry {directory} is gone. Stop Flicker, and restore it from a backup"
        raise RegistryError(message)
    return paths


@contextlib.contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Say in an error of SQLite's what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
            # A full disk or a wrong owner: nothing that deleting would mend.
            message = (
                f"the registry {path} cannot be read or written ({error}). Check the disk's free "
                "space, who owns the files, and that no other process has them open"
            )
        else:
            message = f"the registry {path} is damaged ({error}). {_RESTORE}"
        raise RegistryError(message) from None


def _is_damage(error: sqlite3.Error) -> bool:
    return any(part in str(error) for part in ("no such table", "Could not decode"))


@contextlib.contextmanager
def _opened(directory: Path, *, alone: bool = False) -> Iterator[list[sqlite3.Connection]]:
    """Open the partitions in a transaction each, which ends with the block.

    Args:
        directory: Where they are.
        alone: For writing, and only if no process has them open.
    """
    with contextlib.ExitStack() as opened:
        partitions = []
        for path in _partition_paths(directory):
            with _said_of(directory):
                partition = _open_alone(path) if alone else _open_partition(path)
            partitions.append(opened.enter_context(contextlib.closing(partition)))
        yield partitions


def _open_partition(path: Path) -> sqlite3.Connection:
    """Open a partition for reading, as it is at this instant."""
    uri = f"file:{_quote_path(path)}?mode=ro"
    partition = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
    # One reading: between two, Bytewax may replace a row by a newer one.
    return _begin(partition, "BEGIN")


def _open_alone(path: Path) -> sqlite3.Connection:
    """Open a partition for writing.

    Whoever has a file in WAL mode open holds a lock on it, so an exclusive
    one is had only if that is nobody: neither a running flow, nor a process
    of a cluster that another one of it has not noticed to be gone.
    """
    uri = f"file:{_quote_path(path)}?mode=rw"
    partition = sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)
    partition.execute("PRAGMA locking_mode = EXCLUSIVE")
    return _begin(partition, "BEGIN EXCLUSIVE")


def _begin(partition: sqlite3.Connection, begin: str) -> sqlite3.Connection:
    try:
        partition.execute("PRAGMA trusted_schema = OFF")
        partition.execute("PRAGMA cell_size_check = ON")
        partition.execute(begin)
    except sqlite3.Error:
        partition.close()
        raise
    return partition


def _quote_path(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _resume_epoch(partitions: list[sqlite3.Connection]) -> int:
    """Find the epoch that Bytewax resumes at.

    That is the lowest epoch that some worker of the newest execution had not
    finished; rows of later epochs are written and do not count yet.
    """
    executions: dict[int, tuple[int, int]] = {}
    frontiers: dict[int, dict[int, int]] = {}
    for partition in partitions:
        for number, workers, epoch in partition.execute(
            "SELECT ex_num, worker_count, resume_epoch FROM exs"
        ):
            executions[number] = (workers, epoch)
        for number, worker, epoch in partition.execute(
            "SELECT ex_num, worker_index, worker_frontier FROM fronts"
        ):
            frontiers.setdefault(number, {})[worker] = epoch
    if not executions:
        return FIRST_EPOCH
    newest = max(executions)
    workers, resume_epoch = executions[newest]
    reached = frontiers.get(newest, {})
    if len(reached) == workers:
        resume_epoch = max(resume_epoch, min(reached.values()))
    return resume_epoch


def _resumable_rows(partitions: list[sqlite3.Connection]) -> Iterator[tuple[StateKey, bytes]]:
    """Pick the rows that Bytewax resumes from, one at a time: all may be hundreds of megabytes."""
    epoch = _resume_epoch(partitions)
    for partition in partitions:
        for step_id, name, data in partition.execute(
            "SELECT step_id, state_key, ser_change FROM snaps AS s WHERE snap_epoch = ("
            " SELECT MAX(snap_epoch) FROM snaps WHERE step_id = s.step_id"
            " AND state_key = s.state_key AND snap_epoch < ?)",
            (epoch,),
        ):
            if data is not None:
                yield (step_id, name), data


def _load_row(path: Path, key: StateKey, data: Any, where: str = "") -> Any:
    try:
        if not isinstance(data, bytes):
            message = f"is {type(data).__name__}"
            raise pickle.UnpicklingError(message)
        return load_plain(data)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        message = (
            f"the registry {path} holds a row that Flicker did not write (step {key[0]}, source "
            f"{key[1]!r}{where}: {reason}), and opening it could run code. {_RESTORE}"
        )
        raise RegistryError(message) from None


def summarise(directory: Path) -> dict[str, Any]:
    """Give what people and the journal need to know of the snapshots.

    Returns:
        `sources`: the readable view of each source; `segments`: the first
        journal segment that each source's snapshot needs.

    Raises:
        RegistryError: As `read_states`.
    """
    return Summaries(directory).read()


class _Part(NamedTuple):
    """What one state adds to a summary.

    Attributes:
        digest: By which the state is known again.
        view: Of its source's view; None where it says nothing.
        segment: The first that it needs, if it is an outbox's.
    """

    digest: int
    view: dict[str, Any] | None
    segment: int | None


class Summaries:
    """Summaries of the snapshots in one directory, of which most states stay as they are.

    Args:
        directory: The recovery partitions.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parts: dict[StateKey, _Part] = {}

    def read(self) -> dict[str, Any]:
        """Give what `summarise` does.

        Raises:
            RegistryError: As `read_states`.
        """
        with _opened(self._directory) as partitions, _said_of(self._directory):
            return self.of(_resumable_rows(partitions))

    def of(self, rows: Iterable[tuple[StateKey, bytes]]) -> dict[str, Any]:
        """Give the summary of rows; those of before are not unpickled once more.

        Raises:
            RegistryError: A row could run code.
        """
        before, self._parts = self._parts, {}
        for key, data in rows:
            # Keyed by the process, and quicker than unpickling: a window has a million events.
            digest = hash(data)
            part = before.get(key)
            if part is None or part.digest != digest:
                part = _summarise_state(key[0], _load_row(self._directory, key, data), digest)
            self._parts[key] = part
        sources: dict[str, Any] = {}
        segments = {}
        for (_, name), part in sorted(self._parts.items()):
            if part.view is not None:
                sources.setdefault(name, {}).update(part.view)
            if part.segment is not None:
                segments[name] = part.segment
        return {"sources": sources, "segments": segments}


def _summarise_state(step_id: str, state: Any, digest: int) -> _Part:
    if step_id == POLL_STEP:
        return _Part(digest, None if state is None else view_position(state), None)
    if step_id == SHIP_STEP:
        view = {"undelivered_batches": len(state["batches"])}
        return _Part(digest, view, state["segment"])
    if step_id == BUFFER_STEP:
        return _Part(digest, {"buffered_events": len(state["records"])}, None)
    return _Part(digest, None, None)


def copy_partitions(directory: Path, to: Path, unless: str | None = None) -> dict[str, Any]:
    """Copy what Bytewax would resume from, while Bytewax goes on writing.

    Bytewax never waits for a copy: readers of a WAL block no writer. Each
    copy is one file that needs no log beside it. It is replaced as a whole,
    and not synced: it is made to be sent away.

    Args:
        directory: The recovery partitions.
        to: Where the copies go, under the partitions' names.
        unless: A digest; where the states still have it, nothing is copied.

    Returns:
        `sources` and `segments` as `summarise`, `digest` of the states, and
        `partitions`, where they were copied: `size` in bytes and `sha256` in
        hex by file name. All of it is of the copies.

    Raises:
        RegistryError: As `read_states`.
        OSError: The copies cannot be written.
    """
    with _opened(directory) as partitions:
        if unless is not None:
            with _said_of(directory):
                rows = dict(_resumable_rows(partitions))
            if _digest(rows) == unless:
                return {**Summaries(directory).of(rows.items()), "digest": unless}
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.ExitStack() as opened:
            names = [path.name for path in _partition_paths(directory)]
            made = [to / f".{name}.new" for name in names]
            for path in made:
                opened.callback(path.unlink, missing_ok=True)
            copies = [
                opened.enter_context(contextlib.closing(_copy_partition(partition, path)))
                for partition, path in zip(partitions, made, strict=True)
            ]
            with _said_of(directory):
                rows = dict(_resumable_rows(copies))
            for copy in copies:
                copy.close()
            answer = {**Summaries(directory).of(rows.items()), "digest": _digest(rows)}
            files = {}
            for name, path in zip(names, made, strict=True):
                files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
            for name, path in zip(names, made, strict=True):
                path.replace(to / name)
    return {**answer, "partitions": files}


def _copy_partition(partition: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Copy a partition as the transaction that it is opened with sees it.

    Raises:
        OSError: The copy cannot be written.
        sqlite3.DatabaseError: The partition is damaged.
    """
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    copy = sqlite3.connect(path, isolation_level=None)
    try:
        copy.execute("PRAGMA synchronous = OFF")
        # All in one step: between two, a backup starts anew whenever the
        # source has changed, so that it might never end.
        partition.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        copy.close()
        if isinstance(error, sqlite3.OperationalError):
            message = f"the registry cannot be copied to {path.parent} ({error})"
            raise OSError(None, message) from None
        raise
    return copy


def _digest(rows: Mapping[StateKey, bytes]) -> str:
    from hashlib import blake2b  # noqa: PLC0415 - it brings OpenSSL, which looks do without

    digest = blake2b(digest_size=16)
    for key, data in sorted(rows.items()):
        for part in (*(text.encode("utf-8", "surrogatepass") for text in key), data):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    from hashlib import sha256  # noqa: PLC0415 - as above

    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def main(directory: Path) -> None:
    """Obey commands, one of JSON on each line of standard input.

    `{"do": "look"}` answers as `summarise`, or with `{"unchanged": true}` where
    that is what it answered last; `{"do": "copy", "to": DIRECTORY, "unless":
    DIGEST or null}` as `copy_partitions`. Each answer is one line of JSON.
    What went wrong is in `error`, and whether it lies with the partitions in
    `is_registry`.
    """
    # States that are looked through in passing: a full outbox has 16 MB.
    map_large_blocks()
    summaries = Summaries(directory)
    seen: dict[str, Any] | None = None
    for line in sys.stdin:
        try:
            command = json.loads(line)
            if command["do"] == "copy":
                answer = copy_partitions(directory, Path(command["to"]), command["unless"])
            else:
                before, seen = seen, summaries.read()
                answer = {"unchanged": True} if seen == before else seen
        except RegistryError as error:
            answer = {"error": str(error), "is_registry": True}
        except OSError as error:
            answer = {"error": error.strerror or type(error).__name__, "is_registry": False}
        except sqlite3.Error as error:
            answer = {"error": f"the registry cannot be read ({error})", "is_registry": False}
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:
            # Whoever asked was killed. Leave at once: the interpreter's own
            # end would flush again, and complain.
            os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
