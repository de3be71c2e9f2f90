"""The command: exit codes, messages, signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flicker import cli
from flicker.demo.servers import Destination, Response, always
from flicker.registry.edit import import_registry
from tests.processes import ROOT, Home, Process, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process

NOWHERE = "http://127.0.0.1:1/"
STYLE = Style(paging="offset", time_param="since")


@pytest.fixture
def destination() -> Iterator[Destination]:
    with Destination() as server:
        yield server


def shipping(home: Home, destination: Destination, count: int, *arguments: str) -> Process:
    """Start Flicker and wait until so many events have arrived."""
    process = home.start(*arguments)
    assert destination.wait_for(count, 45), process.stderr
    return process


@pytest.mark.parametrize("command", ["vendors", "schema", "init okta", "registry show"])
def test_ends_quietly_where_nobody_reads_on(home: Home, command: str) -> None:
    """As behind `| head -1`: short of a pipe's buffer or beyond it, no traceback."""
    if command == "registry show":
        with ListingApi(make_events(3), STYLE) as api, Destination() as siem:
            home.configure(make_source("vendor", api.endpoint, siem.url))
            assert home.run_once().code == 0
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "flicker", *command.split()],
            cwd=home.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(
    "command", ["vendors", "schema", "registry show", "registry show --json", "registry forget s1"]
)
def test_says_so_where_its_output_has_no_room(home: Home, command: str) -> None:
    """Short of a file's buffer or beyond it."""
    sources = {f"s{number}": {"cursor": "c" * 200} for number in range(100)}
    document = {"version": 1, "api_sources": sources}
    import_registry(home.registry_path, json.dumps(document).encode())
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "flicker", *command.split()],
            cwd=home.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    said = b"flicker: the output cannot be written (No space left on device)\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_stops_as_asked_with_0(home: Home) -> None:
    """T64: what the buffer holds is delivered before the end, whichever signal asks."""
    for number in (signal.SIGTERM, signal.SIGINT):
        events = make_events(25)
        with ListingApi(events, STYLE) as api, Destination() as siem:
            home.configure(
                make_source(f"s{number}", api.endpoint, siem.url, flush_interval_ms=9999)
            )
            process = shipping(home, siem, 20)
            # A second poll asks: the first scan has ended, and the watermark moved.
            assert wait_until(lambda: len(api.requests) >= 3)
            process.send(number)
            assert process.wait() == 0
            assert siem.ids == dict.fromkeys(ids_of(events), 1)
            view = home.view()[f"s{number}"]
            assert (view["buffered_events"], view["undelivered_batches"]) == (0, 0)
            assert view["last_timestamp"] == "2025-01-01T12:00:00.024Z"


def test_delivers_what_a_slow_destination_is_owed_before_it_stops(home: Home) -> None:
    """T64: a stop waits for the outbox."""
    events = make_events(60)
    with ListingApi(events, STYLE) as api, Destination(delay_s=0.2) as siem:
        source = make_source("s", api.endpoint, siem.url, destination={"concurrency": 1})
        home.configure(source)
        process = shipping(home, siem, 10)
        # The request for the third page tells that the first two were taken.
        assert api.wait_for_requests(3, 45)
        assert process.stop() == 0
        assert siem.ids == dict.fromkeys(ids_of(events), 1)


def test_a_stop_with_a_dead_destination_ends_with_the_grace_and_keeps_the_batches(
    home: Home,
) -> None:
    """T60: SIGTERM exits 0 after 10 s at most; the next run delivers."""
    events = make_events(30)
    with ListingApi(events, STYLE) as api, Destination() as siem:
        siem.respond = always(503)
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for(lambda: siem.request_count > 0, 45)
        asked_at = time.monotonic()
        assert process.stop() == 0
        assert 8 < time.monotonic() - asked_at < 13
        assert home.view()["s"]["undelivered_batches"] == 3
        assert "batches_owed=3" in process.stderr
        siem.respond = None
        assert home.run_once().code == 0
        assert siem.ids == dict.fromkeys(ids_of(events), 1)


def test_a_second_signal_ends_the_grace(home: Home) -> None:
    with ListingApi(make_events(30), STYLE) as api, Destination() as siem:
        siem.respond = always(Response(200, fault="silence"))
        home.configure(make_source("s", api.endpoint, siem.url))
        process = home.start()
        assert siem.wait_for_silence(1, 45)
        process.send(signal.SIGTERM)
        assert wait_until(lambda: not api.wait_for_requests(len(api.requests) + 1, 0.5))
        assert process.is_running
        asked_at = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - asked_at < 3


