"""What travels along the dataflow, always keyed by the source's name.

A page is one item, not one for each event: between processes every item is
pickled, and between operators every item is a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flicker.events import Record, split_identities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flicker.events import Event


class EventPage(NamedTuple):
    """New events of one page, in the vendor's order."""

    source: str
    events: list[Event]


def pack_records(records: Sequence[Record]) -> list[Any]:
    """Give records as builtins: identities end to end, and bodies."""
    identities = b"".join([record.identity for record in records])
    return [identities, [record.body for record in records]]


def unpack_records(identities: bytes, bodies: list[bytes]) -> list[Record]:
    """Give the records that `pack_records` gave as builtins."""
    return [Record(*pair) for pair in zip(split_identities(identities), bodies, strict=True)]


class RecordPage(NamedTuple):
    """Records on their way to the buffer."""

    source: str
    records: Sequence[Record]

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process in a few large pieces."""
        return _load_page, (self.source, *pack_records(self.records))


class Batch(NamedTuple):
    """One shipment."""

    records: list[Record]

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process in a few large pieces."""
        return _load_batch, tuple(pack_records(self.records))


def _load_page(source: str, identities: bytes, bodies: list[bytes]) -> RecordPage:
    return RecordPage(source, unpack_records(identities, bodies))


def _load_batch(identities: bytes, bodies: list[bytes]) -> Batch:
    return Batch(unpack_records(identities, bodies))


class Mark(NamedTuple):
    """Tells the sink that its snapshot is out of date; carries nothing.

    Bytewax takes a snapshot of a sink only in epochs in which it was written
    to, and deliveries end in between.
    """


class Flush(NamedTuple):
    """The last item of a source: the buffer lets go of what it has before it."""

    source: str
