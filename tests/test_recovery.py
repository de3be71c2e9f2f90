"""Killed anywhere, started again: everything arrives, and what may repeat is bounded."""

from __future__ import annotations

import json
import pickle
import random
import resource
import shutil
import signal
import sqlite3
import threading
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flicker.demo.servers import Destination, Request, RequestRecord, Response, always
from tests.processes import CURSOR, Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from tests.processes import Process

pytestmark = pytest.mark.process

STYLE = Style(paging="offset", time_param="since")
NEWEST_FIRST = Style(paging="cursor", order="desc", time_param="since")
CONCURRENCY, BUFFER = 3, 10


class Arrivals:
    """Adds events to an API for as long as the block runs."""

    def __init__(self, api: ListingApi) -> None:
        self._api = api
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._add)
        self.count = len(api.raw_events)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _add(self) -> None:
        while not self._is_over.wait(0.03):
            self._api.add(make_events(5, self.count))
            self.count += 5


def all_once(siem: Destination, count: int) -> bool:
    return siem.wait_for(count, 45) and siem.ids == dict.fromkeys(ids_of(make_events(count)), 1)


def test_kills_at_random_instants_lose_nothing(home: Home) -> None:
    """T09, T10, T60: newest first, new events arriving, repeats only from unanswered requests."""
    rng = random.Random(4)  # noqa: S311 - the same instants in every run
    kills = 8
    with ListingApi(make_events(300), NEWEST_FIRST) as api, Destination(delay_s=0.01) as siem:
        home.configure(
            make_source(
                "s",
                api.endpoint,
                siem.url,
                pagination=CURSOR,
                buffer_size=BUFFER,
                polling_frequency_ms=50,
                destination={"concurrency": CONCURRENCY},
            )
        )
        with Arrivals(api) as arrivals:
            for _ in range(kills):
                process = home.start()
                seen = len(api.requests) + siem.request_count
                more = rng.randint(1, 70)
                assert wait_until(
                    lambda: len(api.requests) + siem.request_count >= seen + more  # noqa: B023
                ), process.stderr
                process.kill()
        process = home.start()
        assert siem.wait_for(arrivals.count, 45), (siem.distinct_count, process.stderr)
        assert wait_until(lambda: home.view().get("s", {}).get("undelivered_batches") == 0)
        assert process.stop() == 0
        assert set(siem.ids) == ids_of(make_events(arrivals.count))
        assert sum(siem.duplicates.values()) <= kills * CONCURRENCY * BUFFER


class Gate:
    """Lets the destination answer until it is shut; then requests wait, untaken."""

    def __init__(self, siem: Destination) -> None:
        self._siem = siem
        self._remaining = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self.waiting = threading.Event()
        siem.respond = self._respond

    def allow(self, count: int) -> None:
        """Let so many requests through."""
        self._opened.set()
        with self._lock:
            self._remaining = count
            self._opened = threading.Event()
            self.waiting.clear()

    def _respond(self, _: RequestRecord) -> Response | None:
        with self._lock:
            self._remaining -= 1
            if self._remaining >= 0:
                return None
            opened = self._opened
            self.waiting.set()
        opened.wait(20)
        return Response(503)


def kill_after(home: Home, gate: Gate, counts: Iterable[int], limit_s: float) -> Process:
    """Kill a process after each of so many answers, and give one that meets no gate."""
    for count in counts:
        gate.allow(count)
        process = home.start()
        assert gate.waiting.wait(limit_s), process.stderr
        process.kill()
    gate.allow(10**6)
    return home.start()


def test_a_kill_with_all_requests_answered_repeats_nothing(home: Home) -> None:
    """T60: after deliver, before the snapshot; the journal knows what was acknowledged.

    One request at a time: that the next one was sent proves that the answer to
    the one before was read.
    """
    with ListingApi(make_events(400), NEWEST_FIRST) as api, Destination() as siem:
        gate = Gate(siem)
        home.configure(
            make_source(
                "s", api.endpoint, siem.url, pagination=CURSOR, destination={"concurrency": 1}
            )
        )
        process = kill_after(home, gate, (1, 0, 7, 3, 12, 2), 15)
        assert all_once(siem, 400)
        assert process.stop() == 0
        assert siem.duplicates == {}