def test_once_delivers_everything_and_ends(home: Home, destination: Destination) -> None:
    events = make_events(125)
    with ListingApi(events, STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url, flush_interval_ms=99999))
        assert home.run_once().code == 0
        assert destination.ids == dict.fromkeys(ids_of(events), 1)
        api.add(make_events(5, start=125))
        assert home.run_once().code == 0
        assert destination.ids == dict.fromkeys(ids_of(make_events(130)), 1)


def test_once_gives_up_on_a_dead_destination_and_keeps_what_is_owed(home: Home) -> None:
    """T62: exit 1 after the retries; the next run delivers, each event once."""
    events = make_events(25)
    with ListingApi(events, STYLE) as api, Destination() as siem:
        siem.respond = always(503)
        home.configure(make_source("s", api.endpoint, siem.url), retry={"initial_delay_ms": 10})
        finished = home.run_once()
        assert finished.code == 1
        assert siem.request_count >= 6
        assert "not everything was read and delivered (s)" in finished.stderr
        assert home.view()["s"]["undelivered_batches"] == 3
        siem.respond = None
        assert home.run_once().code == 0
        assert siem.ids == dict.fromkeys(ids_of(events), 1)


def test_once_gives_up_on_a_dead_source_and_still_serves_the_others(
    home: Home, destination: Destination
) -> None:
    with ListingApi(make_events(25), STYLE) as api:
        home.configure(
            make_source("good", api.endpoint, destination.url),
            make_source("bad", NOWHERE, destination.url),
            retry={"initial_delay_ms": 10},
        )
        finished = home.run_once()
        assert finished.code == 1
        assert "(bad)" in finished.stderr
        assert destination.distinct_count == 25


WRONG = """
api_sources:
  - name: a
    endpoint: ftp://x
    polling_frequency: 5
    destination: {type: http, endpoint: "http://127.0.0.1:1/"}
  - name: b
    endpoint: http://127.0.0.1:1/
    api_key: ${FLICKER_TEST_UNSET}
    destination: {type: http, endpoint: "http://127.0.0.1:1/"}
"""


def test_validate_tells_every_problem_at_its_path(home: Home) -> None:
    home.config_path.write_text(WRONG)
    for arguments in (("validate", "-c", "config.yaml"), ("-c", "config.yaml")):
        finished = home.run(*arguments)
        assert finished.code == 2
        lines = finished.stderr.splitlines()
        for part in (
            "api_sources[0].endpoint",
            "api_sources[0].polling_frequency",
            "FLICKER_TEST_UNSET",
        ):
            assert any(part in line for line in lines), part
        assert all(line.startswith("flicker: ") for line in lines)


def test_validate_accepts_what_runs(home: Home) -> None:
    home.configure(make_source("a", NOWHERE, NOWHERE))
    for arguments in (("validate", "-c", "config.yaml"), ("-c", "config.yaml", "validate")):
        finished = home.run(*arguments)
        assert (finished.code, finished.stderr) == (0, "")
        assert "1 source(s)" in finished.stdout


def test_schema_is_json(home: Home) -> None:
    finished = home.run("schema")
    assert finished.code == 0
    assert "api_sources" in json.loads(finished.stdout)["properties"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no configuration"),
        (("-c", "missing.yaml"), 2, "missing.yaml does not exist"),
        (("-c", "."), 2, "cannot be read"),
        (("-c", "broken.yaml"), 2, "broken.yaml is no YAML at line 2"),
        (("-c", "config.yaml", "--track", "--registry-file", "s3://b"), 2, "names no object"),
        (("-c", "config.yaml", "--track", "--registry-file", "ftp://b/r"), 2, "is not supported"),
        (("-c", "config.yaml", "--track", "--standby"), 2, "need --registry-file s3://"),
        (("-c", "config.yaml", "--lease-seconds", "1"), 2, "must be a number of seconds, 3 to"),
        (("registry", "show", "--registry-file", "gone.json"), 1, "there is no registry at"),
        (("registry", "rewind", "s", "--to", "tomorrow"), 2, "--to: "),
        (("registry", "rewind", "s", "--to", "2999-01-01"), 2, "lies in the future"),
        (("registry",), 2, "required"),
        (("-c", "config.yaml", "--track", "--registry-file", "."), 2, "is a directory"),
        (
            ("-c", "config.yaml", "--track", "--registry-file", "/dev/null/r.json"),
            1,
            "/dev/null/r.json.d cannot be used: Not a directory",
        ),
        (("-c", "config.yaml", "--workers", "0"), 2, "--workers: must be a whole number from 1"),
        (("-c", "config.yaml", "--workers", "x"), 2, "--workers: must be a whole number from 1"),
        (("bogus",), 2, "invalid choice: 'bogus'"),
    ],
)
def test_says_in_one_line_what_is_wrong(
    home: Home, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """T61: unusable places are told, not traced."""
    home.configure(make_source("a", NOWHERE, NOWHERE))
    (home.directory / "broken.yaml").write_text("api_sources: [\n")
    finished = home.run(*arguments)
    assert finished.code == code
    assert message in finished.stderr.splitlines()[-1]


def test_refuses_a_registry_that_another_process_uses(home: Home, destination: Destination) -> None:
    """T61: two processes never share a registry."""
    with ListingApi(make_events(20), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url))
        process = shipping(home, destination, 20)
        finished = home.run_once()
        assert finished.code == 1
        assert f"in use by process {process.pid}" in finished.stderr
        assert process.stop() == 0
        assert home.run_once().code == 0


