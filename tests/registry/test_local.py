"""The registry as a file format: what is read, refused, shown."""

from __future__ import annotations

import json
import pickle
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSink, TestingSource, cluster_main

from flicker.errors import RegistryError
from flicker.registry.caretaker import Caretaker
from flicker.registry.local import open_registry
from flicker.registry.partitions import POLL_STEP, load_plain, read_states
from flicker.registry.view import view_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_opens_what_it_created(tmp_path: Path) -> None:
    """Directories are the owner's alone: batches that are owed are events."""
    registry = open_registry(tmp_path / "r.json.d", tmp_path / "r.json")
    assert registry.names == []
    assert registry.directory.stat().st_mode & 0o077 == 0
    with pytest.raises(RegistryError, match="in use by process"):
        open_registry(tmp_path / "r.json.d", tmp_path / "r.json")


def test_partitions_are_the_owners_alone(tmp_path: Path) -> None:
    """Also in a directory that was there before, for all to read."""
    directory = tmp_path / "d"
    directory.mkdir(mode=0o755)
    for _ in range(2):
        with closing(open_registry(directory)) as registry:
            assert registry.directory == directory
        part = directory / "part-0.sqlite3"
        assert part.stat().st_mode & 0o777 == 0o600
        # As a release before, or a restored backup, left it.
        part.chmod(0o644)


def _run(directory: Path, values: list[Any], *, workers: int = 1) -> None:
    """Have Bytewax write states: the running list of each key's values."""

    def collect(state: list[Any] | None, value: Any) -> tuple[list[Any], Any]:
        return [*(state or []), value], value

    out: list[Any] = []
    flow = Dataflow("flicker")
    polled = op.input("in", flow, TestingSource(values))
    op.output("out", op.stateful_map("poll", polled, collect), TestingSink(out))
    cluster_main(
        flow,
        [],
        0,
        recovery_config=RecoveryConfig(directory),
        epoch_interval=None,
        worker_count_per_proc=workers,
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_reads_the_states_that_bytewax_would_resume_from(tmp_path: Path, workers: int) -> None:
    directory = open_registry(tmp_path / "d").directory
    _run(directory, [("a", 1), ("b", 2), ("a", 3)], workers=workers)
    states = read_states(directory)
    assert _of_poll(states) == {"a": [1, 3], "b": [2]}


def test_rows_of_an_unfinished_epoch_do_not_count(tmp_path: Path) -> None:
    """They are written, and Bytewax resumes before them."""
    directory = open_registry(tmp_path / "d").directory
    _run(directory, [("a", 1)])
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as connection, connection:
        connection.execute(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change)"
            " SELECT step_id, state_key, 9999, ? FROM snaps"
            " WHERE state_key = 'a' LIMIT 1",
            (pickle.dumps(["later"]),),
        )
    assert _of_poll(read_states(directory)) == {"a": [1]}


def test_the_slowest_worker_says_where_to_resume(tmp_path: Path) -> None:
    """The journal's segments are deleted by this: an epoch too many repeats events."""
    directory = open_registry(tmp_path / "d").directory
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as connection, connection:
        connection.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (0, 2, 1)")
        for worker, frontier in ((0, 5), (1, 6)):
            connection.execute(
                "INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (0, ?, ?)",
                (worker, frontier),
            )
        for epoch in (3, 4, 5):
            connection.execute(
                "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change)"
                " VALUES (?, 'a', ?, ?)",
                (POLL_STEP, epoch, pickle.dumps(epoch)),
            )
    assert _of_poll(read_states(directory)) == {"a": 4}


def test_a_good_view_is_not_replaced_when_the_partitions_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """T61: the view is then all that is left to go on from."""
    path = tmp_path / "r.json"
    path.write_text('{"version": 1, "api_sources": {"a": {"cursor": "x"}}}')
    before = path.read_bytes()
    registry = open_registry(tmp_path / "r.json.d", path)
    (registry.directory / "part-0.sqlite3").unlink()
    caretaker = Caretaker(registry, {"a"}, {})
    caretaker.stop()
    assert path.read_bytes() == before
    assert "cannot read the registry" in caplog.text


def _of_poll(states: dict[tuple[str, str], Any]) -> dict[str, Any]:
    return {name: state for (step, name), state in states.items() if step.startswith(POLL_STEP)}


class Global:
    """What a pickle could name."""


@pytest.mark.parametrize(
    "data", [pickle.dumps(Global()), pickle.dumps(Global), b"", b"garbage", pickle.dumps([1])[:-2]]
)
def test_unpickles_builtins_only(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_plain(data)


def test_refuses_a_store_that_could_run_code(tmp_path: Path) -> None:
    directory = open_registry(tmp_path / "d").directory
    _run(directory, [("a", 1)])
    path = directory / "part-0.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE snaps SET ser_change = ?", (pickle.dumps(Global()),))
    with pytest.raises(RegistryError, match="could run code"):
        read_states(directory)


def test_refuses_state_of_another_version(tmp_path: Path) -> None:
    """T61: a registry from a newer version, in the partitions."""
    directory = open_registry(tmp_path / "d").directory
    _run(directory, [("a", 1)])
    for version, said in ((2, "state of version 2"), (1, "")):
        with closing(sqlite3.connect(directory / "part-0.sqlite3")) as connection, connection:
            state = pickle.dumps({"version": version})
            connection.execute("UPDATE snaps SET ser_change = ?", (state,))
        if said:
            with pytest.raises(RegistryError, match=said):
                open_registry(directory, process_index=version)
        else:
            open_registry(directory, process_index=version)


@pytest.mark.parametrize(
    ("content", "is_refused"),
    [
        (b"", False),
        (b"{", True),
        (b"null", True),
        (b'{"version": 1, "api_sources": {"a": 5}}', True),
        (b'{"version": 9, "api_sources": {}}', True),
        (b'{"version": 1, "api_sources": {"a": {"cursor": "x"}}}', False),
    ],
)
def test_reads_a_view_without_partitions(tmp_path: Path, content: bytes, is_refused: bool) -> None:
    """T61: an empty file is a fresh start; a damaged or a newer one is refused."""
    path = tmp_path / "r.json"
    path.write_bytes(content)
    if is_refused:
        with pytest.raises(RegistryError):
            open_registry(tmp_path / "r.json.d", path)
    else:
        registry = open_registry(tmp_path / "r.json.d", path)
        assert registry.names == (list(json.loads(content)["api_sources"]) if content else [])
    assert path.read_bytes() == content


def test_a_disk_that_fails_is_not_called_damaged(tmp_path: Path) -> None:
    """Nobody shall delete a healthy registry over a full disk or a wrong owner."""
    directory = open_registry(tmp_path / "d").directory
    (directory / "part-0.sqlite3").unlink()
    (directory / "part-0.sqlite3").mkdir()
    with pytest.raises(RegistryError, match="cannot be read or written") as caught:
        read_states(directory)
    assert "delete" not in str(caught.value)


def test_a_view_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """T60: no half-written file and no stray one."""
    path = tmp_path / "view.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]


def test_the_view_of_nothing_is_a_valid_document() -> None:
    assert view_of({}, {"a"}) == {"version": 1, "api_sources": {}}
