"""`flicker registry`: what it shows, prints and refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from argparse import ArgumentParser
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from flicker.cli import main
from flicker.demo.servers import Destination, Request, Response, always
from flicker.registry.commands import add_commands
from flicker.registry.edit import import_registry
from flicker.registry.local import open_registry
from flicker.registry.partitions import SHIP_STEP, edit_states
from flicker.registry.report import inspect
from tests.processes import Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.s3 import MotoServer

pytest_plugins = ("tests.servers.s3",)

STYLE = Style(paging="offset", time_param="since")
SHIP = {"version": 1, "endpoint": None, "segment": 1, "delivered": b"", "batches": []}


def document(**sources: Any) -> bytes:
    """Make a registry as the Rust Flicker writes it."""
    return json.dumps({"version": 1, "api_sources": sources}).encode()


def show(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    """Run `registry show --json`."""
    assert main(["registry", "show", "--json", "--registry-file", str(path)]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def table(capsys: pytest.CaptureFixture[str], path: Path) -> list[str]:
    """Run `registry show`."""
    assert main(["registry", "show", "--registry-file", str(path)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.process
def test_shows_a_registry_beside_a_running_flicker_and_disturbs_nothing(home: Home) -> None:
    """Twenty times, while events flow; the partitions stay whole."""

    def hold(request: Request) -> Response | None:
        return Response(503) if request.params.get("offset") == "100" else None

    with (
        ListingApi(make_events(40), STYLE) as api,
        ListingApi(make_events(200), STYLE, before_reply=hold) as stuck,
        Destination() as siem,
        Destination() as dead,
    ):
        dead.respond = always(503)
        home.configure(
            make_source("s", api.endpoint, siem.url),
            make_source("owes", api.endpoint, dead.url),
            make_source("stuck", stuck.endpoint, siem.url, match_on=["nothing"]),
        )
        process = home.start()
        assert siem.wait_for(40, 45), process.stderr
        assert wait_until(lambda: home.view().get("owes", {}).get("undelivered_batches") == 4)
        assert wait_until(lambda: home.view()["stuck"].get("offset") == 100)
        for number in range(20):
            api.add(make_events(2, 40 + 2 * number))
            report = inspect(home.registry_path)
            assert report.holder == f"process {process.pid}"
            assert set(report.api_sources) == {"owes", "s", "stuck"}
        done = home.run("registry", "show", "--json")
        assert (done.code, done.stderr) == (0, "")
        shown = json.loads(done.stdout)
        assert shown["lease"] == {"instance": f"process {process.pid}", "expires_at": None}
        assert shown["api_sources"]["owes"]["undelivered_batches"] >= 4
        assert shown["api_sources"]["stuck"]["state"] == "mid-scan"
        assert shown["api_sources"]["stuck"]["offset"] == 100
        assert 0 <= shown["age_s"] < 60
        assert siem.wait_for(80, 45)
        dead.respond = None
        assert dead.wait_for(80, 45)
        assert process.stop() == 0, process.stderr
        assert siem.ids == dead.ids == dict.fromkeys(ids_of(make_events(80)), 1)
        with closing(sqlite3.connect(home.recovery_dir / "part-0.sqlite3")) as partition:
            assert partition.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert "held by   nobody\n" in home.run("registry", "show").stdout


@pytest.mark.process
def test_shows_and_edits_the_directory_of_another_host(home: Home) -> None:
    """`-r DIR` of `bytewax.run` has no readable view beside it."""
    directory = home.directory / "registry.d"
    arguments = ("-r", str(directory), "-s", "1", "-b", "0")
    where = ("--registry-file", str(directory))
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.host(*arguments)
        assert siem.wait_for(20, 45), process.stderr
        assert wait_until(lambda: _stamp(directory) == "2025-01-01T12:00:00.019Z")
        refused = home.run("registry", "forget", "s", *where)
        assert (refused.code, f"in use by process {process.pid}" in refused.stderr) == (1, True)
        process.stop()
        done = home.run("registry", "rewind", "s", "--to", "2025-01-01T12:00:00.015Z", *where)
        assert done.code == 0, done.stderr
        process = home.host(*arguments)
        assert siem.wait_for(lambda: siem.delivered_count == 25, 45), process.stderr
        process.stop()
        assert siem.duplicates == {f"e{number}": 1 for number in range(15, 20)}
        assert not home.registry_path.exists()


def _stamp(directory: Path) -> object:
    if not list(directory.glob("part-*.sqlite3")):
        return None
    return inspect(directory).api_sources.get("s", {}).get("last_timestamp")


@pytest.mark.process
def test_shows_who_holds_a_lease(home: Home, moto: MotoServer) -> None:
    where = f"s3://{moto.new_bucket()}/path/registry.json"

    def look(*arguments: str) -> Any:
        return home.run("registry", "show", "--registry-file", where, *arguments, env=moto.env)

    nothing = look()
    assert (nothing.code, nothing.stdout, nothing.stderr.count("\n")) == (1, "", 1)
    with ListingApi(make_events(20), STYLE) as api, Destination() as siem:
        siem.respond = always(503)
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start("--registry-file", where, env=moto.env)
        shown: dict[str, Any] = {}

        def is_uploaded() -> bool:
            done = look("--json")
            shown.update(json.loads(done.stdout) if done.code == 0 else {})
            return bool(shown.get("api_sources", {}).get("s", {}).get("undelivered_batches") == 2)

        assert wait_until(is_uploaded), process.stderr
        assert str(process.pid) in shown["lease"]["instance"]
        assert shown["lease"]["expires_at"] > shown["written_at"]
        assert 0 <= shown["age_s"] < 60
        text = look().stdout
        assert f"held by   {shown['lease']['instance']} until 20" in text
        assert "2 batches" in text
        siem.respond = None
        assert siem.wait_for(20, 45)
        assert process.stop() == 0, process.stderr
        shown = json.loads(look("--json").stdout)
        assert shown["lease"] is None
        assert shown["api_sources"]["s"]["undelivered_batches"] == 0


@pytest.mark.process
def test_output_that_nobody_reads_is_no_traceback(home: Home) -> None:
    """Devices and pipes are written to; a file in their place would replace them."""
    import_registry(home.registry_path, document(s={"offset": 3}))
    pipe = home.directory / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    thread.start()
    done = home.run("registry", "export", "pipe")
    thread.join(20)
    assert (done.code, done.stderr) == (0, "")
    assert pipe.is_fifo()
    assert json.loads(read[0])["states"]["s"]["poll"]["place"] == ["offset", 3]


def test_shows_each_state_of_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    cursor = "c" * 5000
    import_registry(
        path,
        document(
            idle={"last_timestamp": "2025-01-01T00:00:00Z", "offset": 7},
            gone={"page": 3},
            long={"cursor": cursor},
            new={},
        ),
    )
    owed = {**SHIP, "batches": [[b"i" * 16, [b"{}"]]] * 2}
    edit_states(tmp_path / "r.json.d", {(SHIP_STEP, "idle"): owed})
    view = json.loads(path.read_bytes())
    view["api_sources"]["gone"]["retired"] = True
    path.write_text(json.dumps(view))
    lines = table(capsys, path)
    assert lines[:2] == [f"registry  {path}", "held by   nobody"]
    assert lines[2].startswith("saved     ")
    assert [line.split() for line in lines[4:]] == [
        ["SOURCE", "LAST", "TIMESTAMP", "STATE", "UNDELIVERED", "CURSOR"],
        ["gone", "-", "idle,", "retired", "0", "batches", "page", "3"],
        ["idle", "2025-01-01T00:00:00Z", "idle", "2", "batches", "offset", "7"],
        ["long", "-", "idle", "0", "batches", cursor],
        ["new", "-", "idle", "0", "batches", "-"],
    ]
    shown = show(capsys, path)
    assert shown["version"] == 1
    assert shown["registry"] == str(path)
    assert shown["lease"] is None
    assert shown["api_sources"]["gone"]["state"] == "idle, retired"
    assert shown["api_sources"]["long"]["cursor"] == cursor
    assert shown["api_sources"]["idle"]["undelivered_batches"] == 2


def test_a_terminal_is_told_nothing_by_names_and_cursors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, cursor = "名\n\x1b[2J", "\x1b]0;x\x07\u202e"
    import_registry(tmp_path / "r.json", document(**{name: {"cursor": cursor}}))
    lines = table(capsys, tmp_path / "r.json")
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    assert lines[5].startswith(r"名\n\x1b[2J ")
    assert show(capsys, tmp_path / "r.json")["api_sources"][name]["cursor"] == cursor


def test_looking_makes_a_registry_no_younger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite makes files beside a partition to read it."""
    import_registry(tmp_path / "r.json", document(s={"offset": 3}))
    for path in (tmp_path / "r.json.d").iterdir():
        os.utime(path, (time.time() - 5000,) * 2)
    for _ in range(2):
        assert show(capsys, tmp_path / "r.json")["age_s"] >= 5000


