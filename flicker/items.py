"""What travels along the dataflow, always keyed by the source's name.

A page is one item, not one for each event: between processes every item is
pickled, and between operators every item is a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flicker.events import Event


class EventPage(NamedTuple):
    """New events of one page, in the vendor's order."""

    source: str
    events: list[Event]


class Record(NamedTuple):
    """An event as it goes out.

    Attributes:
        identity: By which a repeat is known, here and in the journal.
        body: One JSON object.
    """

    identity: bytes
    body: bytes


class RecordPage(NamedTuple):
    """Records on their way to the buffer."""

    source: str
    records: list[Record]


class Batch(NamedTuple):
    """One shipment."""

    records: list[Record]


class Mark(NamedTuple):
    """Tells the sink that its snapshot is out of date; carries nothing.

    Bytewax takes a snapshot of a sink only in epochs in which it was written
    to, and deliveries end in between.
    """


class Flush(NamedTuple):
    """The last item of a source: the buffer lets go of what it has before it."""

    source: str
