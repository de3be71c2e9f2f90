"""One writer: who holds a registry in S3, and how it is handed over."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flicker import signals
from flicker.errors import RegistryError
from flicker.registry import ownership as ownership_module
from flicker.registry import store as store_module
from flicker.registry.location import S3Location
from flicker.registry.manifest import Lease, Manifest, dump_manifest, parse_manifest
from flicker.registry.ownership import LeaseLostError, Ownership
from flicker.registry.store import S3Store, StoreAwayError, StoreError
from tests.processes import LIMIT_S, wait_until
from tests.registry.opening import KEY, PREFIX, open_store
from tests.servers.relay import DROP, PASS, Action, Answer, RelayRecord, S3Relay, error_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.s3 import MotoServer, S3Server, SeaweedServer

pytest_plugins = ("tests.servers.s3",)

LEASE_S = 30.0
SHORT_S = 1.2
"""The lease of a test that waits for one to run out; the store tells time in whole seconds."""

SOURCES: dict[str, dict[str, Any]] = {"okta": {"last_timestamp": "2025-01-01T00:00:00Z"}}


class Bucket:
    """A bucket, and instances that want the registry in it."""

    def __init__(self, server: S3Server, store: S3Store, bucket: str) -> None:
        self.server = server
        self.store = store
        self.name = bucket
        self.location = S3Location(bucket, KEY)
        self._made: list[Ownership] = []

    def instance(
        self, name: str, lease_s: float = LEASE_S, *, can_stand_by: bool = True
    ) -> Ownership:
        made = Ownership(self.store, self.location, name, lease_s, can_stand_by=can_stand_by)
        self._made.append(made)
        return made

    def write(self, manifest: Manifest) -> None:
        self.server.put(self.name, KEY, dump_manifest(manifest))

    def read(self) -> Manifest:
        data = self.server.read(self.name, KEY)
        assert data is not None
        return parse_manifest(data, self.location)

    @property
    def holder(self) -> str | None:
        lease = self.read().lease
        return None if lease is None else lease.instance

    def close(self) -> None:
        for each in self._made:
            each.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between tries, and no long silence."""
    monkeypatch.setattr(store_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(store_module, "READ_TIMEOUT_S", 5.0)


@pytest.fixture
def bucket(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer, quick: None
) -> Iterator[Bucket]:
    """A bucket of a store that keeps its promises."""
    del quick
    name = seaweed.new_bucket()
    bucket = Bucket(seaweed, open_store(monkeypatch, seaweed.env, name), name)
    yield bucket
    bucket.close()


@pytest.fixture
def relay(moto: MotoServer) -> Iterator[S3Relay]:
    with S3Relay(moto.endpoint) as relay:
        yield relay


@pytest.fixture
def behind(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, quick: None
) -> Iterator[Bucket]:
    """A bucket behind the relay."""
    del quick
    name = moto.new_bucket()
    bucket = Bucket(moto, open_store(monkeypatch, relay.env_of(moto), name), name)
    yield bucket
    bucket.close()


class Clock:
    """A steady clock that a test can move on, as if the machine had slept."""

    def __init__(self) -> None:
        self._slept_s = 0.0

    def __call__(self) -> float:
        return store_module.steady_s() + self._slept_s

    def sleep(self, seconds: float) -> None:
        self._slept_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ownership_module, "steady_s", clock)
    return clock


def is_write(record: RelayRecord) -> bool:
    return record.method == "PUT" and record.path.endswith(f"/{KEY}")


def test_takes_what_nobody_has_used(bucket: Bucket) -> None:
    first = bucket.instance("first")
    assert not first.may_ship()
    manifest = first.acquire(is_standby=False)
    assert manifest.api_sources == {}
    assert manifest.generation is None
    assert manifest is first.manifest
    assert first.may_ship()
    lease = bucket.read().lease
    assert lease is not None
    assert lease.instance == "first"
    assert abs(lease.expires_at - LEASE_S - bucket.store.now) < LIMIT_S
    # The probe of the store is gone.
    assert bucket.server.keys(bucket.name) == [KEY]


