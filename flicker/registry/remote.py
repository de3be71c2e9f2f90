"""A registry in S3, as one instance holds it: from the lease to the last upload."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.registry.local import is_locked
from flicker.registry.location import LINEAGE_NAME
from flicker.registry.mirror import SPOOL, Mirror, Uploader, fetch
from flicker.registry.ownership import Ownership
from flicker.registry.partitions import copy_partitions
from flicker.registry.store import S3Store

if TYPE_CHECKING:
    from flicker.registry.location import S3Location
    from flicker.registry.reader import Reader

INSTANCE_NAME = "instance"
"""File of a state directory that names the instance which uses it."""

TEMPORARY = "flicker-"
LEFT_S = 60.0
"""How long a temporary directory was not changed before it is taken for left."""

REMOVE_TRIES = 10
"""Of removing a directory that the flow may still be writing to."""

SHORTEST_PATIENCE_S = 2.0

logger = logging.getLogger(__name__)


class Remote:
    """The lease, and what is fetched and uploaded under it.

    Args:
        location: Of the registry.
        state_dir: Where the partitions are while it is open. None makes a
            directory of its own, which `close` removes.
        is_standby: Wait while another instance holds the registry.
        lease_s: Seconds that the lease outlives this instance.
        purpose: Why it is opened, if not to run.

    Attributes:
        directory: Where the partitions are.
        origin: Where people find them: in the store, where they were fetched.

    Raises:
        RegistryError: Credentials or directory cannot be used.
    """

    def __init__(
        self,
        location: S3Location,
        state_dir: Path | None = None,
        *,
        is_standby: bool,
        lease_s: float,
        purpose: str = "",
    ) -> None:
        self._location = location
        self._is_standby = is_standby
        self._is_temporary = state_dir is None
        # A renewal has to fail in time for another try.
        self._store = S3Store(location, patience_s=max(SHORTEST_PATIENCE_S, lease_s / 3))
        try:
            if state_dir is None:
                _sweep()
                state_dir = Path(tempfile.mkdtemp(prefix=TEMPORARY))
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory = state_dir.absolute()
            self._instance = self._name_instance(purpose)
        except OSError as error:
            what = (
                "a temporary directory" if state_dir is None else f"the state directory {state_dir}"
            )
            message = f"{what} cannot be used: {error.strerror}"
            raise RegistryError(message) from None
        self._ownership = Ownership(
            self._store, location, self._instance, lease_s, can_stand_by=not purpose
        )
        self._uploader = Uploader(self._store, location, self._ownership, self._instance)
        self._mirror: Mirror | None = None
        self._holds = False
        self.origin = str(self.directory)

    @property
    def is_behind(self) -> bool:
        """Whether what happened since the last upload is in no upload."""
        return self._mirror is not None and self._mirror.is_behind

    @property
    def trouble(self) -> str | None:
        """What the end of this instance left undone; None where it is nothing."""
        if not self.is_behind:
            return None
        return (
            f"the last upload of the registry {self._location} failed; the next start repeats "
            "what was shipped since the one before"
        )

    @property
    def counters(self) -> dict[str, int]:
        """What happened to this registry so far, by name."""
        mirror = self._mirror
        return {
            "registry_uploads": 0 if mirror is None else mirror.uploads,
            "registry_upload_failures": 0 if mirror is None else mirror.failures,
            "lease_renewal_failures": self._ownership.failures,
        }

    def may_ship(self) -> bool:
        """Tell whether this instance may go on shipping."""
        return self._ownership.may_ship()

    def prepare(self) -> dict[str, dict[str, Any]]:
        """Take the lease, and fetch what there is into the directory.

        The directory is ours alone already. A lease that the same directory's
        last user left behind is ours too: that process is dead.

        Returns:
            The readable view that sources begin with, where no generation
            was ever uploaded.

        Raises:
            RegistryError: Somebody else holds it, it is damaged, or the
                store cannot be used.
            OSError: The directory cannot be written.
        """
        logger.info("opening the registry", extra={"registry": str(self._location)})
        manifest = self._ownership.acquire(is_standby=self._is_standby)
        self._holds = True
        self._ownership.start(self._leave)
        logger.info(
            "holding the registry",
            extra={"registry": str(self._location), "instance": self._instance},
        )
        if fetch(self._store, self._location, manifest, self.directory) and manifest.generation:
            self.origin = f"{self._location}.d/{manifest.generation.name}"
        return manifest.api_sources if manifest.generation is None else {}

    def start(self, reader: Reader, configured: set[str]) -> None:
        """Begin to upload what changes.

        Args:
            reader: The process that may read the live partitions.
            configured: Names in the configuration.
        """
        self._mirror = Mirror(
            self._uploader, self._ownership, self._location, self.directory, reader, configured
        )
        self._mirror.start()

    def upload_edited(self, api_sources: dict[str, dict[str, Any]]) -> None:
        """Upload what was changed in the directory, and give the registry up.

        Args:
            api_sources: The readable view of it.

        Raises:
            RegistryError: It is not uploaded, and nothing is changed.
        """
        try:
            with tempfile.TemporaryDirectory(prefix=SPOOL, dir=self.directory) as spool:
                answer = copy_partitions(self.directory, Path(spool))
                self._uploader.upload(
                    self.directory, Path(spool), answer["partitions"], api_sources, is_last=True
                )
        except OSError as error:
            message = f"{self.directory} cannot be written: {error.strerror}"
            raise RegistryError(message) from None
        self._holds = False

    def stop(self) -> None:
        """Upload a last time, and give the registry up."""
        if self._mirror is not None:
            self._mirror.stop()
            self._holds = self._mirror.is_behind

    def close(self) -> None:
        """Give up what is still held, and remove a directory of our own."""
        if self._holds:
            self._holds = False
            with suppress(RegistryError):
                self._ownership.release()
        self._ownership.stop()
        self._remove()

    def _name_instance(self, purpose: str) -> str:
        host = socket.gethostname()
        if purpose or self._is_temporary:
            return "-".join(filter(None, (host, purpose, str(os.getpid()), secrets.token_hex(4))))
        path = self.directory / INSTANCE_NAME
        status = self.directory.stat()
        # A copy of the directory is another one.
        mark = f"{host} {status.st_dev:x}-{status.st_ino:x}"
        with suppress(FileNotFoundError):
            known, _, marked = path.read_text(encoding="utf-8").strip().partition(" ")
            if known and marked == mark:
                return known
        name = f"{host}-{secrets.token_hex(6)}"
        path.write_text(f"{name} {mark}\n", encoding="utf-8")
        return name

    def _leave(self, reason: str) -> None:
        """End this process at once: another instance does its work now.

        Nothing that is here is worth an orderly end, and each moment of one
        would ship what the other ships as well.
        """
        # Other threads would complain of the directory that is gone.
        logging.disable()
        self._remove()
        print(f"flicker: {reason}", file=sys.stderr, flush=True)
        os._exit(1)

    def _remove(self) -> None:
        if not self._is_temporary:
            return
        for _ in range(REMOVE_TRIES):
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                return


def _sweep() -> None:
    """Remove what killed instances left: it holds events, and takes room."""
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        lock = path / "lock-0"
        with suppress(OSError):
            is_old = time.time() - path.stat().st_mtime > LEFT_S
            if is_old and (path / LINEAGE_NAME).exists() and not is_locked(lock):
                shutil.rmtree(path, ignore_errors=True)
