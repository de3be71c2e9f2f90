"""A registry that was changed: Flicker goes on from what it was changed to."""

from __future__ import annotations

import json
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from flicker.dedup import DedupWindow
from flicker.demo.servers import Destination, Request, Response, always
from flicker.errors import RegistryError
from flicker.journal import AckJournal
from flicker.pagination import Place
from flicker.position import Pending, Position, Scan, dump_position, load_position
from flicker.registry.edit import forget, import_registry, rewind
from flicker.registry.local import open_registry
from flicker.registry.location import S3Location
from flicker.registry.mirror import note_lineage
from flicker.registry.partitions import POLL_STEP, SHIP_STEP, edit_states, read_states
from tests.processes import CURSOR, Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.s3 import MotoServer

pytest_plugins = ("tests.servers.s3",)

STYLE = Style(paging="offset", time_param="since")
FIRST_NS = 1_735_732_800_000_000_000
MS = 1_000_000
DAY_NS = 86_400 * 10**9


def at(number: int) -> str:
    """Give the instant of an event of `make_events`."""
    return f"2025-01-01T12:00:00.{number:03d}Z"


def once_from(siem: Destination, total: int, again: range) -> None:
    """Assert that all arrived, these twice and no other."""
    expected = dict.fromkeys(ids_of(make_events(total)), 1)
    expected |= {f"e{number}": 2 for number in again}
    assert siem.ids == expected


def owe(home: Home, siem: Destination, batches: int) -> None:
    """Have a source read events that nobody takes, and die."""
    siem.respond = always(503)
    process = home.start()
    assert wait_until(lambda: home.view().get("s", {}).get("undelivered_batches") == batches), (
        process.stderr
    )
    process.kill()
    siem.respond = None


@pytest.mark.process
def test_exactly_the_events_from_the_instant_on_come_again(home: Home) -> None:
    with ListingApi(make_events(120), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        done = home.run("registry", "rewind", "s", "--to", at(100))
        assert (done.code, done.stdout) == (0, f"s: is read from {at(100)} on at the next start\n")
        assert home.view()["s"]["last_timestamp"] == at(100)
        api.add(make_events(10, 120))
        assert home.run_once().code == 0
        once_from(siem, 130, range(100, 120))
        assert home.run_once().code == 0
        once_from(siem, 130, range(100, 120))


@pytest.mark.process
@pytest.mark.parametrize("paging", ["offset", "page", "cursor"])
def test_a_listing_without_a_time_filter_comes_again_as_a_whole(home: Home, paging: Any) -> None:
    pagination = {
        "offset": make_source("", "", "")["pagination"],
        "page": {
            "pagination_type": "page",
            "limit_param": "limit",
            "page_param": "page",
            "page_size": 20,
        },
        "cursor": CURSOR,
    }[paging]
    with ListingApi(make_events(50), Style(paging=paging)) as api, Destination() as siem:
        home.configure(
            make_source("s", api.endpoint, siem.url, time_filter_param=None, pagination=pagination)
        )
        assert home.run_once().code == 0
        assert home.run_once().code == 0
        once_from(siem, 50, range(0))
        rewind(home.registry_path, "s", FIRST_NS + 30 * MS)
        assert home.run_once().code == 0
        once_from(siem, 50, range(50))


@pytest.mark.process
def test_a_cursor_gives_way_to_the_instant(home: Home) -> None:
    style = Style(paging="cursor", time_param="since", never_ends=True)
    with ListingApi(make_events(50), style) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url, pagination=CURSOR))
        assert home.run_once().code == 0
        assert home.view()["s"]["cursor"]
        assert rewind(home.registry_path, "s", FIRST_NS + 30 * MS) == FIRST_NS + 30 * MS
        assert home.view()["s"]["cursor"] is None
        assert home.run_once().code == 0
        once_from(siem, 50, range(30, 50))


@pytest.mark.process
@pytest.mark.parametrize(("order", "again"), [("asc", range(80, 100)), ("desc", range(100, 200))])
def test_in_the_middle_of_a_scan_nothing_unread_is_passed_over(
    home: Home, order: Any, again: range
) -> None:
    """The first scan, half read; a newest-first one has not met the oldest yet."""
    style = Style(paging="offset", time_param="since", order=order)

    def hold(request: Request) -> Response | None:
        return Response(503) if request.params.get("offset") == "100" else None

    with ListingApi(make_events(200), style, before_reply=hold) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("offset") == 100)
        assert process.stop() == 0
        assert home.view()["s"]["scanning"] is True
        done = home.run("registry", "rewind", "s", "--to", at(80))
        start = at(80) if order == "asc" else "the beginning"
        assert done.stdout == f"s: is read from {start} on at the next start\n"
        assert home.view()["s"]["scanning"] is False
        api.before_reply = None
        assert home.run_once().code == 0
        once_from(siem, 200, again)


