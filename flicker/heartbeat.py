"""When partitions that have nothing to do look again.

Epochs advance only while the input is awake, so some partition of each worker
wakes at every beat. Where there are many, each of them wakes at one beat in
several: a thousand that all wake four times a second take a fifth of a core.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_S = 0.25
"""Longest sleep of a worker."""

PARTITIONS_A_BEAT = 50
"""How many of a worker's partitions wake at one beat, if enough beats allow it."""

MAX_BEATS = 8
"""Beats that a partition sleeps at most: stopping waits for all of them."""


class Heartbeats:
    """The beats of a process, at which all workers wake.

    Args:
        clock: Gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[int] = Counter()

    def join(self) -> Heartbeat:
        """Give a partition its share of the beats; to be called by its worker."""
        worker = threading.get_ident()
        with self._lock:
            number = self._counts[worker]
            self._counts[worker] += 1
        return Heartbeat(self._clock, self._counts, worker, number)


class Heartbeat:
    """When one partition wakes, whatever else it waits for.

    Args:
        clock: Gives seconds that never go back.
        counts: Of partitions by worker.
        worker: Whose partition it is.
        number: Of the partition among the worker's, from 0.

    Attributes:
        number: As above.
    """

    def __init__(
        self, clock: Callable[[], float], counts: Counter[int], worker: int, number: int
    ) -> None:
        self._clock = clock
        self._counts = counts
        self._worker = worker
        self.number = number

    @property
    def is_alone(self) -> bool:
        """Whether the worker has no other partition."""
        return self._counts[self._worker] == 1

    def next_in_s(self) -> float:
        """Give the seconds until it wakes next."""
        period = min(MAX_BEATS, -(-self._counts[self._worker] // PARTITIONS_A_BEAT))
        now = self._clock()
        beat = int(now / BEAT_S) + 1
        beat += (self.number - beat) % period
        return beat * BEAT_S - now
