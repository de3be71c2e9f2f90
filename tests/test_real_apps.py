"""Flicker against applications that know nothing of it.

Datasette and Django REST framework serve a package manager's log out of SQLite. One `flicker`
process reads it in every way of paging that the application has, each as a source of its own with
a destination of its own; so the ways are tested side by side, as a user would run them.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import sys
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from flicker.demo.servers import Destination, RequestRecord, Response
from tests.processes import make_source, wait_until
from tests.servers import drf_app
from tests.servers.datasette_app import ServedApp, start_datasette

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Home, Process

pytestmark = pytest.mark.process

DPKG_LOG = Path("/var/log/dpkg.log")
DPKG_LINE = re.compile(r"(?m)^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+) (.+)$")
FIRST = datetime(2025, 1, 1, 12, tzinfo=timezone.utc)
BACKLOG_COUNT = 500
LATER_COUNT = 250
MIN_TIES = 60
LATER_PAGE = re.compile(r"[?&](?:_next=|offset=[1-9]|page=(?!1&|1$))")
BIG = 2**53 + 1
PAGE_SIZE = 50
BUFFER_SIZE = 20
QUEUE_SIZE = 4
CONCURRENCY = 4
ANSWERED = 6


class Line(NamedTuple):
    """One line of dpkg's log."""

    at: datetime
    action: str
    details: str


def parse_lines(text: str) -> list[Line]:
    """Read lines such as `2025-06-24 14:36:25 install media-types:all <none> 10.0.0`."""
    return [
        Line(datetime.strptime(f"{at}+0000", "%Y-%m-%d %H:%M:%S%z"), action, details)
        for at, action, details in DPKG_LINE.findall(text)
    ]


def generate_log() -> str:
    """Make a log of the same form: many lines a second, and quiet seconds."""
    lines = []
    for number in range(1200):
        at = FIRST + timedelta(seconds=number // 170 + number // 40)
        verb = ("status unpacked", "status half-configured", "status installed", "install")
        package = f"lib{number:04}:amd64 1.{number % 7}-{number % 3}"
        lines.append(f"{at:%Y-%m-%d %H:%M:%S} {verb[number % 4]} {package}")
        if number % 400 == 399:
            lines += [f"{at:%Y-%m-%d %H:%M:%S} status installed tie{n}:all 1" for n in range(150)]
    return "\n".join(lines)


def cut_within_a_second(lines: list[Line]) -> tuple[list[Line], list[Line]] | None:
    """Cut a log where a crowded second is half written.

    Returns:
        What is there at first, and what is logged later; None where no second
        is crowded enough.
    """
    lines = sorted(lines, key=lambda line: line.at)
    starts: dict[datetime, int] = {}
    for index, line in enumerate(lines):
        starts.setdefault(line.at, index)
    sizes = Counter(line.at for line in lines)
    late_enough = [at for at, start in starts.items() if start >= BACKLOG_COUNT]
    if not late_enough or len(lines) < BACKLOG_COUNT + LATER_COUNT:
        return None
    crowded = max(late_enough, key=lambda at: sizes[at])
    cut = starts[crowded] + sizes[crowded] // 2
    later = lines[cut : cut + LATER_COUNT]
    if sizes[crowded] < MIN_TIES or len(later) < LATER_COUNT:
        return None
    return lines[cut - BACKLOG_COUNT : cut], later


class PackageLog:
    """The machine's own log where there is one, line by line in a SQLite table."""

    def __init__(self, path: Path, time_format: str) -> None:
        """Create the table with the older part of the log.

        Args:
            path: Of the database.
            time_format: How the table holds an instant, for `strftime`.
        """
        text = DPKG_LOG.read_text("utf-8", "replace") if DPKG_LOG.exists() else ""
        parts = cut_within_a_second(parse_lines(text))
        parts = parts or cut_within_a_second(parse_lines(generate_log()))
        assert parts is not None
        backlog, self._later = parts
        self.path = path
        self.count = 0
        self._time_format = time_format
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "create table log (id integer primary key, ts text not null, action text not null,"
                " details text, serial integer not null, weight real not null)"
            )
        self._insert(backlog)

    @property
    def remaining(self) -> int:
        """How many lines are still to be logged."""
        return len(self._later)

    @property
    def newest_at(self) -> datetime:
        """Instant of the newest line."""
        with closing(self._connect()) as connection:
            (text,) = connection.execute("select max(ts) from log").fetchone()
        return instant(text.replace(" ", "T")).replace(tzinfo=timezone.utc)

    def log(self, count: int) -> None:
        """Have the next lines logged."""
        self._insert(self._later[:count])
        del self._later[:count]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=20)

    def _insert(self, lines: list[Line]) -> None:
        rows = [
            (
                line.at.strftime(self._time_format),
                line.action,
                # What a parser that is careless with text or numbers would change.
                None if number % 10 == 0 else f'{line.details} "é\u2028😀\\/"',
                BIG + self.count + number,
                0.1 * number,
            )
            for number, line in enumerate(lines)
        ]
        with closing(self._connect()) as connection, connection:
            connection.executemany(
                "insert into log (ts, action, details, serial, weight) values (?, ?, ?, ?, ?)", rows
            )
        self.count += len(rows)


