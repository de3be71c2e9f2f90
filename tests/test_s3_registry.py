"""The registry in S3, as whole processes use it: killed, paused, cut off, taken over, tampered."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests

from flicker.demo.servers import Destination, Response
from flicker.errors import RegistryError
from flicker.registry import local
from tests.processes import (
    COMMAND,
    LIMIT_S,
    Finished,
    Home,
    Process,
    ids_of,
    make_events,
    make_source,
    wait_until,
)
from tests.servers.listing import ListingApi, Style
from tests.servers.relay import DROP, HANG, PASS, Action, Answer, RelayRecord, S3Relay
from tests.test_cluster import EPOCHS, free_addresses, kill_all, said_by, stop_cluster
from tests.test_recovery import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.servers.s3 import MotoServer, S3Server, SeaweedServer

pytestmark = pytest.mark.process
pytest_plugins = ("tests.servers.s3",)

STYLE = Style(paging="offset", time_param="since")
KEY = "prod/registry.json"
LEASE_S = 3
SHORT = ("--lease-seconds", str(LEASE_S))
WAITING = ("--standby", *SHORT)

QUICK = """
import sys
from datetime import timedelta
from flicker import cli, entry
from flicker.registry import access, mirror
access.SHORTEST_LEASE_S = 1.0
cli.EPOCH_INTERVAL = timedelta(milliseconds=100)
mirror.FIRST_UPLOAD_S = mirror.UPLOAD_INTERVAL_S = 0.3
sys.exit(entry.main())
"""
"""The command with less time between snapshots and uploads."""

PART = re.compile(r"/part-\d+\.sqlite3$")


class Machine(Home):
    """A machine with a disk of its own; the registry is elsewhere."""

    def __init__(self, directory: Path, url: str, env: Mapping[str, str]) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.url = url
        self.tmp = directory / "tmp"
        self.tmp.mkdir()
        self.env = {**env, "TMPDIR": str(self.tmp)}

    def ship(
        self, *arguments: str, quick: bool = False, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start Flicker with the registry in S3."""
        command = (sys.executable, "-c", QUICK) if quick else COMMAND
        argv = [*command, "-c", str(self.config_path), "--track", "--registry-file", self.url]
        return self.spawn([*argv, *arguments], {**self.env, **(env or {})})

    def finish(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        """Run Flicker until it ends by itself."""
        process = self.ship(*arguments, env=env)
        return Finished(process.wait(), process.stdout, process.stderr)

    def burn(self) -> None:
        """Lose the disk."""
        shutil.rmtree(self.tmp)

    @property
    def left(self) -> list[str]:
        """What is in the temporary directory."""
        return [path.name for path in self.tmp.iterdir()]


class Place:
    """A bucket with a registry in it, and the machines that use it."""

    def __init__(self, directory: Path, server: S3Server) -> None:
        self.server = server
        self.bucket = server.new_bucket()
        self.url = f"s3://{self.bucket}/{KEY}"
        self._directory = directory
        self._machines: list[Machine] = []

    def machine(
        self, *sources: dict[str, Any], env: Mapping[str, str] | None = None, url: str = ""
    ) -> Machine:
        """Set a machine up; `env` in place of the server's own."""
        directory = self._directory / f"machine-{len(self._machines)}"
        machine = Machine(directory, url or self.url, env or self.server.env)
        self._machines.append(machine)
        machine.configure(*sources)
        return machine

    def read(self) -> dict[str, Any]:
        """Read `registry.json`; empty while there is none."""
        data = self.server.read(self.bucket, KEY)
        document: dict[str, Any] = {} if data is None else json.loads(data)
        return document

    @property
    def holder(self) -> str | None:
        """Who has the lease."""
        lease = self.read().get("lease")
        return lease and lease["instance"]

    @property
    def generation(self) -> str | None:
        """The newest one."""
        return self.read().get("generation")

    def check_tidy(self) -> None:
        """Assert that the bucket holds three generations, and nothing besides."""
        document = self.read()
        generations = [document, *document["previous"]]
        assert len(generations) == 3
        named = {part["key"] for each in generations for part in each["partitions"].values()}
        assert set(self.server.keys(self.bucket)) == {KEY, *named}
        assert document["lease"] is None

    def close(self) -> None:
        """Kill what still runs; nothing may have died ugly."""
        for said in [said for machine in self._machines for said in machine.close()]:
            assert "Traceback" not in said
            assert "panicked" not in said


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer) -> Iterator[Place]:
    place = Place(tmp_path, seaweed)
    yield place
    place.close()


@pytest.fixture
def api() -> Iterator[ListingApi]:
    with ListingApi(make_events(100), STYLE) as server:
        yield server


@pytest.fixture
def siem() -> Iterator[Destination]:
    with Destination() as server:
        yield server


