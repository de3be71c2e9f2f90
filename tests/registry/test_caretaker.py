"""What the registry's caretaker does again, though no state has changed."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from flicker.deadletter import DeadLetters
from flicker.journal import AckJournal
from flicker.outbox import Outbox
from flicker.registry import caretaker as caretaker_module
from flicker.registry.caretaker import Caretaker
from flicker.registry.local import open_registry
from flicker.registry.partitions import SHIP_STEP, edit_states
from flicker.runtime import Runtime
from flicker.settings import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 45.0
NAMES = ("a", "b")


class Home:
    """A registry whose states stay as they are, and journals that they cover."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.path = directory / "r.json"
        self.journal_dir = directory / "journal"
        self.journal_dir.mkdir()
        self.outboxes: dict[str, Outbox] = {}
        self._stack = stack
        open_registry(directory / "r.json.d", self.path).close()
        covered = {"version": 1, "endpoint": None, "segment": 3, "delivered": b"", "batches": []}
        edit_states(directory / "r.json.d", {(SHIP_STEP, name): covered for name in NAMES})
        self._registry = stack.enter_context(
            closing(open_registry(directory / "r.json.d", self.path))
        )
        for name in NAMES:
            journal = AckJournal(self.journal_dir, name)
            for _ in range(2):
                journal.append([bytes(16)])
                journal.cut()

    def start(self) -> None:
        """Look after it, until the test ends."""
        caretaker = Caretaker(self._registry, set(NAMES), self.outboxes)
        caretaker.start()
        self._stack.callback(caretaker.stop)

    def add_outbox(self, name: str) -> None:
        """Have Bytewax build the partition."""
        retry = Retry(initial_delay=timedelta(seconds=1), max_delay=timedelta(seconds=1))
        runtime = Runtime(retry, DeadLetters(cast("Path", None)))
        journal = AckJournal(self.journal_dir, name)
        self.outboxes[name] = Outbox(name, None, None, runtime, journal, None)

    def left(self, name: str) -> int:
        """Count the files of a journal."""
        return len(list(self.journal_dir.glob(f"{name}-*.acks")))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(caretaker_module, "VIEW_INTERVAL_S", 0.01)
    with ExitStack() as stack:
        yield Home(tmp_path, stack)


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        pause.wait(0.005)


def test_a_deleted_view_is_written_again(home: Home) -> None:
    home.start()
    for _ in range(2):
        eventually(home.path.exists)
        home.path.unlink()
    eventually(home.path.exists)


def test_the_journals_of_outboxes_that_come_late_are_cut_short(home: Home) -> None:
    """A large resume builds them after the first look, and one after the other."""
    home.start()
    eventually(home.path.exists)
    for name in NAMES:
        assert home.left(name) == 2
        home.add_outbox(name)
        eventually(lambda: home.left(name) == 0)  # noqa: B023 - called in this turn


def test_a_segment_that_cannot_be_deleted_is_tried_again(home: Home) -> None:
    first, second = sorted(home.journal_dir.glob("a-*.acks"))
    first.unlink()
    first.mkdir()
    home.add_outbox("a")
    home.start()
    eventually(lambda: not second.exists())
    first.rmdir()
    first.touch()
    eventually(lambda: not first.exists())
