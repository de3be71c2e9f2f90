"""Under `python -m bytewax.run`, in one process or two."""

from __future__ import annotations

import random
import re
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from flicker import hosted
from flicker.demo.servers import Destination
from flicker.journal import _read_segment
from tests.processes import HOST, Home, Process, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

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
        assert destination.wait_for(120, 45), process.stderr
        api.add(make_events(5, 120))
        polled = len(api.requests)
        assert api.wait_for_requests(polled + 6, 45)
        assert destination.distinct_count == 120
        assert process.stop() == 0
        assert destination.distinct_count == 125
        assert (home.directory / "recovery" / "part-0.sqlite3").exists()
        api.add(make_events(5, 125))
        flow = f"dataflows.api_tailing:get_flow('{home.config_path}')"
        process = home.spawn([*HOST, flow, "-r", "recovery", *EPOCHS])
        polled = len(api.requests)
        assert api.wait_for_requests(polled + 6, 45), process.stderr
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
            assert destination.wait_for(len(expected), 45), process.stderr
            assert process.stop() == 0
            assert destination.ids == dict.fromkeys(expected, 1)
        process = home.host("-r", str(home.recovery_dir), *EPOCHS, "-w", "2")
        for i, api in enumerate(apis):
            api.add(make_events(10, 1000 * i + 50))
            expected |= ids_of(make_events(60, 1000 * i))
        assert destination.wait_for(len(expected), 45), process.stderr
        assert process.stop() == 0
        assert destination.ids == dict.fromkeys(expected, 1)


def free_addresses(count: int) -> str:
    """Find free ports, as `-a` wants them.

    Below the ports that the system hands out by itself: one of those may be
    taken again before Bytewax binds it.
    """
    rng = random.Random()  # noqa: S311 - tests that run beside this one pick others
    with ExitStack() as stack:
        ports: list[int] = []
        for port in rng.sample(range(20000, 32000), 200):
            listener = stack.enter_context(socket.socket())
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ";".join(f"127.0.0.1:{port}" for port in ports)
    message = "no free ports"
    raise AssertionError(message)


def start_cluster(
    home: Home, processes: int = 2, workers: int = 1, epochs: tuple[str, ...] = EPOCHS
) -> list[Process]:
    common = ("-r", "recovery", *epochs, "-w", str(workers))
    if processes == 1:
        return [home.host(*common)]
    addresses = free_addresses(processes)
    return [home.host(*common, "-i", str(index), "-a", addresses) for index in range(processes)]


def stop_cluster(processes: list[Process]) -> list[int]:
    """Ask all to stop, and give their exit codes; none ends before all were asked."""
    for process in processes:
        assert wait_until(lambda: process._takes_sigterm() or not process.is_running)  # noqa: B023
    for process in processes:
        process.send(signal.SIGTERM)
    return [process.wait() for process in processes]


