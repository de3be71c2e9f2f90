"""Batches not yet acknowledged, and their delivery.

An outbox owes its source's batches to one destination until each was
acknowledged or stands in the dead-letter file. Nothing here ever waits on a
Bytewax worker: deliveries run in the pool, retries are put off.
"""

from __future__ import annotations

import gzip
import logging
import threading
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from flicker.client import EXCERPT_CHARS, raise_for_delivery
from flicker.decode import IDENTITY_BYTES
from flicker.errors import HumanNeededError, RefusedError, RequestError
from flicker.items import Record
from flicker.position import check_version
from flicker.render import CONTENT_TYPES, batch_body

if TYPE_CHECKING:
    from flicker.client import Client
    from flicker.journal import AckJournal
    from flicker.runtime import Runtime
    from flicker.settings import Destination

VERSION = 1

MAX_BYTES = 64 * 1024 * 1024
"""Bytes owed at which a source pauses, whatever `max_queue_size` says."""

FORGET_S = 60.0
"""Seconds after which what no scan brought again is taken to be gone."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Shipment:
    records: list[Record]
    body_bytes: int
    attempts: int = 0
    in_flight: bool = False


class Outbox:
    """What one source owes to its destination.

    At-least-once: a batch leaves it when the destination acknowledged it or
    when it is in the dead-letter file, not before. Up to `concurrency`
    requests run at a time, the oldest first; one at a time while the
    destination fails. Safe for concurrent use.

    Args:
        source: Name of the source.
        destination: None for a retired source whose destination nobody knows
            any more: then batches are kept, not delivered.
        client: Talks to the destination.
        runtime: The process's.
        journal: Where acknowledgements are written, if at all.
        resume_state: What `snapshot` gave.
    """

    def __init__(
        self,
        source: str,
        destination: Destination | None,
        client: Client | None,
        runtime: Runtime,
        journal: AckJournal | None = None,
        resume_state: dict[str, Any] | None = None,
    ) -> None:
        self.source = source
        self._destination = destination
        self._client = client
        self._runtime = runtime
        self._journal = journal
        self._lock = threading.Lock()
        self._shipments: list[_Shipment] = []
        self._bytes = 0
        self._in_flight = 0
        self._failures = 0
        self._resume_at = 0.0
        self._is_told_to_wait = False
        self._said: str | None = None
        self._is_dirty = False
        self._is_marked = False
        self._kept_endpoint: str | None = None
        self.is_flushed = False
        self.gave_up = False
        # What a crashed process delivered after its last snapshot, and will
        # come once more: in the snapshot's batches or from the source.
        self._delivered: set[bytes] = set()
        self._forget_delivered_at: float | None = None
        if resume_state is not None:
            check_version(resume_state, source)
            self._kept_endpoint = resume_state["endpoint"]
        if journal is not None:
            self._delivered = journal.read(resume_state["segment"] if resume_state else 0)
        if resume_state is not None:
            self._delivered.update(_split_identities(resume_state["delivered"]))
            for identities, bodies in resume_state["batches"]:
                ids = _split_identities(identities)
                self.add([Record(*pair) for pair in zip(ids, bodies, strict=True)])

    @property
    def owed(self) -> int:
        """How many batches are not acknowledged."""
        return len(self._shipments)

    @property
    def is_full(self) -> bool:
        """Whether the source shall pause until something was delivered."""
        return (
            len(self._shipments) >= self._runtime.retry.max_queue_size or self._bytes >= MAX_BYTES
        )

    @property
    def is_deliverable(self) -> bool:
        """Whether the destination is known."""
        return self._destination is not None

    def add(self, records: list[Record]) -> None:
        """Owe a batch, less what was delivered before a crash."""
        with self._lock:
            if self._delivered:
                repeated = {r.identity for r in records if r.identity in self._delivered}
                if repeated:
                    records = [r for r in records if r.identity not in repeated]
                    self._delivered -= repeated
                    self._is_dirty = True
            if records:
                size = sum(len(record.body) for record in records)
                self._shipments.append(_Shipment(records, size))
                self._bytes += size
        self._pump()

    def snapshot(self) -> dict[str, Any]:
        """Give what is owed as builtins, and open a journal segment with it."""
        with self._lock:
            self._is_dirty = self._is_marked = False
            if self._forget_delivered_at is not None and (
                time.monotonic() > self._forget_delivered_at
            ):
                self._delivered.clear()
            return {
                "version": VERSION,
                "endpoint": self._endpoint_name(),
                "segment": self._journal.cut() if self._journal else 0,
                "delivered": b"".join(self._delivered),
                "batches": [
                    [
                        b"".join(record.identity for record in shipment.records),
                        [record.body for record in shipment.records],
                    ]
                    for shipment in self._shipments
                ],
            }

    def take_mark(self) -> bool:
        """Tell whether a mark has to reach the sink, once for each snapshot."""
        if not self._is_dirty or self._is_marked:
            return False
        self._is_marked = True
        return True

    def note_scan_end(self, flush_s: float) -> None:
        """Note that the source read all there is.

        What a crashed process had delivered has come once more by now, and
        will be here when the buffer has let go of it.

        Args:
            flush_s: Seconds that the buffer may hold events back.
        """
        if self._forget_delivered_at is None:
            self._forget_delivered_at = time.monotonic() + flush_s + FORGET_S

    def hurry(self) -> None:
        """Try at once what was put off, unless the destination asked for it."""
        with self._lock:
            if not self._is_told_to_wait:
                self._resume_at = 0.0
        self._pump()

    def delete_segments_before(self, segment: int) -> None:
        """Delete the journal's segments that the committed snapshot covers."""
        if self._journal is not None:
            with self._lock:
                self._journal.delete_before(segment)

    def _endpoint_name(self) -> str | None:
        if self._destination is None:
            return self._kept_endpoint
        return public_url(self._destination.endpoint.url)

    def _pump(self) -> None:
        """Start as many deliveries as may run now."""
        if self._destination is None or self._client is None:
            return
        with self._lock:
            if self.gave_up or time.monotonic() < self._resume_at:
                return
            allowed = 1 if self._failures else self._destination.concurrency
            started = []
            for shipment in self._shipments:
                if self._in_flight >= allowed:
                    break
                if not shipment.in_flight:
                    shipment.in_flight = True
                    self._in_flight += 1
                    started.append(shipment)
        for shipment in started:
            self._runtime.pool.submit(lambda shipment=shipment: self._deliver(shipment))  # type: ignore[misc]

    def _deliver(self, shipment: _Shipment) -> None:
        wait_s = 0.0
        try:
            try:
                self._post(shipment.records)
            except RefusedError as error:
                self._settle_refused(shipment, error)
            else:
                self._settle_delivered(shipment)
        except RequestError as error:
            wait_s = self._put_off(shipment, error)
        except OSError as error:
            reason = f"cannot write {self._runtime.dead_letters.path} ({error.strerror})"
            wait_s = self._put_off(shipment, HumanNeededError(reason))
        except Exception as error:
            # A fault of ours must not take the batch with it.
            logger.exception("delivery failed unexpectedly", extra={"source": self.source})
            wait_s = self._put_off(shipment, RequestError(f"failed: {type(error).__name__}"))
        if wait_s:
            self._runtime.pool.submit_later(wait_s, self._pump)
        else:
            self._pump()

    def _post(self, records: list[Record]) -> None:
        """Send one request.

        Raises:
            RequestError: It was not accepted.
        """
        if self._destination is None or self._client is None:
            return
        body = batch_body(records, self._destination.format)
        key = blake2b(b"".join(record.identity for record in records), digest_size=16)
        headers = {
            "Content-Type": CONTENT_TYPES[self._destination.format],
            "Idempotency-Key": key.hexdigest(),
        }
        if self._destination.compression:
            body = gzip.compress(body, 5, mtime=0)
            headers["Content-Encoding"] = "gzip"
        reply = self._client.post(body, headers)
        excerpt = reply.body[: EXCERPT_CHARS * 4].decode("utf-8", "replace")[:EXCERPT_CHARS]
        raise_for_delivery(reply, self._client.redact(excerpt))
        logger.debug("delivered", extra={"source": self.source, "events": len(records)})

    def _settle_delivered(self, shipment: _Shipment) -> None:
        with self._lock:
            if self._journal is not None:
                self._journal.append([record.identity for record in shipment.records])
            self._remove(shipment)
            recovered, self._failures, self._said = self._failures > 0, 0, None
            self._resume_at, self._is_told_to_wait = 0.0, False
        if recovered:
            logger.info("destination accepts again", extra={"source": self.source})

    def _settle_refused(self, shipment: _Shipment, error: RefusedError) -> None:
        """Halve a refused batch until the refused event stands alone."""
        records = shipment.records
        if len(records) == 1:
            self._give_to_dead_letters(shipment, error.status, error.response)
            return
        half = len(records) // 2
        logger.warning(
            "batch refused, sending its halves",
            extra={"source": self.source, "status": error.status, "events": len(records)},
        )
        with self._lock:
            at = self._shipments.index(shipment)
            self._shipments[at : at + 1] = [
                _Shipment(part, sum(len(record.body) for record in part))
                for part in (records[:half], records[half:])
            ]
            self._in_flight -= 1
            self._is_dirty = True

    def _give_to_dead_letters(self, shipment: _Shipment, status: int | None, response: str) -> None:
        """Move a shipment to the dead-letter file.

        Raises:
            OSError: The file did not take it, so the shipment is still owed.
        """
        dead_letters = self._runtime.dead_letters
        dead_letters.write(self.source, shipment.records, status, response)
        logger.error(
            "events went to the dead-letter file",
            extra={
                "source": self.source,
                "events": len(shipment.records),
                "status": status,
                "path": str(dead_letters.path),
            },
        )
        with self._lock:
            if self._journal is not None:
                self._journal.append([record.identity for record in shipment.records])
            self._remove(shipment)

    def _remove(self, shipment: _Shipment) -> None:
        self._shipments.remove(shipment)
        self._bytes -= shipment.body_bytes
        self._in_flight -= 1
        self._is_dirty = True

    def _put_off(self, shipment: _Shipment, error: RequestError) -> float:
        """Keep a failed shipment for later.

        Returns:
            Seconds until the next attempt.
        """
        runtime = self._runtime
        max_retries = runtime.max_retries
        shipment.attempts += 1
        if max_retries is not None and shipment.attempts > max_retries:
            if runtime.once:
                self._abandon(shipment, error)
                return 0.0
            try:
                self._give_to_dead_letters(shipment, error.status, str(error))
            except OSError as disk_error:
                logger.exception(
                    "cannot write the dead-letter file",
                    extra={"source": self.source, "reason": disk_error.strerror},
                )
            else:
                return 0.0
        with self._lock:
            shipment.in_flight = False
            self._in_flight -= 1
            self._failures += 1
            asked_s = getattr(error, "retry_after_s", None)
            wait_s = runtime.backoff_s(self._failures)
            if isinstance(error, HumanNeededError) and not runtime.once:
                wait_s = runtime.retry.max_delay.total_seconds()
            elif asked_s is not None:
                wait_s = max(asked_s, runtime.retry.initial_delay.total_seconds() / 2)
            self._resume_at = time.monotonic() + wait_s
            self._is_told_to_wait = asked_s is not None
            news = self._said != str(error)
            self._said = str(error)
        if news:
            needs_human = isinstance(error, HumanNeededError)
            logger.log(
                logging.ERROR if needs_human else logging.WARNING,
                "destination does not accept; events are kept and sent again",
                extra={
                    "source": self.source,
                    "destination": self._endpoint_name(),
                    "reason": str(error),
                    "wait_s": round(wait_s, 3),
                },
            )
        return wait_s + 0.001

    def _abandon(self, shipment: _Shipment, error: RequestError) -> None:
        with self._lock:
            shipment.in_flight = False
            self._in_flight -= 1
            first, self.gave_up = not self.gave_up, True
        self._runtime.give_up(self.source)
        if first:
            logger.error(
                "giving up on the destination",
                extra={
                    "source": self.source,
                    "destination": self._endpoint_name(),
                    "reason": str(error),
                    "batches_owed": self.owed,
                },
            )


def _split_identities(joined: bytes) -> list[bytes]:
    return [joined[at : at + IDENTITY_BYTES] for at in range(0, len(joined), IDENTITY_BYTES)]


def public_url(url: str) -> str:
    """Give a URL without its query string, which may hold secrets."""
    scheme, netloc, path, _, _ = urlsplit(url)
    return urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))
