"""The Bytewax output: batches into outboxes, outboxes into snapshots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flicker.client import Client
from flicker.items import Batch, Flush, Mark
from flicker.journal import AckJournal, list_segments
from flicker.outbox import Outbox, endpoint_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.runtime import Runtime
    from flicker.settings import Destination, Source

logger = logging.getLogger(__name__)

SinkItem = Batch | Flush | Mark


class HttpSinkPartition(StatefulSinkPartition[SinkItem, dict[str, Any]]):
    """One source's way out. Returns at once; its outbox delivers.

    At-least-once: a batch is acknowledged by the destination, or in the
    snapshot, or both.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def write_batch(self, items: list[SinkItem]) -> None:
        """Take batches into the outbox."""
        for item in items:
            if isinstance(item, Batch):
                self._outbox.add(item.records)
            elif isinstance(item, Flush):
                self._outbox.is_flushed = True

    def snapshot(self) -> dict[str, Any]:
        """Give the batches not yet acknowledged."""
        return self._outbox.snapshot()


class HttpSink(FixedPartitionedSink[SinkItem, dict[str, Any]]):
    """Ships batches over HTTP.

    The unit of parallelism is the source: each has a partition and an outbox
    of its own, so that a dead destination holds up none but its sources.

    Args:
        sources: Configured sources by name.
        names: All names, those of retired sources too.
        runtime: The process's.
    """

    def __init__(self, sources: Mapping[str, Source], names: list[str], runtime: Runtime) -> None:
        self._sources = sources
        self._names = sorted(names)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._runtime = runtime
        self._clients: dict[Destination, Client] = {}
        # As they were before any of them was written to.
        self._segments: dict[str, list[int]] | None = None

    def list_parts(self) -> list[str]:
        """List all sources: partitions live wherever Bytewax puts them."""
        return self._names

    def part_fn(self, item_key: str) -> int:
        """Give the index of a source among all, in Bytewax's order."""
        return self._index[item_key]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> HttpSinkPartition:
        """Build a source's outbox, with what it owed at the snapshot."""
        del step_id
        runtime = self._runtime
        destination = self._destination_of(for_part, resume_state)
        journal = self._journal_of(for_part)
        outbox = Outbox(
            for_part,
            destination,
            None if destination is None else self._client_of(destination),
            runtime,
            journal,
            resume_state,
        )
        if destination is None and outbox.owed:
            logger.error(
                "a removed source owes events to a destination that is not configured any more; "
                "put the source back to have them delivered",
                extra={
                    "source": for_part,
                    "destination": str(resume_state and resume_state["endpoint"]).split()[0],
                    "batches_owed": outbox.owed,
                },
            )
        runtime.outboxes[for_part] = outbox
        return HttpSinkPartition(outbox)

    def _journal_of(self, name: str) -> AckJournal | None:
        runtime = self._runtime
        directory = runtime.journal_dir
        if directory is None:
            return None
        with runtime.lock:
            if self._segments is None:
                self._segments = list_segments(directory)
        # One that was built before may have written since.
        return AckJournal(directory, name, None if name in runtime.outboxes else self._segments)

    def _destination_of(self, name: str, resume_state: dict[str, Any] | None) -> Destination | None:
        source = self._sources.get(name)
        if source is not None:
            return source.destination
        # A retired source: credentials are in no snapshot, so it borrows them
        # from a source that ships to the same place.
        kept = resume_state["endpoint"] if resume_state else None
        for other in self._sources.values():
            if endpoint_key(other.destination.endpoint) == kept:
                return other.destination
        return None

    def _client_of(self, destination: Destination) -> Client:
        with self._runtime.lock:
            if destination not in self._clients:
                self._clients[destination] = Client(
                    destination.endpoint, connections=4 * destination.concurrency
                )
            return self._clients[destination]
