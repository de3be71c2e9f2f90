"""Keeping the readable view current and the journal short while a flow runs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.registry.reader import Reader
from flicker.registry.view import dump_document, view_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.outbox import Outbox
    from flicker.registry.local import Registry

VIEW_INTERVAL_S = 2.0

logger = logging.getLogger(__name__)


class Caretaker:
    """Keeps the view current and the journal short, on a thread of its own.

    Args:
        registry: The open registry.
        configured: Names in the configuration.
        outboxes: Those of this process; their journal segments are deleted
            once a committed snapshot covers them.

    Attributes:
        trouble: Why the partitions could not be read when it was last tried.
    """

    def __init__(
        self, registry: Registry, configured: set[str], outboxes: Mapping[str, Outbox]
    ) -> None:
        self._registry = registry
        self._configured = configured
        self._outboxes = outboxes
        self._reader = Reader(registry.directory)
        self._view: dict[str, Any] = dict(registry.view)
        self._written: bytes | None = None
        self._seen: dict[str, Any] | None = None
        # Up to which segment journals can be deleted, as long as some of it is there.
        self._covered: dict[str, int] = {}
        self._failed: str | None = None
        self.trouble: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flicker-registry", daemon=True)

    def start(self) -> None:
        """Begin to look after the registry."""
        self._thread.start()
        if self._registry.remote is not None:
            self._registry.remote.start(self._reader, self._configured)

    def stop(self) -> None:
        """Look and upload a last time, and end."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._look()
        if self._registry.remote is not None:
            self._registry.remote.stop()
        self._reader.close()

    def _run(self) -> None:
        while not self._stopped.wait(VIEW_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        """Bring view and journal up to what the partitions hold."""
        self.trouble = None
        try:
            answer = self._reader.look()
            if answer is not self._seen or self._is_view_gone():
                self._write_view(answer["sources"])
                self._covered = answer["segments"]
                self._seen = answer
            self._covered = {
                name: segment
                for name, segment in self._covered.items()
                if not self._is_deleted_before(name, segment)
            }
        except RegistryError as error:
            self.trouble = str(error)
            self._say(logging.ERROR, "cannot read the registry", str(error))
        except OSError as error:
            self._say(
                logging.WARNING,
                "cannot write the registry's readable view; the registry itself is unaffected "
                "and shipping goes on",
                error.strerror or type(error).__name__,
            )
        else:
            self._failed = None

    def _is_deleted_before(self, name: str, segment: int) -> bool:
        # A large resume takes longer than the first look to have outboxes.
        outbox = self._outboxes.get(name)
        return outbox is not None and outbox.delete_segments_before(segment)

    def _say(self, level: int, message: str, reason: str) -> None:
        if self._failed != reason:
            self._failed = reason
            path = str(self._registry.view_path or self._registry.directory)
            logger.log(level, message, extra={"path": path, "reason": reason})

    def _write_view(self, sources: Mapping[str, Any]) -> None:
        path = self._registry.view_path
        if path is None:
            return
        view = view_of(sources, self._configured, self._view)
        self._view = view["api_sources"]
        data = dump_document(view)
        if data != self._written or self._is_view_gone():
            write_atomically(path, data)
            self._written = data

    def _is_view_gone(self) -> bool:
        path = self._registry.view_path
        return path is not None and not path.exists()
