"""Remembering acknowledgements over a crash."""

from __future__ import annotations

import logging
import subprocess
import sys
from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest

from flicker.journal import AckJournal, list_segments

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENTRY_BYTES = 8 + 16
LIMIT_S = 20.0


def identity(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


def identities(numbers: Iterable[int]) -> set[bytes]:
    return {identity(number) for number in numbers}


def files(directory: Path) -> list[int]:
    return sorted(int(path.name.split(".")[-2]) for path in directory.glob("*.acks"))


def resume(directory: Path, first_segment: int = 0, source: str = "s") -> set[bytes]:
    return AckJournal(directory, source).resume(first_segment)


def test_what_was_appended_is_known_to_the_next_process(tmp_path: Path) -> None:
    journal = AckJournal(tmp_path, "s")
    journal.append([identity(1), identity(2)])
    journal.append([identity(3)])
    assert resume(tmp_path) == identities({1, 2, 3})
    journal.cut()


def test_journals_of_one_listing_find_their_own(tmp_path: Path) -> None:
    """Names that differ in what is not in a file's name among them."""
    sources = ["s", "s.1", "s 1", "s" * 50, "é"]
    for number, source in enumerate(sources):
        for entry in (number, number + 100):
            journal = AckJournal(tmp_path, source)
            journal.append([identity(entry)])
            journal.cut()
    (tmp_path / "notes.txt").touch()
    segments = list_segments(tmp_path)
    for number, source in enumerate(sources):
        journal = AckJournal(tmp_path, source, segments)
        assert journal.resume(0) == identities({number, number + 100})
        assert journal.next_segment == 3
    assert AckJournal(tmp_path, "new", segments).resume(0) == set()
    assert list_segments(tmp_path / "missing") == {}


def test_a_write_cut_short_at_any_byte_costs_its_own_entry_only(tmp_path: Path) -> None:
    """T60: killed during a write, whole entries survive, and nothing that was never written."""
    journal = AckJournal(tmp_path, "s")
    for entry in ([0], [1, 2], [3, 4, 5]):
        journal.append([identity(number) for number in entry])
    journal.cut()
    (path,) = tmp_path.glob("*.acks")
    data = path.read_bytes()
    ends = {24: {0}, 64: {0, 1, 2}, 120: {0, 1, 2, 3, 4, 5}}
    assert len(data) == max(ends)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = max((end for end in ends if end <= length), default=0)
        assert resume(tmp_path) == identities(ends.get(whole, set()))
        # A machine that lost power may leave zeros, or rubbish, in the place of the rest.
        for rest in (b"\0", b"\xff"):
            path.write_bytes(data[:length] + rest * (len(data) - length))
            assert resume(tmp_path) == identities(ends.get(whole, set()))


def test_a_segment_is_cut_only_when_something_was_written(tmp_path: Path) -> None:
    journal = AckJournal(tmp_path, "s")
    assert [journal.cut(), journal.cut()] == [1, 1]
    assert files(tmp_path) == []
    journal.append([identity(1)])
    assert [journal.cut(), journal.cut()] == [2, 2]
    journal.append([identity(2)])
    assert resume(tmp_path, 2) == identities({2})
    journal.cut()


def test_numbering_goes_on_after_a_restart(tmp_path: Path) -> None:
    first = AckJournal(tmp_path, "s")
    first.append([identity(1)])
    first.cut()
    first.append([identity(2)])
    first.cut()
    second = AckJournal(tmp_path, "s")
    assert second.resume(2) == identities({2})
    second.append([identity(3)])
    assert files(tmp_path) == [1, 2, 3]
    assert resume(tmp_path, 2) == identities({2, 3})
    assert second.cut() == 4


def test_numbering_goes_on_after_a_restart_with_all_segments_deleted(tmp_path: Path) -> None:
    """T60: else what this process acknowledges would be invisible to the snapshot."""
    first = AckJournal(tmp_path, "s")
    for number in range(3):
        first.append([identity(number)])
        first.cut()
    first.delete_before(first.cut())
    assert files(tmp_path) == []
    second = AckJournal(tmp_path, "s")
    assert second.resume(4) == set()
    second.append([identity(9)])
    assert resume(tmp_path, 4) == identities({9})
    second.cut()


def test_deletes_what_no_snapshot_needs_and_nothing_else(tmp_path: Path) -> None:
    journal = AckJournal(tmp_path, "s")
    other = AckJournal(tmp_path, "t")
    other.append([identity(0)])
    for number in range(1, 5):
        journal.append([identity(number)])
        journal.cut()
    journal.append([identity(5)])
    journal.delete_before(3)
    assert resume(tmp_path, 3) == identities({3, 4, 5})
    assert resume(tmp_path) == identities({3, 4, 5})
    journal.delete_before(99)
    assert resume(tmp_path) == identities({5})
    # A later process deletes what an earlier one left.
    journal.cut()
    later = AckJournal(tmp_path, "s")
    later.delete_before(6)
    assert resume(tmp_path) == set()
    other.cut()
    assert resume(tmp_path, source="t") == identities({0})


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.b", "a_b"), ("../x", ".._x"), ("ü" * 60, "ü" * 61), ("a", "a*"), ("", "/")],
)
def test_sources_with_similar_names_have_journals_of_their_own(
    tmp_path: Path, one: str, other: str
) -> None:
    """T66: and no name leads out of the directory."""
    for number, name in enumerate((one, other)):
        journal = AckJournal(tmp_path, name)
        journal.append([identity(number)])
        journal.cut()
    assert resume(tmp_path, source=one) == identities({0})
    assert resume(tmp_path, source=other) == identities({1})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_warned_of_once_and_does_not_stop_deliveries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = AckJournal(tmp_path, "s")
    journal.append([identity(1)])
    journal.cut()
    stem = next(tmp_path.glob("*.acks")).name.rsplit(".", 2)[0]
    for segment in (2, 3, 4):
        (tmp_path / f"{stem}.{segment}.acks").symlink_to("/dev/full")
    for number in (2, 3, 4, 5):
        journal.append([identity(number)])
    assert [entry.getMessage() for entry in caplog.records] == [
        "cannot write the acknowledgement journal; a crash would repeat events"
    ]
    journal.cut()
    for segment in (2, 3, 4):
        (tmp_path / f"{stem}.{segment}.acks").unlink()
    # Behind a failure, whatever is written counts again.
    assert resume(tmp_path) == identities({1, 5})


