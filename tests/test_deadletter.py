"""The file of the events that nobody takes."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from flicker.deadletter import RESPONSE_CHARS, DeadLetters
from flicker.events import Record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIMIT_S = 20.0


def records(numbers: Iterable[int]) -> list[Record]:
    return [Record(b"%016d" % number, b'{"id":%d}' % number) for number in numbers]


def test_a_line_tells_when_whose_why_and_what(tmp_path: Path) -> None:
    """T62: the event is the vendor's bytes, but for the line breaks between its tokens."""
    dead_letters = DeadLetters(tmp_path / "new" / "dead.jsonl")
    event = b'{"n": 12345678901234567890,\r\n "text": "a\\nb\xe2\x80\xa8"}'
    dead_letters.write('s "1"\n', [Record(b"", event)], 422, 'says "no"\n\0')
    dead_letters.write("t", records([7, 8]), None, "x" * (RESPONSE_CHARS + 1))
    data = dead_letters.path.read_bytes()
    assert b"12345678901234567890,  " in data
    lines = data.split(b"\n")
    assert lines.pop() == b""
    first, *others = map(json.loads, lines)
    assert list(first) == ["when", "source", "status", "response", "event"]
    assert datetime.fromisoformat(first["when"].replace("Z", "+00:00")).tzinfo is not None
    assert (first["source"], first["status"], first["response"]) == (
        's "1"\n',
        422,
        'says "no"\n\0',
    )
    assert first["event"] == {"n": 12345678901234567890, "text": "a\nb\u2028"}
    assert [(other["event"]["id"], other["status"]) for other in others] == [(7, None), (8, None)]
    assert len(others[0]["response"]) == RESPONSE_CHARS
    assert dead_letters.path.stat().st_mode & 0o777 == 0o600


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    """T60: a process killed in the middle of a line."""
    path = tmp_path / "dead.jsonl"
    DeadLetters(path).write("s", records([1]), 400, "")
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + whole[:length])
        DeadLetters(path).write("s", records([2]), 400, "")
        first, torn, last = path.read_bytes().splitlines()
        assert (json.loads(first)["event"], json.loads(last)["event"]) == ({"id": 1}, {"id": 2})
        assert torn == whole[:length].rstrip()


@pytest.mark.parametrize("kind", ["full", "directory", "file above"])
def test_says_so_when_the_disk_does_not_take_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "dead.jsonl"
    if kind == "full":
        path.symlink_to("/dev/full")
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("")
        path /= "below"
    with pytest.raises(OSError, match=r"."):
        DeadLetters(path).write("s", records([1]), 400, "")


_SHORT_OF_SPACE = """
import resource, sys
from pathlib import Path
from flicker.deadletter import DeadLetters
from flicker.events import Record
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
dead_letters = DeadLetters(Path(sys.argv[1]))
taken = 0
for number in range(9):
    try:
        dead_letters.write("s", [Record(b"", b'{"id":%d}' % number)], 400, "")
        taken += 1
    except OSError as error:
        assert error.strerror, error
print(taken)
"""


def test_a_full_disk_leaves_whole_lines_and_refuses_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _SHORT_OF_SPACE, str(path)],
        check=True,
        timeout=LIMIT_S,
        capture_output=True,
        text=True,
    )
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["event"]["id"] for line in lines] == list(range(int(done.stdout)))
    assert 0 < len(lines) < 9
    assert lines[-1].endswith(b"\n")


def test_waits_for_the_writer_of_another_process(tmp_path: Path) -> None:
    """Cutting off its own torn line, it would else cut off the other's."""
    path = tmp_path / "dead.jsonl"
    thread = threading.Thread(target=DeadLetters(path).write, args=("s", records([1]), 400, ""))
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(LIMIT_S)
    assert json.loads(path.read_bytes())["event"] == {"id": 1}


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"

    def write(source: str) -> None:
        # Of its own, as another process has one.
        dead_letters = DeadLetters(path)
        for number in range(20):
            dead_letters.write(source, records(range(number, number + 3)), 400, "r" * 300)

    threads = [threading.Thread(target=write, args=(source,)) for source in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len(lines) == 4 * 20 * 3
    for source in "abcd":
        ids = [line["event"]["id"] for line in lines if line["source"] == source]
        assert ids == [number + at for number in range(20) for at in range(3)]
