"""Batches not yet acknowledged, and their delivery.

An outbox owes its source's batches to one destination until each was
acknowledged or stands in the dead-letter file. Nothing here ever waits on a
Bytewax worker: deliveries run in the pool, retries are put off.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from isal import igzip

from flicker.auth.static import request_headers
from flicker.client import EXCERPT_CHARS, raise_for_delivery
from flicker.errors import HumanNeededError, RefusedError, RequestError
from flicker.events import split_identities
from flicker.items import pack_records, unpack_records
from flicker.log import fault_facts
from flicker.position import STATE_VERSION, check_version
from flicker.render import CONTENT_TYPES, batch_body

if TYPE_CHECKING:
    from flicker.client import Client
    from flicker.events import Record
    from flicker.journal import AckJournal
    from flicker.runtime import Runtime
    from flicker.settings import Destination, Endpoint

MAX_BYTES = 16 * 1024 * 1024
"""Bytes owed at which a source pauses, whatever `max_queue_size` says: while its
destination is behind, each snapshot writes them anew."""

FORGET_S = 60.0
"""Seconds after which what no scan brought again is taken to be gone."""

REDACTED_BYTES = 64 * 1024
"""Bytes of an answer that secrets are taken out of before it is cut short.

Cutting first could leave half a secret, which no search finds."""

GZIP_LEVEL = 2
"""Of isal's 0 to 3. For a thousand records of a kilobyte, zlib's level 5 makes
bodies a sixth smaller in ten times the time."""

_DELIVERY = "delivery"
_DEAD_LETTERS = "dead letters"

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Shipment:
    """A batch, or the part of a batch that bisection left.

    Attributes:
        attempts: Failed ones.
        round: Of the outbox when it was sent last.
        verdict: Status and text of the refusal of a single event: it is not
            sent again, the dead-letter file has to take it.
        held_until: Instant before which it is not tried.
        is_abandoned: Whether `--once` leaves it behind.
        packed: Its part of a snapshot, made once; nobody changes it.
    """

    records: list[Record]
    body_bytes: int
    attempts: int = 0
    in_flight: bool = False
    round: int = 0
    verdict: tuple[int | None, str] | None = None
    held_until: float = 0.0
    is_abandoned: bool = False
    packed: list[Any] | None = None

    def pack(self) -> list[Any]:
        """Give it as builtins."""
        if self.packed is None:
            self.packed = pack_records(self.records)
        return self.packed


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
        # Requests that ran together and failed together are one failure: each
        # failure starts a round, and answers to earlier rounds count no more.
        self._round = 0
        self._resume_at = 0.0
        self._is_told_to_wait = False
        self._said: dict[str, str] = {}
        self._is_dirty = False
        self._is_marked = False
        self._is_stalled = False
        self._gave_up = False
        self._last_snapshot: dict[str, Any] | None = None
        self._kept_endpoint: str | None = None
        self.is_flushed = False
        # What a crashed process delivered after its last snapshot, and will
        # come once more: in the snapshot's batches or from the source.
        self._delivered: set[bytes] = set()
        self._forget_delivered_at: float | None = None
        if resume_state is not None:
            check_version(resume_state, source)
            self._kept_endpoint = resume_state["endpoint"]
        if journal is not None:
            self._delivered = journal.resume(resume_state["segment"] if resume_state else 0)
        if resume_state is not None:
            self._delivered.update(split_identities(resume_state["delivered"]))
            for identities, bodies in resume_state["batches"]:
                self.add(unpack_records(identities, bodies))

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

    @property
    def gave_up(self) -> bool:
        """Whether `--once` tries nothing of what is owed any more."""
        with self._lock:
            if self._in_flight:
                return False
            return self._gave_up or (
                bool(self._shipments) and all(s.is_abandoned for s in self._shipments)
            )

    def add(self, records: list[Record]) -> None:
        """Owe a batch, less what was delivered before a crash."""
        with self._lock:
            if self._delivered:
                repeated = {r.identity for r in records if r.identity in self._delivered}
                if repeated:
                    records = [r for r in records if r.identity not in repeated]
                    self._delivered -= repeated
                    self._note_change()
            if records:
                shipment = _new_shipment(records)
                self._shipments.append(shipment)
                self._bytes += shipment.body_bytes
                self._last_snapshot = None
        self._pump()

    def snapshot(self) -> dict[str, Any]:
        """Give what is owed as builtins, and open a journal segment with it."""
        with self._lock:
            self._is_dirty = self._is_marked = False
            if self._forget_delivered_at is not None and (
                time.monotonic() > self._forget_delivered_at
            ):
                self._forget_delivered_at = None
                self._delivered.clear()
                self._last_snapshot = None
            # Where nothing changed, nothing was written to the journal either.
            if self._last_snapshot is None:
                self._last_snapshot = {
                    "version": STATE_VERSION,
                    "endpoint": self._endpoint_key(),
                    "segment": self._journal.cut() if self._journal else 0,
                    "delivered": b"".join(self._delivered),
                    "batches": [shipment.pack() for shipment in self._shipments],
                }
            return dict(self._last_snapshot)

    def take_mark(self) -> bool:
        """Tell whether a mark has to reach the sink, once for each snapshot.

        To be asked at each heartbeat, which is also what wakes an outbox that
        found no thread to deliver on, or that was not allowed to ship.
        """
        if self._is_stalled:
            self._is_stalled = False
            self._pump()
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
        with self._lock:
            if self._delivered and self._forget_delivered_at is None:
                self._forget_delivered_at = time.monotonic() + flush_s + FORGET_S

    def hurry(self) -> None:
        """Try at once what was put off, unless the destination asked for it."""
        with self._lock:
            if not self._is_told_to_wait:
                self._resume_at = 0.0
            for shipment in self._shipments:
                shipment.held_until = 0.0
        self._pump()

    def delete_segments_before(self, segment: int) -> bool:
        """Delete the journal's segments that the committed snapshot covers.

        Returns:
            Whether none of them is left.
        """
        if self._journal is None:
            return True
        with self._lock:
            return self._journal.delete_before(segment)

    def _note_change(self) -> None:
        """Note that the last snapshot says too much."""
        self._is_dirty = True
        self._last_snapshot = None

    def _endpoint_key(self) -> str | None:
        if self._destination is None:
            return self._kept_endpoint
        return endpoint_key(self._destination.endpoint)

    def _pump(self) -> None:
        """Start as many deliveries as may run now."""
        destination, client = self._destination, self._client
        if destination is None or client is None:
            return
        if not self._runtime.may_ship():
            self._is_stalled = True
            return
        with self._lock:
            now = time.monotonic()
            if self._gave_up or now < self._resume_at or self._runtime.stop.is_late:
                return
            allowed = 1 if self._failures else destination.concurrency
            started = []
            for shipment in self._shipments:
                if self._in_flight >= allowed:
                    break
                if not (shipment.in_flight or shipment.is_abandoned or now < shipment.held_until):
                    shipment.in_flight = True
                    shipment.round = self._round
                    self._in_flight += 1
                    started.append(shipment)
        for shipment in started:
            try:
                self._runtime.pool.submit(partial(self._deliver, shipment, destination, client))
            except RuntimeError:
                # The system gives no thread; the source's heartbeat tries again.
                with self._lock:
                    shipment.in_flight = False
                    self._in_flight -= 1
                    self._is_stalled = True

    def _deliver(self, shipment: _Shipment, destination: Destination, client: Client) -> None:
        try:
            wait_s = self._attempt(shipment, destination, client)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the batch with it
            logger.error(  # noqa: TRY400 - its text may quote what was sent
                "delivery failed unexpectedly",
                extra={"source": self.source, **fault_facts(error)},
            )
            wait_s = 0.0
            if shipment.in_flight:
                wait_s = self._put_off(shipment, RequestError(f"failed: {type(error).__name__}"))
        if wait_s:
            try:
                self._runtime.pool.submit_later(wait_s, self._pump)
            except RuntimeError:
                self._is_stalled = True
        # Also after a failure: what is held back may not be what is next.
        self._pump()

    def _attempt(self, shipment: _Shipment, destination: Destination, client: Client) -> float:
        """Send a shipment and settle what came of it.

        Returns:
            Seconds until the next attempt, zero where none has to wait.
        """
        if not self._runtime.may_ship():
            with self._lock:
                shipment.in_flight = False
                self._in_flight -= 1
            return 0.0
        if shipment.verdict is None:
            try:
                self._post(shipment.records, destination, client)
            except RefusedError as error:
                if len(shipment.records) > 1:
                    self._halve(shipment, error.status)
                    return 0.0
                shipment.verdict = (error.status, error.response)
            except RequestError as error:
                return self._put_off(shipment, error)
            else:
                self._settle_delivered(shipment)
                return 0.0
        if self._bury(shipment, *shipment.verdict):
            return 0.0
        return self._hold(shipment)

    def _post(self, records: list[Record], destination: Destination, client: Client) -> None:
        """Send one request.

        Raises:
            RequestError: It was not accepted.
        """
        body = batch_body(records, destination.format)
        key = blake2b(b"".join([record.identity for record in records]), digest_size=16)
        headers = {
            "Content-Type": CONTENT_TYPES[destination.format],
            "Idempotency-Key": key.hexdigest(),
        }
        if destination.compression:
            body = igzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        reply = client.post(body, headers)
        text = reply.body[:REDACTED_BYTES].decode("utf-8", "replace")
        raise_for_delivery(reply, client.redact(text)[:EXCERPT_CHARS])
        logger.debug("delivered", extra={"source": self.source, "events": len(records)})

    def _settle_delivered(self, shipment: _Shipment) -> None:
        with self._lock:
            self._remove(shipment)
            # Answers to what was sent before the last failure say nothing
            # about the time after it.
            recovered = self._failures > 0 and shipment.round == self._round
            if recovered:
                self._failures = 0
                self._said.pop(_DELIVERY, None)
                self._resume_at, self._is_told_to_wait = 0.0, False
        if recovered:
            logger.info("destination accepts again", extra={"source": self.source})

    def _halve(self, shipment: _Shipment, status: int | None) -> None:
        """Replace a refused batch by its halves, until the refused event stands alone."""
        records = shipment.records
        half = len(records) // 2
        with self._lock:
            at = self._shipments.index(shipment)
            self._shipments[at : at + 1] = [
                _new_shipment(records[:half]),
                _new_shipment(records[half:]),
            ]
            shipment.in_flight = False
            self._in_flight -= 1
            self._note_change()
        logger.warning(
            "batch refused, sending its halves",
            extra={"source": self.source, "status": status, "events": len(records)},
        )

    def _bury(self, shipment: _Shipment, status: int | None, response: str) -> bool:
        """Move a shipment to the dead-letter file.

        Returns:
            False where the file did not take it, so that it is still owed.
        """
        dead_letters = self._runtime.dead_letters
        facts = {
            "source": self.source,
            "events": len(shipment.records),
            "status": status,
            "path": str(dead_letters.path),
        }
        try:
            dead_letters.write(self.source, shipment.records, status, response)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._say(
                logging.ERROR,
                _DEAD_LETTERS,
                reason,
                "cannot write the dead-letter file; refused events are kept",
                {**facts, "reason": reason},
            )
            return False
        # Said first: once nothing is owed, the process may end.
        logger.error("events went to the dead-letter file", extra=facts)
        with self._lock:
            self._said.pop(_DEAD_LETTERS, None)
            self._remove(shipment)
        return True

    def _hold(self, shipment: _Shipment) -> float:
        """Keep an event for which there is no dead-letter file yet; others go on.

        Returns:
            Seconds until the next attempt.
        """
        runtime = self._runtime
        wait_s = runtime.retry.max_delay.total_seconds()
        if runtime.once:
            runtime.give_up(self.source)
        with self._lock:
            shipment.in_flight = False
            self._in_flight -= 1
            shipment.is_abandoned = runtime.once
            shipment.held_until = time.monotonic() + wait_s
        return 0.0 if runtime.once else wait_s + 0.001

    def _remove(self, shipment: _Shipment) -> None:
        """Owe a shipment no longer; the lock is held.

        Journal and list change together: a snapshot between the two would
        either owe what the journal of its segment does not know, or miss it.
        """
        if self._journal is not None:
            self._journal.append([record.identity for record in shipment.records])
        self._shipments.remove(shipment)
        self._bytes -= shipment.body_bytes
        shipment.in_flight = False
        self._in_flight -= 1
        self._note_change()

    def _put_off(self, shipment: _Shipment, error: RequestError) -> float:
        """Keep a failed shipment for later.

        Returns:
            Seconds until the next attempt.
        """
        runtime = self._runtime
        max_retries = runtime.max_retries
        shipment.attempts += 1
        asked_s = getattr(error, "retry_after_s", None)
        if runtime.is_hopeless(shipment.attempts, asked_s):
            self._abandon(shipment, error)
            return 0.0
        is_exhausted = max_retries is not None and shipment.attempts > max_retries
        if is_exhausted and not runtime.once and self._bury(shipment, error.status, str(error)):
            return 0.0
        needs_human = isinstance(error, HumanNeededError)
        with self._lock:
            shipment.in_flight = False
            self._in_flight -= 1
            is_first = shipment.round == self._round or self._failures == 0
            if is_first:
                self._round += 1
                self._failures += 1
                self._is_told_to_wait = False
            wait_s = runtime.retry_wait_s(self._failures, asked_s)
            if needs_human and not runtime.once:
                wait_s = runtime.retry.max_delay.total_seconds()
            elif wait_s == asked_s:
                self._is_told_to_wait = True
            now = time.monotonic()
            if is_first or asked_s is not None or needs_human:
                self._resume_at = max(self._resume_at, now + wait_s)
            wait_s = max(0.0, self._resume_at - now)
        self._say(
            logging.ERROR if needs_human else logging.WARNING,
            _DELIVERY,
            str(error),
            "destination does not accept; events are kept and sent again",
            {
                "source": self.source,
                "destination": self._shown_destination(),
                "reason": str(error),
                "wait_s": round(wait_s, 3),
            },
        )
        return wait_s + 0.001

    def _abandon(self, shipment: _Shipment, error: RequestError) -> None:
        with self._lock:
            first, self._gave_up = not self._gave_up, True
        # While the shipment is in flight nobody sees `gave_up`, ends the
        # process and finds that nothing failed.
        self._runtime.give_up(self.source)
        if first:
            logger.error(
                "giving up on the destination",
                extra={
                    "source": self.source,
                    "destination": self._shown_destination(),
                    "reason": str(error),
                    "batches_owed": self.owed,
                },
            )
        with self._lock:
            shipment.in_flight = False
            self._in_flight -= 1

    def _say(
        self, level: int, about: str, reason: str, message: str, facts: dict[str, Any]
    ) -> None:
        """Log a trouble unless it is the one logged last about the same thing."""
        with self._lock:
            is_news = self._said.get(about) != reason
            self._said[about] = reason
        if is_news:
            logger.log(level, message, extra=facts)

    def _shown_destination(self) -> str | None:
        if self._destination is None:
            return None
        return origin(self._destination.endpoint.url)


def _new_shipment(records: list[Record]) -> _Shipment:
    return _Shipment(records, sum([len(record.body) for record in records]))


def origin(url: str) -> str:
    """Give a URL's scheme and host, to show: paths and queries may be secrets.

    Collectors that take a token in the path are not rare.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def endpoint_key(endpoint: Endpoint) -> str:
    """Give what tells one endpoint, and its tenant, from another.

    Returns:
        Its origin, a space and a digest of its path, query and headers. At 32
        bits the digest tells tokens apart and is no way to guess one.
    """
    parts = urlsplit(endpoint.url)
    facts = (parts.path, parts.query, sorted(request_headers(endpoint).items()))
    return f"{origin(endpoint.url)} {blake2b(repr(facts).encode(), digest_size=4).hexdigest()}"
