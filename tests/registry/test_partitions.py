"""Bytewax's partitions: what is checked, dropped, edited and copied."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main

from flicker.errors import RegistryError
from flicker.registry import partitions
from flicker.registry.local import open_registry
from flicker.registry.partitions import (
    BUFFER_STEP,
    POLL_STEP,
    SHIP_STEP,
    StateKey,
    Summaries,
    check_partitions,
    copy_partitions,
    drop_unfinished,
    edit_states,
    iter_states,
    read_states,
    summarise,
)
from flicker.registry.reader import Reader
from flicker.registry.shapes import check_states
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COUNT_STEP = f"{POLL_STEP}.stateful_flat_map.stateful.stateful_batch"
"""Of `_run`'s running lists."""

SCAN = {
    **dict.fromkeys(("since", "newest", "last_anchor", "last_entries", "entries_again")),
    **dict.fromkeys(("full_entries", "check_place", "check_anchor", "resume_place", "latest")),
    "place": ["offset", 50],
    "last_place": ["cursor", "x"],
    "started": 1,
    "first_request": False,
    "is_probing": False,
    "met": b"12345678",
    "rises": True,
    "falls": 0,
    "empty_pages": 0,
    "repeats": 0,
}
POSITION = {
    "version": 1,
    "api": "f",
    "last_timestamp": 1_735_732_800_000_000_000,
    "place": ["top", None],
    "place_since": None,
    "anchor": b"i" * 16,
    "start": None,
    "rises": 1,
    "falls": 0,
    "shifts": False,
    "most_entries": 50,
    "seen": [b"i" * 32, b"t" * 16, b"", b"", b"", b""],
    "scan": SCAN,
}
BUFFER = {"version": 1, "source": "a", "records": [(b"i" * 16, b"{}")], "first_at": 1.5}
OUTBOX = {
    "version": 1,
    "endpoint": None,
    "segment": 3,
    "delivered": b"i" * 16,
    "batches": [[b"i" * 32, [b"{}", b"{}"]]],
}


def _make(path: Path) -> Path:
    path.mkdir()
    init_db_dir(path, 1)
    return path


def _flow(values: list[Any], out: list[Any]) -> Dataflow:
    def collect(state: list[Any] | None, value: Any) -> tuple[list[Any], Any]:
        return [*(state or []), value], value

    flow = Dataflow("flicker")
    polled = op.input("in", flow, TestingSource(values))
    op.output("out", op.stateful_map("poll", polled, collect), TestingSink(out))
    return flow


def _run(directory: Path, values: list[Any], workers: int = 1) -> None:
    """Have Bytewax write states: the running list of each key's values."""
    cluster_main(
        _flow(values, []),
        [],
        0,
        recovery_config=RecoveryConfig(directory),
        epoch_interval=None,
        worker_count_per_proc=workers,
    )


