"""`flicker demo`: ship, die, resume, count.

Everything is real but the vendor and the SIEM, which are servers on 127.0.0.1
that keep count: the command runs in a process of its own, is killed with
SIGKILL in the middle, and is started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from flicker.demo.events import make_event
from flicker.demo.servers import Destination, OktaApi
from flicker.demo.table import Board, Reading, open_board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from flicker.demo.servers import Request, Response

SECONDS = 15.0
"""About how long the tour takes; FLICKER_DEMO_SECONDS overrides it."""

BACKLOG_PER_S = 160
"""Events that wait at the start, for each second of the tour."""

ARRIVALS_PER_S = 60
BURST_S = 1.0
"""Arrivals come in bursts, so that some of the polls find nothing new."""

LATE_EVERY = 50
"""Each so many-th arrival was published long before it arrives."""

LATE_NS = 10 * 60 * 10**9
SPACING_NS = 800_000_000
"""Time between two events of the backlog."""

PAGE_DELAY_S = 0.18
ACCEPT_DELAY_S = 0.02
EVERY_NTH_429 = 20

TICK_S = 0.1
DEAD_S = 1.2
LIMIT_S = 60.0
"""Bound on each wait of the tour."""

STOP_LIMIT_S = 20.0
READ_MARGIN_S = 0.1
"""An answer sent so shortly before the kill may not have been read."""

CONFIG = """\
api_sources:
  - name: "okta-audit-logs"
    endpoint: "{api}/api/v1/logs"
    polling_frequency_ms: 500
    headers:
      Authorization: "SSWS ${{OKTA_TOKEN}}"
    results_field: ""               # the response itself is the list
    timestamp_field: "published"
    message_field: "displayMessage"
    id_field: "uuid"
    time_filter_param: "since"
    time_filter_format: "iso8601"
    pagination:
      pagination_type: "cursor"
      cursor_param: "after"
      next_cursor_field: "next"     # the Link header with rel="next"
      limit_param: "limit"
      page_size: 100
    buffer_size: 50
    flush_interval_ms: 1000
    destination:
      type: "http"
      endpoint: "{siem}/ingest"
      auth:
        type: "bearer"
        token: "${{SIEM_TOKEN}}"