@contextmanager
def read_all_the_time(place: Place) -> Iterator[list[int]]:
    """Read `registry.json` over and over, as people do; yields what was wrong."""
    is_over = threading.Event()
    troubles: list[int] = []
    readings = 0

    def read() -> None:
        nonlocal readings
        while not is_over.wait(0.02):
            document = place.read()
            readings += bool(document)
            if document and (document["version"] != 1 or "api_sources" not in document):
                troubles.append(readings)

    # An error of the thread's is an error of the test's: pytest sees to that.
    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield troubles
    finally:
        is_over.set()
        thread.join()
    assert readings > 10


def is_manifest(record: RelayRecord) -> bool:
    return record.method == "PUT" and record.path.endswith(KEY)


def manifest_in(record: RelayRecord) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(record.body)
    return document


def check_whole(place: Place, record: RelayRecord) -> None:
    """Assert that a manifest names nothing but what is there as a whole."""
    document = manifest_in(record)
    for generation in [document, *document.get("previous", ())]:
        for part in generation.get("partitions", {}).values():
            data = place.server.read(place.bucket, part["key"])
            assert data is not None, part["key"]
            assert (len(data), sha256(data).hexdigest()) == (part["size"], part["sha256"])


def test_a_container_that_loses_its_disk_resumes_where_its_predecessor_stood(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """Empty bucket, ship, kill -9, delete the directory, start elsewhere, ship on."""
    # Each generation, and what had arrived when it was made known.
    made: list[tuple[str, set[str]]] = []

    def after(record: RelayRecord) -> Action:
        if is_manifest(record) and record.status == 200:
            name = manifest_in(record).get("generation")
            if name is not None and (not made or made[-1][0] != name):
                made.append((name, set(siem.ids)))
        return PASS

    source = make_source("s", api.endpoint, siem.url)
    settled: list[tuple[set[str], dict[str, int]]] = []
    with (
        S3Relay(place.server.endpoint, after=after) as relay,
        read_all_the_time(place) as troubles,
        Arrivals(api) as arrivals,
    ):
        env = relay.env_of(place.server)
        for is_quick, count, more in ((False, 2, 30), (True, 5, 90)):
            machine = place.machine(source, env=env)
            process = machine.ship(*WAITING, quick=is_quick)
            known = len(made)
            # Some of its own: what had arrived by the first is in the last for sure.
            assert wait_until(lambda: len(made) >= known + count), process.stderr  # noqa: B023
            assert siem.wait_for(siem.distinct_count + more, 45), process.stderr
            process.kill()
            machine.burn()
            assert wait_until(lambda: place.generation == made[-1][0])
            settled.append((made[-count][1], dict(siem.ids)))
        machine = place.machine(source, env=env)
        process = machine.ship(*WAITING)
        assert siem.wait_for(siem.distinct_count + 30, 20), process.stderr
        arrivals.__exit__()
        assert siem.wait_for(arrivals.count, 45), process.stderr
        # By then the scan that shipped the last of them has ended.
        assert api.wait_for_requests(len(api.requests) + 6, 45)
        assert process.stop() == 0, process.stderr
        assert place.holder is None
        assert machine.left == []
    assert not troubles
    assert set(siem.ids) == ids_of(make_events(arrivals.count))
    for safe, counts in settled:
        assert safe
        assert [each for each in safe if siem.ids[each] != counts[each]] == []
    document = place.read()
    newest = make_events(1, arrivals.count - 1)[0]["timestamp"]
    assert document["api_sources"]["s"]["last_timestamp"].rstrip("Z") in newest
    assert document["api_sources"]["s"]["cursor"] is None


def problem_of(said: str) -> str:
    """Give the one line that says what is wrong, after the one that says what is tried."""
    opening, problem = said.splitlines()
    assert "opening the registry" in opening
    assert problem.startswith("flicker: ")
    return problem


class Step(NamedTuple):
    """Where a process is killed: before or after a request of its own is passed on."""

    when: str
    what: str


STEPS = [
    Step("before", "lease"),
    Step("after", "lease"),
    Step("before", "part"),
    Step("after", "part"),
    Step("before", "publish"),
    Step("after", "publish"),
    Step("after", "list"),
    Step("before", "delete"),
    Step("after", "delete"),
    Step("before", "release"),
    Step("after", "release"),
]


class Reaper:
    """Kills a process at one step of an upload; the hooks of a relay."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._newest: str | None = None
        self._step: Step | None = None
        self._process: Process | None = None
        self.published = 0

    def arm(self, step: Step, process: Process) -> None:
        """Kill the process at a step."""
        self._process, self._step = process, step

    @property
    def has_struck(self) -> bool:
        """Whether there is nobody to kill any more."""
        return self._step is None

    def before(self, record: RelayRecord) -> Action:
        """See a request."""
        if is_manifest(record):
            check_whole(self._place, record)
        return self._strike("before", record)

    def after(self, record: RelayRecord) -> Action:
        """See an answer."""
        action = self._strike("after", record)
        if is_manifest(record) and record.status == 200:
            newest = manifest_in(record).get("generation")
            self.published += newest != self._newest
            self._newest = newest
        return action

    def _strike(self, when: str, record: RelayRecord) -> Action:
        step, process = self._step, self._process
        if step is None or process is None or (when, True) != (step.when, self._is(step, record)):
            return PASS
        self._step = None
        process.kill()
        return DROP

    def _is(self, step: Step, record: RelayRecord) -> bool:
        if is_manifest(record):
            document = manifest_in(record)
            if document["lease"] is None:
                return step.what == "release"
            is_new = document.get("generation") != self._newest
            return step.what == ("publish" if is_new else "lease")
        if PART.search(record.path):
            return step.what == {"PUT": "part", "DELETE": "delete"}.get(record.method)
        return step.what == "list" and "list-type" in record.query


def test_kill_at_every_step_of_an_upload_loses_nothing(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """Each time the disk is gone; no manifest ever names half a generation."""
    reaper = Reaper(place)
    source = make_source("s", api.endpoint, siem.url)
    quick = ("--standby", "--lease-seconds", "1")
    with (
        S3Relay(place.server.endpoint, before=reaper.before, after=reaper.after) as relay,
        Arrivals(api) as arrivals,
    ):
        env = relay.env_of(place.server)
        for step in STEPS:
            machine = place.machine(source, env=env)
            process = machine.ship(*quick, quick=True)
            if step.what == "release":
                known = reaper.published
                assert wait_until(lambda: reaper.published > known), process.stderr  # noqa: B023
                reaper.arm(step, process)
                process.send(signal.SIGTERM)
            else:
                reaper.arm(step, process)
            assert process.wait() == -signal.SIGKILL, (step, process.stderr)
            assert reaper.has_struck, step
            machine.burn()
        machine = place.machine(source, env=env)
        process = machine.ship(*quick, quick=True)
        known = reaper.published
        assert wait_until(lambda: reaper.published > known), process.stderr
        arrivals.__exit__()
        assert siem.wait_for(arrivals.count, 45), process.stderr
        assert process.stop() == 0, process.stderr
    assert set(siem.ids) == ids_of(make_events(arrivals.count))
    place.check_tidy()


def test_a_store_that_is_away_at_the_start_is_no_empty_registry(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    with S3Relay(place.server.endpoint) as relay:
        relay.away()
        machine = place.machine(
            make_source("s", api.endpoint, siem.url), env=relay.env_of(place.server)
        )
        finished = machine.finish()
    assert finished.code == 1
    problem = problem_of(finished.stderr)
    assert f"the registry {place.url} cannot be used" in problem
    assert "cannot be reached" in problem
    assert siem.request_count == 0
    assert machine.left == []


def test_a_store_that_goes_away_stops_no_shipping(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """Longer than the lease; then it is back, and goes away for good before the stop."""
    with S3Relay(place.server.endpoint) as relay:
        machine = place.machine(
            make_source("s", api.endpoint, siem.url), env=relay.env_of(place.server)
        )
        process = machine.ship(*SHORT, quick=True)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: place.generation), process.stderr
        relay.away()
        away_at = time.monotonic()
        assert wait_until(lambda: time.monotonic() > away_at + 1.5 * LEASE_S)
        api.add(make_events(50, 100))
        assert siem.wait_for(150, 45), process.stderr
        assert wait_until(lambda: "cannot upload the registry" in process.stderr)
        assert process.stderr.count("cannot renew the lease") == 1
        assert process.stderr.count("cannot upload the registry") == 1
        assert process.is_running
        known = place.generation
        relay.back()
        assert wait_until(lambda: place.generation != known), process.stderr
        assert wait_until(lambda: "uploaded again" in process.stderr)
        relay.away()
        api.add(make_events(50, 150))
        assert siem.wait_for(200, 45), process.stderr
        assert process.stop(40) == 1
    assert f"the last upload of the registry {place.url} failed" in process.stderr
    assert siem.ids == dict.fromkeys(ids_of(make_events(200)), 1)
    assert machine.left == []


def test_credentials_that_cannot_be_refreshed_stop_no_shipping(
    tmp_path: Path, moto: MotoServer, api: ListingApi, siem: Destination
) -> None:
    """Expired for longer than the lease, then none at all, then good ones again."""
    path = tmp_path / "credentials.json"
    config = tmp_path / "aws-config"
    config.write_text(f"[default]\ncredential_process = cat {path}\n")

    def give(lifetime: timedelta) -> None:
        keys = {
            "Version": 1,
            "AccessKeyId": moto.env["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": moto.env["AWS_SECRET_ACCESS_KEY"],
            "SessionToken": "token",
            "Expiration": (datetime.now(timezone.utc) + lifetime).isoformat(),
        }
        path.with_suffix(".new").write_text(json.dumps(keys))
        path.with_suffix(".new").rename(path)

    # So soon that new ones are asked for at each request.
    give(timedelta(minutes=5))
    with closing(Place(tmp_path, moto)) as place:
        env = {
            **moto.env,
            "AWS_CONFIG_FILE": str(config),
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        }
        machine = place.machine(make_source("s", api.endpoint, siem.url), env=env)
        process = machine.ship(*SHORT, quick=True)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: place.generation), process.stderr
        give(timedelta(minutes=-1))
        away_at = time.monotonic()
        assert wait_until(lambda: time.monotonic() > away_at + 1.5 * LEASE_S)
        api.add(make_events(50, 100))
        assert siem.wait_for(150, 45), process.stderr
        assert "cannot renew the lease" in process.stderr
        assert wait_until(lambda: "cannot upload the registry" in process.stderr), process.stderr
        path.unlink()
        api.add(make_events(50, 150))
        assert siem.wait_for(200, 45), process.stderr
        known, lease = place.generation, place.read()["lease"]
        give(timedelta(minutes=5))
        api.add(make_events(50, 200))
        assert wait_until(lambda: place.generation != known), process.stderr
        assert wait_until(lambda: place.read()["lease"] != lease), process.stderr
        assert siem.wait_for(250, 45), process.stderr
        assert process.stop() == 0, process.stderr
        # All of it is ours: whose library asks is nothing to whoever reads the log.
        assert [line for line in process.stderr.splitlines() if " File " in line] == []
    assert siem.ids == dict.fromkeys(ids_of(make_events(250)), 1)


def test_what_is_wrong_with_the_store_is_one_line_that_says_what_to_do(
    place: Place, moto: MotoServer, api: ListingApi, siem: Destination
) -> None:
    source = make_source("s", api.endpoint, siem.url)
    secret = "wrong/secret+that+is+nobodys"
    cases = [
        ({"AWS_SECRET_ACCESS_KEY": secret}, place.url, "Check AWS_ACCESS_KEY_ID"),
        # SeaweedFS makes a bucket for whoever writes to one.
        (moto.env, f"s3://no-such-bucket-here/{KEY}", "Create it"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            place.url,
            "Set AWS_ACCESS_KEY_ID",
        ),
    ]
    machines = [place.machine(source, url=url) for _, url, _ in cases]
    processes = [
        machine.ship(env=env) for machine, (env, _, _) in zip(machines, cases, strict=True)
    ]
    for machine, process, (_, url, advice) in zip(machines, processes, cases, strict=True):
        assert process.wait() == 1
        problem = problem_of(process.stderr)
        assert f"the registry {url} cannot be used" in problem
        assert advice in problem
        assert secret not in process.stderr
        assert place.server.env["AWS_SECRET_ACCESS_KEY"] not in process.stderr
        assert machine.left == []
    assert siem.request_count == 0


def test_a_second_instance_is_refused_or_stands_by(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """It takes over at once from a holder that stops, and after the lease from one that dies."""
    source = make_source("s", api.endpoint, siem.url)
    first, refused, second, third = (place.machine(source) for _ in range(4))
    holder = first.ship("--lease-seconds", "600")
    assert siem.wait_for(100, 45), holder.stderr
    name = place.holder
    assert name is not None
    second_process = second.ship(*WAITING)
    third_process = third.ship(*WAITING)
    finished = refused.finish()
    assert finished.code == 1
    problem = problem_of(finished.stderr)
    assert f"is held by {name} until 2" in problem
    assert "--standby" in problem
    assert refused.left == []
    for process in (second_process, third_process):
        assert wait_until(lambda: "standing by" in process.stderr), process.stderr  # noqa: B023
        assert name in process.stderr
    assert third_process.stop(8) == 0
    assert third.left == []
    assert holder.stop() == 0
    assert first.left == []
    api.add(make_events(50, 100))
    # The lease would last for minutes yet.
    assert siem.wait_for(150, 45), second_process.stderr
    assert siem.ids == dict.fromkeys(ids_of(make_events(150)), 1)
    known = place.generation
    fourth_process = third.ship(*WAITING)
    assert wait_until(lambda: "standing by" in fourth_process.stderr), fourth_process.stderr
    assert wait_until(lambda: place.generation != known), second_process.stderr
    second_process.kill()
    api.add(make_events(50, 150))
    assert siem.wait_for(200, 20), fourth_process.stderr
    assert fourth_process.stop() == 0
    assert set(siem.ids) == ids_of(make_events(200))


def test_a_holder_that_was_paused_beyond_its_lease_ships_nothing_more(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """Not even before it learns that another instance has taken over."""
    source = make_source("s", api.endpoint, siem.url, destination={"headers": {"X-Who": "${WHO}"}})

    def posts_of(who: str) -> int:
        return sum(post.headers["x-who"] == who for post in siem.posts)

    with S3Relay(place.server.endpoint) as relay:
        paused = place.machine(source, env=relay.env_of(place.server))
        other = place.machine(source)
        holder = paused.ship(*SHORT, quick=True, env={"WHO": "first"})
        assert siem.wait_for(100, 45), holder.stderr
        assert wait_until(lambda: place.generation), holder.stderr
        standby = other.ship(*WAITING, quick=True, env={"WHO": "second"})
        assert wait_until(lambda: "standing by" in standby.stderr), standby.stderr
        holder.send(signal.SIGSTOP)
        # What it asks now, or had asked when it was paused, is answered late.
        relay.before = lambda _: HANG
        relay.after = lambda _: HANG
        assert wait_until(lambda: "holding the registry" in standby.stderr), standby.stderr
        successor = place.holder
        assert successor is not None
        sent, polled = posts_of("first"), len(api.requests)
        holder.send(signal.SIGCONT)
        api.add(make_events(100, 100))
        assert siem.wait_for(200, 45), standby.stderr
        # Both poll; the first one has no store to ask.
        assert api.wait_for_requests(polled + 20, 45)
        assert wait_until(lambda: relay.hanging > 0)
        assert holder.is_running
        assert posts_of("first") == sent
        relay.before = relay.after = lambda _: PASS
        relay.release()
        assert holder.wait() == 1
        assert posts_of("first") == sent
        assert f"was taken over by {successor}" in holder.stderr.splitlines()[-1]
        assert paused.left == []
        assert standby.stop() == 0
    assert set(siem.ids) == ids_of(make_events(200))
    assert place.holder is None


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "emptied"])
def test_a_holder_writes_a_registry_anew_that_is_gone(
    place: Place, api: ListingApi, siem: Destination, *, is_deleted: bool
) -> None:
    """A standby would lose what only the holder knows to be owed.

    One that finds the object empty may end; it never takes over.
    """
    source = make_source("s", api.endpoint, siem.url)
    long = ("--lease-seconds", "20")

    def has_seen(relay: S3Relay) -> bool:
        asked = [one for one in relay.records if one.method == "GET" and one.path.endswith(KEY)]
        answers = [one.upstream for one in asked if one.upstream is not None]
        return any(answer.status == 404 or not answer.body for answer in answers)

    with S3Relay(place.server.endpoint) as relay, S3Relay(place.server.endpoint) as other:
        first = place.machine(source, env=relay.env_of(place.server))
        second = place.machine(source, env=other.env_of(place.server))
        holder = first.ship(*long, quick=True)
        assert siem.wait_for(100, 45), holder.stderr
        assert wait_until(lambda: place.generation), holder.stderr
        name = place.holder
        siem.respond = lambda _: Response(503)
        tried = siem.request_count
        api.add(make_events(40, 100))
        assert wait_until(lambda: siem.request_count > tried + 1), holder.stderr
        api.before_reply = lambda _: Response(200, body={"events": []})
        standby = second.ship("--standby", *long, quick=True)
        assert wait_until(lambda: "standing by" in standby.stderr), standby.stderr
        # No write of the holder's comes between, nor is one on its way.
        relay.before = lambda record: HANG if is_manifest(record) else PASS
        assert wait_until(
            lambda: (
                relay.hanging
                == sum(one.upstream is None for one in relay.records if is_manifest(one))
            )
        )
        looks = len(other.records)
        if is_deleted:
            place.server.delete(place.bucket, KEY)
        else:
            place.server.put(place.bucket, KEY, b"")
        assert wait_until(lambda: len(other.records) > looks and has_seen(other)), standby.stderr
        # What would take over does so at its next request, and says so.
        assert wait_until(lambda: len(other.records) > looks + 1 or not standby.is_running)
        relay.before = lambda _: PASS
        relay.release()
        siem.respond = None
        assert siem.wait_for(140, 45), holder.stderr
        assert wait_until(lambda: place.server.read(place.bucket, KEY)), holder.stderr
        assert place.holder == name, standby.stderr
        assert standby.is_running or not is_deleted, standby.stderr
        standby.kill()
        assert "holding the registry" not in standby.stderr
        assert holder.stop() == 0, holder.stderr
    assert set(siem.ids) == ids_of(make_events(140))


def test_an_idle_source_makes_no_generation(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """For all its polls, of which each changes what it knows for a moment."""
    machine = place.machine(make_source("s", api.endpoint, siem.url))
    process = machine.ship(quick=True)
    assert siem.wait_for(100, 45), process.stderr
    assert wait_until(lambda: place.generation), process.stderr

    def is_settled() -> bool:
        known = place.generation
        assert api.wait_for_requests(len(api.requests) + 40, 45)
        return place.generation == known

    # There is time for a dozen uploads, in each of several rounds.
    assert any(is_settled() for _ in range(4)), process.stderr
    shown = machine.run("registry", "show", "--registry-file", place.url, env=machine.env)
    assert shown.code == 0, shown.stderr
    assert "idle" in shown.stdout
    assert process.stop() == 0


def test_a_holder_that_was_paused_beyond_its_lease_goes_on_where_nobody_took_over(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """With what it read before it learnt that, and nothing read afterwards to wake it."""
    with S3Relay(place.server.endpoint) as relay:
        source = make_source("s", api.endpoint, siem.url)
        machine = place.machine(source, env=relay.env_of(place.server))
        process = machine.ship(*SHORT, quick=True)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: place.generation), process.stderr
        process.send(signal.SIGSTOP)
        paused_at = time.monotonic()
        relay.before = relay.after = lambda _: HANG
        assert wait_until(lambda: time.monotonic() > paused_at + 1.2 * LEASE_S)
        polled = len(api.requests)
        api.add(make_events(50, 100))
        process.send(signal.SIGCONT)
        assert api.wait_for_requests(polled + 6, 45)
        relay.before = relay.after = lambda _: PASS
        relay.release()
        assert siem.wait_for(150, 20), process.stderr
        assert process.stop() == 0, process.stderr
    assert siem.ids == dict.fromkeys(ids_of(make_events(150)), 1)


def test_a_state_directory_goes_on_at_once_and_from_where_it_was(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """Newer than what is uploaded; and older, when another machine was in between."""
    source = make_source("s", api.endpoint, siem.url)
    first, second = place.machine(source), place.machine(source)
    kept = ("--state-dir", "state", "--lease-seconds")
    process = first.ship(*kept, "600")
    assert siem.wait_for(100, 45), process.stderr
    assert wait_until(lambda: place.generation), process.stderr
    api.add(make_events(50, 100))
    assert siem.wait_for(150, 45), process.stderr
    # By then the answers have been read, too.
    assert api.wait_for_requests(len(api.requests) + 6, 45)
    process.kill()
    process = first.ship(*kept, "1", quick=True)
    api.add(make_events(50, 150))
    assert siem.wait_for(200, 20), process.stderr
    assert "continues the newest generation" in process.stderr
    assert siem.ids == dict.fromkeys(ids_of(make_events(200)), 1)
    process.kill()
    process = second.ship("--standby", "--lease-seconds", "1", quick=True)
    api.add(make_events(50, 200))
    assert siem.wait_for(250, 45), process.stderr
    assert process.stop() == 0
    counts = siem.ids
    api.add(make_events(50, 250))
    process = first.ship(*kept, str(LEASE_S))
    assert siem.wait_for(300, 45), process.stderr
    assert "resuming from the registry's newest generation" in process.stderr
    assert process.stop() == 0
    assert siem.ids == {**counts, **dict.fromkeys(ids_of(make_events(50, 250)), 1)}
    assert first.left == []


def test_a_state_directory_goes_on_after_a_kill_before_the_answer_to_an_upload(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    """The store names the new generation by then, and the directory continues it."""
    struck = threading.Event()
    known: list[str | None] = []

    def after(record: RelayRecord) -> Action:
        if not (known and is_manifest(record)) or manifest_in(record)["generation"] == known[0]:
            return PASS
        if not struck.is_set():
            # In no upload, so that a fetched generation would repeat it.
            api.add(make_events(50, 150))
            assert siem.wait_for(200, 45), process.stderr
            # By then the answers have been read, too.
            assert api.wait_for_requests(len(api.requests) + 6, 45)
            process.kill()
            struck.set()
        return DROP

    # A renewal or a timeout in between would be another write.
    kept = ("--state-dir", "state", "--lease-seconds", "600")
    with S3Relay(place.server.endpoint, after=after) as relay:
        source = make_source("s", api.endpoint, siem.url)
        machine = place.machine(source, env=relay.env_of(place.server))
        process = machine.ship(*kept, quick=True)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: place.generation), process.stderr
        assert api.wait_for_requests(len(api.requests) + 40, 45)
        known.append(place.generation)
        api.add(make_events(50, 100))
        assert wait_until(struck.is_set), process.stderr
        assert place.generation != known[0]
        known.clear()
        process = machine.ship(*kept, quick=True)
        api.add(make_events(50, 200))
        assert siem.wait_for(250, 45), process.stderr
        assert "continues the newest generation" in process.stderr
        assert process.stop() == 0
    assert siem.ids == dict.fromkeys(ids_of(make_events(250)), 1)


def test_a_working_copy_is_not_edited(place: Place, api: ListingApi, siem: Destination) -> None:
    """The next start would fetch the registry over it."""
    machine = place.machine(make_source("s", api.endpoint, siem.url))
    assert machine.finish("--once", "--state-dir", "state").code == 0
    edit = ("registry", "rewind", "s", "--to", "2025-01-01", "--registry-file", "state")
    refused = machine.run(*edit, env=machine.env)
    assert refused.code == 1
    assert "is the working copy of a registry in S3" in refused.stderr


def test_a_url_with_a_slash_too_few_is_no_path(place: Place) -> None:
    machine = place.machine(make_source("s", "http://127.0.0.1:9", "http://127.0.0.1:9"))
    process = machine.start("--registry-file", f"s3:/{place.bucket}/{KEY}")
    assert process.wait() == 2
    assert "s3:/ is not supported" in process.stderr
    assert not (machine.directory / "s3:").exists()


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def test_what_is_no_registry_of_ours_is_refused(
    place: Place, api: ListingApi, siem: Destination, tmp_path: Path
) -> None:
    """Altered objects, a pickle that would run a command, manifests of other makes."""
    source = make_source("s", api.endpoint, siem.url)
    first = place.machine(source)
    assert first.finish("--once").code == 0
    good = place.read()
    part = good["partitions"]["part-0.sqlite3"]
    data = place.server.read(place.bucket, part["key"])
    assert data is not None
    mark = tmp_path / "ran"

    def alter(content: bytes) -> bytes:
        return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]

    def poison(content: bytes) -> bytes:
        path = tmp_path / "poisoned.sqlite3"
        path.write_bytes(content)
        with closing(sqlite3.connect(path)) as partition:
            partition.execute(
                "UPDATE snaps SET ser_change = ? WHERE step_id = 'flicker.poll'",
                (pickle.dumps(Runs(f"touch {mark}")),),
            )
            partition.commit()
        return path.read_bytes()

    def named(content: bytes, *, fitting: bool) -> dict[str, Any]:
        key = f"other/{sha256(content).hexdigest()}"
        place.server.put(place.bucket, key, content)
        facts = {**part, "key": key}
        if fitting:
            facts |= {"size": len(content), "sha256": sha256(content).hexdigest()}
        return {**good, "partitions": {"part-0.sqlite3": facts}}

    cases: list[tuple[str, bytes, bool]] = [
        ("SHA-256", json.dumps(named(alter(data), fitting=False)).encode(), True),
        ("SHA-256", json.dumps(named(data[:-1], fitting=False)).encode(), True),
        (
            "does not exist",
            json.dumps(
                {**good, "partitions": {"part-0.sqlite3": {**part, "key": "no/such"}}}
            ).encode(),
            True,
        ),
        ("step flicker.poll, source 's'", b"", True),
        ("is damaged", b'{"version": 1, "api_so', False),
        ("version 9", json.dumps({**good, "version": 9}).encode(), False),
        (
            "a name that no partition has",
            json.dumps({**good, "partitions": {"../../part-0.sqlite3": part}}).encode(),
            False,
        ),
        ("expires_at", json.dumps({**good, "lease": {"instance": "x"}}).encode(), False),
    ]
    cases[3] = (cases[3][0], json.dumps(named(poison(data), fitting=True)).encode(), True)
    machines = []
    for index, (_, manifest, _) in enumerate(cases):
        place.server.put(place.bucket, f"case-{index}.json", manifest)
        url = f"s3://{place.bucket}/case-{index}.json"
        machines.append(place.machine(source, url=url))
    taken = siem.request_count
    processes = [machine.ship() for machine in machines]
    for index, (machine, process) in enumerate(zip(machines, processes, strict=True)):
        reason, manifest, is_leased = cases[index]
        assert process.wait() == 1, reason
        assert reason in process.stderr.splitlines()[-1]
        # Nobody can repair a directory that is gone.
        assert f"s3://{place.bucket}/" in process.stderr.splitlines()[-1]
        assert str(machine.tmp) not in process.stderr
        assert machine.left == []
        found = place.server.read(place.bucket, f"case-{index}.json")
        assert found is not None
        # The next start is told what is wrong, and not that somebody holds it.
        assert json.loads(found)["lease"] is None if is_leased else found == manifest, reason
        assert (not is_leased) or {**json.loads(found), "lease": None} == json.loads(manifest)
    assert not mark.exists()
    assert not (tmp_path / "part-0.sqlite3").exists()
    assert siem.request_count == taken


def test_a_store_without_conditions_is_warned_of_and_allows_no_standby(
    tmp_path: Path, moto: MotoServer, api: ListingApi, siem: Destination
) -> None:
    def before(record: RelayRecord) -> Action:
        conditions = {"if-match", "if-none-match"}
        if not any(name.lower() in conditions for name, _ in record.headers):
            return PASS
        # It checks no signature, so the headers can be left out.
        headers = {name: value for name, value in record.headers if name.lower() not in conditions}
        answer = requests.put(
            f"{moto.endpoint}{record.path}", record.body, headers=headers, timeout=LIMIT_S
        )
        kept = tuple((name, value) for name, value in answer.headers.items())
        return Answer(answer.status_code, answer.content, kept)

    with (
        closing(Place(tmp_path, moto)) as place,
        S3Relay(moto.endpoint, before=before) as relay,
    ):
        env = relay.env_of(moto)
        source = make_source("s", api.endpoint, siem.url)
        refused, machine = place.machine(source, env=env), place.machine(source, env=env)
        finished = refused.finish("--standby")
        assert finished.code == 1
        assert "allows no --standby" in finished.stderr.splitlines()[-1]
        assert moto.keys(place.bucket) == []
        process = machine.ship()
        assert siem.wait_for(100, 45), process.stderr
        assert "NOTHING KEEPS A SECOND INSTANCE FROM OVERWRITING" in process.stderr
        # The timestamp moves when a scan ends, which may be after all has arrived.
        assert wait_until(lambda: place.read()["api_sources"].get("s", {}).get("last_timestamp"))
        assert process.stop() == 0
        assert place.read()["api_sources"]["s"]["last_timestamp"]
        assert place.holder is None
        assert [refused.left, machine.left] == [[], []]


def host_cluster(machine: Machine, processes: int, workers: int) -> list[Process]:
    """Start the processes of a cluster on one machine, with the registry in S3."""
    env = {
        **machine.env,
        "FLICKER_REGISTRY_FILE": machine.url,
        "FLICKER_STANDBY": "true",
        "FLICKER_LEASE_SECONDS": str(LEASE_S),
    }
    common = ("-r", "recovery", *EPOCHS, "-w", str(workers))
    if processes == 1:
        return [machine.host(*common, env=env)]
    addresses = free_addresses(processes)
    return [
        machine.host(*common, "-i", str(index), "-a", addresses, env=env)
        for index in range(processes)
    ]


def test_a_cluster_of_any_shape_resumes_from_the_bucket(place: Place, siem: Destination) -> None:
    """2 x 2, then 1 x 3, then 3 x 1; all killed and the directory gone in between."""
    apis = [ListingApi(make_events(30, 10_000 * index), STYLE) for index in range(4)]
    made = 30
    for api in apis:
        api.__enter__()
    try:
        sources = [make_source(f"s{i}", api.endpoint, siem.url) for i, api in enumerate(apis)]
        for count, workers in ((2, 2), (1, 3), (3, 1)):
            machine = place.machine(*sources)
            processes = host_cluster(machine, count, workers)
            for index, api in enumerate(apis):
                api.add(make_events(20, 10_000 * index + made))
            made += 20
            assert siem.wait_for(4 * made, 20), said_by(processes)
            known = place.generation
            assert wait_until(lambda: place.generation not in {None, known}), said_by(processes)  # noqa: B023
            if (count, workers) == (3, 1):
                assert stop_cluster(processes) == [0, 0, 0]
                break
            kill_all(processes)
            shutil.rmtree(machine.directory / "recovery")
    finally:
        for api in apis:
            api.__exit__(None, None, None)
    for index in range(4):
        assert ids_of(make_events(made, 10_000 * index)) <= set(siem.ids)
    assert place.holder is None
    assert set(place.read()["api_sources"]) == {"s0", "s1", "s2", "s3"}


def test_bytewax_says_when_the_last_upload_failed(
    place: Place, api: ListingApi, siem: Destination
) -> None:
    with S3Relay(place.server.endpoint) as relay:
        env = relay.env_of(place.server)
        machine = place.machine(make_source("s", api.endpoint, siem.url), env=env)
        (process,) = host_cluster(machine, 1, 1)
        assert siem.wait_for(100, 45), process.stderr
        assert wait_until(lambda: place.generation), process.stderr
        relay.away()
        api.add(make_events(50, 100))
        assert siem.wait_for(150, 45), process.stderr
        assert process.stop(40) == 1
    said = f"flicker: the last upload of the registry {place.url} failed"
    assert said in process.stderr.splitlines()[-1]


def test_a_process_of_a_cluster_with_another_directory_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first one fetches; the others would wait for it for ever."""
    monkeypatch.setattr(local, "FIRST_LIMIT_S", 0.2)
    with pytest.raises(RegistryError, match=r"\(-i 0\) does not use .*the same directory"):
        local.open_registry(tmp_path / "elsewhere", process_index=1)