def kill_all(processes: list[Process]) -> None:
    """End all as a power cut would; none sees another one go."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            process.send(number)
    for process in processes:
        process.wait()


def sources_of(processes: list[Process]) -> list[set[str]]:
    """Give the sources that each process reads, by its log."""
    return [
        set(re.findall(r"(s\d): (?:starting|resuming)", process.stderr)) for process in processes
    ]


def said_by(processes: list[Process]) -> str:
    return "\n".join(process.stderr for process in processes)


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
        polled = sources_of([first, second])
        assert polled[0] | polled[1] == {"s0", "s1", "s2", "s3"}
        assert polled[0]
        assert polled[1]
        assert not polled[0] & polled[1]
        second.kill()
        for i, api in enumerate(apis):
            api.add(make_events(40, 1000 * i + 60))
        # Bytewax ends the others when one is gone; that beats shipping a part in silence.
        assert_ends_without_its_peers(first)
        first, second = start_cluster(home)
        assert destination.wait_for(400, 20), first.stderr + second.stderr
        assert stop_cluster([first, second]) == [0, 0]
        assert set(destination.ids) == {
            identity for i in range(4) for identity in ids_of(make_events(100, 1000 * i))
        }
        assert sum(destination.duplicates.values()) <= 4 * 4 * 10


def assert_ends_without_its_peers(process: Process) -> None:
    """It says why and exits with 1, or Rust aborts it: where a second thread of
    timely's network panics while the first one unwinds, nothing of ours runs.
    """
    code = process.wait()
    assert code in {1, -signal.SIGABRT}, process.stderr
    if code == 1:
        last = process.stderr.splitlines()[-1]
        assert last.startswith("flicker: another process of the cluster is gone")


SOURCES, CONCURRENCY, BUFFER = 6, 2, 5
SPACING = 100_000
SHAPES = ((2, 2), (1, 3), (3, 1))
"""Processes and workers of each."""


class Traffic:
    """Adds events to all APIs for as long as the block runs."""

    def __init__(self, apis: list[ListingApi]) -> None:
        self._apis = apis
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._add)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def ids(self) -> set[str]:
        """All that was added, once the block is over."""
        return {
            identity
            for index in range(len(self._apis))
            for identity in ids_of(make_events(self.count, SPACING * index))
        }

    def _add(self) -> None:
        while not self._is_over.wait(0.05):
            for index, api in enumerate(self._apis):
                api.add(make_events(3, SPACING * index + self.count))
            self.count += 3


def wait_for_each(siem: Destination, more: int) -> bool:
    """Wait until so many further events of each source were delivered."""

    def counts() -> list[int]:
        numbers = [int(identity[1:]) // SPACING for identity in siem.ids]
        return [numbers.count(index) for index in range(SOURCES)]

    aims = [count + more for count in counts()]
    return wait_until(lambda: all(c >= aim for c, aim in zip(counts(), aims, strict=True)), 30)


def configure_sources(home: Home, stack: ExitStack, siem: Destination) -> list[ListingApi]:
    apis = [stack.enter_context(ListingApi([], STYLE)) for _ in range(SOURCES)]
    home.configure(
        *(
            make_source(
                f"s{index}",
                api.endpoint,
                siem.url,
                buffer_size=BUFFER,
                destination={"concurrency": CONCURRENCY},
            )
            for index, api in enumerate(apis)
        )
    )
    return apis


def assert_each_is_read_once(cluster: list[Process]) -> None:
    """Every source is with one process, and every process has some."""
    shares = sources_of(cluster)
    assert sorted(name for share in shares for name in share) == [f"s{i}" for i in range(SOURCES)]
    assert all(shares)


def test_other_numbers_of_processes_and_workers_go_on_without_a_repeat(
    home: Home, destination: Destination
) -> None:
    """2 x 2, then 1 x 3, then 3 x 1, each stopped as one should, events flowing all the time."""
    with ExitStack() as stack:
        apis = configure_sources(home, stack, destination)
        with Traffic(apis) as traffic:
            for processes, workers in SHAPES:
                cluster = start_cluster(home, processes, workers)
                assert wait_for_each(destination, 30), said_by(cluster)
                assert_each_is_read_once(cluster)
                if processes < SHAPES[-1][0]:
                    assert stop_cluster(cluster) == [0] * processes, said_by(cluster)
        assert destination.wait_for(SOURCES * traffic.count, 30), said_by(cluster)
        assert stop_cluster(cluster) == [0] * len(cluster), said_by(cluster)
        assert destination.ids == dict.fromkeys(traffic.ids, 1)


def test_other_numbers_of_processes_and_workers_after_a_kill_lose_nothing(
    home: Home, destination: Destination
) -> None:
    """The same with one process killed at each change; the others end by themselves."""
    rng = random.Random(3)  # noqa: S311 - the same process in every run
    with ExitStack() as stack:
        apis = configure_sources(home, stack, destination)
        with Traffic(apis) as traffic:
            for processes, workers in SHAPES:
                cluster = start_cluster(home, processes, workers)
                assert wait_for_each(destination, 30), said_by(cluster)
                cluster.pop(rng.randrange(processes)).kill()
                for process in cluster:
                    assert_ends_without_its_peers(process)
        cluster = start_cluster(home, 2, 1)
        assert destination.wait_for(SOURCES * traffic.count, 30), said_by(cluster)
        assert stop_cluster(cluster) == [0, 0], said_by(cluster)
        assert set(destination.ids) == traffic.ids
        # Whoever ended cut what was unanswered, the survivors too.
        bound = len(SHAPES) * SOURCES * CONCURRENCY * BUFFER
        assert sum(destination.duplicates.values()) <= bound


def acknowledged_count(home: Home) -> int:
    """Count the events that the journals hold as delivered."""
    paths = (home.directory / "recovery" / "acks").glob("*.acks")
    return len({identity for path in paths for identity in _read_segment(path)})


def test_a_source_finds_its_journal_in_whatever_process_it_comes_to(
    home: Home, destination: Destination
) -> None:
    """No snapshot is ever taken, so that the journals alone know what was delivered."""
    rare = ("-s", "3600", "-b", "0")
    expected: set[str] = set()
    homes_of: dict[str, set[int]] = {}
    with ExitStack() as stack:
        apis = configure_sources(home, stack, destination)
        for turn, (processes, workers) in enumerate(SHAPES):
            for index, api in enumerate(apis):
                events = make_events(20, SPACING * index + 20 * turn)
                api.add(events)
                expected |= ids_of(events)
            cluster = start_cluster(home, processes, workers, rare)
            assert wait_until(lambda: acknowledged_count(home) == len(expected), 30), (  # noqa: B023
                said_by(cluster)
            )
            assert_each_is_read_once(cluster)
            for number, share in enumerate(sources_of(cluster)):
                for name in share:
                    assert f"{name}: resuming" not in cluster[number].stderr
                    homes_of.setdefault(name, set()).add(number)
            kill_all(cluster)
            assert destination.ids == dict.fromkeys(expected, 1)
        assert any(len(numbers) > 1 for numbers in homes_of.values())


SPARING = """
import gc, threading
from flicker import config
from flicker.hosted import hosted_flow

def load(*arguments, load=config.load):
    print("collects while it loads:", gc.isenabled())
    return load(*arguments)

