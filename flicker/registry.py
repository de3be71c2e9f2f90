"""What Flicker remembers: Bytewax's recovery partitions and their readable view.

The partitions in `PATH.d/` are the truth. `PATH` shows their content to
people, and is what a source starts from when the partitions are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytewax.recovery import init_db_dir

from flicker.errors import RegistryError
from flicker.position import check_version
from flicker.snapshots import BUFFER_STEP, POLL_STEP, SHIP_STEP, read_states

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flicker.outbox import Outbox

VERSION = 1
PARTITIONS = 1
VIEW_INTERVAL_S = 2.0

NEW_BYTES = 256 * 1024
"""Room that a new partition and its log take."""

PLACE_KEYS = ("last_timestamp", "cursor", "offset", "page")

logger = logging.getLogger(__name__)


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
            view = _read_view(view_path, is_new=is_new)
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


def _read_view(view_path: Path | None, *, is_new: bool) -> dict[str, dict[str, Any]]:
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
        sources: As `snapshots.summarise` gives them.
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
            if not _is_owing(view):
                # The scans before the one that runs are delivered of.
                delivered["last_timestamp"] = view.get("last_timestamp")
            view["delivered_up_to"] = delivered
        if name not in configured:
            view["retired"] = True
    return {"version": VERSION, "api_sources": views}


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


class _Reader:
    """A process that reads the partitions, since this one must not."""

    def __init__(self, directory: Path) -> None:
        self._argv = [sys.executable, "-m", "flicker.snapshots", str(directory)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self) -> dict[str, Any]:
        """Have the partitions read.

        Raises:
            RegistryError: They cannot be read.
            OSError: The process cannot be started, or died.
        """
        if self._process is None:
            # In a session of its own: Ctrl-C is for us to answer.
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                text=True,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        line = ""
        if stdin is not None and stdout is not None:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
        if not line:
            self.close()
            raise OSError(None, "the process that reads the registry died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RegistryError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.communicate(timeout=5.0)
            process.kill()
            process.wait()


class Caretaker:
    """Keeps the view current and the journal short, on a thread of its own.

    Args:
        registry: The open registry.
        configured: Names in the configuration.
        outboxes: Those of this process; their journal segments are deleted
            once a committed snapshot covers them.
    """

    def __init__(
        self, registry: Registry, configured: set[str], outboxes: Mapping[str, Outbox]
    ) -> None:
        self._registry = registry
        self._configured = configured
        self._outboxes = outboxes
        self._reader = _Reader(registry.directory)
        self._view: dict[str, Any] = dict(registry.view)
        self._written: bytes | None = None
        self._failed: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flicker-registry", daemon=True)

    def start(self) -> None:
        """Begin to look after the registry."""
        self._thread.start()

    def stop(self) -> None:
        """Look a last time and end."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._look()
        self._reader.close()

    def _run(self) -> None:
        while not self._stopped.wait(VIEW_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        """Bring view and journal up to what the partitions hold."""
        try:
            answer = self._reader.ask()
            self._write_view(answer["sources"])
            for name, segment in answer["segments"].items():
                outbox = self._outboxes.get(name)
                if outbox is not None:
                    outbox.delete_segments_before(segment)
        except RegistryError as error:
            self._say(logging.ERROR, "cannot read the registry", str(error))
        except OSError as error:
            self._say(
                logging.WARNING,
                "cannot write the registry's readable view; the registry itself is unaffected "
                "and shipping goes on",
                error.strerror or type(error).__name__,
            )
        else:
            self._failed = None

    def _say(self, level: int, message: str, reason: str) -> None:
        if self._failed != reason:
            self._failed = reason
            path = str(self._registry.view_path or self._registry.directory)
            logger.log(level, message, extra={"path": path, "reason": reason})

    def _write_view(self, sources: Mapping[str, Any]) -> None:
        path = self._registry.view_path
        if path is None:
            return
        view = view_of(sources, self._configured, self._view)
        self._view = view["api_sources"]
        data = json.dumps(view, indent=2, ensure_ascii=False).encode() + b"\n"
        if data != self._written or not path.exists():
            write_atomically(path, data)
            self._written = data
