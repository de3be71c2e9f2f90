"""What the partitions of one process share."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flicker.auth.shared import Authenticators
from flicker.heartbeat import Heartbeats
from flicker.offload.parent import Offload
from flicker.pace import Paces
from flicker.pool import Pool
from flicker.slack import Slacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flicker.deadletter import DeadLetters
    from flicker.outbox import Outbox
    from flicker.settings import Retry

GRACE_S = 10.0
"""How long a stopping process goes on delivering what it has."""

LAST_REQUEST_S = 5.0
"""How long before the end of the grace no request is started any more: one that
is cut off is repeated by the next run, and a stop shall repeat nothing."""


class StopRequest:
    """Asks a running flow to stop; safe to use from a signal handler."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether polling shall stop."""
        return self._deadline is not None

    @property
    def is_late(self) -> bool:
        """Whether a request that starts now might be cut by the end."""
        return self._deadline is not None and time.monotonic() >= self._deadline - LAST_REQUEST_S

    @property
    def is_overdue(self) -> bool:
        """Whether deliveries shall not be waited for any longer."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def set(self) -> None:
        """Ask to stop; asked a second time, nothing more is waited for."""
        grace_s = 0.0 if self.is_set else GRACE_S
        self._deadline = time.monotonic() + grace_s


@dataclass
class Runtime:
    """Shared by all partitions of a process, never by two processes.

    Attributes:
        retry: How patiently failures are tried again.
        dead_letters: Where refused events go.
        journal_dir: Where acknowledgements are written; None without
            recovery, when there is nothing to resume from.
        once: Whether each source is read once and then left.
        outboxes: By source. Source and sink partitions of one name are in
            the same process, which is how a source learns what is owed.
        failed: Names of the sources whose API or destination was given up.
        has_begun: Whether Bytewax has built a partition.
        may_ship: Whether this process may still send events: another instance
            may have taken the registry over.
    """

    retry: Retry
    dead_letters: DeadLetters
    journal_dir: Path | None = None
    once: bool = False
    heartbeats: Heartbeats = field(default_factory=Heartbeats)
    slacks: Slacks = field(default_factory=Slacks)
    pool: Pool = field(default_factory=Pool)
    offload: Offload = field(init=False)
    paces: Paces = field(default_factory=Paces)
    authenticators: Authenticators = field(default_factory=Authenticators)
    stop: StopRequest = field(default_factory=StopRequest)
    outboxes: dict[str, Outbox] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    rng: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)
    has_begun: bool = False
    may_ship: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        """Have the pool's threads see to the decoding process."""
        self.offload = Offload(self.pool)

    def backoff_s(self, failures: int) -> float:
        """Give the seconds to wait after so many failures in a row.

        Doubles from `initial_delay_ms` to `max_delay_ms`; jitter takes off up
        to a half, so that sources that failed together do not return together.
        """
        initial_s = self.retry.initial_delay.total_seconds()
        longest_s = self.retry.max_delay.total_seconds()
        delay_s = min(longest_s, initial_s * 2.0 ** min(failures - 1, 30))
        return delay_s * (1 - self.rng.random() / 2)

    def retry_wait_s(self, failures: int, asked_s: float | None) -> float:
        """Give the seconds to wait after a failure, as the server asked if it did.

        "At once", said each time, must not make us hammer it: a shorter time
        than our own first delay only bounds the backoff from below.

        Args:
            failures: Failures in a row.
            asked_s: Seconds that the server asked for, None if it did not.
        """
        backoff_s = self.backoff_s(failures)
        if asked_s is None:
            return backoff_s
        first_s = min(SHORT_S, self.retry.initial_delay.total_seconds())
        return asked_s if asked_s >= first_s else max(asked_s, backoff_s)

    def is_hopeless(self, attempts: int, asked_s: float | None) -> bool:
        """Tell whether a run of `--once` shall not wait any longer.

        Args:
            attempts: Failed ones.
            asked_s: Seconds that the server asked for; more than a retry may
                ever take here is for the next run to wait.
        """
        if not self.once or self.max_retries is None:
            return False
        longest_s = max(self.retry.max_delay.total_seconds(), SHORT_S)
        return attempts > self.max_retries or (asked_s or 0.0) > longest_s

    def give_up(self, source: str) -> None:
        """Note that a run of `--once` leaves a source or destination behind."""
        with self.lock:
            self.failed.add(source)

    @property
    def max_retries(self) -> int | None:
        """Attempts after the first, None for ever; `--once` never waits for ever."""
        if self.retry.max_retries is None and self.once:
            return ONCE_RETRIES
        return self.retry.max_retries


ONCE_RETRIES = 5
SHORT_S = 1.0