config.load = load
hosted_flow("config.yaml")
print("collects:", gc.isenabled())
print("gives back:", "flicker-memory" in {thread.name for thread in threading.enumerate()})
"""


def test_is_as_sparing_as_the_command(home: Home, destination: Destination) -> None:
    """With memory, and with the garbage collector."""
    home.configure(make_source("s", destination.url, destination.url))
    process = home.spawn([sys.executable, "-c", SPARING])
    assert process.wait() == 0, process.stderr
    assert process.stdout.splitlines() == [
        "collects while it loads: False",
        "collects: True",
        "gives back: True",
    ]


def test_says_what_is_wrong_where_bytewax_runs_it(home: Home) -> None:
    process = home.spawn([*HOST, "dataflows.api_tailing"])
    assert process.wait() == 2
    assert "set FLICKER_CONFIG" in process.stderr
    home.config_path.write_text("api_sources: []\nbogus: 1\n")
    process = home.host()
    assert process.wait() == 2
    assert "bogus" in process.stderr


def listens(port: str) -> bool:
    """Look whether anybody listens, without becoming a peer."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    ends = [(line.split()[1], line.split()[3]) for line in lines]
    return any(end.endswith(f":{int(port):04X}") and state == "0A" for end, state in ends)


def test_a_process_that_waits_for_another_one_stops_when_asked(
    home: Home, destination: Destination
) -> None:
    with ListingApi(make_events(10), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url))
        addresses = free_addresses(2)
        process = home.host("-r", "recovery", *EPOCHS, "-i", "0", "-a", addresses)
        port = addresses.split(";")[0].rpartition(":")[2]
        assert wait_until(lambda: listens(port)), process.stderr
        assert process.stop(30) == 0
        assert process.stderr.splitlines()[-1] == (
            "flicker: stopped before all processes were there"
        )
        assert len(api.requests) == 0


class EndedError(Exception):
    """In place of the process's end."""


class NoMoreSignalsError(Exception):
    """The watcher waits for the next one."""


class Watched:
    """What `hosted._watch` is given; one SIGTERM comes, and time passes when it sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_begun: bool = False) -> None:
        self.runtime = SimpleNamespace(stop=SimpleNamespace(is_set=False), has_begun=has_begun)
        self.slept_s = 0.0
        self.begins_after_s = float("inf")
        self._signals = [bytes([signal.SIGTERM])]
        monkeypatch.setattr(
            hosted, "time", SimpleNamespace(monotonic=lambda: self.slept_s, sleep=self._sleep)
        )
        monkeypatch.setattr(hosted.os, "_exit", self._exit)

    def watch(self) -> None:
        """Run it."""
        hosted._watch(self.runtime, self, self)  # type: ignore[arg-type]

    def recv(self, _: int) -> bytes:
        """Be the socket that the interpreter tells of signals by."""
        if not self._signals:
            raise NoMoreSignalsError
        return self._signals.pop()

    def fileno(self) -> int:
        """Be open."""
        return 0

    def _sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.runtime.has_begun |= self.slept_s > self.begins_after_s

    def _exit(self, code: int) -> Any:
        raise EndedError(code)


def test_a_flow_that_never_begins_is_ended_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = Watched(monkeypatch)
    with pytest.raises(EndedError, match="0"):
        watched.watch()
    assert watched.slept_s >= hosted.HANDLER_LIMIT_S
    assert "stopped before all processes were there" in capsys.readouterr().err


@pytest.mark.parametrize("begins_after_s", [0.0, 1.0])
def test_a_flow_that_has_begun_is_left_to_its_handler(
    monkeypatch: pytest.MonkeyPatch, begins_after_s: float
) -> None:
    """However long that takes: it has what it read to deliver."""
    watched = Watched(monkeypatch, has_begun=not begins_after_s)
    watched.begins_after_s = begins_after_s
    with pytest.raises(NoMoreSignalsError):
        watched.watch()
    assert watched.slept_s < hosted.HANDLER_LIMIT_S


HELD_UP = """
import runpy
import threading
from flicker import hosted, signals

hosted.HANDLER_LIMIT_S = 0.1
hosted.hand_over = lambda stop: signals.hand_over(lambda: threading.Timer(1.5, stop).start())
runpy.run_module("bytewax.run", run_name="__main__", alter_sys=True)
"""
"""Bytewax with a main thread that is too busy to run a handler for a while."""


def test_a_flow_whose_main_thread_is_held_up_stops_in_order(
    home: Home, destination: Destination
) -> None:
    with ListingApi(make_events(20), STYLE) as api:
        home.configure(make_source("s", api.endpoint, destination.url, buffer_size=5))
        process = home.spawn(
            [sys.executable, "-c", HELD_UP, "dataflows.api_tailing"],
            {"FLICKER_CONFIG": str(home.config_path)},
        )
        assert destination.wait_for(5, 45), process.stderr
        assert process.stop() == 0
        assert "stopped before" not in process.stderr
        assert destination.ids == dict.fromkeys(ids_of(make_events(20)), 1)