@dataclass
class Way:
    """A way to read the log: one source, and what arrives from it.

    Attributes:
        name: Of the source.
        target: Path and query of the endpoint.
        keys: Of the source's YAML.
        since: The time filter's value once the whole log has been read, for
            the newest instant; None for a source without a time filter.
        is_newest_first: Whether the application lists the newest first.
    """

    name: str
    target: str
    keys: dict[str, Any]
    since: Callable[[datetime], str] | None = None
    is_newest_first: bool = False
    siem: Destination = field(default_factory=Destination)
    unanswered: list[RequestRecord] = field(default_factory=list)

    def source(self, app: ServedApp) -> dict[str, Any]:
        """Give the source's YAML; without a time filter where there is no `since`."""
        keys: dict[str, Any] = {
            "id_field": "id",
            "timestamp_field": "ts",
            "message_field": "details",
            "time_filter_param": None,
            "polling_frequency_ms": 300,
            "buffer_size": BUFFER_SIZE,
            "destination": {"concurrency": CONCURRENCY},
        }
        return make_source(self.name, app.url + self.target, self.siem.url, **(keys | self.keys))

    def fall_silent(self) -> None:
        """Have the destination take all POSTs, and answer only the first few."""
        numbers = itertools.count()

        def respond(post: RequestRecord) -> Response | None:
            if next(numbers) < ANSWERED:
                return None
            self.unanswered.append(post)
            return Response(200, fault="silence")

        self.siem.respond = respond

    def speak(self) -> None:
        """Have the destination answer again."""
        self.siem.respond = None
        self.siem.release()

    def scans(self, app: ServedApp) -> list[str]:
        """Give the requests for a first page of the endpoint."""
        return [
            asked
            for asked in app.requests
            if asked.startswith(self.target) and not LATER_PAGE.search(asked)
        ]


