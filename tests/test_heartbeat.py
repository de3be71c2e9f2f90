"""Beats at which partitions wake that have nothing to do."""

from __future__ import annotations

import math
import threading
import time
from itertools import count as numbers

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main

from flicker.heartbeat import BEAT_S, MAX_BEATS, PARTITIONS_A_BEAT, Heartbeats


@pytest.mark.parametrize("count", [1, PARTITIONS_A_BEAT, 3 * PARTITIONS_A_BEAT + 1, 1000])
def test_somebody_wakes_at_every_beat_and_not_everybody(count: int) -> None:
    """And whoever sleeps does so until the same instant as others, not for as long."""
    now = 1000.1
    beats = Heartbeats(lambda: now)
    partitions = [beats.join() for _ in range(count)]
    woken = [0] * count
    for beat in range(2 * MAX_BEATS):
        now = 1000.1 + beat * BEAT_S
        awake = [n for n, part in enumerate(partitions) if part.next_in_s() <= BEAT_S]
        assert awake
        assert len({round(partitions[n].next_in_s(), 6) for n in awake}) == 1
        assert len(awake) <= max(PARTITIONS_A_BEAT, math.ceil(count / MAX_BEATS))
        for number in awake:
            woken[number] += 1
    assert min(woken) >= 2


def test_no_sleep_is_longer_than_the_longest() -> None:
    beats = Heartbeats()
    partitions = [beats.join() for _ in range(10_000)]
    started_at = time.monotonic()
    sleeps = [partition.next_in_s() for partition in partitions]
    slack_s = time.monotonic() - started_at
    assert min(sleeps) > 0
    assert max(sleeps) <= MAX_BEATS * BEAT_S + slack_s


def test_a_worker_is_known_to_the_interpreter_from_its_first_partition_on() -> None:
    """What is not is made known at each call, and forgotten with all that is its own."""
    local = threading.local()

    def calls_before(number: int) -> int:
        if number == 0:
            Heartbeats().join()
        if not hasattr(local, "numbers"):
            local.numbers = numbers()
        return next(local.numbers)

    found: list[int] = []
    flow = Dataflow("calls")
    stream = op.input("in", flow, TestingSource(range(5), batch_size=1))
    op.output("out", op.map("count", stream, calls_before), TestingSink(found))
    cluster_main(flow, [], 0, worker_count_per_proc=1)
    assert found == [0, 1, 2, 3, 4]
