"""How often a process wakes that has nothing to do."""

from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

import pytest

from flicker.demo.servers import Destination
from flicker.pool import Pool
from flicker.slack import ALERT_S, IDLE_S, SIGNALS_S, SOON_S, Slacks, slack_for_signals
from tests.processes import make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from tests.processes import Home, Process

LIMIT_S = 45.0
WINDOW_S = 2.0
TRIES = 10
MOST_PER_S = 600
"""Two threads that look every millisecond wake some 1,700 times a second."""

_PR_GET_TIMERSLACK = 30


def _slack_s() -> float:
    return float(ctypes.CDLL(None).prctl(_PR_GET_TIMERSLACK)) / 1e9


def test_a_worker_is_alert_while_one_of_its_partitions_is_at_work() -> None:
    def work() -> list[float]:
        slacks = Slacks()
        first, second = slacks.join(), slacks.join()
        seen = [_slack_s()]
        for part, awake_in_s in (
            (first, 0.0),
            (second, SOON_S),
            (first, 1.0),
            (first, 2.0),
            (second, 1.0),
            (second, 0.0),
        ):
            part.note(awake_in_s)
            seen.append(_slack_s())
        return seen

    with ThreadPoolExecutor(1) as pool, slack_for_signals():
        seen = pool.submit(work).result()
        assert _slack_s() == SIGNALS_S
    assert seen == [ALERT_S, ALERT_S, ALERT_S, ALERT_S, ALERT_S, IDLE_S, ALERT_S]
    assert _slack_s() == ALERT_S


def test_workers_do_not_disturb_each_other() -> None:
    slacks = Slacks()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        busy, idle = one.submit(slacks.join).result(), other.submit(slacks.join).result()
        for awake_in_s in (0.0, 1.0):
            other.submit(idle.note, awake_in_s).result()
        one.submit(busy.note, 0.0).result()
        assert one.submit(_slack_s).result() == ALERT_S
        assert other.submit(_slack_s).result() == IDLE_S


def test_threads_for_requests_are_alert_whoever_starts_them() -> None:
    """Their timers are deadlines, and what a server asked to be left alone for."""
    seen: Queue[float] = Queue()
    before = set(threading.enumerate())
    pool = Pool()
    with slack_for_signals():
        pool.submit(lambda: seen.put(_slack_s()))
        pool.submit_later(0.0, lambda: seen.put(_slack_s()))
    assert [seen.get(timeout=LIMIT_S) for _ in range(2)] == [ALERT_S, ALERT_S]
    (timer,) = (one for one in set(threading.enumerate()) - before if one.name == "flicker-timer")
    slack_ns = Path(f"/proc/{timer.native_id}/timerslack_ns").read_text(encoding="ascii")
    assert int(slack_ns) == round(ALERT_S * 1e9)


@pytest.mark.process
def test_a_process_that_waits_for_its_next_poll_hardly_wakes(home: Home) -> None:
    with (
        ListingApi(make_events(5), Style(paging="offset", time_param="since")) as api,
        Destination() as siem,
    ):
        home.configure(make_source("s", api.endpoint, siem.url, polling_frequency_ms=3_600_000))
        process = home.start()
        assert wait_until(lambda: len(siem.events) == 5)
        assert any(_wakes_per_s(process) < MOST_PER_S for _ in range(TRIES))
        assert process.stop() == 0


def _wakes_per_s(process: Process) -> float:
    before, began_at = _wakes(process), time.monotonic()
    threading.Event().wait(WINDOW_S)
    return (_wakes(process) - before) / (time.monotonic() - began_at)


def _wakes(process: Process) -> int:
    return sum(
        int(line.split()[1])
        for path in Path(f"/proc/{process.pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
