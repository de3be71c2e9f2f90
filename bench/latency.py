"""From the instant that the API has an event to the instant that the destination has it."""

from __future__ import annotations

import itertools
import json
import random
import re
import statistics
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from bench.children import Child
from bench.errors import BenchError
from bench.pages import format_instant
from bench.rows import Row
from bench.stage import flicker, write_config
from flicker.demo.events import make_event

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from bench.stage import Stage

EVENTS = 400
MEAN_GAP_S = 0.06
"""Between two events; the gaps vary at random, so that no poll is in step with them."""

POLL_MS = 200
FLUSH_MS = 100
TO_REACH_MS = POLL_MS + FLUSH_MS + 50
START_LIMIT_S = 60.0
END_LIMIT_S = 30.0

_UUID = re.compile(rb'"id":"([^"]+)"')


class Servers:
    """An API whose listing grows, and a destination that notes when events come.

    Both are served by threads of this process, so that there is one clock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.events: list[tuple[bytes, bytes]] = []
        self.available_at: dict[bytes, float] = {}
        self.arrived_at: dict[bytes, float] = {}
        self.polls = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        """Give the URL of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def add(self, number: int, rng: random.Random) -> None:
        """Make an event available."""
        event = make_event(number, time.time_ns(), rng)
        published = format_instant(datetime.now(timezone.utc))
        event["published"] = published.decode()
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        with self.lock:
            self.events.append((published, text))
            self.available_at[str(event["uuid"]).encode()] = time.monotonic()

    def since(self, instant: bytes) -> bytes:
        """Give the events from an instant on, as the API does."""
        with self.lock:
            self.polls += 1
            # They are all written alike, so that they compare as text.
            found = itertools.takewhile(lambda event: event[0] >= instant, reversed(self.events))
            return b'{"events":[%b]}' % b",".join(reversed([text for _, text in found]))

    def take(self, body: bytes) -> None:
        """Note the events of a body, the first time that each comes."""
        now = time.monotonic()
        with self.lock:
            for identity in _UUID.findall(body):
                if identity in self.available_at:
                    self.arrived_at.setdefault(identity, now)


def measure_latency(stage: Stage) -> list[Row]:
    """Make events available at random moments and see when each is delivered.

    Raises:
        BenchError: Some do not arrive.
    """
    directory = stage.new_directory()
    rng = random.Random(1)  # noqa: S311 - gaps, no secrets
    with Servers() as servers:
        write_config(directory, [_source(stage, servers)])
        with Child(flicker("--track"), directory, name="latency") as child:
            child.wait_until(lambda: servers.polls >= 10, "ten polls", START_LIMIT_S)
            for number in range(EVENTS):
                time.sleep(rng.expovariate(1 / MEAN_GAP_S))
                servers.add(number, rng)
            child.wait_until(
                lambda: len(servers.arrived_at) == EVENTS, "all events delivered", END_LIMIT_S
            )
            child.stop()
        if len(servers.available_at) < EVENTS:
            raise BenchError("the API's events are not all different")
        waited = sorted(
            1000 * (servers.arrived_at[identity] - at)
            for identity, at in servers.available_at.items()
        )
    p99 = waited[int(len(waited) * 0.99)]
    return [
        Row(
            "latency",
            f"API to destination, p99 of {EVENTS} events; {POLL_MS} ms polling, "
            f"flush_interval_ms {FLUSH_MS}",
            f"the sum of the two, and 50 ms: {TO_REACH_MS} ms",
            p99,
            TO_REACH_MS,
            "ms",
            "less",
            note=f"median {statistics.median(waited):.0f} ms, longest {waited[-1]:.0f} ms",
            facts={"ms": [round(each, 1) for each in waited]},
        )
    ]


def _source(stage: Stage, servers: Servers) -> dict[str, Any]:
    source = stage.source(
        "/",
        name="latency",
        endpoint=servers.url("/events"),
        polling_frequency_ms=POLL_MS,
        flush_interval_ms=FLUSH_MS,
        time_filter_format="iso8601",
        pagination=None,
    )
    source["destination"] = {"type": "http", "endpoint": servers.url("/ingest")}
    return source


def _handler(servers: Servers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A head and a body in two packets would wait for each other otherwise.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._answer(servers.since(query["since"][0].encode()))

        def do_POST(self) -> None:
            servers.take(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
