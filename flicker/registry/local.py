"""The registry on this machine: Bytewax's recovery partitions and their readable view.

The partitions in `PATH.d/` are the truth. `PATH` shows their content to
people, and is what a source starts from when the partitions are gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytewax.recovery import init_db_dir

from flicker.errors import RegistryError
from flicker.position import seed_state
from flicker.registry.partitions import (
    BUFFER_STEP,
    POLL_STEP,
    SHIP_STEP,
    check_partitions,
    drop_unfinished,
    edit_states,
    iter_states,
)
from flicker.registry.shapes import check_state
from flicker.registry.view import read_view, settled_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flicker.registry.partitions import StateKey
    from flicker.registry.remote import Remote

PARTITIONS = 1

READY_NAME = "lock-ready"
FIRST_LIMIT_S = 60.0
PAUSE_S = 0.05
LOCK_TRIES = 10

NEW_BYTES = 256 * 1024
"""Room that a new partition and its log take."""

logger = logging.getLogger(__name__)


@dataclass
class Registry:
    """An open registry; one process (of a cluster: one of each number) has it.

    Attributes:
        directory: The recovery partitions.
        view_path: The readable view, None where there is none.
        names: Sources with state.
        view: Sources of the readable view, as it was found.
        remote: The registry in S3 that the directory is a copy of, if it is.
    """

    directory: Path
    view_path: Path | None
    names: list[str]
    view: dict[str, dict[str, Any]]
    remote: Remote | None
    locks: list[int]

    @property
    def journal_dir(self) -> Path:
        """Where acknowledgements are written."""
        return self.directory / "acks"

    def close(self) -> None:
        """Let others have it."""
        if self.remote is not None:
            self.remote.close()
        for lock in self.locks:
            os.close(lock)
        self.locks.clear()


def open_registry(
    directory: Path,
    view_path: Path | None = None,
    process_index: int = 0,
    remote: Remote | None = None,
    *,
    is_to_run: bool = True,
) -> Registry:
    """Open a registry, or create one, and check it before Bytewax opens it.

    Args:
        directory: The recovery partitions.
        view_path: Path of the readable view.
        process_index: Of a Bytewax cluster; its processes share a directory.
            The first makes it ready, the others wait for that.
        remote: The registry in S3 that is to be fetched; the first process's.
        is_to_run: Whether a flow is to run on it, which other processes of a
            cluster may wait for.

    Raises:
        RegistryError: In use, damaged, of a newer version, or not writable.
    """
    locks: list[int] = []
    states = _States(directory)
    try:
        # Batches that are owed are events, and those are nobody else's affair.
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / "acks").mkdir(exist_ok=True, mode=0o700)
        locks.append(_lock(directory, process_index))
        view: dict[str, dict[str, Any]] = {}
        if process_index == 0:
            view = _make_ready(directory, view_path, remote, states.take)
            if is_to_run:
                locks.append(_announce(directory))
        else:
            _wait_for_first(directory)
            for key, state in iter_states(directory):
                states.take(key, state)
        names = states.names()
    except BaseException as error:
        for lock in locks:
            os.close(lock)
        if isinstance(error, OSError):
            message = f"the registry {directory} cannot be used: {error.strerror or error}"
            raise RegistryError(message) from None
        raise
    return Registry(directory, view_path, names, view, remote, locks)


class _States:
    """Checks states one at a time, so that no more than one is in memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names: set[str] = set()
        self._refusal: RegistryError | None = None

    def take(self, key: StateKey, state: Any) -> None:
        """Check a state; what is wrong with it is said by `names`."""
        try:
            check_state(self._directory, key, state)
        except RegistryError as error:
            # That no row can run code comes first.
            self._refusal = self._refusal or error
        step_id, name = key
        if step_id in {POLL_STEP, BUFFER_STEP, SHIP_STEP}:
            self._names.add(name)

    def names(self) -> list[str]:
        """Give the sources that have states.

        Raises:
            RegistryError: A state is not as Flicker writes it.
        """
        if self._refusal is not None:
            raise self._refusal
        return sorted(self._names)


def _make_ready(
    directory: Path,
    view_path: Path | None,
    remote: Remote | None,
    take: Callable[[StateKey, Any], None],
) -> dict[str, dict[str, Any]]:
    """Fetch, create and check the partitions.

    Args:
        directory: Where they are.
        view_path: Path of the readable view.
        remote: The registry in S3 that is to be fetched.
        take: Is shown each state that will be resumed from.

    Returns:
        The readable view as it was found.
    """
    view = remote.prepare() if remote is not None else {}
    is_new = not list(directory.glob("part-*.sqlite3"))
    if remote is None:
        view = read_view(view_path, is_new=is_new)
    if is_new:
        _create_partitions(directory, view)
    for path in directory.glob("part-*.sqlite3"):
        # Logs are made with the same mode. The directory may be older than us.
        path.chmod(0o600)
    check_partitions(directory, take)
    drop_unfinished(directory)
    return view


def _lock(directory: Path, process_index: int) -> int:
    path = directory / f"lock-{process_index}"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process of the cluster may be looking who is there.
            time.sleep(PAUSE_S)
        else:
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            return file
    holder = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
    os.close(file)
    message = (
        f"the registry {directory} is in use by process {holder}. Stop that process, or give "
        "this one a registry of its own"
    )
    raise RegistryError(message)


def _announce(directory: Path) -> int:
    """Tell the other processes of a cluster that the directory is ready, until we end."""
    file = os.open(directory / READY_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _wait_for_first(directory: Path) -> None:
    """Wait until the first process of the cluster has made the directory ready.

    Raises:
        RegistryError: It uses another directory, or does not run.
    """
    deadline = time.monotonic() + FIRST_LIMIT_S
    while not is_locked(directory / READY_NAME):
        if time.monotonic() > deadline:
            if not is_locked(directory / "lock-0"):
                message = (
                    f"the first process of the cluster (-i 0) does not use {directory}. Start it, "
                    "and give all processes the same directory, on one machine"
                )
                raise RegistryError(message)
            deadline = time.monotonic() + FIRST_LIMIT_S
        time.sleep(PAUSE_S)


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock file.

    Raises:
        OSError: It cannot be opened.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _create_partitions(directory: Path, view: Mapping[str, Mapping[str, Any]]) -> None:
    """Create partitions whole: one cut short would look like a damaged one.

    Args:
        directory: Where they go.
        view: The readable view, which is what sources then begin with.
    """
    seeds = {(POLL_STEP, name): seed_state(settled_part(seen)) for name, seen in view.items()}
    with tempfile.TemporaryDirectory(dir=directory, prefix="new-") as made:
        _check_space(Path(made))
        init_db_dir(Path(made), PARTITIONS)
        edit_states(Path(made), seeds)
        for path in Path(made).glob("part-*.sqlite3"):
            path.rename(directory / path.name)
    for name in view:
        logger.warning(
            "starting from the registry's readable view, as there are no partitions; what was "
            "read and not delivered by then is read again, and some events repeat",
            extra={"source": name},
        )


def _check_space(directory: Path) -> None:
    """Find out whether there is room, which Bytewax would find out by a panic.

    Raises:
        OSError: There is none.
    """
    with (directory / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, NEW_BYTES * PARTITIONS)