"""

# The kernel ends Flicker with the tour, even where the tour is killed itself.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class TourError(Exception):
    """The tour cannot go on; the message says why."""


@dataclass(frozen=True)
class Count:
    """What both servers counted.

    Attributes:
        recorded: Events that the API has.
        served: Distinct ones that were in an answer.
        delivered: Distinct ones that the destination accepted.
        lost: Events that the API has and the destination does not.
        repeated: Deliveries beyond the first of each event.
        unexplained: Repeats of events that were not in an unanswered request
            when Flicker was killed; there should be none.
    """

    recorded: int
    served: int
    delivered: int
    lost: int
    repeated: int
    unexplained: int = 0


def count_events(api: OktaApi, destination: Destination, unanswered: frozenset[str]) -> Count:
    """Compare what the API has with what the destination got.

    Args:
        api: Where the events come from; their `uuid` is the record's id.
        destination: Where they went.
        unanswered: Ids in requests that Flicker had no answer to when it was
            killed.
    """
    recorded = set(api.uuids)
    delivered = destination.ids
    repeats = destination.duplicates
    return Count(
        recorded=len(recorded),
        served=api.served_count,
        delivered=len(recorded & delivered.keys()),
        lost=len(recorded - delivered.keys()),
        repeated=sum(repeats.values()),
        unexplained=sum(n for event_id, n in repeats.items() if event_id not in unanswered),
    )


class _Vendor(OktaApi):
    """An API that takes its time, as APIs do."""

    def answer(self, request: Request) -> Response:
        """Answer as Okta, after a while."""
        return replace(super().answer(request), delay_s=PAGE_DELAY_S)


class _Siem(Destination):
    """A destination that knows which answers the client may not have read."""

    def __init__(self, *, token: str) -> None:
        super().__init__(token=token, delay_s=ACCEPT_DELAY_S)
        self._open_lock = threading.Lock()
        self._answered: deque[tuple[Request, float]] = deque(maxlen=1000)
        self._open: list[Request] = []

    @contextlib.contextmanager
    def exchange(self, request: Request) -> Iterator[Response]:
        """Note when the answer is on its way."""
        with self._open_lock:
            self._open.append(request)
        try:
            with super().exchange(request) as response:
                yield response
        finally:
            with self._open_lock:
                self._open.remove(request)
                self._answered.append((request, time.monotonic()))

    def unanswered_at(self, instant_s: float) -> frozenset[str]:
        """Give the ids in requests that had no answer yet, or one just sent."""
        with self._open_lock:
            requests = [
                *self._open,
                *(r for r, at in self._answered if at >= instant_s - READ_MARGIN_S),
            ]
        posts = [post for post in self.posts if any(_is_same(post, r) for r in requests)]
        return frozenset(record.id for post in posts for record in post.records)


def _is_same(post: Request, request: Request) -> bool:
    return post.received_s == request.received_s and post.body == request.body


class _Tour:
    """The servers, the command between them, and the events that keep coming."""

    def __init__(
        self, board: Board, directory: Path, seconds: float, signals: Sequence[int] = ()
    ) -> None:
        self._board = board
        self._signals = signals
        self._directory = directory
        self._config = directory / "config.yaml"
        self._log = directory / "flicker.log"
        self._seconds = seconds
        self._rng = random.Random()
        self._tokens = {"OKTA_TOKEN": secrets.token_hex(16), "SIEM_TOKEN": secrets.token_hex(16)}
        self.api = _Vendor(token=self._tokens["OKTA_TOKEN"], every_nth_429=EVERY_NTH_429)
        self.siem = _Siem(token=self._tokens["SIEM_TOKEN"])
        self.late: set[str] = set()
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = time.monotonic()
        self._arriving_since_s: float | None = None
        self._arrived = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=int(2 / TICK_S))
        self._unanswered: frozenset[str] = frozenset()

    def run(self) -> Count:
        """Go through the whole tour.

        Raises:
            TourError: Something did not come about in time.
            KeyboardInterrupt: A signal asked for the end.
        """
        backlog = int(BACKLOG_PER_S * self._seconds)
        self._add_backlog(backlog)
        text = CONFIG.format(api=self.api.url, siem=self.siem.url)
        self._config.write_text(text, encoding="utf-8")
        say = self._board.say
        say("Flicker's demo: a vendor's API, Flicker and a SIEM, all on this machine.", "bold")
        say()
        say(f"  The API behaves like Okta's. It holds {backlog:,} events, and more arrive all")
        say("  the time, some of them late. Now and then it answers 429, too many requests.")
        say("  All that Flicker is told stands in config.yaml:")
        say()
        for line in text.splitlines():
            say(f"    {line}", "cyan")
        say()
        self._started_s = self._arriving_since_s = time.monotonic()
        self._start()
        self._go_on("is running", lambda: self.siem.distinct_count >= backlog * 11 // 20)
        self._kill()
        dead_until_s = time.monotonic() + min(DEAD_S, self._seconds / 5)
        self._go_on("is dead; events keep coming", lambda: time.monotonic() >= dead_until_s)
        self._start()
        self._go_on("is running again", lambda: self._is_tailing(backlog))
        self._arriving_since_s = None
        say("  No more events arrive. Waiting until Flicker has caught up.")
        total = len(self.api.uuids)
        self._go_on("is catching up", lambda: self.siem.distinct_count >= total)
        self._stop()
        return count_events(self.api, self.siem, self._unanswered)

    def end(self) -> None:
        """Leave no process behind."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def position(self) -> str:
        """What the registry says now."""
        return describe_position(self._directory / ".flicker-registry.json")

    def _is_tailing(self, backlog: int) -> bool:
        elapsed_s = time.monotonic() - self._started_s
        return self.siem.distinct_count >= backlog and elapsed_s >= self._seconds * 0.8

    def _start(self) -> None:
        """Start the command; its log goes to a file."""
        command = ["-m", "flicker", "-c", self._config.name, "--track"]
        if sys.platform == "linux":
            command = ["-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        environ = {**os.environ, **self._tokens, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [sys.executable, *command],
                cwd=self._directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # So that Ctrl-C is the tour's to handle.
                start_new_session=True,
            )
        self._board.say(f"  $ flicker -c config.yaml --track   (process {self._process.pid})")

    def _kill(self) -> None:
        process = self._running()
        killed_at_s = time.monotonic()
        process.kill()
        process.wait()
        self._process = None
        self._unanswered = self.siem.unanswered_at(killed_at_s)
        self._board.say(
            f"  $ kill -9 {process.pid}   (in the middle, with "
            f"{len(self.api.uuids) - self.siem.distinct_count:,} events to go)",
            "red",
        )

    def _stop(self) -> None:
        process = self._running()
        self._board.say(f"  $ kill {process.pid}   (SIGTERM: deliver what is held, and end)")
        process.terminate()
        limit_s = time.monotonic() + STOP_LIMIT_S
        while (code := process.poll()) is None:
            if time.monotonic() > limit_s:
                message = f"Flicker did not stop within {STOP_LIMIT_S:g} s of SIGTERM"
                raise TourError(message)
            self._pause()
        self._process = None
        if code:
            raise TourError(f"Flicker ended with exit code {code} on SIGTERM{self._log_tail()}")
        self._board.show(self._read("has ended with exit code 0", is_up=False))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise TourError(f"Flicker ended by itself{self._log_tail()}")
        return self._process

    def _go_on(self, state: str, is_reached: Callable[[], bool]) -> None:
        """Let events arrive and show the table until something has come about.

        Raises:
            TourError: It has not in time, or Flicker ended by itself.
        """
        pid = None if self._process is None else self._process.pid
        limit_s = time.monotonic() + LIMIT_S
        while True:
            self._add_arrivals()
            self._board.show(self._read(state, is_up=pid is not None))
            if is_reached():
                return
            if pid is not None:
                self._running()
            if time.monotonic() > limit_s:
                raise TourError(f"nothing more arrived for {LIMIT_S:g} s{self._log_tail()}")
            self._pause()

    def _pause(self) -> None:
        """Let a tick pass.

        Raises:
            KeyboardInterrupt: A signal asked for the end.
        """
        time.sleep(TICK_S)
        if self._signals:
            raise KeyboardInterrupt

    def _add_backlog(self, count: int) -> None:
        now_ns = time.time_ns()
        self.api.add(
            make_event(number, now_ns - (count - number) * SPACING_NS, self._rng)
            for number in range(count)
        )
        self._number = count

    def _add_arrivals(self) -> None:
        if self._arriving_since_s is None:
            return
        bursts = int((time.monotonic() - self._arriving_since_s) / BURST_S)
        due = int(bursts * BURST_S * ARRIVALS_PER_S)
        events = []
        for _ in range(due - self._arrived):
            self._arrived += 1
            self._number += 1
            is_late = self._arrived % LATE_EVERY == 0
            published_ns = time.time_ns() - (LATE_NS if is_late else 0)
            event = make_event(self._number, published_ns, self._rng)
            events.append(event)
            if is_late:
                self.late.add(str(event["uuid"]))
        self.api.add(events)

    def _read(self, state: str, *, is_up: bool) -> Reading:
        now_s = time.monotonic()
        shipped = self.siem.distinct_count
        self._recent.append((now_s, shipped))
        since_s, before = self._recent[0]
        return Reading(
            elapsed_s=now_s - self._started_s,
            recorded=len(self.api.uuids),
            served=self.api.served_count,
            shipped=shipped,
            rate=(shipped - before) / max(now_s - since_s, TICK_S),
            position=self.position,
            state=state,
            is_up=is_up,
        )

    def _log_tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        return ". Its last words:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


