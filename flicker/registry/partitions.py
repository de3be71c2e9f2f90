"""Reading the snapshots in Bytewax's recovery partitions, as plain data.

Bytewax brings an SQLite of its own. Two SQLite libraries must never have one
file open in one process: POSIX locks belong to the process, so when one library
closes the file, the other's locks are gone, and the file ends up malformed
(measured; https://sqlite.org/howtocorrupt.html, section 2.2.1). While a flow
runs, this module therefore runs as a process of its own:
`python -m flicker.registry.partitions DIRECTORY` answers each line on its input.
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
from typing import Any

from flicker.errors import RegistryError
from flicker.position import view_position

FLOW_ID = "flicker"
POLL_STEP = f"{FLOW_ID}.poll"
BUFFER_STEP = f"{FLOW_ID}.buffer"
SHIP_STEP = f"{FLOW_ID}.ship"

StateKey = tuple[str, str]
"""Step id and source name."""


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


def read_states(directory: Path) -> dict[StateKey, Any]:
    """Read the snapshots that Bytewax would resume from now.

    Returns:
        State by step and source, plain builtins.

    Raises:
        RegistryError: A partition is damaged, or a row could run code.
    """
    paths = sorted(directory.glob("part-*.sqlite3"))
    if not paths:
        message = f"the registry {directory} is gone. Stop Flicker, and restore it from a backup"
        raise RegistryError(message)
    with contextlib.ExitStack() as opened:
        try:
            partitions = [
                opened.enter_context(contextlib.closing(_open_partition(path))) for path in paths
            ]
            rows = _resumable_rows(partitions)
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                # A full disk or a wrong owner: nothing that deleting would mend.
                message = (
                    f"the registry {directory} cannot be read ({error}). Check the disk's free "
                    "space and who owns the files"
                )
            else:
                message = (
                    f"the registry {directory} is damaged ({error}). Restore it from a backup, or "
                    "delete it to start afresh"
                )
            raise RegistryError(message) from None
    states = {}
    for key, data in rows.items():
        try:
            states[key] = load_plain(data)
        except pickle.UnpicklingError as error:
            message = (
                f"the registry {directory} holds a row that Flicker did not write (step "
                f"{key[0]}, source {key[1]!r}: {error}), and opening it could run code. Restore "
                "it from a backup, or delete it to start afresh"
            )
            raise RegistryError(message) from None
    return states


def _open_partition(path: Path) -> sqlite3.Connection:
    """Open a partition for reading, as it is at this instant."""
    uri = f"file:{_quote_path(path)}?mode=ro"
    partition = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
    # One reading: between two, Bytewax may replace a row by a newer one.
    partition.execute("BEGIN")
    return partition


def _quote_path(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _resumable_rows(partitions: list[sqlite3.Connection]) -> dict[StateKey, bytes]:
    """Pick the rows of the epoch that Bytewax resumes at.

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
        return {}
    newest = max(executions)
    workers, resume_epoch = executions[newest]
    reached = frontiers.get(newest, {})
    if len(reached) == workers:
        resume_epoch = max(resume_epoch, min(reached.values()))
    rows: dict[StateKey, bytes] = {}
    for partition in partitions:
        for step_id, name, data in partition.execute(
            "SELECT step_id, state_key, ser_change FROM snaps AS s WHERE snap_epoch = ("
            " SELECT MAX(snap_epoch) FROM snaps WHERE step_id = s.step_id"
            " AND state_key = s.state_key AND snap_epoch < ?)",
            (resume_epoch,),
        ):
            if data is not None:
                rows[step_id, name] = data
    return rows


def summarise(directory: Path) -> dict[str, Any]:
    """Give what people and the journal need to know of the snapshots.

    Returns:
        `sources`: the readable view of each source; `segments`: the first
        journal segment that each source's snapshot needs.

    Raises:
        RegistryError: As `read_states`.
    """
    sources: dict[str, Any] = {}
    segments = {}
    for (step_id, name), state in sorted(read_states(directory).items()):
        if step_id == POLL_STEP and state is not None:
            sources.setdefault(name, {}).update(view_position(state))
        elif step_id == SHIP_STEP:
            sources.setdefault(name, {})["undelivered_batches"] = len(state["batches"])
            segments[name] = state["segment"]
        elif step_id == BUFFER_STEP:
            sources.setdefault(name, {})["buffered_events"] = len(state["records"])
    return {"sources": sources, "segments": segments}


def main(directory: Path) -> None:
    """Answer each line on standard input with a summary, one line of JSON."""
    for _ in sys.stdin:
        try:
            answer = summarise(directory)
        except RegistryError as error:
            answer = {"error": str(error)}
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:
            # Whoever asked was killed. Leave at once: the interpreter's own
            # end would flush again, and complain.
            os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