@pytest.mark.process
def test_what_is_owed_comes_once(home: Home) -> None:
    with ListingApi(make_events(40), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        api.add(make_events(30, 40))
        owe(home, siem, 3)
        rewind(home.registry_path, "s", FIRST_NS + 20 * MS)
        assert home.view()["s"]["undelivered_batches"] == 3
        assert home.run_once().code == 0
        once_from(siem, 70, range(20, 40))


@pytest.mark.process
@pytest.mark.parametrize("target", [0, 20, 29])
def test_what_was_acknowledged_since_the_last_snapshot_comes_again_as_asked(
    home: Home, target: int
) -> None:
    """The journal knows ten events as delivered that the snapshot still owes."""
    with ListingApi(make_events(30), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        owe(home, siem, 3)
        acknowledge(home.recovery_dir, 0)
        rewind(home.registry_path, "s", FIRST_NS + target * MS)
        assert list((home.recovery_dir / "acks").glob("*.acks")) == []
        assert home.run_once().code == 0
        read_again = set(range(target, 10))
        owed = set(range(10, 30))
        assert siem.ids == {f"e{number}": 1 for number in owed | read_again}


def acknowledge(directory: Path, batch: int) -> None:
    """Write down that an owed batch was acknowledged, as a process does before it dies."""
    ship = read_states(directory)[SHIP_STEP, "s"]
    identities = ship["batches"][batch][0]
    journal = AckJournal(directory / "acks", "s")
    journal.resume(ship["segment"])
    journal.append([identities[i : i + 16] for i in range(0, len(identities), 16)])
    journal.cut()


@pytest.mark.process
def test_a_start_time_that_counts_from_now_passes_over_nothing(home: Home) -> None:
    """A relative `start_time` would begin anew at the next start, later than the instant."""
    style = Style(paging="offset", time_param="since")
    now_ns = time.time_ns()
    events = [
        {"id": f"e{n}", "timestamp": stamp(now_ns - (5 - n) * DAY_NS), "message": "m"}
        for n in range(5)
    ]
    with ListingApi(events, style) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        home.configure(make_source("s", api.endpoint, siem.url, start_time="24h"))
        rewind(home.registry_path, "s", now_ns - 4 * DAY_NS - DAY_NS // 2)
        assert home.run_once().code == 0
        assert siem.ids == {"e0": 1, "e1": 2, "e2": 2, "e3": 2, "e4": 2}


def stamp(instant_ns: int) -> str:
    """Write an instant with whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant_ns // 10**9))


@pytest.mark.process
def test_an_instant_behind_all_that_was_read_passes_over_nothing(home: Home) -> None:
    """`--to 24h` for a source that was last read long before that."""
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        before = home.view()
        done = home.run("registry", "rewind", "s", "--to", "24h")
        assert (done.code, done.stdout) == (0, f"s: is read from {at(19)} on at the next start\n")
        assert home.view() == before
        api.add(make_events(20, 20))
        assert home.run_once().code == 0
        once_from(siem, 40, range(0))


@pytest.mark.process
def test_a_running_flicker_refuses_every_change(home: Home) -> None:
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(20, 45), process.stderr
        assert wait_until(lambda: "s" in home.view())
        document = json.dumps({"version": 1, "api_sources": {"s": {"offset": 1}}}).encode()
        for change in (
            lambda: rewind(home.registry_path, "s", FIRST_NS),
            lambda: forget(home.registry_path, "s", is_forced=True),
            lambda: import_registry(home.registry_path, document, is_forced=True),
        ):
            with pytest.raises(RegistryError, match=f"in use by process {process.pid}"):
                change()
        done = home.run("registry", "forget", "s")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        api.add(make_events(5, 20))
        assert siem.wait_for(25, 45)
        assert process.stop() == 0
        once_from(siem, 25, range(0))


@pytest.mark.process
def test_a_forgotten_source_starts_afresh_and_others_do_not(home: Home) -> None:
    with (
        ListingApi(make_events(30), STYLE) as api,
        Destination() as siem,
        Destination() as other,
    ):
        home.configure(
            make_source("s", api.endpoint, siem.url), make_source("t", api.endpoint, other.url)
        )
        assert home.run_once().code == 0
        before = read_states(home.recovery_dir)
        done = home.run("registry", "forget", "s")
        assert (done.code, done.stdout) == (0, "s: forgotten\n")
        after = read_states(home.recovery_dir)
        assert after == {key: state for key, state in before.items() if key[1] == "t"}
        assert set(home.view()) == {"t"}
        assert home.run_once().code == 0
        once_from(siem, 30, range(30))
        once_from(other, 30, range(0))


@pytest.mark.process
def test_a_retired_source_is_gone_once_forgotten(home: Home) -> None:
    with ListingApi(make_events(10), STYLE) as api, Destination() as siem:
        gone = make_source("gone", api.endpoint, siem.url)
        stays = make_source("stays", api.endpoint, siem.url, match_on=["nothing"])
        home.configure(gone, stays)
        assert home.run_once().code == 0
        home.configure(stays)
        assert "not in the configuration" in home.run_once().stderr
        rewind(home.registry_path, "gone", FIRST_NS)
        assert home.view()["gone"]["retired"] is True
        forget(home.registry_path, "gone")
        finished = home.run_once()
        assert finished.code == 0
        assert "not in the configuration" not in finished.stderr
        assert set(home.view()) == {"stays"}


@pytest.mark.process
def test_what_is_owed_is_forgotten_only_by_force(home: Home) -> None:
    """The journal of the forgotten life hides no event of the next one."""
    with ListingApi(make_events(30), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        owe(home, siem, 3)
        acknowledge(home.recovery_dir, 0)
        before = read_states(home.recovery_dir)
        done = home.run("registry", "forget", "s")
        assert done.code == 1
        assert "20 event(s) are read and not delivered" in done.stderr
        assert read_states(home.recovery_dir) == before
        assert list((home.recovery_dir / "acks").glob("*.acks"))
        assert home.run("registry", "forget", "s", "--force").code == 0
        assert home.run_once().code == 0
        once_from(siem, 30, range(0))


@pytest.mark.process
@pytest.mark.parametrize("change", ["rewind", "forget", "import"])
def test_a_crash_in_a_change_repeats_and_loses_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the end of the journal and the new states; the old ones are in force."""

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with ListingApi(make_events(30), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        owe(home, siem, 3)
        acknowledge(home.recovery_dir, 0)
        monkeypatch.setattr("flicker.registry.edit.edit_states", crash)
        data = json.dumps({"version": 1, "api_sources": {"s": {"offset": 30}}}).encode()
        path = home.registry_path
        changes = {
            "rewind": lambda: rewind(path, "s", FIRST_NS + 15 * MS),
            "forget": lambda: forget(path, "s", is_forced=True),
            "import": lambda: import_registry(path, data, is_forced=True),
        }
        with pytest.raises(KeyboardInterrupt):
            changes[change]()
        assert home.run_once().code == 0
        once_from(siem, 30, range(0))


@pytest.mark.process
def test_one_of_two_tools_at_once_is_refused_and_flicker_waits_for_neither(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, left = threading.Event(), threading.Event()

    def pause(*args: Any) -> None:
        entered.set()
        assert left.wait(30)
        edit_states(*args)

    with ListingApi(make_events(10), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        assert home.run_once().code == 0
        monkeypatch.setattr("flicker.registry.edit.edit_states", pause)
        thread = threading.Thread(target=rewind, args=(home.registry_path, "s", FIRST_NS))
        thread.start()
        try:
            assert entered.wait(20)
            for done in (home.run("registry", "forget", "s"), home.run_once()):
                assert done.code == 1
                assert "in use by process" in done.stderr
        finally:
            left.set()
            thread.join(20)
        assert home.run_once().code == 0
        once_from(siem, 10, range(10))


@pytest.mark.process
def test_changes_of_a_registry_in_s3(home: Home, moto: MotoServer) -> None:
    """Rewound, forgotten, refused while an instance holds it; others' marks stay."""
    bucket = moto.new_bucket()
    where = f"s3://{bucket}/path/registry.json"

    def sources() -> Any:
        return json.loads(moto.read(bucket, "path/registry.json") or b"")["api_sources"]

    def tool(*arguments: str) -> Any:
        return home.run("registry", *arguments, "--registry-file", where, env=moto.env)

    def ship() -> None:
        process = home.start("--once", "--registry-file", where, env=moto.env)
        assert process.wait() == 0, process.stderr

    with ListingApi(make_events(60), STYLE) as api, Destination() as siem:
        source = make_source("s", api.endpoint, siem.url)
        home.configure(source, make_source("old", api.endpoint, siem.url, match_on=["nothing"]))
        ship()
        home.configure(source)
        process = home.start("--registry-file", where, env=moto.env)
        assert wait_until(lambda: "resuming" in process.stderr), process.stderr
        refused = tool("rewind", "s", "--to", at(50))
        assert refused.code == 1
        assert "is held by" in refused.stderr
        assert process.stop() == 0, process.stderr
        assert tool("rewind", "s", "--to", at(50)).code == 0
        assert sources()["s"]["last_timestamp"] == at(50)
        assert sources()["old"]["retired"] is True
        ship()
        once_from(siem, 60, range(50, 60))
        unknown = tool("forget", "nope")
        assert (unknown.code, "it has: old, s" in unknown.stderr) == (1, True)
        assert tool("forget", "old").code == 0
        assert tool("forget", "s").code == 0
        assert sources() == {}
        ship()
        assert min(siem.ids.values()) == 2


def _put(path: Path, position: Position, **ship: Any) -> None:
    """Make a registry with one source."""
    registry = open_registry(path / "r.json.d", path / "r.json")
    states = {(POLL_STEP, "s"): dump_position(position, "api", None)}
    if ship:
        states[SHIP_STEP, "s"] = {
            "version": 1,
            "endpoint": "http://x",
            "segment": 1,
            "delivered": b"",
            "batches": [],
            **ship,
        }
    edit_states(registry.directory, states)
    registry.close()


def _position(path: Path) -> Position:
    return load_position(read_states(path / "r.json.d")[POLL_STEP, "s"], "s", None, None)


@pytest.mark.parametrize(
    ("last", "start", "scan", "to", "expected"),
    [
        (100, None, None, 50, 50),
        (100, None, None, 100, 100),
        (None, None, None, 50, 50),
        (100, None, Scan(Place("top"), 1, first_request=False), 200, 100),
        (None, None, Scan(Place("top"), 1, first_request=False), 50, None),
        (None, 30, Scan(Place("top"), 1, first_request=False), 50, 30),
        (None, None, Scan(Place("top"), 1, first_request=False, newest_ns=70, rises=True), 50, 50),
        (None, None, Scan(Place("top"), 1, first_request=False, newest_ns=70, rises=True), 90, 70),
        (
            None,
            None,
            Scan(Place("top"), 1, first_request=False, newest_ns=70, rises=True, falls=1),
            50,
            None,
        ),
    ],
)
def test_the_instant_is_never_behind_what_is_unread(
    tmp_path: Path,
    last: int | None,
    start: int | None,
    scan: Scan | None,
    to: int,
    expected: int | None,
) -> None:
    _put(tmp_path, Position(DedupWindow("s"), last, start_ns=start, scan=scan))
    assert rewind(tmp_path / "r.json", "s", to) == expected
    position = _position(tmp_path)
    assert position.last_timestamp_ns == expected
    assert position.scan is None
    if expected is not None:
        # None would be filled from `start_time` at the next start.
        assert position.start_ns == (0 if start is None else min(start, expected))


@pytest.mark.parametrize(("swept", "to", "expected"), [(60, 90, 60), (60, 50, 50)])
def test_a_window_without_events_was_read_and_the_next_was_not(
    tmp_path: Path, swept: int, to: int, expected: int
) -> None:
    """A backfill that has met no timestamp yet is not taken past where it stands."""
    scan = Scan(Place("top"), 1, first_request=False)
    _put(tmp_path, Position(DedupWindow("s"), None, start_ns=10, swept_ns=swept, scan=scan))
    assert rewind(tmp_path / "r.json", "s", to) == expected
    assert _position(tmp_path).swept_ns is None


def test_what_is_still_to_be_fetched_is_not_passed_over(tmp_path: Path) -> None:
    """A listing that is read from a later instant on names it no more."""
    pending = [Pending(b"p" * 16, "https://api.example.com/logs/1", 30)]
    _put(tmp_path, Position(DedupWindow("s"), 100, pending=pending))
    assert rewind(tmp_path / "r.json", "s", 50) == 50
    assert _position(tmp_path).pending == pending


def test_order_is_remembered_and_the_window_is_what_is_owed(tmp_path: Path) -> None:
    window = DedupWindow("s")
    window.is_new(b"d" * 16, 90, 0)
    before = Position(window, 100, Place("offset", 9), rises=3, falls=9, shifts=True)
    before.most_entries = 50
    _put(tmp_path, before, batches=[[b"o" * 16, [b"{}"]]], delivered=b"d" * 16)
    rewind(tmp_path / "r.json", "s", 40)
    after = _position(tmp_path)
    assert (after.rises, after.falls, after.shifts, after.most_entries) == (3, 9, True, 50)
    assert after.place is None
    assert after.window.knows(b"o" * 16)
    assert after.fetched.knows(b"o" * 16)
    assert not after.window.knows(b"d" * 16)
    ship = read_states(tmp_path / "r.json.d")[SHIP_STEP, "s"]
    assert (ship["delivered"], ship["batches"]) == (b"", [[b"o" * 16, [b"{}"]]])


def test_an_unknown_source_or_registry_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="there is no registry"):
        rewind(tmp_path / "r.json", "s", 1)
    assert list(tmp_path.iterdir()) == []
    _put(tmp_path, Position(DedupWindow("s"), 100))
    before = pickle.dumps(read_states(tmp_path / "r.json.d"))
    with pytest.raises(RegistryError, match=r"no source 'x'; it has: s$"):
        rewind(tmp_path / "r.json", "x", 1)
    with pytest.raises(RegistryError, match=r"no source 'x'; it has: s$"):
        forget(tmp_path / "r.json", "x", is_forced=True)
    assert pickle.dumps(read_states(tmp_path / "r.json.d")) == before


def test_a_scan_that_read_nothing_yet_holds_nothing_back(tmp_path: Path) -> None:
    """It is as if it had not begun, and an idle poll changes nothing."""
    _put(tmp_path, Position(DedupWindow("s"), 100))
    before = read_states(tmp_path / "r.json.d")
    edit_states(
        tmp_path / "r.json.d",
        {
            (POLL_STEP, "s"): dump_position(
                Position(DedupWindow("s"), 100, scan=Scan(Place("top"), 1)), "api", None
            )
        },
    )
    assert read_states(tmp_path / "r.json.d") == before
    assert _position(tmp_path).scan is None


@pytest.mark.parametrize("change", ["rewind", "forget", "import"])
def test_the_working_copy_of_a_registry_in_s3_is_not_changed(tmp_path: Path, change: str) -> None:
    """The next start would put the one in S3 in its place, and say nothing."""
    _put(tmp_path, Position(DedupWindow("s"), 100))
    directory = tmp_path / "r.json.d"
    note_lineage(directory, S3Location("bucket", "registry.json"), "000000000001-0123abcd")
    before = read_states(directory)
    data = json.dumps({"version": 1, "api_sources": {"s": {"offset": 30}}}).encode()
    changes = {
        "rewind": lambda: rewind(directory, "s", 1),
        "forget": lambda: forget(directory, "s", is_forced=True),
        "import": lambda: import_registry(directory, data, is_forced=True),
    }
    with pytest.raises(RegistryError, match=r"is the working copy of a registry in S3, .*s3://"):
        changes[change]()
    assert read_states(directory) == before


def test_other_processes_of_a_cluster_keep_tools_out(tmp_path: Path) -> None:
    _put(tmp_path, Position(DedupWindow("s"), 100))
    directory = tmp_path / "r.json.d"
    first = open_registry(directory)
    second = open_registry(directory, process_index=1)
    first.close()
    with pytest.raises(RegistryError, match=r"is in use\. Stop all of its processes"):
        rewind(directory, "s", 1)
    second.close()
    assert rewind(directory, "s", 1) == 1


def test_a_journal_that_cannot_be_deleted_is_one_line(tmp_path: Path) -> None:
    _put(tmp_path, Position(DedupWindow("s"), 100), batches=[])
    acks = tmp_path / "r.json.d" / "acks"
    stem = AckJournal(acks, "s")._stem
    (acks / f"{stem}.1.acks").mkdir()
    with pytest.raises(RegistryError, match="acks cannot be written"):
        rewind(tmp_path / "r.json", "s", 1)
    assert _position(tmp_path).last_timestamp_ns == 100


def test_a_view_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path, Position(DedupWindow("s"), 100))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flicker.registry.edit.write_atomically", fail)
    with pytest.raises(RegistryError, match=r"the registry is changed, but .* No space left"):
        rewind(tmp_path / "r.json", "s", 1)
    assert _position(tmp_path).last_timestamp_ns == 1


def test_a_view_alone_becomes_a_registry_that_can_be_changed(tmp_path: Path) -> None:
    """As the Rust Flicker left it."""
    view = {"version": 1, "api_sources": {"s": {"last_timestamp": at(5)}, "t": {"cursor": "c"}}}
    (tmp_path / "r.json").write_text(json.dumps(view))
    forget(tmp_path / "r.json", "t")
    assert set(json.loads((tmp_path / "r.json").read_bytes())["api_sources"]) == {"s"}
    assert _position(tmp_path).last_timestamp_ns == FIRST_NS + 5 * MS