def test_takes_what_the_rust_flicker_wrote(bucket: Bucket) -> None:
    data = json.dumps({"version": 1, "api_sources": SOURCES}).encode()
    bucket.server.put(bucket.name, KEY, data)
    manifest = bucket.instance("first").acquire(is_standby=False)
    assert manifest.api_sources == SOURCES
    assert bucket.read().api_sources == SOURCES


@pytest.mark.parametrize("data", [b"{}", b"", b"\n"])
def test_a_damaged_registry_is_not_taken(bucket: Bucket, data: bytes) -> None:
    """An empty one neither: to start afresh over it would be to ship everything again."""
    bucket.server.put(bucket.name, KEY, data)
    with pytest.raises(RegistryError, match="is damaged"):
        bucket.instance("first").acquire(is_standby=True)
    assert bucket.server.read(bucket.name, KEY) == data


def test_without_a_bucket_none_is_made(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer
) -> None:
    """SeaweedFS makes a bucket of any name that is written to."""
    store = open_store(monkeypatch, seaweed.env, "typo-in-the-name")
    location = S3Location("typo-in-the-name", KEY)
    with pytest.raises(StoreError, match="there is no bucket 'typo-in-the-name'"):
        Ownership(store, location, "first", LEASE_S).acquire(is_standby=True)
    assert "typo-in-the-name" not in str(seaweed.client().list_buckets()["Buckets"])


def test_what_is_held_is_refused_with_its_holder_and_the_end(bucket: Bucket) -> None:
    bucket.instance("first").acquire(is_standby=False)
    before = bucket.server.read(bucket.name, KEY)
    second = bucket.instance("second")
    with pytest.raises(RegistryError) as caught:
        second.acquire(is_standby=False)
    assert before is not None
    until = json.loads(before)["lease"]["expires_at"]
    text = str(caught.value)
    assert f"{bucket.location} is held by first until {until}. Stop that instance" in text
    assert "--standby" in text
    assert "\n" not in text
    assert not second.may_ship()
    assert bucket.server.read(bucket.name, KEY) == before


def test_whoever_cannot_stand_by_is_not_advised_to(bucket: Bucket) -> None:
    bucket.instance("first").acquire(is_standby=False)
    second = bucket.instance("second", can_stand_by=False)
    with pytest.raises(RegistryError, match=r"or wait until then if it is gone$") as caught:
        second.acquire(is_standby=False)
    assert "--standby" not in str(caught.value)


def test_takes_what_was_released(bucket: Bucket) -> None:
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    first.release(Manifest(SOURCES))
    assert bucket.read() == Manifest(SOURCES)
    assert not first.may_ship()
    assert bucket.instance("second").acquire(is_standby=False).api_sources == SOURCES
    assert bucket.holder == "second"


def test_takes_what_has_run_out(bucket: Bucket) -> None:
    bucket.write(Manifest(SOURCES, lease=Lease("dead", bucket.store.now - 5.0)))
    assert bucket.instance("second").acquire(is_standby=False).api_sources == SOURCES
    assert bucket.holder == "second"


def test_takes_its_own_at_once(bucket: Bucket) -> None:
    """The same state directory, of which the last user is dead."""
    bucket.instance("same").acquire(is_standby=False)
    bucket.instance("same").acquire(is_standby=False)
    assert bucket.holder == "same"


def standing_by(bucket: Bucket, name: str, lease_s: float = LEASE_S) -> threading.Thread:
    instance = bucket.instance(name, lease_s)
    thread = threading.Thread(target=instance.acquire, kwargs={"is_standby": True}, daemon=True)
    thread.start()
    return thread


def test_a_standby_takes_over_what_is_released(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.05)
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    with caplog.at_level("INFO"):
        standby = standing_by(bucket, "second")
        assert wait_until(lambda: "standing by" in caplog.text)
    assert bucket.holder == "first"
    first.release()
    standby.join(LIMIT_S)
    assert bucket.holder == "second"
    assert caplog.text.count("standing by") == 1


