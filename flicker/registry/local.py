"""The registry on this machine: Bytewax's recovery partitions and their readable view.

The partitions in `PATH.d/` are the truth. `PATH` shows their content to
people, and is what a source starts from when the partitions are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytewax.recovery import init_db_dir

from flicker.errors import RegistryError
from flicker.position import check_version
from flicker.registry.partitions import BUFFER_STEP, POLL_STEP, SHIP_STEP, read_states
from flicker.registry.view import read_view, settled_part

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 1

NEW_BYTES = 256 * 1024
"""Room that a new partition and its log take."""


@dataclass
class Registry:
    """An open registry; one process (of a cluster: one of each number) has it.

    Attributes:
        directory: The recovery partitions.
        view_path: The readable view, None where there is none.
        names: Sources with state.
        view: Sources of the readable view, as it was found.
        is_new: Whether the view is all that is left, if there is one.
    """

    directory: Path
    view_path: Path | None
    names: list[str]
    view: dict[str, dict[str, Any]]
    is_new: bool
    lock_file: int

    @property
    def seeds(self) -> dict[str, dict[str, Any]]:
        """Where sources begin whose partitions are gone."""
        return {name: settled_part(view) for name, view in self.view.items()} if self.is_new else {}

    @property
    def journal_dir(self) -> Path:
        """Where acknowledgements are written."""
        return self.directory / "acks"


def open_registry(
    directory: Path, view_path: Path | None = None, process_index: int = 0
) -> Registry:
    """Open a registry, or create one, and check it before Bytewax opens it.

    Args:
        directory: The recovery partitions.
        view_path: Path of the readable view.
        process_index: Of a Bytewax cluster; its processes share a registry.

    Raises:
        RegistryError: In use, damaged, of a newer version, or not writable.
    """
    try:
        # Batches that are owed are events, and those are nobody else's affair.
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / "acks").mkdir(exist_ok=True, mode=0o700)
        lock_file = _lock(directory, process_index)
        with _held_lock(directory / "lock-init"):
            is_new = not list(directory.glob("part-*.sqlite3"))
            view = read_view(view_path, is_new=is_new)
            if is_new:
                _create_partitions(directory)
    except OSError as error:
        message = f"the registry {directory} cannot be used: {error.strerror or error}"
        raise RegistryError(message) from None
    names = set()
    for (step_id, name), state in read_states(directory).items():
        check_version(state, name)
        if step_id in {POLL_STEP, BUFFER_STEP, SHIP_STEP}:
            names.add(name)
    return Registry(directory, view_path, sorted(names), view, is_new, lock_file)


def _lock(directory: Path, process_index: int) -> int:
    path = directory / f"lock-{process_index}"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        message = (
            f"the registry {directory} is in use by process {holder}. Stop that process, or give "
            "this one a registry of its own"
        )
        raise RegistryError(message) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


@contextlib.contextmanager
def _held_lock(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _create_partitions(directory: Path) -> None:
    """Create empty partitions whole: one cut short would look like a damaged one."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="new-") as made:
        _check_space(Path(made))
        init_db_dir(Path(made), PARTITIONS)
        for path in Path(made).glob("part-*.sqlite3"):
            path.rename(directory / path.name)


def _check_space(directory: Path) -> None:
    """Find out whether there is room, which Bytewax would find out by a panic.

    Raises:
        OSError: There is none.
    """
    with (directory / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, NEW_BYTES * PARTITIONS)
