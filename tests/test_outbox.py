"""Owing batches until they are acknowledged, whatever the destination does."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import pickle
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flicker import outbox as outbox_module
from flicker.client import Client, Reply
from flicker.deadletter import DeadLetters
from flicker.demo.servers import Destination as Server
from flicker.demo.servers import Response, always, in_turn
from flicker.errors import RegistryError
from flicker.events import Record
from flicker.journal import AckJournal
from flicker.outbox import Outbox
from flicker.runtime import Runtime
from flicker.settings import Credentials, Destination, Endpoint, Retry, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flicker.demo.servers import Fault, Request
    from flicker.pool import Pool
    from flicker.settings import WireFormat

LIMIT_S = 10.0
FAST = Retry(initial_delay=timedelta(milliseconds=2), max_delay=timedelta(milliseconds=8))
TOKEN = "tok-0123456789abcdef"


def record(number: int, event: bytes = b"{}", source: str = "s") -> Record:
    body = b'{"source":"%b","id":"e%d","timestamp":null,"message":null,"event":%b}' % (
        source.encode(),
        number,
        event,
    )
    return Record(identity(number), body)


def identity(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


def records(*numbers: int) -> list[Record]:
    return [record(number) for number in numbers]


def names(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a limit."""
    deadline = time.monotonic() + LIMIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        pause.wait(0.002)


@dataclass
class Bench:
    """Makes outboxes that share a process, and cleans up after them."""

    directory: Path
    retry: Retry = FAST
    once: bool = False
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dead_path = self.directory / "dead.jsonl"
        self.runtime = Runtime(self.retry, DeadLetters(self.dead_path), once=self.once)

    def set(self, *, once: bool = False, **retry: Any) -> None:
        self.retry = Retry(
            **{"initial_delay": FAST.initial_delay, "max_delay": FAST.max_delay, **retry}
        )
        self.runtime = Runtime(self.retry, DeadLetters(self.dead_path), once=once)

    def outbox(
        self,
        server: Server,
        *,
        source: str = "s",
        path: str = "/ingest",
        concurrency: int = 1,
        form: WireFormat = "json",
        compression: bool = False,
        state: dict[str, Any] | None = None,
        journal: AckJournal | None = None,
        timeout_s: float = 5.0,
        token: str = TOKEN,
    ) -> Outbox:
        endpoint = Endpoint(
            server.url + path,
            credentials=Credentials(bearer=Secret(token)),
            timeout=timedelta(seconds=timeout_s),
        )
        client = Client(endpoint, connections=8)
        self.clients.append(client)
        destination = Destination(endpoint, form, compression, concurrency)
        return Outbox(source, destination, client, self.runtime, journal, state)

    @property
    def dead(self) -> list[dict[str, Any]]:
        if not self.dead_path.is_file():
            return []
        return [json.loads(line) for line in self.dead_path.read_bytes().splitlines()]

    @property
    def dead_ids(self) -> list[str]:
        return [line["event"]["id"] for line in self.dead]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for client in bench.clients:
        client._connections.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(token=TOKEN) as server:
        yield server


def gaps_s(server: Server) -> list[float]:
    times = [post.received_s for post in server.posts]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def at_level(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno == level]


# What an answer means


@pytest.mark.parametrize("status", [200, 201, 202, 204, 207])
def test_any_2xx_acknowledges(bench: Bench, server: Server, status: int) -> None:
    server.respond = always(status)
    outbox = bench.outbox(server)
    outbox.add(records(1, 2))
    eventually(lambda: outbox.owed == 0)
    assert server.delivered_order("s") == names(1, 2)
    assert outbox.snapshot()["batches"] == []


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((status, None) for status in (408, 425, 429, 500, 502, 503, 504, 507)),
        (503, "reset_before_headers"),
        (503, "reset_mid_body"),
        (503, "truncate"),
    ],
)
def test_passing_trouble_is_outlived_in_order_and_warned_of_once(
    bench: Bench,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    status: int,
    fault: Fault | None,
) -> None:
    """T62: 408, 425, 429, 5xx and broken connections are tried again, the oldest batch first."""
    server.respond = in_turn([Response(status, body="no", fault=fault)] * 3)
    outbox = bench.outbox(server)
    for number in range(4):
        outbox.add(records(number))
    eventually(lambda: outbox.owed == 0)
    assert server.delivered_order("s") == names(0, 1, 2, 3)
    keys = [post.headers["idempotency-key"] for post in server.posts]
    assert len(set(keys[:4])) == 1
    assert len(keys) == 7
    assert len(set(keys)) == 4
    assert len(at_level(caplog, logging.WARNING)) == 1
    assert bench.dead == []