def test_a_standby_takes_over_what_runs_out(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.05)
    first = bucket.instance("first", SHORT_S)
    first.acquire(is_standby=False)
    standing_by(bucket, "second").join(LIMIT_S)
    assert bucket.holder == "second"
    # By then the first does not think that it is its own any more.
    assert not first.may_ship()


def test_a_standby_does_not_mind_a_store_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
    behind: Bucket,
    relay: S3Relay,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.02)
    first = behind.instance("first")
    first.acquire(is_standby=False)
    with caplog.at_level("INFO"):
        standby = standing_by(behind, "second")
        assert wait_until(lambda: "standing by" in caplog.text)
        relay.away()
        assert wait_until(lambda: "cannot look whether" in caplog.text)
    assert caplog.text.count("cannot look whether") == 1
    relay.back()
    first.release()
    standby.join(LIMIT_S)
    assert behind.holder == "second"


def test_a_standby_waits_for_the_holder_of_a_deleted_registry(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """It has what the registry said; whoever started afresh would ship all of it again."""
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.02)
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    second = bucket.instance("second")
    rounds: list[int] = []
    monkeypatch.setattr(ownership_module, "exit_if_asked", lambda: rounds.append(1))
    standby = threading.Thread(target=second.acquire, kwargs={"is_standby": True}, daemon=True)
    with caplog.at_level("INFO"):
        standby.start()
        assert wait_until(lambda: "standing by" in caplog.text)
    bucket.server.delete(bucket.name, KEY)
    before = len(rounds)
    assert wait_until(lambda: len(rounds) > before + 3)
    assert bucket.server.read(bucket.name, KEY) is None
    first.publish(Manifest(SOURCES))
    assert bucket.holder == "first"
    first.release()
    standby.join(LIMIT_S)
    assert bucket.holder == "second"
    assert second.manifest.api_sources == SOURCES


def test_a_registry_that_is_deleted_under_a_dead_holder_is_no_fresh_start(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.02)
    ends_at = bucket.store.now + 2.0
    bucket.write(Manifest(SOURCES, lease=Lease("gone", ends_at)))
    rounds: list[int] = []

    def count() -> None:
        rounds.append(1)
        if len(rounds) == 2:
            bucket.server.delete(bucket.name, KEY)

    monkeypatch.setattr(ownership_module, "exit_if_asked", count)
    with pytest.raises(RegistryError) as caught:
        bucket.instance("second").acquire(is_standby=True)
    assert f"{bucket.location} was deleted while gone held it. Restore" in str(caught.value)
    assert "\n" not in str(caught.value)
    # Until then the holder might have written it anew.
    assert bucket.store.now >= ends_at
    assert len(rounds) > 2
    assert bucket.server.keys(bucket.name) == []


def test_a_wish_to_stop_that_got_lost_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ownership_module, "STANDBY_S", 0.02)
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    left: list[SystemExit] = []

    def stand_by() -> None:
        try:
            bucket.instance("second").acquire(is_standby=True)
        except SystemExit as error:
            left.append(error)

    standby = threading.Thread(target=stand_by, daemon=True)
    with caplog.at_level("INFO"):
        standby.start()
        assert wait_until(lambda: "standing by" in caplog.text)
    monkeypatch.setattr(signals, "_asked", [15])
    standby.join(LIMIT_S)
    assert [error.code for error in left] == [0]
    first.release()
    with pytest.raises(SystemExit) as caught:
        bucket.instance("third").acquire(is_standby=False)
    assert caught.value.code == 0
    assert bucket.holder is None


