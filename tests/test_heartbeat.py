"""Beats at which partitions wake that have nothing to do."""

from __future__ import annotations

import math
import time

import pytest

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