def test_a_silent_destination_is_given_up_on_in_time_and_asked_again(
    bench: Bench, server: Server
) -> None:
    """T62: a timeout is retried."""
    server.respond = in_turn([Response(503, fault="silence")])
    outbox = bench.outbox(server, timeout_s=0.2)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    server.release()
    assert server.delivered_order("s") == names(1)


def test_requests_that_fail_together_are_one_failure_and_then_one_goes_at_a_time(
    bench: Bench, server: Server
) -> None:
    in_flight: list[int] = []
    scripted = in_turn([Response(503, fault="silence")] * 4 + [Response(503)] * 3)

    def respond(request: Request) -> Response | None:
        in_flight.append(server._in_flight)
        return scripted(request)

    server.respond = respond
    bench.set(initial_delay=timedelta(milliseconds=100), max_delay=timedelta(milliseconds=100))
    outbox = bench.outbox(server, concurrency=4)
    for number in range(9):
        outbox.add(records(number))
    assert server.wait_for_silence(4, LIMIT_S)
    server.release()
    eventually(lambda: outbox._in_flight == 0)
    assert outbox._failures == 1
    eventually(lambda: outbox.owed == 0)
    assert max(in_flight) == server.peak_in_flight == 4
    assert in_flight[4:8] == [1, 1, 1, 1]
    assert [post.records[0].id for post in server.posts[4:8]] == names(0, 0, 0, 0)
    assert server.ids == Counter(names(*range(9)))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_run_at_a_time_than_allowed(
    bench: Bench, server: Server, concurrency: int
) -> None:
    server.respond = always(Response(200, fault="silence"))
    outbox = bench.outbox(server, concurrency=concurrency)
    for number in range(8):
        outbox.add(records(number))
    assert server.wait_for_silence(concurrency, LIMIT_S)
    server.respond = None
    server.release()
    eventually(lambda: outbox.owed == 0)
    assert server.peak_in_flight == concurrency
    assert server.ids == Counter(names(*range(8)))


def test_backoff_doubles_up_to_the_longest(bench: Bench, server: Server) -> None:
    bench.set(initial_delay=timedelta(milliseconds=20), max_delay=timedelta(milliseconds=80))
    server.respond = in_turn([Response(500)] * 5)
    outbox = bench.outbox(server)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    for gap_s, least_s in zip(gaps_s(server), (0.01, 0.02, 0.04, 0.04, 0.04), strict=True):
        assert gap_s >= least_s


def test_retry_after_holds_though_another_request_succeeds_and_we_are_in_a_hurry(
    bench: Bench, server: Server
) -> None:
    """T62: a 429's Retry-After is kept to by all batches."""
    server.respond = in_turn(
        [Response(200, fault="silence"), Response(429, [("Retry-After", "1")])]
    )
    outbox = bench.outbox(server, concurrency=2)
    outbox.add(records(1))
    assert server.wait_for_silence(1, LIMIT_S)
    outbox.add(records(2))
    eventually(lambda: outbox._failures)
    server.release()
    eventually(lambda: outbox.owed == 1)
    outbox.add(records(3))
    outbox.hurry()
    eventually(lambda: outbox.owed == 0)
    assert gaps_s(server)[1] >= 0.99
    assert server.delivered_order("s") == names(1, 2, 3)


def test_retry_after_of_nothing_does_not_hammer(bench: Bench, server: Server) -> None:
    bench.set(initial_delay=timedelta(milliseconds=20), max_delay=timedelta(milliseconds=80))
    server.respond = in_turn([Response(503, [("Retry-After", "0")])] * 3)
    outbox = bench.outbox(server)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    assert gaps_s(server)[2] >= 0.04


def test_a_hurry_tries_at_once_what_was_only_put_off(bench: Bench, server: Server) -> None:
    bench.set(initial_delay=timedelta(seconds=60), max_delay=timedelta(seconds=60))
    server.respond = in_turn([Response(503)])
    outbox = bench.outbox(server)
    outbox.add(records(1))
    eventually(lambda: outbox._failures)
    outbox.hurry()
    eventually(lambda: outbox.owed == 0)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 403, 404, 405, 407])