def test_of_several_that_start_at_once_one_wins(bucket: Bucket) -> None:
    bucket.write(Manifest(SOURCES, lease=Lease("dead", bucket.store.now - 5.0)))
    start = threading.Barrier(4)
    held: list[str] = []
    refused: list[str] = []

    def run(name: str) -> None:
        instance = bucket.instance(name)
        start.wait(LIMIT_S)
        try:
            instance.acquire(is_standby=False)
        except RegistryError as error:
            refused.append(str(error))
        else:
            held.append(name)

    threads = [threading.Thread(target=run, args=(f"i{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert held == [bucket.holder]
    assert len(refused) == 3
    assert all(f"is held by {held[0]} until" in text for text in refused)


def test_a_holder_renews(bucket: Bucket) -> None:
    first = bucket.instance("first", SHORT_S)
    taken = first.acquire(is_standby=False).lease
    assert taken is not None
    first.start(pytest.fail)
    assert wait_until(lambda: (bucket.read().lease or taken).expires_at > taken.expires_at + 2.0)
    assert first.may_ship()
    with pytest.raises(RegistryError, match="is held by first"):
        bucket.instance("second").acquire(is_standby=False)
    first.release()
    assert bucket.holder is None


def test_publishing_renews_as_well(bucket: Bucket, clock: Clock) -> None:
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    clock.sleep(LEASE_S)
    assert not first.may_ship()
    first.publish(Manifest(SOURCES))
    assert first.may_ship()
    assert bucket.read().api_sources == SOURCES
    assert first.manifest.api_sources == SOURCES


@pytest.mark.parametrize("is_deaf", [False, True])
def test_an_answer_that_got_lost_is_no_lost_lease(
    behind: Bucket, relay: S3Relay, *, is_deaf: bool
) -> None:
    first = behind.instance("first")
    first.acquire(is_standby=False)
    first.start(pytest.fail)
    relay.after = lambda record: DROP if is_write(record) else PASS
    with pytest.raises(StoreAwayError):
        first.publish(Manifest(SOURCES))
    # It was taken, and nobody was told.
    assert behind.read().api_sources == SOURCES
    if is_deaf:
        with pytest.raises(StoreAwayError):
            first.publish(Manifest({"another": {}}))
    relay.after = lambda _: PASS
    first.publish(Manifest({"next": {}}))
    assert behind.read().api_sources == {"next": {}}
    first.release()
    assert behind.holder is None


def test_a_lost_answer_to_the_very_first_write_is_made_good(behind: Bucket, relay: S3Relay) -> None:
    lost: list[int] = []

    def after(record: RelayRecord) -> Action:
        if is_write(record) and not lost:
            lost.append(record.number)
            return DROP
        return PASS

    relay.after = after
    behind.instance("first").acquire(is_standby=False)
    assert lost
    assert behind.holder == "first"


def test_a_lost_answer_to_a_release_is_made_good(behind: Bucket, relay: S3Relay) -> None:
    first = behind.instance("first")
    first.acquire(is_standby=False)
    relay.after = lambda record: DROP if is_write(record) else PASS
    with pytest.raises(StoreAwayError):
        first.release(Manifest(SOURCES))
    relay.after = lambda _: PASS
    first.release(Manifest({"later": {}}))
    assert behind.read() == Manifest({"later": {}})


def test_what_is_deleted_under_us_is_written_anew(bucket: Bucket) -> None:
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    first.start(pytest.fail)
    bucket.server.delete(bucket.name, KEY)
    first.publish(Manifest(SOURCES))
    assert bucket.read().api_sources == SOURCES
    first.publish(Manifest({"next": {}}))
    assert bucket.read().api_sources == {"next": {}}
    assert first.may_ship()


def test_a_store_that_asks_to_try_again_is_asked_again(behind: Bucket, relay: S3Relay) -> None:
    """S3 answers 409 where several write at the same moment."""
    first = behind.instance("first")
    first.acquire(is_standby=False)
    asked: list[int] = []

    def before(record: RelayRecord) -> Action:
        if is_write(record) and len(asked) < 2:
            asked.append(record.number)
            return Answer(409, error_xml("ConditionalRequestConflict", "again"))
        return PASS

    relay.before = before
    first.publish(Manifest(SOURCES))
    assert behind.read().api_sources == SOURCES
    relay.before = lambda record: (
        Answer(409, error_xml("ConditionalRequestConflict", "again")) if is_write(record) else PASS
    )
    with pytest.raises(StoreAwayError, match="changes all the time and cannot be replaced"):
        first.publish(Manifest(SOURCES))
    assert first.may_ship()


def test_whoever_was_replaced_leaves(bucket: Bucket) -> None:
    lost: list[str] = []
    first = bucket.instance("first", SHORT_S)
    first.acquire(is_standby=False)
    first._on_lost = lost.append
    bucket.write(Manifest(SOURCES, lease=Lease("second", bucket.store.now + LEASE_S)))
    for _ in range(2):
        with pytest.raises(LeaseLostError, match=r"was taken over by second\. This instance stops"):
            first.publish(Manifest())
    assert len(lost) == 1
    assert "taken over by second" in lost[0]
    assert not first.may_ship()
    assert bucket.read().api_sources == SOURCES
    with pytest.raises(LeaseLostError):
        first.release()
    assert bucket.holder == "second"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"version": 1, "api_sou',
        dump_manifest(Manifest({"edited": {}}, lease=Lease("first", 1_735_732_800.0))),
    ],
)
def test_what_is_spoilt_under_us_is_written_anew(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """No other instance wrote that: it would have put its name to it."""
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    first._on_lost = pytest.fail
    bucket.server.put(bucket.name, KEY, data)
    first.publish(Manifest(SOURCES))
    assert bucket.read().api_sources == SOURCES
    assert bucket.holder == "first"
    assert caplog.text.count("was edited or damaged while this instance holds it") == 1
    first.publish(Manifest({"next": {}}))
    assert bucket.read().api_sources == {"next": {}}
    assert caplog.text.count("was edited or damaged") == 1
    assert first.may_ship()


@pytest.mark.parametrize("lease", [None, Lease("second", 1_735_732_800.0)])
def test_whoever_finds_something_else_leaves(bucket: Bucket, lease: Lease | None) -> None:
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    theirs = Manifest(SOURCES, lease=lease)
    bucket.write(theirs)
    holder = "somebody else" if lease is None else "second"
    with pytest.raises(LeaseLostError, match=f"taken over by {holder}") as caught:
        first.publish(Manifest())
    assert caught.value.found == theirs
    assert bucket.read() == theirs
    assert not first.may_ship()


def test_what_a_newer_flicker_wrote_is_not_written_over(bucket: Bucket) -> None:
    """That is no damage: it took over while this one slept."""
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    data = b'{"version": 2, "api_sources": {}}'
    bucket.server.put(bucket.name, KEY, data)
    with pytest.raises(LeaseLostError, match="was taken over by somebody else"):
        first.publish(Manifest())
    assert bucket.server.read(bucket.name, KEY) == data


def test_the_renewal_notices_who_took_over(bucket: Bucket) -> None:
    lost: list[str] = []
    first = bucket.instance("first", SHORT_S)
    first.acquire(is_standby=False)
    bucket.write(Manifest(lease=Lease("second", bucket.store.now + LEASE_S)))
    first.start(lost.append)
    assert wait_until(lambda: lost)
    assert not first.may_ship()
    assert bucket.holder == "second"


def test_after_a_sleep_nothing_is_shipped_before_a_look(bucket: Bucket, clock: Clock) -> None:
    first = bucket.instance("first")
    first.acquire(is_standby=False)
    clock.sleep(LEASE_S / 2)
    assert first.may_ship()
    clock.sleep(LEASE_S / 2 - ownership_module.MARGIN_S / 2)
    assert not first.may_ship()
    first.publish(Manifest())
    assert first.may_ship()


def test_while_the_store_is_away_shipping_goes_on(
    behind: Bucket, relay: S3Relay, clock: Clock
) -> None:
    first = behind.instance("first")
    first.acquire(is_standby=False)
    relay.away()
    for _ in range(10):
        clock.sleep(LEASE_S / 3)
        with pytest.raises(StoreAwayError):
            first.publish(Manifest())
        assert first.may_ship()
    # We slept: whether the store was away all that time nobody knows.
    clock.sleep(LEASE_S)
    assert not first.may_ship()
    with pytest.raises(StoreAwayError):
        first.publish(Manifest())
    assert first.may_ship()
    relay.back()
    first.publish(Manifest(SOURCES))
    assert behind.read().api_sources == SOURCES


def test_an_outage_is_told_once_and_its_end_too(
    behind: Bucket, relay: S3Relay, caplog: pytest.LogCaptureFixture
) -> None:
    first = behind.instance("first", 0.3)
    first.acquire(is_standby=False)
    with caplog.at_level("INFO"):
        first.start(pytest.fail)
        relay.away()
        before = len(relay.records)
        assert wait_until(lambda: "cannot renew the lease" in caplog.text)
        assert first.may_ship()
        missed = first._missed_at
        assert wait_until(lambda: first._missed_at != missed)
        relay.back()
        assert wait_until(lambda: "answers again" in caplog.text)
    assert caplog.text.count("cannot renew the lease") == 1
    assert len(relay.records) > before
    assert wait_until(first.may_ship)


def test_a_fault_in_a_renewal_stops_neither_shipping_nor_renewals(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """A fault of ours, or of a library's, is no other instance."""
    first = bucket.instance("first", SHORT_S)
    first.acquire(is_standby=False)

    def fail(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("a secret")

    with monkeypatch.context() as patched:
        patched.setattr(bucket.store, "put", fail)
        # Without a note of the failures, the lease would be over for us.
        clock.sleep(SHORT_S)
        assert not first.may_ship()
        first.start(pytest.fail)
        assert wait_until(lambda: first.failures >= 3)
        assert wait_until(first.may_ship)
        told = [record for record in caplog.records if "cannot renew" in record.message]
        assert [getattr(record, "reason", None) for record in told] == ["ZeroDivisionError"]
    failures = first.failures
    assert wait_until(lambda: first._missed_at is None)
    assert first.failures <= failures + 1
    assert wait_until(first.may_ship)
    assert "a secret" not in caplog.text


def test_failed_renewals_are_counted(behind: Bucket, relay: S3Relay) -> None:
    first = behind.instance("first")
    first.acquire(is_standby=False)
    first.publish(Manifest())
    assert first.failures == 0
    relay.before = lambda _: Answer(403, error_xml("AccessDenied", "no"))
    for _ in range(2):
        with pytest.raises(StoreError):
            first.publish(Manifest())
    assert first.failures == 2
    relay.before = lambda _: PASS
    first.publish(Manifest())
    # To have lost the registry is no failure that passes.
    behind.write(Manifest(lease=Lease("second", behind.store.now + LEASE_S)))
    with pytest.raises(LeaseLostError):
        first.publish(Manifest())
    assert first.failures == 2


def test_a_permission_that_is_taken_away_stops_no_shipping(
    behind: Bucket, relay: S3Relay, clock: Clock
) -> None:
    first = behind.instance("first")
    first.acquire(is_standby=False)
    relay.before = lambda _: Answer(403, error_xml("AccessDenied", "no"))
    clock.sleep(LEASE_S - 3.0)
    with pytest.raises(StoreError):
        first.publish(Manifest())
    clock.sleep(LEASE_S - 3.0)
    assert first.may_ship()


def test_a_store_that_is_away_at_the_start_is_told(behind: Bucket, relay: S3Relay) -> None:
    relay.away()
    for is_standby in (False, True):
        with pytest.raises(StoreAwayError, match="cannot be reached"):
            behind.instance("first").acquire(is_standby=is_standby)


def test_a_moment_of_absence_at_the_start_is_borne(behind: Bucket, relay: S3Relay) -> None:
    fate: list[Action] = [DROP, Answer(503, error_xml("SlowDown", "later"))]
    relay.before = lambda _: fate.pop() if fate else PASS
    behind.instance("first").acquire(is_standby=False)
    assert behind.holder == "first"


@pytest.fixture
def heedless(behind: Bucket, relay: S3Relay) -> Bucket:
    """A bucket of a store that ignores the conditions of writes."""

    def before(record: RelayRecord) -> Action:
        if record.header("If-Match") or record.header("If-None-Match"):
            key = record.path.partition(f"/{behind.name}/")[2]
            behind.server.put(behind.name, key, record.body)
            return Answer(200, b"", (("ETag", f'"{record.number}"'),))
        return PASS

    relay.before = before
    return behind


def test_a_store_without_conditions_is_warned_of(
    heedless: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    first = heedless.instance("first")
    first.acquire(is_standby=False)
    assert "NOTHING KEEPS A SECOND INSTANCE FROM OVERWRITING" in caplog.text
    first.publish(Manifest(SOURCES))
    assert heedless.read().api_sources == SOURCES
    assert heedless.server.keys(heedless.name) == [KEY]


def test_a_store_without_conditions_allows_no_standby(heedless: Bucket) -> None:
    with pytest.raises(StoreError) as caught:
        heedless.instance("first").acquire(is_standby=True)
    assert f"{heedless.location} allows no --standby" in str(caught.value)
    assert heedless.server.keys(heedless.name) == []


def test_without_conditions_a_second_writer_is_noticed_all_the_same(heedless: Bucket) -> None:
    first = heedless.instance("first")
    first.acquire(is_standby=False)
    with pytest.raises(RegistryError, match="is held by first"):
        heedless.instance("second").acquire(is_standby=False)
    heedless.write(Manifest(SOURCES, lease=Lease("second", heedless.store.now + LEASE_S)))
    with pytest.raises(LeaseLostError, match="taken over by second"):
        first.publish(Manifest())
    assert heedless.read().api_sources == SOURCES
    assert not first.may_ship()


def test_a_probe_that_a_starting_holder_deletes_changes_no_verdict(
    behind: Bucket, relay: S3Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes it for what a crashed instance left."""
    deleted: list[str] = []

    def after(record: RelayRecord) -> Action:
        if record.method == "PUT" and f"/{PREFIX}probe-" in record.path and not deleted:
            deleted.append(record.path)
            behind.server.delete(behind.name, record.path.partition(f"/{behind.name}/")[2])
        return PASS

    relay.after = after
    behind.instance("first").acquire(is_standby=True)
    assert deleted
    assert "NOTHING KEEPS" not in caplog.text


@pytest.mark.parametrize("fate", [DROP, Answer(403, error_xml("AccessDenied", "no"))])
def test_a_probe_that_stays_changes_no_later_verdict(
    behind: Bucket, relay: S3Relay, caplog: pytest.LogCaptureFixture, fate: Action
) -> None:
    """A crash left it, or there is no permission to delete."""
    relay.before = lambda record: fate if record.method == "DELETE" else PASS
    for number in (1, 2):
        behind.instance("same").acquire(is_standby=True)
        assert len(behind.server.keys(behind.name)) == 1 + number
    assert "NOTHING KEEPS" not in caplog.text


def test_the_stores_clock_decides_whatever_the_own_one_says(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    first = bucket.instance("first")
    real: Callable[[], float] = store_module.time.time
    monkeypatch.setattr(store_module.time, "time", lambda: real() + 365 * 86_400)
    # One year ahead: by our own clock the lease would have run out long ago.
    first.acquire(is_standby=False)
    with pytest.raises(RegistryError, match="is held by first"):
        bucket.instance("second").acquire(is_standby=False)
    lease = bucket.read().lease
    assert lease is not None
    assert lease.expires_at < real() + LEASE_S + LIMIT_S
