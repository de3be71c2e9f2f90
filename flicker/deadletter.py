"""The file for events that the destination will never take."""

from __future__ import annotations

import fcntl
import os
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from flicker.events import Record

RESPONSE_CHARS = 1000


class DeadLetters:
    """Appends refused events to a file of JSON lines.

    A line is `{"when", "source", "status", "response", "event"}`, its event
    the record as it was sent. Safe for concurrent use.

    Args:
        path: Created, with its directory, when the first event comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, source: str, records: list[Record], status: int | None, response: str) -> None:
        """Append events and have them on the disk before returning.

        Args:
            source: Name of the source.
            records: The events.
            status: HTTP status of the refusal, None where there was no answer.
            response: Text of the refusal, without secrets.

        Raises:
            OSError: They are not on the disk.
        """
        when = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        head = {
            "when": when.replace("+00:00", "Z"),
            "source": source,
            "status": status,
            "response": response[:RESPONSE_CHARS],
        }
        start = msgspec.json.encode(head)[:-1] + b',"event":'
        lines = []
        for record in records:
            event = record.body.replace(b"\r", b" ").replace(b"\n", b" ")
            lines.append(start + event + b"}\n")
        data = b"".join(lines)
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # Other processes of a cluster write to it too.
                fcntl.flock(file, fcntl.LOCK_EX)
                end = os.fstat(file).st_size
                if end and os.pread(file, 1, end - 1) != b"\n":
                    # A line that a full disk cut short.
                    data = b"\n" + data
                if os.write(file, data) < len(data):
                    os.ftruncate(file, end)
                    raise OSError(None, "the disk is full")
                os.fsync(file)
            finally:
                os.close(file)