def describe_position(registry_path: Path) -> str:
    """Give the position that a registry of one source shows, short."""
    try:
        view: dict[str, Any] = json.loads(registry_path.read_bytes())
        [position] = view["api_sources"].values()
    except (OSError, ValueError, KeyError):
        return ""
    parts = []
    if position.get("last_timestamp"):
        parts.append(str(position["last_timestamp"])[11:])
    cursor = parse_qs(urlsplit(str(position.get("cursor") or "")).query).get("after")
    if cursor:
        # Its first letters are a signature, and the last tell pages apart.
        parts.append(f"after=..{cursor[0][-10:]}")
    return "  ".join(parts)


def run_tour(out: TextIO | None = None) -> int:
    """Show Flicker at work, from its start over a crash to the count.

    Args:
        out: Where to show it; by default the standard output.

    Returns:
        0 when nothing was lost; 1 when something was, or when the tour was
        interrupted.
    """
    out = out or sys.stdout
    seconds = _seconds(os.environ.get("FLICKER_DEMO_SECONDS", ""))
    board = open_board(out, os.environ)
    try:
        with _note_signals() as signals, contextlib.ExitStack() as stack:
            stack.callback(board.close)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flicker-")))
            tour = _Tour(board, directory, seconds, signals)
            stack.callback(tour.api.stop)
            stack.callback(tour.siem.stop)
            stack.callback(tour.end)
            tour.api.start()
            tour.siem.start()
            count = tour.run()
            board.close()
            report(board, count, tour)
            return 0 if count.lost == 0 else 1
    except KeyboardInterrupt:
        board.say("\nStopped; nothing is left running.")
        return 1
    except TourError as error:
        board.say(f"\nThe demo failed: {error}", "red")
        return 1
    except BrokenPipeError:
        # Whoever read along has left; the interpreter would complain at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1