class Stage:
    """An application that serves a log, Flicker that reads it in several ways."""

    def __init__(
        self, home: Home, app: ServedApp, listing: str, log: PackageLog, *ways: Way
    ) -> None:
        """Write the configuration.

        Args:
            home: Of Flicker.
            app: Serves the log.
            listing: Path of a listing of the whole log.
            log: What is served.
            ways: How it is read.
        """
        self._home = home
        self._app = app
        self._listing = listing
        self._log = log
        self._ways = ways
        home.configure(*(way.source(app) for way in ways), retry={"max_queue_size": QUEUE_SIZE})

    def run_until_killed(self, *, is_registered: bool) -> None:
        """Start Flicker, and kill it with requests unanswered, in the middle of a scan.

        Args:
            is_registered: Whether it dies when the registry shows that, and
                not at once, when only its journal knows what was acknowledged.
        """
        for way in self._ways:
            way.fall_silent()
        process = self._start()
        for way in self._ways:
            assert way.siem.wait_for_silence(CONCURRENCY, 20), (way.name, process.stderr)
        if is_registered:
            assert wait_until(self._is_scanning), self._home.view()
        process.kill()
        for way in self._ways:
            assert way.siem.distinct_count < self._log.count, way.name
            way.speak()

    def run(self, *additions: int) -> None:
        """Run Flicker until all has arrived, then have lines logged and wait for them; stop it."""
        process = self._start()
        self._wait_for_all(process)
        for count in additions:
            self._log.log(count)
            self._wait_for_all(process)
        self._wait_for_the_scans_to_end()
        assert wait_until(self._is_at_the_end), self._home.view()
        assert process.stop() == 0, process.stderr

    def check(self, newest: datetime) -> None:
        """Compare what arrived with what the application serves."""
        served = {bytes(raw) for raw in read_all(self._app, self._listing)}
        assert len(served) == self._log.count
        for way in self._ways:
            assert set(way.siem.raw_events) == served, way.name
            # What was taken and never acknowledged has to be sent again, and nothing else is.
            unanswered = [record.id for post in way.unanswered for record in post.records]
            assert unanswered
            assert way.siem.duplicates == dict(Counter(unanswered)), way.name
            for record in way.siem.delivered:
                event = record.value
                assert record.source == way.name
                assert record.timestamp is not None
                assert instant(record.timestamp) == instant(event["ts"])
                assert record.message == event["details"]
                assert way.keys.get("id_field", "id") is None or record.id == str(event["id"])
            if way.since is not None:
                asked = f"{way.keys['time_filter_param']}={way.since(newest)}"
                assert any(asked in target for target in way.scans(self._app)), way.name

    def _start(self) -> Process:
        return self._home.start("--workers", "2")

    def _wait_for_all(self, process: Process) -> None:
        for way in self._ways:
            arrived = way.siem.wait_for(self._log.count, 20)
            assert arrived, (way.name, way.siem.distinct_count, self._log.count, process.stderr)

    def _is_scanning(self) -> bool:
        view = self._home.view()
        return len(view) == len(self._ways) and all(way["scanning"] for way in view.values())

    def _is_at_the_end(self) -> bool:
        newest = rfc3339(self._log.newest_at)
        return all(source["last_timestamp"] == newest for source in self._home.view().values())

    def _wait_for_the_scans_to_end(self) -> None:
        # Where the newest come first, a repeat of the old would follow the new.
        begun = {way.name: len(way.scans(self._app)) for way in self._ways if way.is_newest_first}
        assert wait_until(
            lambda: all(
                len(way.scans(self._app)) > begun[way.name]
                for way in self._ways
                if way.name in begun
            )
        ), self._app.requests[-20:]


def read_all(app: ServedApp, target: str | None) -> Iterator[msgspec.Raw]:
    """Read a listing to its end as the links in its bodies lead."""
    while target:
        body = msgspec.json.decode(app.get(target), type=dict[str, msgspec.Raw])
        rows = body["rows" if "rows" in body else "results"]
        yield from msgspec.json.decode(rows, type=list[msgspec.Raw])
        target = msgspec.json.decode(body["next_url" if "next_url" in body else "next"])


def instant(text: str) -> datetime:
    """Read RFC 3339, with Python 3.10 too."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def rfc3339(at: datetime) -> str:
    """Write an instant, with a fraction only where there is one."""
    return at.isoformat().replace("+00:00", "Z")


def iso8601(at: datetime) -> str:
    """Write an instant with milliseconds, rounded down."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def play(stage: Stage, log: PackageLog) -> None:
    """Have Flicker killed, stopped and started, and lines logged all the while."""
    stage.run_until_killed(is_registered=False)
    stage.run_until_killed(is_registered=True)
    # Logged while nobody reads: into the second of the newest line, and beyond.
    log.log(30)
    stage.run(100, 1)
    stage.run(log.remaining)
    stage.check(log.newest_at)