def test_what_a_human_has_to_repair_is_kept_and_said_once(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """T62: a redirect is not followed and the token goes nowhere else; 401, 403, 404 are kept."""
    bench.set(initial_delay=timedelta(milliseconds=1), max_delay=timedelta(milliseconds=30))
    with Server() as elsewhere:
        headers = [("Location", elsewhere.url + "/ingest")]
        server.respond = in_turn([Response(status, headers, "Sign in!")] * 3)
        outbox = bench.outbox(server)
        outbox.add(records(1))
        outbox.add(records(2))
        eventually(lambda: outbox.owed == 0)
        assert elsewhere.request_count == 0
    assert min(gaps_s(server)[:3]) >= 0.03
    assert len(at_level(caplog, logging.ERROR)) == 1
    assert server.delivered_order("s") == names(1, 2)
    assert bench.dead == []


def test_too_large_a_batch_is_halved_until_it_fits(bench: Bench, server: Server) -> None:
    """T62: 413."""

    def respond(request: Request) -> Response | None:
        return Response(413) if len(json.loads(request.body)) > 2 else None

    server.respond = respond
    outbox = bench.outbox(server)
    outbox.add(records(*range(7)))
    outbox.add(records(7))
    eventually(lambda: outbox.owed == 0)
    assert server.delivered_order("s") == names(*range(8))
    assert outbox._bytes == 0
    assert bench.dead == []


@pytest.mark.parametrize("status", [400, 422, 413, 415])
@pytest.mark.parametrize("poison", [{0}, {6}, {2, 3}, set(range(7))])
def test_refused_events_alone_go_to_the_dead_letters(
    bench: Bench,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    status: int,
    poison: set[int],
) -> None:
    """T62: a poison batch neither blocks the rest nor vanishes."""

    def respond(request: Request) -> Response | None:
        ids = {entry["id"] for entry in json.loads(request.body)}
        return Response(status, body={"bad": True}) if ids & set(names(*poison)) else None

    server.respond = respond
    outbox = bench.outbox(server, concurrency=2)
    outbox.add(records(*range(7)))
    outbox.add(records(7, 8))
    eventually(lambda: outbox.owed == 0)
    assert server.ids == Counter(names(*({*range(9)} - poison)))
    assert sorted(bench.dead_ids) == names(*sorted(poison))
    for line in bench.dead:
        assert list(line) == ["when", "source", "status", "response", "event"]
        assert (line["source"], line["status"]) == ("s", status)
        assert line["response"] == '{"bad":true}'
        assert line["event"]["event"] == {}
    assert len(at_level(caplog, logging.ERROR)) == len(poison)


def test_a_refused_event_is_owed_until_the_dead_letter_file_takes_it(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bench.dead_path.mkdir()
    bench.set(initial_delay=timedelta(seconds=30), max_delay=timedelta(seconds=30))

    def respond(request: Request) -> Response | None:
        return Response(400) if b'"e1"' in request.body else None

    server.respond = respond
    outbox = bench.outbox(server)
    outbox.add(records(1))
    for number in range(2, 6):
        outbox.add(records(number))
    eventually(lambda: outbox.owed == 1)
    assert server.delivered_order("s") == names(2, 3, 4, 5)
    outbox.hurry()
    eventually(lambda: outbox._shipments[0].held_until and not outbox._in_flight)
    assert [batch[0] for batch in outbox.snapshot()["batches"]] == [identity(1)]
    assert len(at_level(caplog, logging.ERROR)) == 1
    bench.dead_path.rmdir()
    outbox.hurry()
    eventually(lambda: outbox.owed == 0)
    assert bench.dead_ids == names(1)
    assert bench.dead[0]["status"] == 400
    # What it thinks of the event was known.
    assert sum(b'"e1"' in post.body for post in server.posts) == 1


def test_exhausted_retries_go_to_the_dead_letters_and_the_next_batch_goes_on(
    bench: Bench, server: Server
) -> None:
    bench.set(max_retries=2)
    server.respond = in_turn([Response(503)] * 3)
    outbox = bench.outbox(server)
    outbox.add(records(1, 2))
    outbox.add(records(3))
    eventually(lambda: outbox.owed == 0)
    assert bench.dead_ids == names(1, 2)
    assert {(line["status"], line["response"]) for line in bench.dead} == {(503, "answers 503")}
    assert server.delivered_order("s") == names(3)
    assert not outbox.gave_up


def test_exhausted_retries_without_a_dead_letter_file_are_retried(
    bench: Bench, server: Server
) -> None:
    bench.dead_path.mkdir()
    bench.set(max_retries=1)
    server.respond = in_turn([Response(503)] * 6)
    outbox = bench.outbox(server)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    assert server.ids == Counter(names(1))


def test_once_gives_up_on_a_destination_and_keeps_what_is_owed(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bench.set(once=True)
    server.respond = always(503)
    outbox = bench.outbox(server, concurrency=2)
    for number in range(3):
        outbox.add(records(number))
    eventually(lambda: outbox.gave_up)
    assert bench.runtime.failed == {"s"}
    assert len(outbox.snapshot()["batches"]) == 3
    assert bench.dead == []
    assert at_level(caplog, logging.ERROR) == ["giving up on the destination"]
    assert max(Counter(post.body for post in server.posts).values()) == 6


def test_once_delivers_the_rest_when_only_the_dead_letter_file_fails(
    bench: Bench, server: Server
) -> None:
    bench.dead_path.mkdir()
    bench.set(once=True)
    server.respond = lambda request: Response(400) if b'"e1"' in request.body else None
    outbox = bench.outbox(server)
    outbox.add(records(0, 1, 2))
    outbox.add(records(3))
    eventually(lambda: outbox.gave_up)
    assert server.ids == Counter(names(0, 2, 3))
    assert bench.runtime.failed == {"s"}
    assert outbox.owed == 1


def test_a_request_whose_answer_was_lost_is_repeated_so_that_it_can_be_recognised(
    bench: Bench, server: Server
) -> None:
    """T60, T62: taken, then the connection broke: the same key, the same ids."""
    server.respond = in_turn([Response(200, fault="reset_before_headers")])
    outbox = bench.outbox(server)
    outbox.add(records(1, 2))
    outbox.add(records(3))
    eventually(lambda: outbox.owed == 0)
    first, again, other = server.posts
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert first.headers["idempotency-key"] != other.headers["idempotency-key"]
    assert first.body == again.body
    assert server.duplicates == {"e1": 1, "e2": 1}


# On the wire


def test_compressed_bodies_are_gzip_and_say_so(bench: Bench, server: Server) -> None:
    outbox = bench.outbox(server, compression=True)
    outbox.add([record(1, b'{"n":12345678901234567890}')])
    eventually(lambda: outbox.owed == 0)
    (post,) = server.posts
    assert post.headers["content-encoding"] == "gzip"
    assert post.headers["content-type"] == "application/json"
    assert json.loads(gzip.decompress(post.body))[0]["id"] == "e1"
    assert server.raw_events == [b'{"n":12345678901234567890}']


def test_ndjson_is_one_line_an_event_however_the_vendor_breaks_lines(
    bench: Bench, server: Server
) -> None:
    outbox = bench.outbox(server, form="ndjson")
    outbox.add([record(1, b'{\r\n  "a": "x\\ny"\n}'), record(2)])
    eventually(lambda: outbox.owed == 0)
    (post,) = server.posts
    assert post.headers["content-type"] == "application/x-ndjson"
    lines = post.body.split(b"\n")
    assert lines[2:] == [b""]
    assert b"\r" not in post.body
    assert json.loads(lines[0])["event"] == {"a": "x\ny"}
    assert server.delivered_order("s") == names(1, 2)


# What is told to whom


@pytest.mark.parametrize("before", [0, 480, 490, 499, 1985, 65_530])
def test_credentials_that_the_destination_echoes_are_kept_nowhere(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture, before: int
) -> None:
    """T67: also where the echoed text is cut short in the middle of a credential."""
    caplog.set_level(logging.DEBUG)
    server.respond = always(Response(400, body="x" * before + f"Bearer {TOKEN} is wrong"))
    outbox = bench.outbox(server)
    outbox.add(records(1, 2))
    eventually(lambda: outbox.owed == 0)
    text = bench.dead_path.read_text() + caplog.text + repr([vars(r) for r in caplog.records])
    assert TOKEN[:6] not in text
    assert "xxx" in text or before == 0


@pytest.mark.parametrize(
    "echo", [r"siem\/Core4+Q=", r"siem\u002FCore4\u002bQ=", "siem%252FCore4%252BQ%253D"]
)
def test_credentials_that_the_destination_echoes_escaped_are_kept_nowhere(
    bench: Bench, server: Server, echo: str
) -> None:
    """T67: as PHP and .NET write JSON, and as a link within a link."""
    server.respond = always(Response(422, body=f'{{"errors": ["Bearer {echo} is wrong"]}}'))
    outbox = bench.outbox(server, token="siem/Core4+Q=")
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    (line,) = bench.dead_path.read_text().splitlines()
    assert json.loads(line)["response"] == '{"errors": ["Bearer *** is wrong"]}'


def test_keys_in_the_destinations_path_are_in_no_dead_letter(bench: Bench, server: Server) -> None:
    """T67: error pages name the path that was asked for."""
    path = "/receiver/v1/0123456789abcdef-key"
    server.respond = always(Response(400, body=f'{{"path": "{path}"}}'))
    outbox = bench.outbox(server, path=path)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    (line,) = bench.dead_path.read_text().splitlines()
    assert json.loads(line)["response"] == '{"path": "/receiver/v1/***"}'


def test_path_and_query_of_the_destination_are_in_no_log_and_no_snapshot(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """T67: some collectors take their token in the path."""
    caplog.set_level(logging.DEBUG)
    bench.set(once=True)
    server.respond = always(404)
    outbox = bench.outbox(server, path="/receiver/s3cr3t-path?key=s3cr3t-query")
    outbox.add(records(1))
    eventually(lambda: outbox.gave_up)
    told = repr([vars(entry) for entry in caplog.records]) + repr(outbox.snapshot())
    assert server.url in told
    assert "s3cr3t" not in told
    assert TOKEN not in told


def test_a_fault_of_ours_keeps_the_batch_and_quotes_nothing(
    bench: Bench,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T67: not even an exception's text is logged."""
    outcomes = itertools.chain([ValueError("e1 and s3cr3t")], itertools.repeat(None))
    original = Client.post

    def post(self: Client, body: bytes, headers: dict[str, str]) -> Reply:
        if error := next(outcomes):
            raise error
        return original(self, body, headers)

    monkeypatch.setattr(Client, "post", post)
    outbox = bench.outbox(server)
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    assert server.ids == Counter(names(1))
    assert "s3cr3t" not in caplog.text
    assert "delivery failed unexpectedly" in at_level(caplog, logging.ERROR)


# Pausing, and who is paused


def test_is_full_by_batches_and_by_bytes(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T63: what a slow destination owes is bounded, whichever bound bites first."""
    server.respond = always(Response(200, fault="silence"))
    bench.set(max_queue_size=3)
    by_batches = bench.outbox(server)
    for number in range(3):
        assert not by_batches.is_full
        by_batches.add(records(number))
    assert by_batches.is_full
    by_bytes = bench.outbox(server, source="t")
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 1000)
    by_bytes.add([record(3, b'"%b"' % (b"x" * 900), "t")])
    assert not by_bytes.is_full
    by_bytes.add([record(4, b'"%b"' % (b"x" * 900), "t")])
    assert by_bytes.is_full
    eventually(lambda: server._silent == 2)
    server.respond = None
    server.release()
    eventually(lambda: by_batches.owed == by_bytes.owed == 0)
    assert not by_batches.is_full
    assert not by_bytes.is_full
    assert by_bytes._bytes == 0


def test_a_dead_destination_does_not_hold_up_a_living_one(bench: Bench, server: Server) -> None:
    """T62, T63: two outboxes, one pool."""
    with Server() as dead:
        dead.respond = always(Response(503, fault="silence"))
        owing = bench.outbox(dead, source="dead", concurrency=4, timeout_s=60)
        for number in range(50):
            owing.add(records(number))
        assert dead.wait_for_silence(4, LIMIT_S)
        living = bench.outbox(server, concurrency=2)
        for number in range(50):
            living.add(records(number))
        eventually(lambda: living.owed == 0)
        assert owing.owed == 50
        assert server.distinct_count == 50
        dead.respond = None
        dead.release()
        eventually(lambda: owing.owed == 0)
        assert dead.ids == Counter(names(*range(50)))


def test_a_want_of_threads_is_outlived(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    outbox = bench.outbox(server)
    with monkeypatch.context() as patched:
        patched.setattr(bench.runtime.pool, "submit", refuse)
        outbox.add(records(1))
        assert not outbox.take_mark()
    assert server.request_count == 0
    outbox.take_mark()
    eventually(lambda: outbox.owed == 0)


def test_without_a_destination_batches_are_kept(bench: Bench) -> None:
    state = {
        "version": 1,
        "endpoint": "https://h 00",
        "segment": 0,
        "delivered": b"",
        "batches": [[identity(1), [b"{}"]]],
    }
    outbox = Outbox("s", None, None, bench.runtime, None, state)
    outbox.hurry()
    assert not outbox.is_deliverable
    assert outbox.snapshot() == state


# Snapshots and marks


def only_builtins(value: Any) -> bool:
    if type(value) is dict:
        return all(only_builtins(part) for pair in value.items() for part in pair)
    if type(value) in {list, tuple}:
        return all(map(only_builtins, value))
    return value is None or type(value) in {str, bytes, int, float, bool}


def test_snapshots_are_builtins_and_later_acknowledgements_do_not_change_them(
    bench: Bench, server: Server, tmp_path: Path
) -> None:
    """T60: what is not acknowledged is in the snapshot, in order."""
    server.respond = always(Response(200, fault="silence"))
    outbox = bench.outbox(server, journal=AckJournal(tmp_path, "s"))
    outbox.add(records(1, 2))
    outbox.add(records(3))
    assert server.wait_for_silence(1, LIMIT_S)
    before = outbox.snapshot()
    frozen = pickle.dumps(before)
    assert only_builtins(before)
    assert [batch[0] for batch in before["batches"]] == [identity(1) + identity(2), identity(3)]
    assert before["batches"][0][1] == [entry.body for entry in records(1, 2)]
    # Nothing changed, so nothing is made anew.
    assert outbox.snapshot()["batches"] is before["batches"]
    server.respond = None
    server.release()
    eventually(lambda: outbox.owed == 0)
    after = outbox.snapshot()
    assert pickle.dumps(before) == frozen
    assert after["batches"] == []
    assert after["segment"] > before["segment"]


def test_a_mark_is_asked_for_once_for_each_outdated_snapshot(bench: Bench, server: Server) -> None:
    outbox = bench.outbox(server)
    assert not outbox.take_mark()
    outbox.add(records(1))
    eventually(lambda: outbox.owed == 0)
    assert outbox.take_mark()
    assert not outbox.take_mark()
    outbox.snapshot()
    assert not outbox.take_mark()
    outbox.add(records(2))
    eventually(lambda: outbox.owed == 0)
    assert outbox.take_mark()


def test_refuses_state_of_another_version(bench: Bench) -> None:
    with pytest.raises(RegistryError, match="version 2"):
        Outbox("s", None, None, bench.runtime, None, {"version": 2})


def test_forgets_what_was_delivered_only_after_a_scan_and_a_while(
    bench: Bench, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = AckJournal(tmp_path, "s")
    journal.append([identity(1), identity(2)])
    journal.cut()
    monkeypatch.setattr(outbox_module, "FORGET_S", 0.0)
    outbox = bench.outbox(server, journal=AckJournal(tmp_path, "s"))
    assert len(outbox.snapshot()["delivered"]) == 32
    outbox.note_scan_end(60.0)
    assert len(outbox.snapshot()["delivered"]) == 32
    outbox.add(records(1, 3))
    outbox.note_scan_end(0.0)
    eventually(lambda: outbox.owed == 0)
    assert outbox.snapshot()["delivered"] == identity(2)
    again = bench.outbox(server, journal=AckJournal(tmp_path, "s"), state=outbox.snapshot())
    again.note_scan_end(0.0)
    time_is_up = time.monotonic()
    eventually(lambda: time.monotonic() > time_is_up)
    assert again.snapshot()["delivered"] == b""
    assert server.ids == Counter(names(3))


# The law: no crash loses an event, and only unanswered requests repeat


class _KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@dataclass
class _Line:
    """A destination and a pool that do only what the test says."""

    received: list[str] = field(default_factory=list)
    tasks: list[Callable[[], None]] = field(default_factory=list)
    is_dying: bool = False

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def post(self, body: bytes, _: dict[str, str]) -> Reply:
        self.received += [entry["id"] for entry in json.loads(body)]
        if self.is_dying:
            raise _KilledError
        return Reply(200, {}, {}, b"")

    def redact(self, text: str) -> str:
        return text

    def run(self, choice: int) -> None:
        if self.tasks:
            self.tasks.pop(choice % len(self.tasks))()


@dataclass
class _Life:
    """A source, an outbox and a journal that die and come back."""

    directory: Path
    line: _Line = field(default_factory=_Line)
    unanswered: Counter[str] = field(default_factory=Counter)
    position: int = 0
    taken: tuple[int, dict[str, Any]] | None = None
    committed: tuple[int, dict[str, Any] | None] = (0, None)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.line.tasks.clear()
        self.position, state = self.committed
        self.taken = None
        runtime = Runtime(FAST, DeadLetters(self.directory / "dead"), pool=cast("Pool", self.line))
        destination = Destination(Endpoint("http://127.0.0.1/"), concurrency=3)
        journal = AckJournal(self.directory, "s")
        client = cast("Client", self.line)
        self.outbox = Outbox("s", destination, client, runtime, journal, state)

    def emit(self, count: int) -> None:
        self.outbox.add(records(*range(self.position, self.position + count)))
        self.position += count

    def take(self) -> None:
        self.taken = (self.position, self.outbox.snapshot())

    def commit(self) -> None:
        """The snapshot taken last is on the disk; the journal may be cut back."""
        if self.taken is not None:
            self.committed = pickle.loads(pickle.dumps(self.taken))
            self.outbox.delete_segments_before(self.taken[1]["segment"])

    def kill(self, unanswered: int) -> None:
        """Die while some requests were taken and not answered."""
        before = len(self.line.received)
        self.line.is_dying = True
        for task in self.line.tasks[:unanswered]:
            with suppress(_KilledError):
                task()
        self.line.is_dying = False
        self.unanswered.update(self.line.received[before:])
        self.start()


_STEPS = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 4)),
    st.tuples(st.just("run"), st.integers(0, 3)),
    st.tuples(st.just("run"), st.integers(0, 3)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("commit"), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 2)),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(_STEPS, max_size=40))
def test_every_event_arrives_and_only_unanswered_ones_repeat(
    steps: list[tuple[str, int]],
) -> None:
    """T60: killed anywhere, also right after a restart, before all was replayed."""
    with tempfile.TemporaryDirectory() as directory:
        life = _Life(Path(directory))
        furthest = 0
        for step, number in steps:
            match step:
                case "emit":
                    life.emit(number)
                case "run":
                    life.line.run(number)
                case "take":
                    life.take()
                case "commit":
                    life.commit()
                case _:
                    life.kill(number)
            furthest = max(furthest, life.position)
        if life.position < furthest:
            life.emit(furthest - life.position)
        while life.line.tasks:
            life.line.run(0)
        assert life.outbox.owed == 0
        received = Counter(life.line.received)
        assert set(received) == set(names(*range(furthest)))
        for name, count in received.items():
            assert count <= 1 + life.unanswered[name]


def test_repeats_nothing_after_a_quiet_restart_whose_segments_were_all_deleted(
    tmp_path: Path,
) -> None:
    """T60: the snapshot names a segment that is higher than any left on the disk."""
    life = _Life(tmp_path)
    life.emit(3)
    life.line.run(0)
    life.take()
    life.commit()
    life.kill(0)
    life.emit(2)
    life.line.run(0)
    life.kill(0)
    life.emit(2)
    assert life.line.tasks == []
    assert Counter(life.line.received) == Counter(names(*range(5)))


def test_snapshots_beside_acknowledgements_neither_lose_nor_repeat(
    bench: Bench, server: Server, tmp_path: Path
) -> None:
    """T60: every snapshot, with the journal from its segment on, knows all that was delivered."""
    directory = tmp_path / "acks"
    directory.mkdir()
    outbox = bench.outbox(server, concurrency=4, journal=AckJournal(directory, "s"))
    snapshots = []
    for number in range(120):
        outbox.add(records(number))
        snapshots.append((number, outbox.snapshot()))
    eventually(lambda: outbox.owed == 0)
    assert server.ids == Counter(names(*range(120)))
    for number, state in snapshots:
        acknowledged = AckJournal(directory, "s").resume(state["segment"])
        owed = {batch[0] for batch in state["batches"]}
        later = {identity(n) for n in range(number + 1, 120)}
        assert owed | later == acknowledged
