"""A registry as one document: nothing is lost or repeated on its way."""

from __future__ import annotations

import json
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from flicker.demo.servers import Destination, Request, Response, always
from flicker.errors import RegistryError
from flicker.journal import AckJournal
from flicker.position import load_position
from flicker.registry.edit import import_registry
from flicker.registry.exchange import export_registry, parse_export
from flicker.registry.local import open_registry
from flicker.registry.partitions import BUFFER_STEP, POLL_STEP, SHIP_STEP, edit_states, read_states
from tests.processes import (
    COMMAND,
    CURSOR,
    ROOT,
    Home,
    ids_of,
    make_events,
    make_source,
    wait_until,
)
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.s3 import MotoServer

pytest_plugins = ("tests.servers.s3",)

STYLE = Style(paging="offset", time_param="since")
PAGE = {"pagination_type": "page", "limit_param": "limit", "page_param": "page", "page_size": 20}
FIRST_NS = 1_735_732_800_000_000_000


def at(number: int) -> str:
    """Give the instant of an event of `make_events`."""
    return f"2025-01-01T12:00:00.{number:03d}Z"


def document(**sources: Any) -> bytes:
    """Make a registry as the Rust Flicker writes it."""
    return json.dumps({"version": 1, "api_sources": sources}).encode()


@pytest.mark.process
def test_a_registry_travels_through_s3_and_back(home: Home, moto: MotoServer) -> None:
    """Position, dedup window, buffer and owed batches, after a kill and with its journal.

    The journal knows one batch as delivered that nobody ever got, so it is
    worked in if just those events never arrive.
    """
    where = f"s3://{moto.new_bucket()}/path/registry.json"

    def tool(*arguments: str) -> None:
        done = home.run("registry", *arguments, env=moto.env)
        assert done.code == 0, done.stderr

    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        source = make_source("s", api.endpoint, siem.url, flush_interval_ms=3_600_000)
        home.configure(source)
        assert home.run_once().code == 0
        siem.respond = always(503)
        api.add(make_events(35, 20))
        process = home.start()
        owed = {"undelivered_batches": 3, "buffered_events": 5}
        assert wait_until(lambda: owed.items() <= home.view()["s"].items()), process.stderr
        process.kill()
        siem.respond = None
        ship = read_states(home.recovery_dir)[SHIP_STEP, "s"]
        identities = ship["batches"][0][0]
        journal = AckJournal(home.recovery_dir / "acks", "s")
        journal.resume(ship["segment"])
        journal.append([identities[i : i + 16] for i in range(0, len(identities), 16)])
        journal.cut()
        tool("export", "one.json")
        tool("import", "one.json", "--registry-file", where)
        tool("export", "two.json", "--registry-file", where)
        tool("import", "two.json", "--registry-file", "far/away.json")
        one, two = (
            json.loads((home.directory / name).read_bytes()) for name in ("one.json", "two.json")
        )
        assert one["states"] == two["states"]
        assert stat.S_IMODE((home.directory / "one.json").stat().st_mode) == 0o600
        api.add(make_events(5, 55))
        process = home.start("--once", "--registry-file", "far/away.json")
        assert process.wait() == 0, process.stderr
        delivered = set(range(60)) - set(range(20, 30))
        assert siem.ids == {f"e{number}": 1 for number in delivered}
        # And out of S3 itself, which nobody ran on yet: the same once more.
        process = home.start("--once", "--registry-file", where, env=moto.env)
        assert process.wait() == 0, process.stderr
        assert siem.duplicates == {f"e{number}": 1 for number in range(30, 60)}


@pytest.mark.process
def test_a_scan_goes_on_elsewhere_at_its_page(home: Home) -> None:
    def hold(request: Request) -> Response | None:
        return Response(503) if request.params.get("offset") == "100" else None

    with ListingApi(make_events(200), STYLE, before_reply=hold) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("offset") == 100)
        assert process.stop() == 0
        import_registry(home.directory / "b.json", export_registry(home.registry_path))
        api.before_reply = None
        asked = len(api.requests)
        assert home.run_once("--registry-file", "b.json").code == 0
        assert api.requests[asked].params["offset"] == "100"
        assert siem.ids == dict.fromkeys(ids_of(make_events(200)), 1)


@pytest.mark.process
def test_exports_while_flicker_runs(home: Home) -> None:
    """What it gives is whole, and Flicker does not notice."""
    with ListingApi(make_events(50), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(50, 45), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("last_timestamp") == at(49))
        done = home.run("registry", "export", "-")
        assert (done.code, done.stderr) == (0, "")
        api.add(make_events(10, 50))
        assert siem.wait_for(60, 45)
        assert process.stop() == 0
        import_registry(home.directory / "b.json", done.stdout.encode())
        assert home.run_once("--registry-file", "b.json").code == 0
        again = {f"e{number}": 1 for number in range(50, 60)}
        assert siem.duplicates == again
        assert home.run_once().code == 0
        assert siem.duplicates == again