def cursor_keys(**keys: Any) -> dict[str, Any]:
    """Give the YAML of Datasette's paging."""
    pagination = {
        "pagination_type": "cursor",
        "limit_param": "_size",
        "cursor_param": "_next",
        "next_cursor_field": "next",
        "page_size": PAGE_SIZE,
    }
    return {"results_field": "rows", "pagination": pagination} | keys


def test_ships_a_log_that_datasette_serves(home: Home) -> None:
    """T01, T02, T03, T09, T17, T19, T45, T46, T48, T60: each row once, by cursor and by link.

    Cursors stand in the body (`next`, null at the end) or in a Link line, and
    have `~`, `:` and a comma in them where the listing is sorted by time.
    """
    log = PackageLog(home.directory / "packages.db", "%Y-%m-%dT%H:%M:%SZ")
    app = start_datasette(home, log.path)
    rows = "/packages/log.json?_shape=objects"
    array = "/packages/log.json?_shape=array"
    with ExitStack() as stack:
        ways = [
            Way("since", rows, cursor_keys(time_filter_param="ts__gte"), rfc3339),
            Way("whole", rows, cursor_keys(id_field=None)),
            Way(
                "links",
                array,
                cursor_keys(results_field="", time_filter_param="ts__gte"),
                rfc3339,
            ),
            Way(
                "newest-first",
                f"{rows}&_sort_desc=ts",
                cursor_keys(time_filter_param="ts__gte"),
                rfc3339,
                is_newest_first=True,
            ),
            Way(
                "newest-first-links",
                f"{array}&_sort_desc=ts",
                cursor_keys(results_field=""),
                is_newest_first=True,
            ),
        ]
        for way in ways:
            stack.enter_context(way.siem)
        play(Stage(home, app, f"{rows}&_size=1000", log, *ways), log)


def test_ships_a_log_that_django_rest_framework_serves(home: Home) -> None:
    """T01, T02, T03, T09, T10, T13, T45, T46, T48, T50, T60: each row once, by offset and by page.

    The framework caps pages at 40 where 50 are asked for, answers 404 behind
    the last page, and writes instants at +02:00 with microseconds.
    """
    log = PackageLog(home.directory / "packages.db", "%Y-%m-%d %H:%M:%S.250417")
    command = [sys.executable, drf_app.__file__, str(log.path)]
    app = ServedApp(home.spawn(command), "/offset/")
    offset = {
        "pagination_type": "offset",
        "limit_param": "limit",
        "offset_param": "offset",
        "page_size": PAGE_SIZE,
    }
    page = {
        "pagination_type": "page",
        "limit_param": "page_size",
        "page_param": "page",
        "page_size": PAGE_SIZE,
    }
    by_offset = {"results_field": "results", "pagination": offset}
    by_page = {"results_field": "results", "pagination": page}
    in_ms = {"time_filter_param": "since", "time_filter_format": "iso8601"}
    with ExitStack() as stack:
        ways = [
            Way("offset-since", "/offset/", by_offset | {"time_filter_param": "since"}, rfc3339),
            Way("offset-whole", "/offset/", by_offset),
            Way("page-since", "/page/", by_page | in_ms, iso8601),
            Way("page-whole", "/page/", by_page | {"id_field": None}),
            Way("newest-first-since", "/newest/", by_page | in_ms, iso8601, is_newest_first=True),
            Way("newest-first", "/newest/", by_page, is_newest_first=True),
        ]
        for way in ways:
            stack.enter_context(way.siem)
        play(Stage(home, app, "/offset/?limit=40", log, *ways), log)