def _cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        _cut_in_half,
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(b""),
    ],
    ids=["truncated", "garbage", "empty"],
)
def test_refuses_damaged_partitions(
    home: Home, destination: Destination, damage: Callable[[Path], Any]
) -> None:
    """T61: told in a line; nothing is written over."""
    with ListingApi(make_events(20), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url))
        assert home.run_once().code == 0
        partition = home.recovery_dir / "part-0.sqlite3"
        damage(partition)
        damaged = partition.read_bytes()
        finished = home.run_once()
        assert finished.code == 1
        assert "is damaged" in finished.stderr
        assert len(finished.stderr.splitlines()) == 1
        assert partition.read_bytes() == damaged


@pytest.mark.parametrize(
    ("text", "alone", "beside"),
    [
        (b"", 0, 0),
        (b'{"version": 1, "api_so', 1, 0),
        (b"[]", 1, 0),
        (b'{"version": 2, "api_sources": {}}', 1, 1),
    ],
    ids=["empty", "truncated", "no view", "newer"],
)
def test_reads_the_view_only_where_the_partitions_are_gone(
    home: Home, destination: Destination, text: bytes, alone: int, beside: int
) -> None:
    """T61: a damaged view is no harm beside its partitions; a newer version always is."""
    events = make_events(20)
    with ListingApi(events, STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url))
        assert home.run_once().code == 0
        home.registry_path.write_bytes(text)
        finished = home.run_once()
        assert finished.code == beside, finished.stderr
        assert destination.ids == dict.fromkeys(ids_of(events), 1)
        if beside == 0:
            assert home.view()["s"]["last_timestamp"]
        shutil.rmtree(home.recovery_dir)
        home.registry_path.write_bytes(text)
        finished = home.run_once()
        assert finished.code == alone, finished.stderr
        if alone:
            assert len(finished.stderr.splitlines()) == 1
            assert home.registry_path.read_bytes() == text


def test_every_log_line_is_json_when_asked(home: Home, destination: Destination) -> None:
    with ListingApi(make_events(20), STYLE) as api:
        home.configure(
            make_source("s", api.endpoint, destination.url),
            make_source("t", NOWHERE, destination.url),
            retry={"initial_delay_ms": 10},
        )
        finished = home.run_once("--log-format", "json", "--log-level", "debug")
        *lines, verdict = finished.stderr.splitlines()
        assert verdict.startswith("flicker: ")
        entries = [json.loads(line) for line in lines]
        assert {entry["source"] for entry in entries if "source" in entry} == {"s", "t"}
        for entry in entries:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
            assert entry["level"] in {"debug", "info", "warning", "error"}
            assert entry["message"]


SECRETS = {
    "authorization": "Bearer s3cr3t-source-token",
    "api_key": "s3cr3t-api-key",
    "password": "s3cr3t-password",
    "param": "s3cr3t-param",
    "query": "s3cr3t-in-query",
    "bearer": "s3cr3t-siem-token",
}


