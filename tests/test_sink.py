"""From the dataflow into outboxes, one for each source."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, cluster_main

from flicker.deadletter import DeadLetters
from flicker.demo.servers import Destination as Server
from flicker.demo.servers import Response, always
from flicker.events import Record
from flicker.items import Batch, Flush, Mark
from flicker.outbox import endpoint_key
from flicker.runtime import Runtime
from flicker.settings import Credentials, Destination, Endpoint, Retry, Secret, Source
from flicker.sink import HttpSink
from tests.test_outbox import eventually, identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RETRY = Retry(initial_delay=timedelta(milliseconds=2), max_delay=timedelta(milliseconds=8))
# In an order that is neither Python's nor Bytewax's.
NAMES = ["b", "a-10", "Z", "a-2", "é", "a", "a.b", "ÿ", "日本", "😀", "a b"]
STEP = "flicker.ship"


def batch(source: str, *numbers: int) -> Batch:
    return Batch(
        [
            Record(
                identity(number),
                b'{"source":"%b","id":"e%d","event":{}}' % (source.encode(), number),
            )
            for number in numbers
        ]
    )


def source(name: str, url: str, token: str | None = None) -> Source:
    credentials = Credentials(bearer=Secret(token) if token else None)
    endpoint = Endpoint(url, credentials=credentials)
    return Source(name, Endpoint("http://127.0.0.1/"), Destination(endpoint))


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    (tmp_path / "acks").mkdir()
    return Runtime(RETRY, DeadLetters(tmp_path / "dead.jsonl"), journal_dir=tmp_path / "acks")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


class Sinks:
    """Makes sinks, and closes their connections."""

    def __init__(self) -> None:
        self.made: list[HttpSink] = []

    def make(self, sources: list[Source], runtime: Runtime, *retired: str) -> HttpSink:
        by_name = {source.name: source for source in sources}
        self.made.append(HttpSink(by_name, [*by_name, *retired], runtime))
        return self.made[-1]


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    sinks = Sinks()
    yield sinks
    for sink in sinks.made:
        for client in sink._clients.values():
            client._connections.close()


def owed_state(url: str | Endpoint, name: str, *numbers: int) -> dict[str, Any]:
    endpoint = url if isinstance(url, Endpoint) else Endpoint(url)
    records = batch(name, *numbers).records
    return {
        "version": 1,
        "endpoint": endpoint_key(endpoint),
        "segment": 0,
        "delivered": b"",
        "batches": [[b"".join(r.identity for r in records), [r.body for r in records]]],
    }


def test_each_source_ships_through_its_own_outbox_on_two_workers(
    runtime: Runtime, server: Server, sinks: Sinks
) -> None:
    sources = [source(name, f"{server.url}/{number}") for number, name in enumerate(NAMES)]
    items: list[tuple[str, Any]] = []
    for number, name in enumerate(NAMES):
        items += [(name, Mark()), (name, batch(name, number)), (name, Flush(name))]
    flow = Dataflow("test")
    stream = op.input("in", flow, TestingSource(items))
    op.output("out", stream, sinks.make(sources, runtime))
    cluster_main(flow, [], 0, worker_count_per_proc=2)
    eventually(lambda: server.delivered_count == len(NAMES))
    assert {post.path: post.records[0].source for post in server.posts} == {
        f"/{number}": name for number, name in enumerate(NAMES)
    }
    for number, name in enumerate(NAMES):
        assert server.delivered_order(name) == [f"e{number}"]
        assert runtime.outboxes[name].source == name
        assert runtime.outboxes[name].is_flushed
    assert sorted(runtime.outboxes) == sorted(NAMES)


def test_writing_returns_at_once_and_the_snapshot_holds_what_is_owed(
    runtime: Runtime, server: Server, sinks: Sinks
) -> None:
    """T60, T63: a destination that hangs holds up no worker."""
    server.respond = always(Response(200, fault="silence"))
    url = server.url + "/ingest"
    sink = sinks.make([source("s", url)], runtime)
    part = sink.build_part(STEP, "s", None)
    part.write_batch([Mark(), batch("s", 1, 2), batch("s", 3)])
    assert server.wait_for_silence(2, 10.0)
    state = part.snapshot()
    assert not runtime.outboxes["s"].is_flushed
    assert [len(bodies) for _, bodies in state["batches"]] == [2, 1]
    server.respond = None
    server.release()
    eventually(lambda: runtime.outboxes["s"].owed == 0)
    # Delivered after the snapshot: the journal knows, and nothing is repeated.
    again = sink.build_part(STEP, "s", state)
    again.write_batch([batch("s", 4)])
    eventually(lambda: server.delivered_count == 4)
    eventually(lambda: runtime.outboxes["s"].owed == 0)
    assert server.ids == Counter(["e1", "e2", "e3", "e4"])


def test_a_removed_source_borrows_the_destination_with_its_endpoint(
    runtime: Runtime, server: Server, sinks: Sinks
) -> None:
    """Its credentials are in no snapshot."""
    url = server.url + "/ingest?k=1"
    others = [source("x", url, "no"), source("y", url, "yes")]
    owed_to = others[1].destination.endpoint
    sink = sinks.make(others, runtime, "gone")
    assert sink.list_parts() == ["gone", "x", "y"]
    part = sink.build_part(STEP, "gone", owed_state(owed_to, "gone", 1, 2))
    eventually(lambda: runtime.outboxes["gone"].owed == 0)
    (post,) = server.posts
    assert post.target == "/ingest?k=1"
    assert post.headers["authorization"] == "Bearer yes"
    # And can be resumed from as the same source again.
    assert part.snapshot()["endpoint"] == endpoint_key(owed_to)


def test_a_removed_source_without_a_destination_keeps_what_it_owes(
    runtime: Runtime, server: Server, sinks: Sinks, caplog: pytest.LogCaptureFixture
) -> None:
    url = "http://192.0.2.1/s3cr3t?key=s3cr3t"
    state = owed_state(url, "gone", 1)
    sink = sinks.make([source("x", server.url)], runtime, "gone")
    part = sink.build_part(STEP, "gone", state)
    assert part.snapshot()["batches"] == state["batches"]
    assert part.snapshot()["endpoint"] == state["endpoint"]
    (entry,) = caplog.records
    assert entry.levelno == logging.ERROR
    assert "s3cr3t" not in repr(vars(entry)) + repr(state)
    assert vars(entry)["destination"] == "http://192.0.2.1"
    assert server.request_count == 0
    # Put back, it delivers them.
    back = sinks.make([source("gone", server.url)], runtime)
    back.build_part(STEP, "gone", part.snapshot())
    eventually(lambda: server.delivered_order("gone") == ["e1"])
    eventually(lambda: runtime.outboxes["gone"].owed == 0)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("https://h/p?a=1", "https://h/p?b=2", False),
        ("https://H/p", "https://h/p", True),
        ("https://h/p", "https://h/q", False),
        ("https://h/p", "http://h/p", False),
        ("https://h/p", "https://h:8443/p", False),
        ("https://h/p", "https://i/p", False),
    ],
)
def test_endpoints_are_told_apart(one: str, other: str, is_same: bool) -> None:
    assert (endpoint_key(Endpoint(one)) == endpoint_key(Endpoint(other))) is is_same


def test_tenants_of_one_endpoint_are_told_apart() -> None:
    """T67: nothing goes out under another tenant's token, and no token stands in the key."""
    keys = {
        endpoint_key(source("s", "https://h/p", token).destination.endpoint)
        for token in (None, "tenant-a", "tenant-b")
    }
    assert len(keys) == 3
    assert "tenant" not in str(keys)


def test_a_source_without_a_snapshot_has_nothing_to_deliver(
    runtime: Runtime, server: Server, sinks: Sinks, caplog: pytest.LogCaptureFixture
) -> None:
    sink = sinks.make([source("x", server.url)], runtime, "gone")
    part = sink.build_part(STEP, "gone", None)
    assert part.snapshot()["batches"] == []
    assert part.snapshot()["endpoint"] is None
    assert caplog.records == []