def _write(directory: Path, *statements: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as partition, partition:
        for statement in statements:
            partition.execute(*statement)


def _rows(directory: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as partition:
        return partition.execute("SELECT step_id, state_key, snap_epoch FROM snaps").fetchall()


def _insert(step: str, name: str, epoch: int, data: bytes | None) -> tuple[Any, ...]:
    return (
        "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)",
        (step, name, epoch, data),
    )


def _lists(directory: Path) -> dict[str, Any]:
    return {
        name: state for (step, name), state in read_states(directory).items() if step == COUNT_STEP
    }


class Command:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._path}",)


AS_BYTEWAX_READS = """
WITH latest AS (
    SELECT step_id, state_key, MAX(snap_epoch) AS snap_epoch FROM snaps
    WHERE snap_epoch < 100 GROUP BY step_id, state_key
)
SELECT step_id, state_key, snap_epoch, ser_change
FROM snaps JOIN latest USING (step_id, state_key, snap_epoch)
ORDER BY step_id, state_key LIMIT 1000
"""


@pytest.mark.parametrize(
    ("step", "name", "epoch"),
    [(COUNT_STEP, "a", 0), (COUNT_STEP, "a", 9999), ("flicker.other", "b", 1)],
    ids=["old epoch", "unfinished epoch", "unknown step"],
)
def test_a_row_that_would_run_a_command_is_refused_wherever_it_is(
    tmp_path: Path, step: str, name: str, epoch: int
) -> None:
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    proof = tmp_path / "ran"
    data = pickle.dumps(Command(proof))
    _write(directory, _insert(step, name, epoch, data))
    with pytest.raises(RegistryError, match="could run code") as caught:
        open_registry(directory)
    said = str(caught.value)
    assert all(part in said for part in ("part-0.sqlite3", step, repr(name), f"epoch {epoch}"))
    assert "Restore it" in said
    assert not proof.exists()
    pickle.loads(data)
    assert proof.exists()


def test_a_discarded_state_is_no_damage(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1), ("b", 1)])
    _write(directory, _insert(COUNT_STEP, "a", 9, None))
    check_partitions(directory)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_bytewax_made_passes(tmp_path: Path, workers: int) -> None:
    """The schema written down here is that of this Bytewax, also after it ran."""
    directory = _make(tmp_path / "d")
    check_partitions(directory)
    for _ in range(2):
        _run(directory, [("a", 1), ("b", 2)], workers)
        check_partitions(directory)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE more (a)"],
        ["CREATE VIEW seen AS SELECT 1"],
        ["CREATE TRIGGER t AFTER INSERT ON snaps BEGIN DELETE FROM exs; END"],
        ["CREATE INDEX i ON snaps (snap_epoch)"],
        ["ALTER TABLE snaps ADD COLUMN more TEXT AS (state_key) VIRTUAL"],
        ["ALTER TABLE snaps RENAME TO s", "CREATE VIEW snaps AS SELECT * FROM s"],
        ["DROP TABLE commits"],
        ["PRAGMA user_version = 4"],
        # Of what SQLite knows about tables, only what Flicker tells it.
        ["ANALYZE"],
        ["ANALYZE", "DELETE FROM sqlite_stat1"],
    ],
)
def test_a_schema_that_bytewax_did_not_make_is_refused(
    tmp_path: Path, statements: list[str]
) -> None:
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    _write(directory, *((statement,) for statement in statements))
    with pytest.raises(RegistryError, match=r"part-0\.sqlite3 is not what Bytewax makes"):
        check_partitions(directory)


def test_states_are_read_in_order_without_being_sorted(tmp_path: Path) -> None:
    """Sorting all windows of a thousand sources takes as long as loading them."""
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1), ("b", 2)])
    before = dict(iter_states(directory))
    for _ in range(2):
        drop_unfinished(directory)
        check_partitions(directory)
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as partition:
        plan = " ".join(
            row[3] for row in partition.execute(f"EXPLAIN QUERY PLAN {AS_BYTEWAX_READS}")
        )
    assert "ORDER BY" not in plan
    assert dict(iter_states(directory)) == before
    _run(directory, [("b", 1)])
    check_partitions(directory)


def test_a_partition_under_another_name_is_checked_too(tmp_path: Path) -> None:
    """Bytewax opens every `*.sqlite3`, whatever it is called."""
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    other = _make(tmp_path / "other")
    _write(other, _insert("s", "a", 1, pickle.dumps(Command(tmp_path))))
    shutil.copy(other / "part-0.sqlite3", directory / "evil.sqlite3")
    with pytest.raises(RegistryError, match=r"evil\.sqlite3"):
        check_partitions(directory)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM parts",
        "UPDATE parts SET part_count = 2",
        "UPDATE parts SET part_index = 1, part_count = 2",
        "INSERT INTO parts (part_index, part_count) VALUES (1, 2)",
    ],
)
def test_a_table_of_partitions_that_does_not_fit_is_refused(tmp_path: Path, statement: str) -> None:
    """Bytewax would panic over it, or go on without what the others had."""
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    _write(directory, (statement,))
    with pytest.raises(RegistryError, match="it has other partitions than it says") as caught:
        check_partitions(directory)
    assert f"{directory} is damaged" in str(caught.value)
    assert "Restore it from a backup" in str(caught.value)