@pytest.mark.process
@pytest.mark.parametrize(
    ("style", "changes", "seen", "expected"),
    [
        (STYLE, {}, {"last_timestamp": at(30), "cursor": None}, range(30, 50)),
        (STYLE, {}, {"last_timestamp": at(30), "cursor": "of a cursor's"}, range(30, 50)),
        (
            Style(paging="offset"),
            {"time_filter_param": None},
            {"last_timestamp": at(30), "offset": 40},
            range(40, 50),
        ),
        (
            Style(paging="page"),
            {"time_filter_param": None, "pagination": PAGE},
            {"last_timestamp": at(30), "page": 2},
            range(20, 50),
        ),
    ],
)
def test_goes_on_where_the_rust_flicker_stood(
    home: Home, style: Style, changes: dict[str, Any], seen: dict[str, Any], expected: range
) -> None:
    with ListingApi(make_events(50), style) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url, **changes))
        assert import_registry(home.registry_path, document(s=seen)) == ["s"]
        assert home.view()["s"]["last_timestamp"] == at(30)
        assert home.run_once().code == 0
        assert siem.ids == {f"e{number}": 1 for number in expected}


@pytest.mark.process
def test_goes_on_at_the_rust_flickers_cursor(home: Home) -> None:
    style = Style(paging="cursor", never_ends=True)
    with ListingApi(make_events(30), style) as api, Destination() as siem:
        home.configure(
            make_source("s", api.endpoint, siem.url, pagination=CURSOR, time_filter_param=None)
        )
        assert home.run_once().code == 0
        seen = {"last_timestamp": at(29), "cursor": home.view()["s"]["cursor"]}
        api.add(make_events(10, 30))
        import_registry(home.directory / "b.json", document(s=seen))
        assert home.run_once("--registry-file", "b.json").code == 0
        assert siem.ids == dict.fromkeys(ids_of(make_events(40)), 1)


@pytest.mark.process
def test_imports_from_standard_input(home: Home) -> None:
    done = subprocess.run(
        [*COMMAND, "registry", "import", "-"],
        cwd=home.directory,
        env={"PYTHONPATH": str(ROOT)},
        input=document(b={"last_timestamp": at(1)}, a={"page": 2}),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"imported 2 source(s): a, b\n"
    assert home.view()["a"]["page"] == 2


@pytest.mark.process
@pytest.mark.parametrize("name", ["bad.json", "missing.json", ".", "/dev/full"])
def test_files_that_cannot_be_used_are_one_line(home: Home, name: str) -> None:
    (home.directory / "bad.json").write_text("{")
    command = "export" if name == "/dev/full" else "import"
    import_registry(home.registry_path, document(s={"offset": 3}))
    before = home.registry_path.read_bytes()
    done = home.run("registry", command, name)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert home.registry_path.read_bytes() == before


POLL = {"version": 1, "api": None}
SHIP = {"version": 1, "endpoint": None, "segment": 1, "delivered": {"$bytes": ""}, "batches": []}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no registry"),
        (b"\xff", "is no registry"),
        (b"[]", "is no registry"),
        (b'{"version": 1}', "is no registry"),
        (b'{"version": 1, "api_sources": []}', "is no registry"),
        (b'{"version": 1, "api_sources": {"s": null}}', "is no registry"),
        (b'{"version": 1, "api_sources": {"\\ud800": {}}}', "is no registry"),
        (b"[" * 100_000, "is no registry"),
        (b'{"version": 2, "api_sources": {}}', "version 2, and this Flicker reads version 1"),
        (b'{"version": "1", "api_sources": {}}', "version '1'"),
        (document(s={"last_timestamp": "yesterday"}), "s: .* is no instant"),
        (document(s={"last_timestamp": 10**30}), "s: .* is no instant"),
        (document(s={"offset": True}), "source 's': a place"),
        ({"poll": POLL}, "source 's': no 'seen'"),
        ({"poll": 5}, "s: .* version None"),
        ({"ship": {**SHIP, "version": 2}}, "s: .* version 2"),
        ({"ship": {**SHIP, "segment": -1}}, "source 's': 'segment'"),
        ({"ship": {**SHIP, "delivered": {"$bytes": "!!"}}}, "is no registry"),
        ({"ship": {**SHIP, "delivered": {"$bytes": 7}}}, "is no registry"),
        ({"ship": {**SHIP, "delivered": {"$bytes": "YQ=="}}}, "source 's': 'delivered'"),
        ({"ship": {**SHIP, "batches": [[{"$bytes": ""}, [1]]]}}, "source 's': a batch"),
        ({"other": SHIP}, "is no registry"),
    ],
)
def test_what_is_no_registry_is_refused_and_changes_nothing(
    tmp_path: Path, data: bytes | dict[str, Any], message: str
) -> None:
    if isinstance(data, dict):
        data = json.dumps({"version": 1, "api_sources": {}, "states": {"s": data}}).encode()
    with pytest.raises(RegistryError, match=message) as caught:
        import_registry(tmp_path / "r.json", data)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_replaces_sources_of_the_same_name_and_no_others(tmp_path: Path) -> None:
    """The old journal counts no more: the new events would be taken for delivered."""
    path = tmp_path / "r.json"
    import_registry(path, document(s={"offset": 3}, t={"offset": 4}))
    other = read_states(tmp_path / "r.json.d")[POLL_STEP, "t"]
    ship = {"version": 1, "endpoint": None, "segment": 1, "delivered": b"", "batches": []}
    edit_states(tmp_path / "r.json.d", {(SHIP_STEP, "s"): ship, (SHIP_STEP, "t"): ship})
    acks = tmp_path / "r.json.d" / "acks"
    for name in ("s", "t"):
        AckJournal(acks, name).append([name.encode() * 16])
    import_registry(path, document(s={"page": 5}))
    states = read_states(tmp_path / "r.json.d")
    assert states[POLL_STEP, "s"]["place"] == ["page", 5]
    assert (SHIP_STEP, "s") not in states
    assert states[POLL_STEP, "t"] == other
    assert AckJournal(acks, "s").resume(0) == set()
    assert AckJournal(acks, "t").resume(0) == {b"t" * 16}
    assert set(json.loads(path.read_bytes())["api_sources"]) == {"s", "t"}