def report(board: Board, count: Count, tour: _Tour) -> None:
    """Print the count, and what there is to say about it."""
    late = len(tour.late & tour.siem.ids.keys())
    board.say()
    board.say("  Counted at both servers:", "bold")
    board.say(
        f"  served {count.served:,}   delivered {count.delivered:,}   lost {count.lost:,}   "
        f"repeated {count.repeated:,}",
        "green" if count.lost == 0 else "red",
    )
    board.say()
    board.say(f"  Position in the registry: {tour.position or 'none'}.", "dim")
    board.say(f"  Late events delivered: {late} of {len(tour.late)}.", "dim")
    board.say(f"  Requests that the API put off with 429: {tour.api.limited_count}.", "dim")
    explained = count.repeated - count.unexplained
    if not count.repeated:
        board.say("  None repeated: no accepted request was without its answer at the kill.", "dim")
    if explained:
        board.say(f"  {explained} repeated: the SIEM had accepted a request with them, and Flicker")
        board.say("  was killed before it had read the answer. It cannot know, so it sends them")
        board.say("  again, each with the same id as before, by which a SIEM can drop it.")
    if count.unexplained:
        board.say(f"  {count.unexplained} repeated without such a reason. Please report it.", "red")
    if count.lost:
        board.say(f"  {count.lost} lost, and none should be. Please report it.", "red")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return SECONDS
    return min(max(seconds, 1.0), 600.0)


@contextlib.contextmanager
def _note_signals() -> Iterator[list[int]]:
    """Give a list that SIGINT, SIGTERM and SIGHUP are added to, for the tour to look at.

    An exception out of the handler could leave a lock taken: a server's, or
    that of `Popen.poll`, behind which `Popen.wait` would wait for ever. The
    second signal raises one all the same: the tour may hang over its output.
    """
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, frame: object) -> None:
        del frame
        signals.append(number)
        if len(signals) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
