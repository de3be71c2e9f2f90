"""One writer: the lease on a registry in S3, and every write of `registry.json`.

The lease stands in the object itself, and each write of it names the version
that it replaces. So whoever has lost the registry finds out at the next write,
and cannot overwrite what the next holder wrote.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from flicker.errors import RegistryError
from flicker.registry.manifest import (
    Lease,
    Manifest,
    OtherVersionError,
    dump_manifest,
    parse_manifest,
)
from flicker.registry.store import (
    ConflictError,
    StoreAwayError,
    StoreError,
    honours_conditions,
    patiently,
    steady_s,
)
from flicker.signals import exit_if_asked
from flicker.timefmt import format_instant

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.registry.location import S3Location
    from flicker.registry.store import S3Store, Stored

MARGIN_S = 2.0
"""How much earlier a holder takes its lease to be over than others do."""

STANDBY_S = 2.0
"""Longest pause between two looks of a standby."""

CHANGES = 5
"""Tries of a write, while others change what it is to replace."""

logger = logging.getLogger(__name__)


class LeaseLostError(RegistryError):
    """Another instance holds the registry now; this one must not go on.

    Attributes:
        found: What that one wrote.
    """

    def __init__(self, message: str, found: Manifest) -> None:
        super().__init__(message)
        self.found = found


class _Written(NamedTuple):
    """What `registry.json` is known to hold, or to have held last."""

    digest: bytes
    etag: str


class Ownership:
    """The lease on a registry in S3, and its manifest.

    Safe for concurrent use.

    Args:
        store: Where it is.
        location: Which it is.
        instance: A name that no other instance has.
        lease_s: Seconds that the lease outlives its holder.
        can_stand_by: Whether it would help to advise `--standby`.

    Attributes:
        failures: Renewals that failed.
    """

    def __init__(
        self,
        store: S3Store,
        location: S3Location,
        instance: str,
        lease_s: float,
        *,
        can_stand_by: bool = True,
    ) -> None:
        self._store = store
        self._location = location
        self._instance = instance
        self._lease_s = lease_s
        self._can_stand_by = can_stand_by
        # The last lease of somebody else that we saw.
        self._seen: Lease | None = None
        self.failures = 0
        self._manifest = Manifest()
        self._written: _Written | None = None
        # What was sent since: an answer that got lost is no failed write.
        self._sent: set[bytes] = set()
        self._is_conditional = True
        self._valid_until = 0.0
        self._missed_at: float | None = None
        self._said: str | None = None
        self._is_lost = False
        self._on_lost: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flicker-lease", daemon=True)

    @property
    def manifest(self) -> Manifest:
        """What `registry.json` says."""
        return self._manifest

    def acquire(self, *, is_standby: bool) -> Manifest:
        """Take the lease.

        Args:
            is_standby: Wait while somebody else holds it.

        Returns:
            What there is to go on from.

        Raises:
            RegistryError: Somebody else holds it; or the store, or what is
                in it, cannot be used.
        """
        # First of all: some stores make a bucket of any name that is written to.
        patiently(lambda: self._store.get(self._location.key))
        # Twice: what a holder takes for a stray and deletes just now tells nothing.
        self._is_conditional = any(patiently(self._try_conditions) for _ in range(2))
        if not self._is_conditional:
            self._warn_of_store(is_standby=is_standby)
        waits = 0
        while True:
            exit_if_asked()
            try:
                holder = patiently(self._take)
            except RegistryError as error:
                # Whoever has waited may go on: credentials come back, and a
                # holder writes anew what was damaged.
                is_store = isinstance(error, (StoreAwayError, StoreError))
                if not waits or not (is_store or self._is_held_still()):
                    raise
                self._say("cannot look whether the registry is free; looking again", str(error))
                holder = None
            else:
                if holder is None:
                    return self._manifest
                if not is_standby:
                    raise RegistryError(self._held_by(holder))
            if holder is not None and not waits:
                logger.info(
                    "standing by: another instance holds the registry",
                    extra={"registry": str(self._location), "holder": holder.instance},
                )
            waits += 1
            self._stopped.wait(min(STANDBY_S, self._lease_s / 5))

    def _try_conditions(self) -> bool:
        # Of a new name each time: the one before may not be deleted yet.
        key = f"{self._location.key}.d/probe-{secrets.token_hex(8)}"
        return honours_conditions(self._store, key)

    def _warn_of_store(self, *, is_standby: bool) -> None:
        trouble = "the store ignores the conditions of writes (If-Match, If-None-Match)"
        if is_standby:
            message = (
                f"the registry {self._location} allows no --standby: {trouble}, so that two "
                "instances could both take over. Use a store that honours them"
            )
            raise StoreError(message)
        logger.warning(
            "%s: NOTHING KEEPS A SECOND INSTANCE FROM OVERWRITING THIS REGISTRY. "
            "Make sure that only one runs, or use a store that honours them",
            trouble,
            extra={"registry": str(self._location)},
        )

    def _take(self) -> Lease | None:
        """Take the lease if it is free.

        Returns:
            The lease of whoever holds it; None where we do.
        """
        for _ in range(CHANGES):
            found = self._store.get(self._location.key)
            manifest = Manifest()
            if found is not None:
                manifest = parse_manifest(found.data, self._location)
            elif self._seen is not None:
                return self._missing_under(self._seen)
            lease = manifest.lease
            if (
                lease is not None
                and lease.instance != self._instance
                and (found is None or found.read_at < lease.expires_at)
            ):
                self._seen = lease
                return lease
            with self._lock:
                self._written = None if found is None else _Written(_digest(found.data), found.etag)
                try:
                    self._write(manifest)
                except (ConflictError, LeaseLostError):
                    pass
                else:
                    return None
        message = f"the registry {self._location} changes all the time. Start again"
        raise StoreAwayError(message)

    def _is_held_still(self) -> bool:
        return self._seen is not None and self._store.now < self._seen.expires_at

    def _missing_under(self, lease: Lease) -> Lease:
        """Wait for the holder of a registry that was deleted to write it anew.

        Raises:
            RegistryError: It did not. Whoever starts next starts afresh; to do
                so here would be to lose what the holder owes, in silence.
        """
        if self._is_held_still():
            return lease
        message = (
            f"the registry {self._location} was deleted while {lease.instance} held it. Restore "
            "it from a backup, or start again to start afresh"
        )
        raise RegistryError(message)

    def _held_by(self, lease: Lease) -> str:
        waits = ", or start with --standby, which waits" if self._can_stand_by else ""
        return (
            f"the registry {self._location} is held by {lease.instance} until "
            f"{format_instant(lease.expires_at)}. Stop that instance, or wait until then if it is "
            f"gone{waits}"
        )

    def start(self, on_lost: Callable[[str], None]) -> None:
        """Begin to renew the lease.

        Args:
            on_lost: Told, once, that another instance has it.
        """
        self._on_lost = on_lost
        self._thread.start()

    def may_ship(self) -> bool:
        """Tell whether nobody else can have the registry, as far as we can know.

        False after a pause longer than the lease, until a look at the store
        tells whose it is. While the store cannot be reached, shipping goes on:
        if somebody takes over meanwhile, events repeat.
        """
        now = steady_s()
        if self._is_lost:
            return False
        if now < self._valid_until:
            return True
        return self._missed_at is not None and now - self._missed_at < self._lease_s

    def publish(self, manifest: Manifest) -> None:
        """Replace what the manifest says, and renew the lease.

        Args:
            manifest: Its lease does not matter.

        Raises:
            LeaseLostError: Another instance holds the registry.
            StoreError, StoreAwayError: It was not written, or nobody knows.
        """
        self._renew(manifest)

    def release(self, manifest: Manifest | None = None) -> None:
        """Give the registry up for others to take at once.

        Args:
            manifest: What it says from now on, if not what it says now.

        Raises:
            RegistryError: The lease has to run out.
        """
        self.stop()
        with self._lock:
            self._put(replace(manifest or self._manifest, lease=None))
            self._valid_until = 0.0

    def stop(self) -> None:
        """Renew the lease no more."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2 * self._lease_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / 6):
            if steady_s() < self._valid_until - self._lease_s / 2:
                continue
            try:
                self._renew(None)
            except LeaseLostError:
                return
            except RegistryError as error:
                self._say("cannot renew the lease on the registry; shipping goes on", str(error))
            except Exception as error:  # noqa: BLE001 - without renewals, shipping would end
                self._say(
                    "cannot renew the lease on the registry; shipping goes on",
                    type(error).__name__,
                )

    def _say(self, message: str, reason: str) -> None:
        if self._said != reason:
            self._said = reason
            logger.warning(message, extra={"registry": str(self._location), "reason": reason})

    def _renew(self, manifest: Manifest | None) -> None:
        with self._lock:
            try:
                self._write(manifest or self._manifest)
            except LeaseLostError as error:
                is_first, self._is_lost = not self._is_lost, True
                if is_first:
                    self._on_lost(str(error))
                raise
            except BaseException:
                # Also a refusal: somebody took a permission away, and that is
                # no reason to stop shipping either.
                self._missed_at = steady_s()
                self.failures += 1
                raise
            self._missed_at = None
            if self._said is not None:
                # Uploads renew the lease too.
                self._said = None
                logger.info(
                    "the registry's store answers again", extra={"registry": str(self._location)}
                )

    def _write(self, manifest: Manifest) -> None:
        """Write the manifest with a fresh lease; the lock is held."""
        asked_at = steady_s()
        lease = Lease(self._instance, self._store.now + self._lease_s)
        self._put(replace(manifest, lease=lease))
        margin_s = min(MARGIN_S, self._lease_s / 4)
        self._valid_until = asked_at + self._lease_s - margin_s

    def _put(self, manifest: Manifest) -> None:
        """Replace `registry.json`, provided that we wrote it last; the lock is held.

        Raises:
            LeaseLostError: Somebody else wrote it.
        """
        data = dump_manifest(manifest)
        for _ in range(CHANGES):
            if not self._is_conditional:
                self._adopt(self._store.get(self._location.key))
            written = self._written
            try:
                self._sent.add(_digest(data))
                etag = self._store.put(
                    self._location.key,
                    data,
                    if_match=written.etag if written and self._is_conditional else None,
                    if_absent=written is None and self._is_conditional,
                )
            except ConflictError:
                found = self._store.get(self._location.key)
                self._adopt(found)
                if found is None or found.data != data:
                    continue
                etag = found.etag
            self._written = _Written(_digest(data), etag)
            self._sent.clear()
            self._manifest = manifest
            return
        message = f"the registry {self._location} changes all the time and cannot be replaced"
        raise StoreAwayError(message)

    def _adopt(self, found: Stored | None) -> None:
        """Take over what is there, provided that it came from us.

        Raises:
            LeaseLostError: It did not.
        """
        if found is None:
            # Deleted under us: write it anew, unless somebody else does.
            self._written = None
            return
        digest = _digest(found.data)
        if digest in self._sent or (self._written and digest == self._written.digest):
            self._written = _Written(digest, found.etag)
            return
        try:
            manifest = parse_manifest(found.data, self._location)
        except OtherVersionError:
            # No damage: a newer Flicker has taken over.
            manifest = Manifest()
        except RegistryError:
            manifest = Manifest(lease=Lease(self._instance, 0.0))
        lease = manifest.lease
        if lease is not None and lease.instance == self._instance:
            # No other instance wrote that: it would have put its name to it.
            self._written = _Written(digest, found.etag)
            logger.warning(
                "the registry was edited or damaged while this instance holds it; it is written "
                "anew, from what this instance knows",
                extra={"registry": str(self._location)},
            )
            return
        holder = lease.instance if lease is not None else "somebody else"
        message = (
            f"the registry {self._location} was taken over by {holder}. This instance stops; what "
            "it shipped since its last upload is shipped again by that one"
        )
        raise LeaseLostError(message, manifest)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
