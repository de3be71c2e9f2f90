from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flicker import config
from flicker.demo import tour
from flicker.demo.servers import Request, Response
from flicker.demo.table import LiveBoard, PlainBoard, Reading, open_board

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FLICKER = [sys.executable, "-m", "flicker"]
LIMIT_S = 60.0
COUNT = re.compile(r"served ([\d,]+) +delivered ([\d,]+) +lost ([\d,]+) +repeated ([\d,]+)")
STARTED = re.compile(r"\$ flicker -c config\.yaml --track +\(process (\d+)\)")
STYLE = re.compile(r"\x1b\[[\d;]*m")


def demo_environ(directory: Path, seconds: float, **more: str) -> dict[str, str]:
    """The environment of a demo whose temporary files can be looked for afterwards."""
    environ = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
    environ |= {"FLICKER_DEMO_SECONDS": str(seconds), "TMPDIR": str(directory), **more}
    return environ


def wait_until_gone(pid: int, limit_s: float = LIMIT_S) -> bool:
    """Wait until a process has ended; one that nobody has buried yet has ended too."""
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    while True:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        if time.monotonic() >= deadline:
            return False
        pause.wait(0.02)


@pytest.mark.process
def test_demo_ends_on_its_count_and_writes_plain_lines_to_a_pipe(tmp_path: Path) -> None:
    """T60: after a SIGKILL in the middle every event has arrived."""
    ended = subprocess.run(
        [*FLICKER, "demo"],
        env=demo_environ(tmp_path, 4),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    text = ended.stdout.decode()
    assert (ended.returncode, ended.stderr) == (0, b""), text
    counts = COUNT.search(text)
    assert counts is not None, text
    served, delivered, lost, repeated = (int(number.replace(",", "")) for number in counts.groups())
    assert served == delivered > 4 * tour.BACKLOG_PER_S
    assert lost == 0
    assert "without such a reason" not in text
    assert (f"{repeated} repeated: the SIEM had accepted" in text) is (repeated > 0)
    late = re.search(r"Late events delivered: (\d+) of (\d+)", text)
    assert late is not None
    assert late[1] == late[2] != "0"
    # Two processes of Flicker, the first of them killed.
    pids = STARTED.findall(text)
    assert len(set(pids)) == 2
    assert f"$ kill -9 {pids[0]} " in text
    assert not [character for character in text if ord(character) < 0x20 and character != "\n"]
    # The servers' lines: time, served, shipped, pending, rate, position.
    rows = re.findall(r"^ +[\d.]+ s +([\d,]+) +([\d,]+) +([\d,]+) +\d+/s   \S", text, re.MULTILINE)
    assert len(rows) >= 3
    # What it shows as its configuration is one.
    shown = text[text.index("    api_sources:") : text.index("  $ flicker")]
    config.parse(shown, {"OKTA_TOKEN": "a-token", "SIEM_TOKEN": "another"}, origin="demo")
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_demo_draws_a_table_in_place_on_a_terminal(tmp_path: Path) -> None:
    environ = demo_environ(tmp_path, 3, TERM="xterm", NO_COLOR="1", PYTHONIOENCODING="utf-8")
    code, text = run_on_a_terminal([*FLICKER, "demo"], environ)
    assert code == 0, text
    counts = COUNT.search(text)
    assert counts is not None
    assert counts[1] == counts[2]
    assert counts[3] == "0"
    screen = play_terminal(text)
    # What is left on the screen: one table, and each thing said once.
    assert screen.count("   served  shipped  pending     rate   position") == 1
    assert screen.count("$ kill -9") == 1
    assert "█" * 66 in screen
    assert "Flicker has ended with exit code 0" in screen
    assert text.count("\x1b[6A") > 20
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert not STYLE.search(text)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*FLICKER, "demo"],
        env=demo_environ(tmp_path, 60),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pid = 0
        try:
            # A line of the table tells that the shipping has begun.
            for line in process.stdout:
                started = STARTED.search(line.decode())
                pid = int(started[1]) if started else pid
                if pid and b"/s   " in line:
                    break
            assert pid
            process.send_signal(number)
            code = process.wait(LIMIT_S)
            assert wait_until_gone(pid)
            assert process.stderr.read() == b""
            if number != signal.SIGKILL:
                assert code == 1
                assert b"Stopped; nothing is left running." in process.stdout.read()
                assert not list(tmp_path.iterdir())
        finally:
            process.kill()
            if pid and not wait_until_gone(pid, 0.0):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_tour_where_no_lock_is_held(
    tmp_path: Path, number: signal.Signals
) -> None:
    """An exception in the middle of `Popen.poll` would have `Popen.wait` hang."""
    before = signal.getsignal(number)
    with tour._note_signals() as signals, idle_tour(tmp_path, signals) as (made, _):
        made._pause()
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            made._pause()
        # Whoever asks again does not wait for anything.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_demo_whose_flicker_ends_by_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "CONFIG", tour.CONFIG.replace("polling_frequency_ms", "poling"))
    monkeypatch.setenv("FLICKER_DEMO_SECONDS", "1")
    out = io.StringIO()
    assert tour.run_tour(out) == 1
    assert "The demo failed: Flicker ended by itself. Its last words:" in out.getvalue()
    assert "api_sources[0].poling" in out.getvalue()


@contextlib.contextmanager
def idle_tour(
    directory: Path, signals: Sequence[int] = ()
) -> Iterator[tuple[tour._Tour, io.StringIO]]:
    """A tour whose servers run and whose Flicker does not."""
    out = io.StringIO()
    made = tour._Tour(PlainBoard(out), directory, 1.0, signals)
    with made.api, made.siem:
        made.siem.delay_s = 0.0
        yield made, out