def test_replaces_what_is_owed_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    import_registry(path, document(s={"offset": 3}, t={}))
    buffer = {"version": 1, "source": "s", "records": [(b"i" * 16, b"{}")], "first_at": 1.5}
    edit_states(tmp_path / "r.json.d", {(BUFFER_STEP, "s"): buffer})
    with pytest.raises(RegistryError, match=r"s: 1 event\(s\) are read and not delivered"):
        import_registry(path, document(s={"page": 5}, t={"page": 6}))
    assert read_states(tmp_path / "r.json.d")[POLL_STEP, "t"]["place"] is None
    import_registry(path, document(t={"page": 6}))
    import_registry(path, document(s={"page": 5}), is_forced=True)
    assert (BUFFER_STEP, "s") not in read_states(tmp_path / "r.json.d")


def test_a_position_of_before_start_time_is_kept(tmp_path: Path) -> None:
    """`start_time: 24h` counts from the next start, and is for sources without a position."""
    import_registry(tmp_path / "r.json", document(s={"last_timestamp": at(1)}, t={"offset": 1}))
    states = read_states(tmp_path / "r.json.d")
    assert load_position(states[POLL_STEP, "s"], "s", None, None).start_ns == 0
    assert load_position(states[POLL_STEP, "t"], "t", None, None).start_ns is None


def test_gives_what_it_takes(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "r.json.d", tmp_path / "r.json")
    registry.close()
    name = 'odd " \n\\ \u2028 名'
    poll = parse_export(document(s={"last_timestamp": at(1), "offset": 2**60}))[POLL_STEP, "s"]
    poll["seen"] = [bytes(range(16)), b"\xff" * 8, b"", b"", b"", b""]
    states = {
        (POLL_STEP, name): poll,
        (BUFFER_STEP, name): {
            "version": 1,
            "source": name,
            "records": [(b"b" * 16, b'{"a": 1.10}')],
            "first_at": 1.25,
        },
        (SHIP_STEP, name): {
            "version": 1,
            "endpoint": "http://x",
            "segment": 7,
            "delivered": b"d" * 16,
            "batches": [[b"o" * 32, [b"\x00", b"\xff"]]],
        },
    }
    edit_states(registry.directory, states)
    exported = export_registry(tmp_path / "r.json")
    import_registry(tmp_path / "b.json", exported)
    found = read_states(tmp_path / "b.json.d")
    found[BUFFER_STEP, name]["records"] = [
        tuple(record) for record in found[BUFFER_STEP, name]["records"]
    ]
    assert found == states
    assert export_registry(tmp_path / "b.json.d") is not None
    assert json.loads(exported)["api_sources"] == {}


def test_a_view_alone_can_be_exported(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(document(s={"last_timestamp": at(1), "cursor": "c"}))
    states = parse_export(export_registry(tmp_path / "r.json"))
    assert states[POLL_STEP, "s"]["place"] == ["cursor", "c"]
    with pytest.raises(RegistryError, match="there is no registry"):
        export_registry(tmp_path / "none.json")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
