"""Threads: one for each wait, none held for long, and no task lost."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

from flicker import pool as pool_module
from flicker.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 10.0


def in_turn(*calls: Callable[[], object]) -> Callable[[], None]:
    """Make one task of several."""

    def task() -> None:
        for call in calls:
            call()

    return task


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.001)


def test_a_task_that_hangs_holds_up_no_other() -> None:
    """T32: each has its own thread, idle ones are used again."""
    pool = Pool()
    release = threading.Event()
    hung = threading.Barrier(31)
    for _ in range(30):
        pool.submit(in_turn(lambda: hung.wait(LIMIT_S), lambda: release.wait(LIMIT_S)))
    hung.wait(LIMIT_S)
    used: set[int] = set()
    for _ in range(50):
        done = threading.Event()
        pool.submit(in_turn(lambda: used.add(threading.get_ident()), done.set))
        assert done.wait(LIMIT_S)
    release.set()
    assert len(used) < 10


def test_no_task_waits_while_two_are_given_to_one_idle_thread() -> None:
    pool = Pool()
    first = threading.Event()
    pool.submit(first.set)
    assert first.wait(LIMIT_S)
    both = threading.Barrier(3)
    for _ in range(2):
        pool.submit(in_turn(lambda: both.wait(LIMIT_S)))
    both.wait(LIMIT_S)


def test_a_task_that_raises_takes_no_thread_with_it(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool()
    done = threading.Event()
    pool.submit(in_turn(lambda: 1 // 0))
    pool.submit(done.set)
    assert done.wait(LIMIT_S)
    wait_until(lambda: caplog.records)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_runs_later_tasks_in_the_order_of_their_time() -> None:
    pool = Pool()
    ran: list[tuple[str, float]] = []
    done = threading.Event()
    started_at = time.monotonic()

    def note(name: str) -> None:
        ran.append((name, time.monotonic() - started_at))

    pool.submit_later(0.2, in_turn(lambda: note("second"), done.set))
    pool.submit_later(0.05, lambda: note("first"))
    assert done.wait(LIMIT_S)
    assert [name for name, _ in ran] == ["first", "second"]
    assert ran[0][1] >= 0.05
    assert ran[1][1] >= 0.2


def test_idle_threads_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_S", 0.01)
    pool = Pool()
    workers: list[threading.Thread] = []
    pool.submit(lambda: workers.append(threading.current_thread()))
    wait_until(lambda: workers)
    workers[0].join(LIMIT_S)
    assert not workers[0].is_alive()
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(LIMIT_S)


def test_keeps_nothing_of_a_task_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """T37: a page of 64 MB must not hang on an idle thread."""
    monkeypatch.setattr(pool_module, "IDLE_S", 10 * LIMIT_S)

    class Page:
        def read(self) -> None:
            done.set()

    pool = Pool()
    done = threading.Event()
    page = Page()
    reference = weakref.ref(page)
    pool.submit(page.read)
    del page
    assert done.wait(LIMIT_S)
    wait_until(lambda: reference() is None)


def test_makes_do_with_the_threads_it_gets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T32: a system that is out of threads stops no source."""
    pool = Pool()
    release, hung = threading.Event(), threading.Event()
    pool.submit(in_turn(hung.set, lambda: release.wait(LIMIT_S)))
    assert hung.wait(LIMIT_S)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "flicker-request":
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = threading.Event()
    pool.submit(done.set)
    assert not done.is_set()
    assert "no more threads" in caplog.text
    release.set()
    assert done.wait(LIMIT_S)

    empty = Pool()
    with pytest.raises(RuntimeError):
        empty.submit(done.set)
    # The timer outlives it, and tries again.
    monkeypatch.setattr(pool_module, "RETRY_S", 0.01)
    later = threading.Event()
    empty.submit_later(0.0, later.set)
    assert not later.wait(0.05)
    monkeypatch.undo()
    assert later.wait(LIMIT_S)
