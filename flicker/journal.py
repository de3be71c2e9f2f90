"""What was acknowledged since the last snapshot, so that a crash repeats less.

A snapshot is up to an interval old when the process dies. Whatever was
acknowledged in that interval is in files of this module, written with one
`write` right after each answer: the kernel keeps it even when the process is
killed. What a lost machine loses is at most repeated.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import zlib
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from flicker.events import IDENTITY_BYTES, split_identities

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEAD = struct.Struct("<II")
"""Count of identities, and the CRC-32 of what they are."""

logger = logging.getLogger(__name__)


class AckJournal:
    """The acknowledged identities of one source, in numbered segments.

    A snapshot remembers the segment that was opened with it: that one and all
    later ones hold what the snapshot does not know. Not safe for concurrent
    use; the outbox calls it under its lock.

    Args:
        directory: Where segments are; it exists.
        source: Name of the source.
        segments: What `list_segments` found, where many journals are opened.
    """

    def __init__(
        self, directory: Path, source: str, segments: Mapping[str, list[int]] | None = None
    ) -> None:
        self._directory = directory
        self._source = source
        slug = re.sub(r"[^A-Za-z0-9_-]", "_", source)[:40]
        self._stem = f"{slug}-{blake2b(source.encode(), digest_size=8).hexdigest()}"
        found = list_segments(directory) if segments is None else segments
        self._found = found.get(self._stem, [])
        self._segment = max(self._found, default=0) + 1
        self._file: int | None = None
        self._failed = False

    def append(self, identities: list[bytes]) -> None:
        """Write down that these were acknowledged.

        A disk that takes no more does not stop deliveries: the events would
        then be repeated after a crash, and that is logged.
        """
        ids = b"".join(identities)
        entry = _HEAD.pack(len(identities), zlib.crc32(ids)) + ids
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._file = os.open(self._path(self._segment), flags, 0o600)
                self._found.append(self._segment)
            written = os.write(self._file, entry)
            if written < len(entry):
                raise OSError(None, "the disk took only a part")
            self._failed = False
        except OSError as error:
            # Nothing may follow a torn entry, so the next one opens a segment.
            self.cut()
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, exist_ok=True)
            if not self._failed:
                self._failed = True
                logger.warning(
                    "cannot write the acknowledgement journal; a crash would repeat events",
                    extra={"source": self._source, "reason": error.strerror},
                )

    def cut(self) -> int:
        """Open a new segment, unless the current one is empty.

        Returns:
            Number of the segment that the next entry goes to.
        """
        if self._file is not None:
            file, self._file = self._file, None
            self._segment += 1
            # Some file systems report a full disk here. What is missing of
            # the entry is then found torn.
            with suppress(OSError):
                os.close(file)
        return self._segment

    @property
    def next_segment(self) -> int:
        """Number of a segment that no entry went to yet."""
        return self._segment if self._file is None else self._segment + 1

    def resume(self, first_segment: int) -> set[bytes]:
        """Read what was acknowledged since a segment was opened.

        A torn entry ends its segment: the answer came, the process died while
        it wrote, and the events are repeated. New entries get numbers behind
        both the segments found and `first_segment`: where all segments were
        deleted, counting anew from 1 would hide them from the snapshot.
        """
        self._segment = max(self._segment, first_segment)
        known: set[bytes] = set()
        for segment in self._found:
            if segment >= first_segment:
                try:
                    known.update(_read_segment(self._path(segment)))
                except OSError as error:
                    logger.warning(
                        "cannot read the acknowledgement journal; events may be repeated",
                        extra={"source": self._source, "reason": error.strerror},
                    )
        return known

    def delete_before(self, segment: int) -> bool:
        """Delete segments that no snapshot needs; the current one stays.

        Returns:
            Whether none of them is left.
        """
        kept = []
        is_done = True
        for number in self._found:
            if number < min(segment, self._segment):
                try:
                    self._path(number).unlink(missing_ok=True)
                except OSError:
                    kept.append(number)
                    is_done = False
            else:
                kept.append(number)
        self._found = kept
        return is_done

    def delete_all(self) -> None:
        """Delete all segments, which nothing is written to at the moment."""
        for number in self._found:
            self._path(number).unlink(missing_ok=True)
        self._found = []

    def _path(self, segment: int) -> Path:
        return self._directory / f"{self._stem}.{segment}.acks"


def list_segments(directory: Path) -> dict[str, list[int]]:
    """Give the numbers of all segments, in order, by the stem of their names."""
    found: dict[str, list[int]] = {}
    names: list[str] = []
    with suppress(FileNotFoundError):
        names = [path.name for path in directory.iterdir()]
    for name in names:
        stem, *rest = name.split(".")
        if len(rest) == 2 and rest[1] == "acks" and rest[0].isdecimal():
            found.setdefault(stem, []).append(int(rest[0]))
    for numbers in found.values():
        numbers.sort()
    return found


def _read_segment(path: Path) -> list[bytes]:
    data = path.read_bytes()
    known: list[bytes] = []
    at = 0
    while at + _HEAD.size <= len(data):
        count, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        ids = data[at : at + count * IDENTITY_BYTES]
        if len(ids) < count * IDENTITY_BYTES or zlib.crc32(ids) != checksum:
            break
        known += split_identities(ids)
        at += len(ids)
    return known