def test_no_secret_reaches_the_output_or_the_registry(home: Home) -> None:
    """T67: not in a log line of any level, not in a byte of the registry, not in a dead letter."""

    def echo(request: Any) -> Response:
        # Links that carry the secrets, errors that repeat them, in turn.
        text = request.target + " " + " ".join(value for _, value in request.header_lines)
        if len(api.requests) % 3 == 1:
            return Response(500, body={"error": text})
        host = request.headers["host"]
        link = f'<http://{host}{request.target}&after={len(api.requests)}>; rel="next"'
        return Response(200, [("Link", link)], make_events(3, 3 * len(api.requests)))

    with ScriptedApi(echo) as api, Destination() as siem:
        siem.respond = lambda post: (
            Response(400, body={"error": str(post.header_lines) + SECRETS["query"]})
            if b"event 7" in post.body
            else Response(503, body={"error": str(post.header_lines)})
            if siem.request_count % 4 == 0
            else None
        )
        common: dict[str, Any] = {
            "results_field": "",
            "time_filter_param": None,
            "pagination": {
                "pagination_type": "cursor",
                "cursor_param": "after",
                "next_cursor_field": "next",
            },
            "max_pages": 2,
            "params": {"secret": SECRETS["param"]},
            "destination": {"auth": {"type": "bearer", "token": SECRETS["bearer"]}},
        }
        sources = []
        ways: dict[str, dict[str, Any]] = {
            "headers": {"headers": {"Authorization": SECRETS["authorization"]}},
            "key": {"api_key": SECRETS["api_key"]},
            "basic": {"basic": {"username": "user", "password": SECRETS["password"]}},
        }
        for name, credentials in ways.items():
            endpoint = f"{api.url}/x?token={SECRETS['query']}"
            target = f"{siem.url}/?key={SECRETS['query']}"
            sources.append(make_source(name, endpoint, target, **common, **credentials))
        home.configure(*sources)
        process = home.start("--log-level", "debug")
        assert siem.wait_for(40, 45), process.stderr
        assert wait_until(lambda: len(home.view()) == 3)
        process.kill()
        second = home.start("--log-level", "debug", "--log-format", "json")
        assert siem.wait_for(siem.distinct_count + 20, 45), second.stderr
        assert second.stop() == 0
    sent = b"".join(repr(r.header_lines).encode() for r in siem.requests)
    assert SECRETS["bearer"].encode() in sent
    written = [path for path in home.directory.rglob("*") if path.is_file()]
    assert any(path.name == "flicker-dead-letter.jsonl" for path in written)
    for path in written:
        if path != home.config_path:
            found = re.findall(rb"[^\n]{0,80}s3cr3t[^\n]{0,20}", path.read_bytes())
            assert not found, (path.name, found[:3])
    assert home.recovery_dir.stat().st_mode & 0o077 == 0


BUG = """
import sys
from flicker import cli, source
def fail(*_):
    raise KeyError("of ours")
setattr(getattr(source, sys.argv[1]), sys.argv[2], fail)
sys.exit(cli.main(["-c", "config.yaml", "--track", "--workers", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    ("where", "workers"),
    [
        (("ApiPartition", "next_batch"), "1"),
        (("ApiPartition", "next_batch"), "2"),
        (("ApiPartition", "snapshot"), "1"),
        (("ApiSource", "build_part"), "2"),
        (("ApiSource", "list_parts"), "1"),
    ],
)
def test_a_fault_of_our_own_ends_in_one_line(
    home: Home, where: tuple[str, str], workers: str
) -> None:
    """What Bytewax raises, wherever it comes from, is told and not traced."""
    home.configure(make_source("s", NOWHERE, NOWHERE))
    process = home.spawn([sys.executable, "-c", BUG, *where, workers])
    assert process.wait() == 1
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("flicker: ")]
    assert "KeyError: 'of ours'" in line


WATCHED = """
import sys, threading
from flicker import cli

def run(*arguments, run=cli.cluster_main, **options):
    print("flicker-memory" in {thread.name for thread in threading.enumerate()})
    return run(*arguments, **options)

cli.cluster_main = run
sys.exit(cli.main(["-c", "config.yaml", "--once"]))
"""


def test_memory_is_given_back_while_the_flow_runs(home: Home, destination: Destination) -> None:
    with ListingApi(make_events(3), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url))
        process = home.spawn([sys.executable, "-c", WATCHED])
        assert process.wait() == 0, process.stderr
    assert process.stdout == "True\n"


@pytest.mark.parametrize(
    ("sources", "seconds"), [(1, 1.0), (400, 1.0), (800, 2.0), (1000, 2.5), (50_000, 2.5)]
)
def test_snapshots_are_further_apart_where_they_are_large(sources: int, seconds: float) -> None:
    """But not so far that the readable view could not be there within five seconds."""
    assert cli._epoch_interval(sources) == timedelta(seconds=seconds)