def test_a_registry_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_registry(tmp_path / "d").close()
    assert show(capsys, tmp_path / "d")["api_sources"] == {}
    assert table(capsys, tmp_path / "d")[-1].startswith("SOURCE")


def test_shows_what_the_rust_flicker_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {"last_timestamp": "2025-01-01T00:00:00Z", "cursor": None}
    (tmp_path / "r.json").write_bytes(document(s=seen))
    shown = show(capsys, tmp_path / "r.json")
    assert shown["api_sources"] == {"s": {**seen, "state": "idle"}}
    assert shown["age_s"] >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("damage", ["nothing", "empty", "view", "partition", "version", "garbage"])
def test_what_cannot_be_shown_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "r.json"
    if damage == "empty":
        path.touch()
    elif damage == "view":
        path.write_text("{")
    elif damage == "version":
        path.write_text('{"version": 2, "api_sources": {}}')
    elif damage != "nothing":
        import_registry(path, document(s={"offset": 3}))
        for log in (tmp_path / "r.json.d").glob("part-0.sqlite3-*"):
            log.unlink()
        data = b"" if damage == "partition" else b"garbage" * 1000
        (tmp_path / "r.json.d" / "part-0.sqlite3").write_bytes(data)
    for command in (["show"], ["export", str(tmp_path / "out")], ["forget", "s"]):
        assert main(["registry", *command, "--registry-file", str(path)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("flicker: ")
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["rewind", "s"], "--to"),
        (["rewind", "s", "--to", "soon"], "is neither an instant"),
        (["rewind", "s", "--to", "2100-01-01"], "lies in the future"),
        (["forget"], "NAME"),
        (["export"], "FILE"),
    ],
)
def test_wrong_arguments_end_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["registry", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("where", ["s3://", "s3://bucket", "s3://bucket/path/", "gs://b/k"])
def test_a_place_that_is_none_is_a_mistake_of_the_configuration(
    capsys: pytest.CaptureFixture[str], where: str
) -> None:
    assert main(["registry", "show", "--registry-file", where]) == 2
    assert "--registry-file" in capsys.readouterr().err


def test_a_span_counts_back_from_now() -> None:
    parser = ArgumentParser()
    add_commands(parser, lambda *_, **__: None)
    args = parser.parse_args(["rewind", "s", "--to", "24h"])
    assert abs(time.time_ns() - 86_400 * 10**9 - args.to) < 60 * 10**9
    args = parser.parse_args(["rewind", "s", "--to", "2025-01-01T00:00:00Z"])
    assert args.to == 1_735_689_600 * 10**9