def body_of(*ids: str) -> bytes:
    records: list[dict[str, object]] = [
        {"source": "s", "id": event_id, "timestamp": None, "message": None, "event": {}}
        for event_id in ids
    ]
    return json.dumps(records).encode()


def post(made: tour._Tour, *ids: str) -> None:
    headers = (("Authorization", f"Bearer {made._tokens['SIEM_TOKEN']}"),)
    response = made.siem.answer(Request("POST", "/ingest", headers, body_of(*ids), 0.0))
    assert response.status == 200


@pytest.mark.parametrize(
    ("delivered", "expected", "told"),
    [
        pytest.param(["a", "b", "c"], tour.Count(3, 0, 3, 0, 0, 0), "None repeated", id="all-once"),
        pytest.param(
            ["a", "b", "c", "b"],
            tour.Count(3, 0, 3, 0, 1, 0),
            "1 repeated: the SIEM had accepted",
            id="unanswered-one-repeated",
        ),
        pytest.param(
            ["a", "b", "c", "c", "c"],
            tour.Count(3, 0, 3, 0, 2, 2),
            "2 repeated without such a reason",
            id="other-one-repeated",
        ),
        pytest.param(
            ["a", "c", "foreign"], tour.Count(3, 0, 2, 1, 0, 0), "1 lost, and none", id="one-lost"
        ),
    ],
)
def test_count_is_what_the_servers_counted(
    tmp_path: Path, delivered: list[str], expected: tour.Count, told: str
) -> None:
    with idle_tour(tmp_path) as (made, out):
        made.api.add([{"uuid": uuid} for uuid in "abc"])
        for event_id in delivered:
            post(made, event_id)
        count = tour.count_events(made.api, made.siem, frozenset({"b"}))
        assert count == expected
        tour.report(PlainBoard(out), count, made)
        assert told in out.getvalue()
        assert COUNT.search(out.getvalue())


def test_knows_which_requests_were_unanswered(tmp_path: Path) -> None:
    with idle_tour(tmp_path) as (made, _):
        post(made, "long-ago")
        made.siem.respond = lambda _: Response(200, fault="silence")
        request = urllib.request.Request(  # noqa: S310 - of the test's own server
            f"{made.siem.url}/ingest", body_of("a", "b"), method="POST"
        )

        def send() -> None:
            with urllib.request.urlopen(request, timeout=LIMIT_S):  # noqa: S310
                pass

        client = threading.Thread(target=send)
        client.start()
        try:
            assert made.siem.wait_for_silence(1, LIMIT_S)
            assert made.siem.unanswered_at(time.monotonic()) == {"a", "b"}
        finally:
            made.siem.release()
            client.join(LIMIT_S)
        # Joins the server's threads: they end after the client has its answer.
        made.siem.stop()
        later_s = time.monotonic() + tour.READ_MARGIN_S + 1
        assert made.siem.unanswered_at(later_s) == frozenset()


@pytest.mark.parametrize(
    ("registry", "position"),
    [
        (None, ""),
        ("", ""),
        ('{"version": 1, "api_sources": {}}', ""),
        ('{"api_sources": {"a": {"last_timestamp": null, "cursor": null}}}', ""),
        (
            '{"api_sources":{"a":{"last_timestamp":"2026-11-23T04:41:15Z","cursor":"?after=%2B"}}}',
            "04:41:15Z  after=..+",
        ),
    ],
)
def test_position_is_the_registrys(tmp_path: Path, registry: str | None, position: str) -> None:
    path = tmp_path / "registry.json"
    if registry is not None:
        path.write_text(registry, encoding="utf-8")
    assert tour.describe_position(path) == position


READING = Reading(1.0, 100, 60, 30, 12.4, "here", "is running", is_up=True)


def test_live_board_keeps_what_is_said_above_its_table() -> None:
    out = io.StringIO()
    board = LiveBoard(out, use_color=True)
    board.say("first")
    board.show(READING)
    board.say("second", "red")
    board.show(READING._replace(shipped=60, elapsed_s=2.0))
    board.close()
    board.close()
    assert "\x1b[31msecond\x1b[0m" in out.getvalue()
    lines = play_terminal(STYLE.sub("", out.getvalue())).splitlines()
    assert lines[:2] == ["first", "second"]
    assert "       60       60       40     12/s   here" in lines
    assert sum("here" in line for line in lines) == 1


def test_output_without_a_terminal_or_with_a_dumb_one_gets_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(open_board(io.StringIO(), {"TERM": "xterm"}), PlainBoard)
    assert isinstance(open_board(Terminal(), {"TERM": "dumb"}), PlainBoard)
    assert isinstance(open_board(Terminal(), {}), PlainBoard)
    assert isinstance(open_board(Terminal(), {"TERM": "xterm"}), LiveBoard)


def run_on_a_terminal(command: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal and return its exit code and its output."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            command,
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                output = read_to_end(ours)
            finally:
                if process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(5.0)
                process.kill()
            return process.wait(), output.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def read_to_end(terminal: int) -> bytes:
    output = b""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.5)
        if not ready:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            # Linux says so when the last process has left the terminal.
            break
        if not data:
            break
        output += data
    return output


def play_terminal(text: str) -> str:
    """Give what is on the screen after an output, for the few commands that are used."""
    lines, row = [""], 0
    for token in re.finditer(r"\x1b\[(\??\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]+", text):
        if token[2] == "A":
            row -= int(token[1])
            assert row >= 0
        elif token[2] == "J":
            del lines[row:]
            lines.append("")
        elif token[0] == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif not token[2] and token[0] != "\r":
            lines[row] += token[0]
    return "\n".join(lines)