def test_a_kill_in_the_middle_of_a_scan_goes_on_at_the_page(home: Home) -> None:
    """T09, T60: the scan goes on where it was, with the parameters it began with."""
    held = threading.Event()

    def before_reply(_: Request) -> Response | None:
        return Response(503) if held.is_set() else None

    def hold(request: Request) -> Response | None:
        if request.params.get("offset") == "150":
            held.set()
        return before_reply(request)

    with ListingApi(make_events(300), STYLE, before_reply=hold) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(150, 45), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("offset") == 150)
        assert home.view()["s"]["scanning"] is True
        process.kill()
        asked = len(api.requests)
        api.before_reply = None
        process = home.start()
        assert all_once(siem, 300)
        assert api.requests[asked].params["offset"] == "150"
        assert process.stop() == 0


def test_kills_during_a_registry_write_leave_a_registry_that_opens(home: Home) -> None:
    """T60: the instant that the partition or its view changes."""
    with ListingApi(make_events(100), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        wal = home.recovery_dir / "part-0.sqlite3-wal"
        with Arrivals(api) as arrivals:
            for number in range(5):
                process = home.start()
                assert siem.wait_for(siem.distinct_count + 1, 45), process.stderr

                def stamp() -> tuple[int, int]:
                    status = wal.stat()
                    return status.st_mtime_ns, status.st_size

                for _ in range(number + 1):
                    before = stamp()
                    assert wait_until(lambda: stamp() != before)  # noqa: B023
                process.kill()
        process = home.start()
        assert siem.wait_for(arrivals.count, 45), process.stderr
        assert process.stop() == 0
        assert set(siem.ids) == ids_of(make_events(arrivals.count))
        assert sum(siem.duplicates.values()) <= 5 * 4 * 10


def test_the_registry_is_whole_whenever_it_is_read(home: Home) -> None:
    """T60, T61: never torn, and rewritten within 5 s of a change."""
    with ListingApi(make_events(100), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        for total in (100, 110):
            assert siem.wait_for(total, 45)
            newest = f"2025-01-01T12:00:00.{total - 1:03d}Z"
            reads = 0

            def is_current() -> bool:
                nonlocal reads
                if not home.registry_path.exists():
                    return False
                reads += 1
                document = json.loads(home.registry_path.read_bytes())
                assert document["version"] == 1
                seen = document["api_sources"].get("s", {}).get("last_timestamp")
                return bool(seen == newest)  # noqa: B023

            assert wait_until(is_current, 5)
            assert reads
            api.add(make_events(10, total))
        assert process.stop() == 0
        strays = [p.name for p in home.directory.iterdir() if p.name.startswith("..")]
        assert strays == []


def test_a_source_put_back_goes_on_where_it_stood(home: Home) -> None:
    """A source removed from the YAML is kept in the registry, and not polled."""
    with ListingApi(make_events(60), STYLE) as api, Destination() as siem:
        gone = make_source("gone", api.endpoint, siem.url)
        stays = make_source("stays", api.endpoint, siem.url, id_field=None, match_on=["nothing"])
        home.configure(gone, stays)
        assert home.run_once().code == 0
        assert all_once(siem, 60)
        asked = len(api.requests)
        home.configure(stays)
        api.add(make_events(20, 60))
        finished = home.run_once()
        assert finished.code == 0
        assert "not in the configuration" in finished.stderr
        assert home.view()["gone"]["retired"] is True
        assert siem.distinct_count == 60
        assert len(api.requests) < asked * 2
        home.configure(gone, stays)
        assert home.run_once().code == 0
        assert all_once(siem, 80)
        assert "retired" not in home.view()["gone"]


def test_a_removed_source_still_delivers_what_it_owes(home: Home) -> None:
    with ListingApi(make_events(30), STYLE) as api, Destination(token="t") as siem:
        siem.respond = always(503)
        auth = {"auth": {"type": "bearer", "token": "t"}}
        gone = make_source("gone", api.endpoint, siem.url, destination=auth)
        other = make_source("other", api.endpoint, siem.url, match_on=["none"], destination=auth)
        home.configure(gone, other)
        process = home.start()
        assert wait_until(lambda: home.view().get("gone", {}).get("undelivered_batches") == 3)
        process.kill()
        siem.respond = None
        home.configure(other)
        process = home.start()
        assert all_once(siem, 30), process.stderr
        assert wait_until(lambda: home.view()["gone"]["undelivered_batches"] == 0)
        assert process.stop() == 0


def test_a_dead_destination_gets_all_that_it_was_owed_over_a_kill(home: Home) -> None:
    """T62: twice killed while the batches are owed."""
    with ListingApi(make_events(60), STYLE) as api, Destination() as siem:
        siem.respond = always(Response(503, fault="reset_before_headers"))
        home.configure(make_source("s", api.endpoint, siem.url))
        for added in (0, 15):
            api.add(make_events(added, 60))
            process = home.start()
            owed = (60 + added + 9) // 10
            assert wait_until(lambda: home.view().get("s", {}).get("undelivered_batches") == owed)  # noqa: B023
            process.kill()
        siem.respond = None
        process = home.start()
        assert all_once(siem, 75), process.stderr
        assert process.stop() == 0


def test_a_registry_of_a_newer_version_is_refused(home: Home) -> None:
    """T61: in the view and in the partitions; neither is touched."""
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        view = json.loads(home.registry_path.read_bytes())
        home.registry_path.write_text(json.dumps({**view, "version": 2}))
        newer = home.registry_path.read_bytes()
        finished = home.run_once()
        assert finished.code == 1
        assert "version 2" in finished.stderr
        assert home.registry_path.read_bytes() == newer


@pytest.mark.parametrize(
    ("deleted", "repeats"),
    [("view", range(1)), ("partitions", range(1, 3)), ("both", range(20, 21))],
)
def test_parts_of_the_registry_are_deleted(home: Home, deleted: str, repeats: range) -> None:
    """T61: the partitions are the truth; the view alone gives the position back, coarsely."""
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        if deleted in {"view", "both"}:
            home.registry_path.unlink()
        if deleted in {"partitions", "both"}:
            shutil.rmtree(home.recovery_dir)
        api.add(make_events(5, 20))
        assert home.run_once().code == 0
        assert set(siem.ids) == ids_of(make_events(25))
        assert sum(siem.duplicates.values()) in repeats
        assert home.view()["s"]["last_timestamp"] == "2025-01-01T12:00:00.024Z"


def test_nobody_else_touches_the_partitions_in_the_process(home: Home) -> None:
    """T60: a second SQLite in the process would take Bytewax's locks away, and ruin the file."""
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        for added in range(2):
            api.add(make_events(5, 20 + 5 * added))
            stamp = f"2025-01-01T12:00:00.0{24 + 5 * added}Z"
            assert wait_until(lambda: home.view().get("s", {}).get("last_timestamp") == stamp)  # noqa: B023
        inodes = {f":{path.stat().st_ino}" for path in home.recovery_dir.glob("part-0.sqlite3*")}
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        held = [lock for lock in locks if str(process.pid) in lock]
        assert any(field.endswith(tuple(inodes)) for lock in held for field in lock), locks
        assert process.stop() == 0


def test_partitions_that_are_lost_take_no_event_with_them(home: Home) -> None:
    """T61: the view tells up to where all was delivered, whatever was read since."""
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert all_once(siem, 20), process.stderr
        end = {"last_timestamp": "2025-01-01T12:00:00.019Z", "undelivered_batches": 0}
        assert wait_until(lambda: end.items() <= home.view().get("s", {}).items())
        siem.respond = always(503)
        api.add(make_events(30, 20))
        owed = {"last_timestamp": "2025-01-01T12:00:00.049Z", "undelivered_batches": 3}
        assert wait_until(lambda: owed.items() <= home.view()["s"].items())
        process.kill()
        shutil.rmtree(home.recovery_dir)
        siem.respond = None
        assert home.run_once().code == 0
        assert set(siem.ids) == ids_of(make_events(50))
        assert sum(siem.duplicates.values()) <= 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_under_the_registry(home: Home, workers: str) -> None:
    """A clear error and exit 1; with space again, everything arrives, once."""
    with ListingApi(make_events(100), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start("--workers", workers)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(home.registry_path.exists)
        limits = (40_000, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        api.add(make_events(500, 100))
        assert process.wait() == 1
        assert f"the registry {home.recovery_dir} cannot be written" in process.stderr
        assert process.stderr.splitlines()[-1].startswith("flicker: ")
        process = home.start("--workers", workers)
        assert siem.wait_for(600, 45), process.stderr
        assert wait_until(lambda: "resuming" in process.stderr)
        assert process.stop() == 0
        assert all_once(siem, 600)


def test_goes_on_after_a_stop_as_after_a_kill(home: Home) -> None:
    """A graceful stop never repeats anything, however often."""
    with ListingApi(make_events(50), NEWEST_FIRST) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url, pagination=CURSOR))
        with Arrivals(api) as arrivals:
            for _ in range(4):
                process = home.start()
                assert siem.wait_for(siem.distinct_count + 20, 45), process.stderr
                process.send(signal.SIGTERM)
                assert process.wait() == 0
        # The first ends the scan that the last stop broke off, the second starts at the top.
        for _ in range(2):
            assert home.run_once().code == 0
        assert all_once(siem, arrivals.count)


def test_what_an_execution_did_not_live_to_finish_never_counts(home: Home) -> None:
    """A buffer that a dead execution had emptied is not taken for the next one's.

    The dead one's outbox had the events; the next one overwrote that outbox and
    left the buffer's row, since it did not touch the buffer while it lived.
    """
    path = home.recovery_dir / "part-0.sqlite3"

    def resume_epoch() -> int:
        with closing(sqlite3.connect(path)) as partition:
            (epoch,) = partition.execute(
                "SELECT MAX(worker_frontier) FROM fronts"
                " WHERE ex_num = (SELECT MAX(ex_num) FROM exs)"
            ).fetchone()
        return epoch or 0

    with ListingApi(make_events(5), STYLE) as api, Destination() as siem:
        slow = make_source("s", api.endpoint, siem.url, flush_interval_ms=3_600_000)
        home.configure(slow)
        process = home.start()
        assert wait_until(lambda: home.view().get("s", {}).get("buffered_events") == 5)
        process.kill()
        unfinished = resume_epoch()
        empty = {"version": 1, "source": "s", "records": [], "first_at": None}
        with closing(sqlite3.connect(path)) as partition, partition:
            partition.execute(
                "INSERT OR REPLACE INTO snaps (step_id, state_key, snap_epoch, ser_change)"
                " VALUES ('flicker.buffer', 's', ?, ?)",
                (unfinished, pickle.dumps(empty)),
            )
        process = home.start()
        assert wait_until(lambda: resume_epoch() > unfinished + 1), process.stderr
        process.kill()
        assert siem.distinct_count == 0
        home.configure({**slow, "flush_interval_ms": 100})
        process = home.start()
        assert all_once(siem, 5), process.stderr
        assert process.stop() == 0


def test_a_future_event_blinds_nobody_over_a_restart(home: Home) -> None:
    """T53: an event dated after now is shipped once and blinds nobody, over a restart."""
    future = {"id": "far", "timestamp": "2099-01-01T00:00:00Z", "message": "m"}
    with ListingApi([*make_events(20), future], STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        api.add(make_events(10, 20))
        assert home.run_once().code == 0
        assert siem.ids == dict.fromkeys({"far"} | ids_of(make_events(30)), 1)
        last = home.view()["s"]["last_timestamp"]
        assert datetime.fromisoformat(last.replace("Z", "+00:00")) < datetime.now(timezone.utc)