@pytest.mark.parametrize("lost", ["part-0.sqlite3", "part-1.sqlite3", "part-2.sqlite3"])
def test_a_partition_that_is_missing_is_noticed(tmp_path: Path, lost: str) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    init_db_dir(directory, 3)
    _run(directory, [("a", 1)], 2)
    check_partitions(directory)
    (directory / lost).unlink()
    with pytest.raises(RegistryError, match="it has other partitions than it says"):
        check_partitions(directory)


def test_states_that_no_execution_wrote_are_damage(tmp_path: Path) -> None:
    """Bytewax would begin at its first epoch, and start every source afresh."""
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    _write(directory, ("DELETE FROM exs",))
    with pytest.raises(RegistryError, match="it has states without an execution"):
        check_partitions(directory)
    _write(directory, ("DELETE FROM snaps",))
    check_partitions(directory)


@pytest.mark.parametrize("table", ["snaps", "sqlite_autoindex_snaps_1", "commits"])
def test_a_damaged_page_is_found(tmp_path: Path, table: str) -> None:
    """Also one that the check of the rows does not come by."""
    directory = _make(tmp_path / "d")
    edit_states(directory, {(COUNT_STEP, f"k{n}"): [os.urandom(500)] for n in range(50)})
    path = directory / "part-0.sqlite3"
    with closing(sqlite3.connect(path)) as partition:
        partition.execute("PRAGMA journal_mode = DELETE")
        (root,) = partition.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 64)
    with pytest.raises(RegistryError, match="damaged") as caught:
        check_partitions(directory)
    assert "Restore it from a backup" in str(caught.value)


GOOD = {POLL_STEP: POSITION, BUFFER_STEP: BUFFER, SHIP_STEP: OUTBOX}


def test_shapes_that_flicker_writes_pass(tmp_path: Path) -> None:
    check_states(tmp_path, {(step, "a"): state for step, state in GOOD.items()})
    check_states(tmp_path, {(POLL_STEP, "a"): {**POSITION, "scan": None, "place": None}})
    check_states(
        tmp_path, {(BUFFER_STEP, "a"): {**BUFFER, "source": None, "records": [], "first_at": None}}
    )


@pytest.mark.parametrize(
    ("step", "key"), [(step, key) for step, state in GOOD.items() for key in state]
)
def test_a_state_that_lacks_a_part_is_refused(tmp_path: Path, step: str, key: str) -> None:
    state = {name: value for name, value in GOOD[step].items() if name != key}
    said = "version" if key == "version" else f"step {step}, source 'a'.*{key}"
    with pytest.raises(RegistryError, match=said):
        check_states(tmp_path, {(step, "a"): state})


WRONG: list[tuple[str, dict[str, Any]]] = [
    (POLL_STEP, {"last_timestamp": "2025"}),
    (POLL_STEP, {"last_timestamp": 10**40}),
    (POLL_STEP, {"place": ["offset", "5"]}),
    (POLL_STEP, {"place": ["elsewhere", 1]}),
    (POLL_STEP, {"place": [["offset"], 1]}),
    (POLL_STEP, {"place": 5}),
    (POLL_STEP, {"anchor": b"short"}),
    (POLL_STEP, {"seen": []}),
    (POLL_STEP, {"seen": [b"i" * 16, b"t" * 16, b"", b"", b"", b""]}),
    (POLL_STEP, {"seen": [b"i" * 15, b"", b"", b"", b"", b""]}),
    (POLL_STEP, {"fetched": [b"i" * 16, b"", b"", b"", b"", b""]}),
    (POLL_STEP, {"fetched": None}),
    (POLL_STEP, {"scan": []}),
    (POLL_STEP, {"scan": {}}),
    (POLL_STEP, {"scan": {**SCAN, "met": [1]}}),
    (POLL_STEP, {"scan": {**SCAN, "started": None}}),
    (POLL_STEP, {"scan": {**SCAN, "place": ["page", None]}}),
    (POLL_STEP, {"scan": {**SCAN, "since": 5}}),
    (POLL_STEP, {"rises": None}),
    (BUFFER_STEP, {"records": None}),
    (BUFFER_STEP, {"records": [b"x"]}),
    (BUFFER_STEP, {"records": [(b"short", b"{}")]}),
    (BUFFER_STEP, {"records": [(b"i" * 16, "{}")]}),
    (BUFFER_STEP, {"first_at": None}),
    (BUFFER_STEP, {"first_at": 1e300}),
    (BUFFER_STEP, {"first_at": "now"}),
    (BUFFER_STEP, {"source": 5}),
    (BUFFER_STEP, {"source": None}),
    (SHIP_STEP, {"batches": {}}),
    (SHIP_STEP, {"batches": [[b"i" * 16, [b"{}", b"{}"]]]}),
    (SHIP_STEP, {"batches": [[b"i" * 16, ["{}"]]]}),
    (SHIP_STEP, {"batches": [[[b"i" * 16], [b"{}"]]]}),
    (SHIP_STEP, {"batches": [5]}),
    (SHIP_STEP, {"delivered": [b"i" * 16]}),
    (SHIP_STEP, {"delivered": b"short"}),
    (SHIP_STEP, {"segment": -1}),
    (SHIP_STEP, {"segment": True}),
    (SHIP_STEP, {"endpoint": 5}),
]


