"""The entries of a listing that are fetched one by one: whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flicker.position import Pending, Position

ATTEMPTS = 3
"""How often an entry is refused until it counts as gone, and how often in a row any
may fail until the listing is read on without them."""

MOST_PUT_OFF = 1000
"""With so many put off, the listing is read no further: all of them are in each snapshot."""


class _Record(NamedTuple):
    attempts: int = 0
    refusals: int = 0
    refused_at: float = 0.0
    due_at: float = 0.0


class Entries:
    """Keeps the pending entries of a position in the order of their turns.

    Those put off are behind all others. Which ones they are, and how often they
    failed, is not part of the position: after a restart none of them is.

    Args:
        position: Whose entries; nobody else changes them.

    Attributes:
        failures: How many attempts in a row have failed, of whatever entries.
    """

    def __init__(self, position: Position) -> None:
        self._position = position
        self._put_off = 0
        self._records: dict[bytes, _Record] = {}
        self._is_recalled = False
        self.failures = 0

    @property
    def current(self) -> Pending | None:
        """The entry whose turn it is; None where none is left, or all are put off."""
        pending = self._position.pending
        return pending[0] if len(pending) > self._put_off else None

    @property
    def is_full(self) -> bool:
        """Whether too many are put off to list any more."""
        return self._put_off >= MOST_PUT_OFF

    @property
    def due_at(self) -> float:
        """When the first of those put off is due."""
        return min((self._record(entry).due_at for entry in self._position.pending), default=0.0)

    def add(self, entry: Pending) -> None:
        """Put an entry behind those whose turn comes, and before those put off."""
        pending = self._position.pending
        pending.insert(len(pending) - self._put_off, entry)
        self.failures = 0

    def leave(self) -> None:
        """Be done with the current entry, for better or worse."""
        self._records.pop(self._position.pending[0].identity, None)
        self._position.pending = self._position.pending[1:]
        self._is_recalled = False
        self.failures = 0

    def recall(self, now: float) -> None:
        """Make the turn of one that was put off, if none other has it and one is due."""
        pending = self._position.pending
        if not pending or self.current is not None:
            return
        entry = min(pending, key=lambda entry: self._record(entry).due_at)
        if self._record(entry).due_at <= now:
            pending.remove(entry)
            pending.insert(0, entry)
            self._put_off -= 1
            self._is_recalled = True

    def note_failure(
        self, now: float, patience_s: float, *, is_refusal: bool
    ) -> tuple[int, int, bool]:
        """Note that the current entry cannot be fetched.

        Args:
            now: The present, in seconds.
            patience_s: Seconds for which it may be refused until it is gone:
                what was listed just now may be there a little later.
            is_refusal: Whether the API says that it does not have it.

        Returns:
            How often that was so, how often because the API refuses it, and
            whether it counts as gone for that.
        """
        self.failures += 1
        identity = self._position.pending[0].identity
        record = self._records.get(identity, _Record())
        record = record._replace(attempts=record.attempts + 1)
        if is_refusal:
            refused_at = record.refused_at if record.refusals else now
            record = record._replace(refusals=record.refusals + 1, refused_at=refused_at)
        self._records[identity] = record
        is_old = now - record.refused_at >= patience_s
        return record.attempts, record.refusals, record.refusals >= ATTEMPTS and is_old

    def go_on(self, due_at: float, *, with_listing: bool) -> None:
        """Let others go before the current entry.

        Args:
            due_at: When it is asked for again, if it is put off.
            with_listing: Whether not only the other entries, but the listing too.
        """
        entry, *others = self._position.pending
        record = self._record(entry)
        self._records[entry.identity] = record._replace(due_at=due_at)
        if self._is_recalled or record.attempts >= ATTEMPTS:
            others.append(entry)
            self._put_off += 1
        else:
            others.insert(len(others) - self._put_off, entry)
        self._is_recalled = False
        self._position.pending = others
        if with_listing:
            self._put_off = len(others)

    def _record(self, entry: Pending) -> _Record:
        return self._records.get(entry.identity, _Record())
