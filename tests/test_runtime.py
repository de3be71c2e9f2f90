"""What partitions of a process share."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from flicker import runtime as runtime_module
from flicker.deadletter import DeadLetters
from flicker.runtime import Runtime, StopRequest
from flicker.settings import Retry

if TYPE_CHECKING:
    from pathlib import Path


class Dice(random.Random):
    """Falls as it is told."""

    value = 0.0

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("failures", "longest_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (31, 60), (10**6, 60)]
)
def test_backoff_doubles_to_its_bound_and_jitter_takes_off_up_to_a_half(
    tmp_path: Path, failures: int, longest_s: float
) -> None:
    dice = Dice()
    runtime = Runtime(Retry(), DeadLetters(tmp_path / "dead"), rng=dice)
    assert runtime.backoff_s(failures) == longest_s
    dice.value = 1.0
    assert runtime.backoff_s(failures) == longest_s / 2


def test_backoff_never_exceeds_a_bound_below_the_initial_delay(tmp_path: Path) -> None:
    retry = Retry(initial_delay=timedelta(seconds=9), max_delay=timedelta(seconds=2))
    runtime = Runtime(retry, DeadLetters(tmp_path / "dead"), rng=Dice())
    assert runtime.backoff_s(1) == 2


@pytest.mark.parametrize(
    ("max_retries", "once", "expected"),
    [(None, False, None), (None, True, 5), (0, True, 0), (7, True, 7), (7, False, 7)],
)
def test_once_does_not_wait_for_ever(
    tmp_path: Path, max_retries: int | None, once: bool, expected: int | None
) -> None:
    runtime = Runtime(Retry(max_retries=max_retries), DeadLetters(tmp_path / "dead"), once=once)
    assert runtime.max_retries == expected


def test_a_stop_allows_for_deliveries_and_a_second_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = StopRequest()
    assert (stop.is_set, stop.is_overdue) == (False, False)
    stop.set()
    now[0] += runtime_module.GRACE_S - 0.01
    assert (stop.is_set, stop.is_overdue) == (True, False)
    now[0] += 0.02
    assert stop.is_overdue
    again = StopRequest()
    again.set()
    again.set()
    assert again.is_overdue