_SHORT_OF_SPACE = """
import resource, sys
from pathlib import Path
from flicker.journal import AckJournal, list_segments
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
journal = AckJournal(Path(sys.argv[1]), "s")
for number in range(6):
    journal.append([bytes([number]) * 16])
journal.cut()
"""


def test_an_entry_that_a_full_disk_cut_short_does_not_hide_the_next(tmp_path: Path) -> None:
    """Each file takes one entry and 16 bytes of the next, which is torn and repeated."""
    subprocess.run(
        [sys.executable, "-c", _SHORT_OF_SPACE, str(tmp_path)], check=True, timeout=LIMIT_S
    )
    assert resume(tmp_path) == {bytes([number]) * 16 for number in (0, 2, 4)}


def test_an_unreadable_segment_costs_repeats_and_not_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = AckJournal(tmp_path, "s")
    for number in range(2):
        journal.append([identity(number)])
        journal.cut()
    path = next(path for path in tmp_path.iterdir() if ".1." in path.name)
    path.unlink()
    path.mkdir()
    assert resume(tmp_path) == identities({1})
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_others_cannot_read_it(tmp_path: Path) -> None:
    """T67: it tells when what was delivered."""
    journal = AckJournal(tmp_path, "s")
    journal.append([identity(1)])
    journal.cut()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