@pytest.mark.parametrize(("step", "change"), WRONG)
def test_a_state_of_the_wrong_shape_is_refused(
    tmp_path: Path, step: str, change: dict[str, Any]
) -> None:
    """Here, by name, not by a KeyError out of Bytewax."""
    with pytest.raises(RegistryError, match=f"step {step}, source 'a'.*Restore it"):
        check_states(tmp_path, {(step, "a"): {**GOOD[step], **change}})


def test_a_wrong_shape_is_refused_at_the_start_without_telling_events(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    records = [(b"i" * 16, "an-event")]
    edit_states(directory, {(BUFFER_STEP, "a"): {**BUFFER, "records": records}})
    with pytest.raises(RegistryError, match="a record is not what it should be") as caught:
        open_registry(directory)
    assert "an-event" not in str(caught.value)


def test_rows_of_unfinished_epochs_are_dropped_and_no_others(tmp_path: Path) -> None:
    """By any process of a cluster, one after the other."""
    directory = _make(tmp_path / "d")
    drop_unfinished(directory)
    _run(directory, [("a", 1), ("b", 2)])
    before = _rows(directory)
    epoch = max(epoch for *_, epoch in before) + 1
    _write(
        directory,
        _insert(COUNT_STEP, "a", epoch, pickle.dumps([])),
        _insert("flicker.other", "a", epoch + 7, None),
    )
    for _ in range(2):
        drop_unfinished(directory)
        assert _rows(directory) == before


def test_a_store_that_is_in_use_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the cluster that has not noticed yet that another one is gone."""
    monkeypatch.setattr(partitions, "LOCK_WAIT_S", 0.05)
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    epoch = max(epoch for *_, epoch in _rows(directory)) + 1
    _write(directory, _insert(COUNT_STEP, "a", epoch, None))
    holder = """if True:
        import sqlite3, sys
        partition = sqlite3.connect(sys.argv[1])
        partition.execute("SELECT * FROM snaps").fetchall()
        print(flush=True)
        sys.stdin.read()
    """
    argv = [sys.executable, "-c", holder, str(directory / "part-0.sqlite3")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(RegistryError, match="no other process has them open"):
            drop_unfinished(directory)
        with pytest.raises(RegistryError, match="no other process has them open"):
            edit_states(directory, {})
        assert len(_rows(directory)) == 3
        process.communicate(timeout=20)
    drop_unfinished(directory)
    assert len(_rows(directory)) == 2


KILLED = """if True:
    import os, signal, sys
    from datetime import timedelta
    from pathlib import Path
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import TestingSink, TestingSource, cluster_main

    def collect(state, value):
        if value == 199:
            os.kill(os.getpid(), signal.SIGKILL)
        return [*(state or []), value], value

    flow = Dataflow("flicker")
    values = [("a", 1), ("b", 2)] + [("f", n) for n in range(200)]
    polled = op.input("in", flow, TestingSource(values))
    op.output("out", op.stateful_map("poll", polled, collect), TestingSink([]))
    cluster_main(
        flow, [], 0, recovery_config=RecoveryConfig(Path(sys.argv[1])),
        epoch_interval=timedelta(0), worker_count_per_proc=int(sys.argv[2]),
    )
"""


def _run_killed(directory: Path, workers: int) -> None:
    argv = [sys.executable, "-c", KILLED, str(directory), str(workers)]
    assert subprocess.run(argv, timeout=60, check=False).returncode == -signal.SIGKILL
    assert (directory / "part-0.sqlite3-wal").stat().st_size


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("store", ["new", "ended", "killed"])
def test_bytewax_resumes_from_edited_states(tmp_path: Path, store: str, workers: int) -> None:
    """States replaced, made and forgotten; the input's too, so that it begins anew."""
    directory = _make(tmp_path / "d")
    if store == "ended":
        _run(directory, [("a", 1), ("b", 2)], workers)
    elif store == "killed":
        _run_killed(directory, workers)
    if store != "new":
        assert _lists(directory)["b"] == [2]
    changes = {
        (COUNT_STEP, "a"): ["edited"],
        (COUNT_STEP, "b"): None,
        (COUNT_STEP, "c"): ["new"],
        ("flicker.in", "iterable"): None,
    }
    for _ in range(2):
        edit_states(directory, changes)
        assert not (directory / "part-0.sqlite3-wal").exists()
        check_partitions(directory)
        kept = {name: state for name, state in _lists(directory).items() if name != "f"}
        assert kept == {"a": ["edited"], "c": ["new"]}
        for turn in range(3):
            # What was given stays, also over executions that do not touch it.
            _run(directory, [("a", 5), ("b", 6), *([("c", 7)] if turn else [])], workers)
            kept = {name: state for name, state in _lists(directory).items() if name != "f"}
            assert kept == {"a": ["edited", 5], "b": [6], "c": ["new", 7] if turn else ["new"]}
        assert "f" in _lists(directory) or store != "killed"


def test_an_execution_that_finished_no_epoch_is_edited_too(tmp_path: Path) -> None:
    """It was killed at its start: it resumes at the epoch that Bytewax begins with."""
    directory = _make(tmp_path / "d")
    _write(
        directory,
        ("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (0, 3, 1)",),
        _insert(COUNT_STEP, "a", 1, pickle.dumps(["dead"])),
    )
    edit_states(directory, {(COUNT_STEP, "a"): ["edited"]})
    _run(directory, [("a", 5)])
    assert _lists(directory) == {"a": ["edited", 5]}


def _places(directory: Path) -> dict[str, set[str]]:
    """Give in which partitions each name has rows of `_run`'s lists."""
    places: dict[str, set[str]] = {}
    for path in directory.glob("*.sqlite3"):
        with closing(sqlite3.connect(path)) as partition:
            for (name,) in partition.execute(
                "SELECT state_key FROM snaps WHERE step_id = ?", (COUNT_STEP,)
            ):
                places.setdefault(name, set()).add(path.name)
    return places


def test_a_state_stays_in_its_partition(tmp_path: Path) -> None:
    """In another one it would stay for ever, and count beside the later ones."""
    directory = tmp_path / "d"
    directory.mkdir()
    init_db_dir(directory, 3)
    names = [f"k{n}" for n in range(9)]
    values = [(name, 1) for name in names]
    _run(directory, values, 2)
    changes: dict[tuple[str, str], Any] = {(COUNT_STEP, name): ["edited"] for name in names[:8]}
    before = _places(directory)
    edit_states(directory, {**changes, ("flicker.in", "iterable"): None, (COUNT_STEP, "k8"): None})
    assert _places(directory).items() <= before.items()
    for _ in range(2):
        _run(directory, values, 1)
        edited = {name: ["edited", 1] for name in names[:8]}
        assert _lists(directory) == {**edited, "k8": [1]}
    with pytest.raises(RegistryError, match="'unknown' belongs to"):
        edit_states(directory, {(COUNT_STEP, "unknown"): [1]})


def test_an_edit_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    _run(directory, [("a", 1)])
    before = read_states(directory), _rows(directory)
    with pytest.raises(UnicodeEncodeError):
        edit_states(directory, {(COUNT_STEP, "a"): None, (COUNT_STEP, "\udc80"): [1]})
    assert (read_states(directory), _rows(directory)) == before


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A store that Bytewax, in another process, writes to at full speed."""
    directory = _make(tmp_path / "busy")
    endless = (
        KILLED.replace("value == 199", "False")
        .replace(
            '[("f", n) for n in range(200)]', '[(f"k{n % 9}", "x" * 5000) for n in range(10**6)]'
        )
        .replace("[*(state or []), value]", "[*(state or [])[-9:], value]")
    )
    argv = [sys.executable, "-c", endless, str(directory), "1"]
    errors = (tmp_path / "errors").open("wb")
    process = subprocess.Popen(argv, stderr=errors)
    try:
        assert wait_until((directory / "part-0.sqlite3-wal").exists)
        yield directory
        assert process.poll() is None, (tmp_path / "errors").read_text()
    finally:
        errors.close()
        process.kill()
        process.wait()
    assert (tmp_path / "errors").read_bytes() == b""


@pytest.mark.process
def test_copies_of_a_store_at_full_speed_are_whole(tmp_path: Path, busy: Path) -> None:
    """And Bytewax neither stops nor complains of a locked database."""
    reader = Reader(busy)
    to = tmp_path / "copies"

    def newest() -> int:
        with closing(sqlite3.connect(to / "part-0.sqlite3")) as copy:
            return copy.execute("SELECT IFNULL(MAX(snap_epoch), 0) FROM snaps").fetchone()[0]

    digests = set()
    epochs = []
    for _ in range(50):
        answer = reader.copy(to, None)
        digests.add(answer["digest"])
        check_partitions(to)
        epochs.append(newest())
        assert [path.name for path in to.iterdir()] == ["part-0.sqlite3"]
    assert wait_until(lambda: reader.copy(to, None) and newest() > epochs[-1] + 100)
    reader.close()
    assert len(digests) > 1
    assert epochs == sorted(epochs)


def test_bytewax_resumes_from_a_copy(tmp_path: Path) -> None:
    """One file, no log beside it; what it says of itself is true of the copy."""
    directory = _make(tmp_path / "d")
    _run_killed(directory, 1)
    to = tmp_path / "copy"
    answer = copy_partitions(directory, to)
    assert [path.name for path in to.iterdir()] == ["part-0.sqlite3"]
    content = (to / "part-0.sqlite3").read_bytes()
    assert answer["partitions"] == {
        "part-0.sqlite3": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    }
    assert (to / "part-0.sqlite3").stat().st_mode & 0o077 == 0
    # What a reader of the file's header sees: no log belongs to it.
    assert content[18:20] == b"\1\1"
    assert read_states(to) == read_states(directory)
    read = len(_lists(to)["f"])
    values = [("a", 1), ("b", 2), *(("f", n) for n in range(200))]
    drop_unfinished(to)
    _run(to, values)
    assert _lists(to) == {"a": [1], "b": [2], "f": list(range(200))}
    assert read


def test_states_that_did_not_change_are_not_copied_again(tmp_path: Path) -> None:
    """An execution that changes nothing has the same digest, and a change another one."""
    directory, to = _make(tmp_path / "d"), tmp_path / "copy"
    edit_states(directory, {(SHIP_STEP, "a"): OUTBOX, (POLL_STEP, "a"): POSITION})
    first = copy_partitions(directory, to)
    assert first["segments"] == {"a": 3}
    assert first["sources"]["a"]["undelivered_batches"] == 1
    (to / "part-0.sqlite3").unlink()
    again = copy_partitions(directory, to, first["digest"])
    assert again == {key: first[key] for key in ("sources", "segments", "digest")}
    assert list(to.iterdir()) == []
    edit_states(directory, {(SHIP_STEP, "a"): OUTBOX})
    assert "partitions" not in copy_partitions(directory, to, first["digest"])
    edit_states(directory, {(SHIP_STEP, "a"): {**OUTBOX, "segment": 4}})
    changed = copy_partitions(directory, to, first["digest"])
    assert changed["digest"] != first["digest"]
    assert changed["partitions"].keys() == {"part-0.sqlite3"}


def test_a_copy_that_fails_leaves_the_last_one_and_the_process(tmp_path: Path) -> None:
    directory, to = _make(tmp_path / "d"), tmp_path / "copy"
    edit_states(directory, {(SHIP_STEP, "a"): OUTBOX})
    reader = Reader(directory)
    first = reader.copy(to, None)
    assert reader._process is not None
    pid = reader._process.pid
    content = (to / "part-0.sqlite3").read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        reader.copy(tmp_path / "file", None)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="cannot be copied"):
        reader.copy(to, None)
    assert [path.name for path in to.iterdir()] == ["part-0.sqlite3"]
    assert (to / "part-0.sqlite3").read_bytes() == content
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert reader.copy(to, None) == first
    (directory / "part-0.sqlite3").unlink()
    with pytest.raises(RegistryError, match="is gone"):
        reader.look()
    assert reader._process.pid == pid
    reader.close()


def test_two_threads_share_a_reader(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    edit_states(directory, {(SHIP_STEP, "a"): OUTBOX})
    reader = Reader(directory)
    answers: list[list[str]] = []

    def ask(what: Callable[[], dict[str, Any]]) -> None:
        answers.extend(sorted(what()) for _ in range(20))

    threads = [
        threading.Thread(target=ask, args=(what,))
        for what in (reader.look, lambda: reader.copy(tmp_path / "copy", None))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    reader.close()
    assert answers.count(["segments", "sources"]) == 20
    assert answers.count(["digest", "partitions", "segments", "sources"]) == 20


def test_only_what_changed_is_read_and_told_anew(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    states: dict[StateKey, Any] = {(SHIP_STEP, name): OUTBOX for name in ("a", "b")}
    edit_states(directory, {**states, (POLL_STEP, "a"): POSITION})
    summaries, reader = Summaries(directory), Reader(directory)
    first, told = summaries.read(), reader.look()
    assert first == told == summarise(directory)
    parts = dict(summaries._parts)
    assert reader.look() is told
    edit_states(directory, {(SHIP_STEP, "b"): {**OUTBOX, "segment": 9}})
    assert summaries.read() == reader.look() == summarise(directory)
    assert reader.look()["segments"] == {"a": 3, "b": 9}
    changed = {key for key, part in summaries._parts.items() if part is not parts[key]}
    assert changed == {(SHIP_STEP, "b")}
    edit_states(directory, {(SHIP_STEP, "b"): None})
    assert summaries.read() == reader.look() == summarise(directory)
    assert sorted(reader.look()["sources"]) == ["a"]
    reader.close()


def test_the_process_that_reads_loads_little() -> None:
    """It lives as long as a flow, beside it."""
    code = "import sys, flicker.registry.partitions; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"msgspec", "logging", "hashlib", "bytewax"} & set(loaded)


def test_a_reader_that_hangs_is_ended_and_started_anew(tmp_path: Path) -> None:
    directory = _make(tmp_path / "d")
    reader = Reader(directory)
    reader.look()
    assert reader._process is not None
    os.kill(reader._process.pid, signal.SIGSTOP)
    reader._answer_limit_s = 0.2
    with pytest.raises(OSError, match="did not answer"):
        reader.look()
    reader._answer_limit_s = 60.0
    assert reader.look() == {"sources": {}, "segments": {}}
    reader.close()


def test_closing_ends_a_question_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flicker.registry.reader.CLOSE_LIMIT_S", 0.2)
    reader = Reader(_make(tmp_path / "d"))
    reader.look()
    assert reader._process is not None
    os.kill(reader._process.pid, signal.SIGSTOP)
    failures: list[OSError] = []

    def ask() -> None:
        try:
            reader.look()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert wait_until(reader._lock.locked)
    reader.close()
    thread.join(20)
    assert len(failures) == 1
    assert reader._process is None
