"""Batches by size or age, whichever comes first."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from bytewax.operators import StatefulBatchLogic

from flicker.events import Record
from flicker.items import Batch, Flush, RecordPage
from flicker.position import STATE_VERSION, check_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flicker.settings import Source


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class BufferLogic(StatefulBatchLogic[RecordPage | Flush, Batch | Flush, dict[str, Any]]):
    """Collects the records of one source.

    In go pages of records, out come batches of `buffer_size` records, or of
    fewer once the first of them has waited for `flush_interval_ms`. The age
    counts from the first record: a steady trickle must not put it off.

    Bytewax does not tell whose logic it builds, so the settings are looked up
    when the first page names its source.

    Args:
        sources: Settings by name. A source that is in none of them any more
            is flushed at once.
        resume_state: What `snapshot` gave.
        clock: Gives the aware present.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        resume_state: dict[str, Any] | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._sources = sources
        self._clock = clock
        self._name: str | None = None
        self._size = 1
        self._interval = timedelta(0)
        self._records: list[Record] = []
        self._first_at: datetime | None = None
        if resume_state is not None:
            check_version(resume_state, str(resume_state.get("source")))
            if resume_state["source"] is not None:
                self._learn(resume_state["source"])
            self._records = [Record(*record) for record in resume_state["records"]]
            if self._records:
                first_at = datetime.fromtimestamp(resume_state["first_at"], timezone.utc)
                self._first_at = self._earlier(first_at)

    def _learn(self, name: str) -> None:
        if name != self._name:
            self._name = name
            source = self._sources.get(name)
            self._size = source.buffer_size if source else 100
            self._interval = source.flush_interval if source else timedelta(0)

    def on_batch(self, values: list[RecordPage | Flush]) -> tuple[list[Batch | Flush], bool]:
        """Take records in, give the full batches; a Flush lets go of the rest too."""
        out: list[Batch | Flush] = []
        for value in values:
            self._learn(value.source)
            if isinstance(value, Flush):
                out += self._take_all()
                out.append(value)
                continue
            if value.records:
                self._first_at = self._earlier(self._first_at)
            self._records += value.records
            full = len(self._records) - len(self._records) % self._size
            if full:
                out += [
                    Batch(self._records[at : at + self._size]) for at in range(0, full, self._size)
                ]
                self._records = self._records[full:]
                self._first_at = self._clock() if self._records else None
        return out, self.RETAIN

    def on_notify(self) -> tuple[list[Batch | Flush], bool]:
        """Give what has waited long enough."""
        due = self.notify_at()
        if due is not None and due <= self._clock():
            return self._take_all(), self.RETAIN
        return [], self.RETAIN

    def on_eof(self) -> tuple[list[Batch | Flush], bool]:
        """Give everything."""
        # What is still here goes to the outbox, so that one snapshot holds all
        # that is owed; nobody waits for its delivery any more.
        return self._take_all(), self.RETAIN

    def notify_at(self) -> datetime | None:
        """Give the instant at which the oldest record has waited long enough."""
        return None if self._first_at is None else self._first_at + self._interval

    def snapshot(self) -> dict[str, Any]:
        """Give the records that wait, and since when."""
        return {
            "version": STATE_VERSION,
            "source": self._name,
            "records": [(record.identity, record.body) for record in self._records],
            "first_at": self._first_at.timestamp() if self._first_at else None,
        }

    def _earlier(self, first_at: datetime | None) -> datetime:
        # A clock that was set back must not put the deadline off.
        now = self._clock()
        return now if first_at is None or first_at > now else first_at

    def _take_all(self) -> list[Batch | Flush]:
        records, self._records, self._first_at = self._records, [], None
        return [Batch(records)] if records else []
