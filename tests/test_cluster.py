"""Under `python -m bytewax.run`, in one process or two."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from flicker.demo.servers import Destination
from tests.processes import HOST, Home, Process, ids_of, make_events, make_source
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

STYLE = Style(paging="offset", time_param="since")
EPOCHS = ("-s", "1", "-b", "0")


@pytest.fixture
def destination() -> Iterator[Destination]:
    with Destination() as server:
        yield server


def test_bytewax_runs_the_flow_and_makes_the_recovery_directory(
    home: Home, destination: Destination
) -> None:
    """The same graph as the command's, an uninitialised directory, and a clean stop."""
    with ListingApi(make_events(120), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url, flush_interval_ms=60_000))
        process = home.host("-r", "recovery", *EPOCHS, "-w", "2")
        assert destination.wait_for(120, 15), process.stderr
        api.add(make_events(5, 120))
        polled = len(api.requests)
        assert api.wait_for_requests(polled + 6, 15)
        assert destination.distinct_count == 120
        assert process.stop() == 0
        assert destination.distinct_count == 125
        assert (home.directory / "recovery" / "part-0.sqlite3").exists()
        api.add(make_events(5, 125))
        flow = f"dataflows.api_tailing:get_flow('{home.config_path}')"
        process = home.spawn([*HOST, flow, "-r", "recovery", *EPOCHS])
        polled = len(api.requests)
        assert api.wait_for_requests(polled + 6, 15), process.stderr
        assert process.stop() == 0
        assert destination.ids == dict.fromkeys(ids_of(make_events(130)), 1)


def test_a_registry_moves_between_the_command_and_bytewax(
    home: Home, destination: Destination
) -> None:
    """Both open the same partitions, with any number of workers."""
    with ExitStack() as stack:
        apis = [stack.enter_context(ListingApi(make_events(30, 1000 * i), STYLE)) for i in range(4)]
        home.configure(
            *(make_source(f"s{i}", api.endpoint, destination.url) for i, api in enumerate(apis))
        )
        expected = set[str]()
        for turn, workers in enumerate(("1", "3", "2")):
            for i, api in enumerate(apis):
                if turn:
                    api.add(make_events(10, 1000 * i + 20 + 10 * turn))
                expected |= ids_of(make_events(30 + 10 * turn, 1000 * i))
            process = home.start("--workers", workers)
            assert destination.wait_for(len(expected), 15), process.stderr
            assert process.stop() == 0
            assert destination.ids == dict.fromkeys(expected, 1)
        process = home.host("-r", str(home.recovery_dir), *EPOCHS, "-w", "2")
        for i, api in enumerate(apis):
            api.add(make_events(10, 1000 * i + 50))
            expected |= ids_of(make_events(60, 1000 * i))
        assert destination.wait_for(len(expected), 15), process.stderr
        assert process.stop() == 0
        assert destination.ids == dict.fromkeys(expected, 1)


def free_addresses(count: int) -> str:
    """Find free ports, as `-a` wants them."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return ";".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets)


def start_cluster(home: Home) -> list[Process]:
    addresses = free_addresses(2)
    return [
        home.host("-r", "recovery", *EPOCHS, "-i", str(index), "-a", addresses)
        for index in range(2)
    ]


def test_two_processes_ship_everything_and_one_may_be_killed(
    home: Home, destination: Destination
) -> None:
    """T60: the survivor ends by itself, and both restarted lose nothing."""
    with ExitStack() as stack:
        apis = [stack.enter_context(ListingApi(make_events(60, 1000 * i), STYLE)) for i in range(4)]
        home.configure(
            *(make_source(f"s{i}", api.endpoint, destination.url) for i, api in enumerate(apis))
        )
        first, second = start_cluster(home)
        assert destination.wait_for(240, 20), first.stderr + second.stderr
        polled = [
            set(re.findall(r"(s\d): starting", process.stderr)) for process in (first, second)
        ]
        assert polled[0] | polled[1] == {"s0", "s1", "s2", "s3"}
        assert polled[0]
        assert polled[1]
        assert not polled[0] & polled[1]
        second.kill()
        for i, api in enumerate(apis):
            api.add(make_events(40, 1000 * i + 60))
        # Bytewax ends the others when one is gone; that beats shipping a part in silence.
        assert first.wait() == 1
        assert first.stderr.splitlines()[-1].startswith("flicker: another process of the cluster")
        first, second = start_cluster(home)
        assert destination.wait_for(400, 20), first.stderr + second.stderr
        for process in (first, second):
            process.send(15)
        assert [process.wait() for process in (first, second)] == [0, 0]
        assert set(destination.ids) == {
            identity for i in range(4) for identity in ids_of(make_events(100, 1000 * i))
        }
        assert sum(destination.duplicates.values()) <= 4 * 4 * 10


def test_says_what_is_wrong_where_bytewax_runs_it(home: Home) -> None:
    process = home.spawn([*HOST, "dataflows.api_tailing"])
    assert process.wait() == 2
    assert "set FLICKER_CONFIG" in process.stderr
    home.config_path.write_text("api_sources: []\nbogus: 1\n")
    process = home.host()
    assert process.wait() == 2
    assert "bogus" in process.stderr
