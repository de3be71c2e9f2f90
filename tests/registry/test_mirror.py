"""Fetching a registry from S3, and keeping the copy there current."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flicker.errors import RegistryError
from flicker.position import seed_state
from flicker.registry import mirror as mirror_module
from flicker.registry import store as store_module
from flicker.registry.local import _create_partitions
from flicker.registry.location import S3Location
from flicker.registry.manifest import (
    Generation,
    Lease,
    Manifest,
    StoredPartition,
    dump_manifest,
    parse_manifest,
)
from flicker.registry.mirror import KEPT_GENERATIONS, Mirror, Uploader, fetch, note_lineage
from flicker.registry.ownership import Ownership
from flicker.registry.partitions import POLL_STEP, copy_partitions, edit_states
from flicker.registry.store import StoreAwayError, StoreError
from tests.processes import wait_until
from tests.registry.opening import KEY, PREFIX, open_store
from tests.servers.relay import DROP, PASS, Action, Answer, RelayRecord, S3Relay, error_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flicker.registry.reader import Reader
    from tests.servers.s3 import MotoServer

pytest_plugins = ("tests.servers.s3",)

PART = "part-0.sqlite3"
STRAY = f"{PREFIX}000000000009-0123abcd/{PART}"
FOREIGN = (
    f"{PREFIX}notes.txt",
    f"{PREFIX}backup/000000000009-0123abcd/{PART}",
    f"{PREFIX}000000000009-0123abcd/{PART}.old",
    f"{PREFIX}probe-mine",
    f"other/{PART}",
)


class InProcess:
    """Reads the partitions here, where no flow has them open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.copies = 0
        self.error: Exception | None = None

    def copy(self, to: Path, unless: str | None) -> dict[str, Any]:
        self.copies += 1
        if self.error is not None:
            # A new one: each raise of one and the same adds to its traceback.
            raise type(self.error)(*self.error.args)
        return copy_partitions(self._directory, to, unless)


class Bench:
    """A registry in a bucket behind a relay, and an instance that holds it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, path: Path
    ) -> None:
        self.moto = moto
        self.relay = relay
        self.bucket = moto.new_bucket()
        self.location = S3Location(self.bucket, KEY)
        self.store = open_store(monkeypatch, relay.env_of(moto), self.bucket)
        self.ownership = Ownership(self.store, self.location, "first", 30.0)
        self.uploader = Uploader(self.store, self.location, self.ownership, "first")
        self.directory = path / "state"
        (self.directory / "acks").mkdir(parents=True)
        self.reader = InProcess(self.directory)
        self.mirror = Mirror(
            self.uploader, self.ownership, self.location, self.directory, self._reader, {"okta"}
        )

    @property
    def _reader(self) -> Reader:
        return self.reader  # type: ignore[return-value]

    def start(self) -> None:
        """Take the registry, and make partitions."""
        self.ownership.acquire(is_standby=False)
        fetch(self.store, self.location, self.ownership.manifest, self.directory)
        _create_partitions(self.directory, {})
        self.change(0)

    def change(self, number: int) -> None:
        """Have a source move on."""
        state = seed_state({"cursor": f"c{number}"})
        edit_states(self.directory, {(POLL_STEP, "okta"): state})

    def upload(self, *, is_last: bool = False) -> Generation:
        spool = self.directory.parent / "spool"
        answer = copy_partitions(self.directory, spool)
        return self.uploader.upload(
            self.directory, spool, answer["partitions"], answer["sources"], is_last=is_last
        )

    def read(self) -> Manifest:
        data = self.moto.read(self.bucket, KEY)
        assert data is not None
        return parse_manifest(data, self.location)

    @property
    def objects(self) -> set[str]:
        """All keys but that of the manifest."""
        return set(self.moto.keys(self.bucket)) - {KEY}

    @property
    def named(self) -> set[str]:
        """The keys that the manifest names."""
        manifest = self.read()
        generations = [manifest.generation, *manifest.previous]
        return {part.key for each in generations if each for part in each.partitions.values()}

    def put_generation(self, **contents: bytes) -> Manifest:
        """Put a generation as another instance would have."""
        parts = {}
        for number, data in enumerate(contents.values()):
            key = f"{PREFIX}000000000007-0123abcd/part-{number}.sqlite3"
            self.moto.put(self.bucket, key, data)
            digest = hashlib.sha256(data).hexdigest()
            parts[f"part-{number}.sqlite3"] = StoredPartition(key, len(data), digest)
        generation = Generation("000000000007-0123abcd", "2025-01-01T00:00:00Z", "other", parts)
        return Manifest({}, generation)

    def fetch(self, manifest: Manifest) -> bool:
        return fetch(self.store, self.location, manifest, self.directory)

    @property
    def lineage(self) -> list[str]:
        """What the partitions in the state directory are known to continue."""
        lineage: list[str] = json.loads((self.directory / "generation.json").read_bytes())
        return lineage

    def take_over(self) -> Manifest:
        """Have another instance go on from what there is."""
        found = self.read()
        taken = replace(found, lease=Lease("second", self.store.now + 30.0))
        self.moto.put(self.bucket, KEY, dump_manifest(taken))
        return self.read()

    @property
    def files(self) -> set[str]:
        """The files in the state directory, by their paths in it."""
        return {
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def relay(moto: MotoServer) -> Iterator[S3Relay]:
    with S3Relay(moto.endpoint) as relay:
        yield relay


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, tmp_path: Path
) -> Iterator[Bench]:
    monkeypatch.setattr(store_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(mirror_module, "FIRST_UPLOAD_S", 0.01)
    monkeypatch.setattr(mirror_module, "UPLOAD_INTERVAL_S", 0.02)
    bench = Bench(monkeypatch, moto, relay, tmp_path)
    yield bench
    bench.ownership.stop()


def is_manifest(record: RelayRecord) -> bool:
    return record.method == "PUT" and record.path.endswith(f"/{KEY}")


def is_part(record: RelayRecord) -> bool:
    return record.method == "PUT" and record.path.endswith(".sqlite3")


# Fetching


def test_fetches_a_generation_whole(bench: Bench) -> None:
    assert bench.fetch(bench.put_generation(a=b"first" * 500_000, b=b""))
    assert bench.lineage == [str(bench.location), "000000000007-0123abcd"]
    assert bench.files == {"generation.json", "part-0.sqlite3", "part-1.sqlite3"}
    assert (bench.directory / "part-0.sqlite3").read_bytes() == b"first" * 500_000
    assert (bench.directory / "part-1.sqlite3").read_bytes() == b""


def test_where_there_is_no_generation_nothing_is_fetched(bench: Bench) -> None:
    assert not bench.fetch(Manifest({"okta": {}}))
    assert bench.files == {"generation.json"}
    assert bench.lineage == [str(bench.location)]
    assert bench.relay.records == []


def test_an_object_that_is_missing_is_told(bench: Bench) -> None:
    manifest = bench.put_generation(a=b"a", b=b"b")
    key = f"{PREFIX}000000000007-0123abcd/part-1.sqlite3"
    bench.moto.delete(bench.bucket, key)
    with pytest.raises(RegistryError) as caught:
        bench.fetch(manifest)
    text = str(caught.value)
    assert f"{bench.location} is not whole: s3://{bench.bucket}/{key}, which" in text
    assert "\n" not in text
    # No half of it is taken for the registry.
    assert not {name for name in bench.files if name.endswith(".sqlite3")}


@pytest.mark.parametrize("data", [b"aaab", b"aaaaa", b"aaa", b""])
def test_an_object_that_was_changed_is_refused(bench: Bench, data: bytes) -> None:
    manifest = bench.put_generation(a=b"aaaa")
    bench.moto.put(bench.bucket, f"{PREFIX}000000000007-0123abcd/{PART}", data)
    with pytest.raises(RegistryError, match="was tampered with or damaged: s3://"):
        bench.fetch(manifest)
    assert bench.files == {"generation.json"}


@pytest.mark.parametrize("changes", [{"size": 3}, {"sha256": "00" * 32}, {"sha256": ""}])
def test_a_manifest_that_was_changed_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    manifest = bench.put_generation(a=b"aaaa")
    generation = manifest.generation
    assert generation is not None
    part = replace(generation.partitions[PART], **changes)
    manifest = replace(manifest, generation=replace(generation, partitions={PART: part}))
    with pytest.raises(RegistryError, match="was tampered with or damaged"):
        bench.fetch(manifest)


def test_a_path_out_of_the_directory_is_refused(bench: Bench) -> None:
    document = json.loads(dump_manifest(bench.put_generation(a=b"aaaa")))
    document["partitions"]["../x"] = document["partitions"][PART]
    bench.moto.put(bench.bucket, KEY, json.dumps(document).encode())
    with pytest.raises(RegistryError, match="is damaged"):
        bench.ownership.acquire(is_standby=False)


def test_a_store_that_is_away_for_a_moment_is_asked_again(bench: Bench) -> None:
    manifest = bench.put_generation(a=b"aaaa" * 100_000)
    fate: list[Action] = [DROP, Answer(503, error_xml("SlowDown", "later"))]
    bench.relay.before = lambda _: fate.pop() if fate else PASS
    bench.fetch(manifest)
    assert (bench.directory / PART).stat().st_size == 400_000
    bench.relay.away()
    other = replace(manifest, generation=bench.put_generation(a=b"b").generation)
    note_lineage(bench.directory, bench.location)
    with pytest.raises(StoreAwayError):
        bench.fetch(other)


@pytest.mark.parametrize(
    "others",
    [
        ((), ()),
        (("000000000006-0123abcd",), ()),
        ((), ("000000000008-0123abcd",)),
    ],
)
def test_what_continues_the_generation_is_kept(
    bench: Bench, others: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """Also where nobody knows whether it was that one or the one before or after it."""
    manifest = bench.put_generation(a=b"aaaa")
    bench.fetch(manifest)
    before_name, after_name = others
    note_lineage(
        bench.directory, bench.location, *before_name, "000000000007-0123abcd", *after_name
    )
    (bench.directory / PART).write_bytes(b"went on since")
    (bench.directory / "acks" / "okta.acks").write_bytes(b"journal")
    before = len(bench.relay.records)
    assert not bench.fetch(manifest)
    assert len(bench.relay.records) == before
    assert (bench.directory / PART).read_bytes() == b"went on since"
    assert (bench.directory / "acks" / "okta.acks").read_bytes() == b"journal"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bench: note_lineage(
            bench.directory, S3Location("elsewhere", KEY), "000000000007-0123abcd"
        ),
        lambda bench: note_lineage(
            bench.directory, bench.location, "000000000006-0123abcd", "000000000007-ffffffff"
        ),
        lambda bench: note_lineage(bench.directory, bench.location),
        lambda bench: (bench.directory / PART).unlink(),
    ],
)
def test_what_does_not_continue_it_is_replaced(
    bench: Bench, spoil: Callable[[Bench], object]
) -> None:
    manifest = bench.put_generation(a=b"aaaa", b=b"bbbb")
    bench.fetch(manifest)
    for name in ("part-1.sqlite3", f"{PART}-wal", "part-2.sqlite3", "acks/okta.acks"):
        (bench.directory / name).write_bytes(b"of another life")
    spoil(bench)
    bench.fetch(bench.put_generation(a=b"aaaa", b=b"bbbb"))
    assert bench.files == {"generation.json", "part-0.sqlite3", "part-1.sqlite3"}
    assert (bench.directory / "part-1.sqlite3").read_bytes() == b"bbbb"


def test_a_registry_of_its_own_is_not_replaced(bench: Bench) -> None:
    (bench.directory / PART).write_bytes(b"a local registry")
    with pytest.raises(RegistryError, match="holds a registry of its own"):
        bench.fetch(bench.put_generation(a=b"aaaa"))
    assert (bench.directory / PART).read_bytes() == b"a local registry"


def test_what_a_killed_upload_left_is_removed(bench: Bench) -> None:
    spool = bench.directory / "copy-killed"
    spool.mkdir()
    (spool / PART).write_bytes(b"a copy")
    bench.fetch(Manifest())
    assert not spool.exists()


# Uploading


def test_an_upload_can_be_fetched(bench: Bench, tmp_path: Path) -> None:
    bench.start()
    generation = bench.upload()
    manifest = bench.read()
    assert manifest.generation == generation
    assert generation.number == 1
    assert generation.instance == "first"
    assert generation.written_s is not None
    assert abs(generation.written_s - bench.store.now) < 20.0
    assert manifest.previous == ()
    assert manifest.lease is not None
    assert manifest.lease.instance == "first"
    assert manifest.api_sources["okta"]["cursor"] == "c0"
    assert bench.objects == bench.named == {f"{PREFIX}{generation.name}/{PART}"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fetch(bench.store, bench.location, manifest, elsewhere)
    with closing(sqlite3.connect(elsewhere / PART)) as partition:
        assert partition.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert partition.execute("SELECT COUNT(*) FROM snaps").fetchone() == (1,)


def test_three_generations_are_kept(bench: Bench) -> None:
    bench.start()
    made = []
    for number in range(6):
        bench.change(number)
        made.append(bench.upload())
        assert bench.objects == bench.named
        assert len(bench.objects) == min(number + 1, KEPT_GENERATIONS)
    assert [each.number for each in made] == [1, 2, 3, 4, 5, 6]
    manifest = bench.read()
    assert manifest.generation == made[5]
    assert manifest.previous == (made[4], made[3])
    assert KEPT_GENERATIONS == 3


def test_the_last_upload_gives_the_lease_up(bench: Bench) -> None:
    bench.start()
    generation = bench.upload(is_last=True)
    assert bench.read().generation == generation
    assert bench.read().lease is None


def test_the_directory_knows_what_it_continues_at_every_step(bench: Bench) -> None:
    bench.start()
    assert bench.lineage == [str(bench.location)]
    names: list[str] = []
    seen: list[list[str]] = []

    def before(record: RelayRecord) -> Action:
        if is_manifest(record):
            seen.append(bench.lineage[1:])
        return PASS

    bench.relay.before = before
    for number in (1, 2):
        bench.change(number)
        names.append(bench.upload().name)
        assert bench.lineage == [str(bench.location), names[-1]]
    assert seen == [names[:1], names]


@pytest.mark.parametrize("hook", ["before", "after"])
def test_after_a_crash_at_the_manifest_the_directory_is_used_as_it_is(
    bench: Bench, hook: str
) -> None:
    """Whether the write was made or not: nothing that was shipped since is shipped again."""
    bench.start()
    first = bench.upload()
    bench.change(1)
    setattr(bench.relay, hook, lambda record: DROP if is_manifest(record) else PASS)
    with pytest.raises(StoreAwayError):
        bench.upload()
    setattr(bench.relay, hook, lambda _: PASS)
    manifest = bench.read()
    assert (manifest.generation == first) == (hook == "before")
    before = (bench.directory / PART).read_bytes()
    records = len(bench.relay.records)
    assert not bench.fetch(manifest)
    assert len(bench.relay.records) == records
    assert (bench.directory / PART).read_bytes() == before


def test_a_later_instance_counts_on(bench: Bench) -> None:
    bench.start()
    bench.upload()
    first = bench.upload(is_last=True)
    second = Ownership(bench.store, bench.location, "second", 30.0)
    second.acquire(is_standby=False)
    bench.uploader = Uploader(bench.store, bench.location, second, "second")
    assert bench.upload().number == 3
    assert bench.read().previous[0] == first


def test_objects_of_an_upload_that_failed_are_deleted_after_the_next(bench: Bench) -> None:
    bench.start()
    bench.upload()
    before = bench.objects
    bench.relay.before = lambda record: DROP if is_manifest(record) else PASS
    for _ in range(2):
        with pytest.raises(StoreAwayError):
            bench.upload()
    assert len(bench.objects) == 3
    bench.relay.before = lambda _: PASS
    bench.upload()
    assert bench.objects == bench.named
    assert before < bench.objects
    assert len(bench.objects) == 2


def test_what_a_manifest_may_name_is_never_deleted(bench: Bench) -> None:
    """The answer got lost: the write was made, and nobody here knows."""
    bench.start()

    def check(record: RelayRecord) -> Action:
        assert bench.named <= bench.objects
        return DROP if is_manifest(record) and is_deaf else PASS

    bench.relay.after = check
    for number in range(12):
        is_deaf = number % 4 in {1, 2}
        bench.change(number)
        if is_deaf:
            with pytest.raises(StoreAwayError):
                bench.upload()
        else:
            bench.upload()
            assert bench.objects == bench.named
    assert len(bench.named) == 3


def test_an_upload_that_broke_off_names_nothing(bench: Bench) -> None:
    bench.start()
    generation = bench.upload()
    for hook in ("before", "after"):
        setattr(bench.relay, hook, lambda record: DROP if is_part(record) else PASS)
        with pytest.raises(StoreAwayError):
            bench.upload()
        assert bench.read().generation == generation
        setattr(bench.relay, hook, lambda _: PASS)
    bench.upload()
    assert bench.objects == bench.named


def test_a_store_that_refuses_to_delete_is_told_of_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    bench.relay.before = lambda record: (
        Answer(403, error_xml("AccessDenied", "no")) if record.method == "DELETE" else PASS
    )
    for _ in range(6):
        bench.upload()
    assert caplog.text.count("cannot delete old generations") == 1
    assert len(bench.objects) == 6
    assert len(bench.named) == 3


def test_a_manifest_copied_from_elsewhere_costs_that_registry_nothing(bench: Bench) -> None:
    """`aws s3 cp s3://b/production/registry.json s3://b/staging/registry.json`."""
    theirs = f"production/registry.json.d/000000000007-0123abcd/{PART}"
    manifest = bench.put_generation(a=b"aaaa")
    assert manifest.generation is not None
    part = replace(manifest.generation.partitions[PART], key=theirs)
    generation = replace(manifest.generation, partitions={PART: part})
    bench.moto.put(bench.bucket, theirs, b"aaaa")
    bench.moto.put(bench.bucket, KEY, dump_manifest(Manifest({}, generation)))
    bench.ownership.acquire(is_standby=False)
    note_lineage(bench.directory, bench.location)
    _create_partitions(bench.directory, {})
    for _ in range(6):
        bench.upload()
    assert bench.moto.read(bench.bucket, theirs) == b"aaaa"
    assert theirs not in bench.named


def test_strays_are_deleted_and_nothing_else(bench: Bench) -> None:
    bench.start()
    kept = bench.upload()
    for key in (STRAY, f"{PREFIX}probe-0123456789abcdef", *FOREIGN):
        bench.moto.put(bench.bucket, key, b"")
    bench.uploader.delete_strays()
    assert bench.objects == {*FOREIGN, f"{PREFIX}{kept.name}/{PART}"}


def test_while_no_generation_counts_nothing_is_deleted(bench: Bench) -> None:
    """`registry.json` was deleted: what lies beside it may be all that is left of it."""
    bench.start()
    bench.moto.put(bench.bucket, STRAY, b"")
    bench.uploader.delete_strays()
    assert bench.objects == {STRAY}
    assert not [record for record in bench.relay.records if "list-type" in record.query]


def test_whoever_lost_the_registry_deletes_no_strays(bench: Bench) -> None:
    """It slept; what it finds is what the next holder has just uploaded."""
    bench.start()
    bench.upload()
    lease = Lease("second", bench.store.now + 30.0)
    newest = replace(bench.put_generation(a=b"aaaa"), lease=lease)

    def before(record: RelayRecord) -> Action:
        if record.method == "GET" and "list-type" in record.query:
            bench.moto.put(bench.bucket, KEY, dump_manifest(newest))
        return PASS

    bench.relay.before = before
    bench.uploader.delete_strays()
    assert bench.named
    assert bench.named < bench.objects
    assert not bench.ownership.may_ship()


# The thread


def test_uploads_only_what_has_changed(bench: Bench) -> None:
    bench.start()
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.uploads == 1)
    copies = bench.reader.copies
    assert wait_until(lambda: bench.reader.copies > copies + 5)
    assert bench.mirror.uploads == 1
    bench.change(1)
    assert wait_until(lambda: bench.mirror.uploads == 2)
    assert bench.read().api_sources["okta"]["cursor"] == "c1"
    bench.mirror.stop()
    assert bench.mirror.uploads == 2
    assert not bench.mirror.is_behind
    assert bench.read().lease is None
    generation = bench.read().generation
    assert generation is not None
    assert bench.lineage == [str(bench.location), generation.name]
    assert not list(bench.directory.glob("copy-*"))


def test_deletes_strays_at_the_start(bench: Bench) -> None:
    bench.start()
    bench.upload()
    bench.moto.put(bench.bucket, STRAY, b"")
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.uploads == 1)
    bench.mirror.stop()
    assert STRAY not in bench.objects


def test_failures_are_counted_and_told_once_for_each_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    bench.relay.before = lambda record: DROP if is_part(record) else PASS
    with caplog.at_level("INFO"):
        bench.mirror.start()
        assert wait_until(lambda: bench.mirror.failures >= 3)
        assert bench.mirror.is_behind
        assert caplog.text.count("cannot upload the registry") == 1
        bench.relay.before = lambda record: (
            Answer(403, error_xml("AccessDenied", "no")) if is_part(record) else PASS
        )
        failures = bench.mirror.failures
        assert wait_until(lambda: bench.mirror.failures >= failures + 3)
        assert caplog.text.count("cannot upload the registry") == 2
        bench.relay.before = lambda _: PASS
        assert wait_until(lambda: "is uploaded again" in caplog.text)
        bench.mirror.stop()
    assert bench.mirror.uploads == 1
    assert not bench.mirror.is_behind
    assert bench.objects == bench.named


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RegistryError("bad")])
def test_a_copy_that_cannot_be_made_is_a_failure(
    bench: Bench, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    bench.start()
    bench.reader.error = error
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.failures >= 2)
    assert caplog.text.count("cannot upload the registry") == 1
    bench.reader.error = None
    assert wait_until(lambda: bench.mirror.uploads == 1)
    bench.mirror.stop()
    assert not bench.mirror.is_behind


def test_a_fault_of_our_own_does_not_end_the_uploads(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    bench.reader.error = ZeroDivisionError("an event")
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.failures >= 2)
    assert bench.mirror.is_behind
    told = [record for record in caplog.records if "cannot upload" in record.message]
    assert len(told) == 1
    reason = str(getattr(told[0], "reason", ""))
    assert reason.startswith("ZeroDivisionError ")
    # Where it happened, and not what it says.
    assert "copy:" in reason
    assert "an event" not in reason
    bench.reader.error = None
    assert wait_until(lambda: bench.mirror.uploads == 1)
    bench.mirror.stop()
    assert not bench.mirror.is_behind


def test_a_last_upload_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(mirror_module, "LAST_TRIES", 2)
    bench.start()
    lost: list[int] = []

    def after(record: RelayRecord) -> Action:
        if is_manifest(record) and not lost:
            lost.append(record.number)
            return DROP
        return PASS

    bench.relay.after = after
    bench.mirror.stop()
    assert lost
    assert not bench.mirror.is_behind
    assert bench.read().lease is None
    assert bench.objects == bench.named


def test_a_lease_that_is_not_given_up_at_first_is_given_up_then(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(mirror_module, "LAST_TRIES", 2)
    bench.start()
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.uploads == 1)
    fate: list[Action] = [DROP]
    bench.relay.before = lambda record: fate.pop() if is_manifest(record) and fate else PASS
    bench.mirror.stop()
    assert not fate
    assert not bench.mirror.is_behind
    assert bench.read().lease is None


def test_without_a_store_the_last_upload_is_behind(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(mirror_module, "LAST_TRIES", 1)
    bench.start()
    bench.upload()
    bench.relay.away()
    bench.mirror.stop()
    assert bench.mirror.is_behind
    assert bench.mirror.failures == 1
    bench.relay.back()
    assert bench.read().lease is not None


def test_whoever_lost_the_registry_uploads_nothing_into_it(bench: Bench) -> None:
    bench.start()
    theirs = dump_manifest(Manifest({}, lease=Lease("second", bench.store.now + 30.0)))
    bench.moto.put(bench.bucket, KEY, theirs)
    bench.mirror.stop()
    assert bench.mirror.is_behind
    assert bench.moto.read(bench.bucket, KEY) == theirs
    # It is lost for good: once was enough.
    assert bench.reader.copies == 1


def test_what_another_one_goes_on_from_was_uploaded(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer to the release got lost, and a standby was there before the next try."""
    bench.start()
    for number in range(5):
        bench.change(number)
        bench.upload()
    bench.change(9)
    taken: list[Manifest] = []

    def after(record: RelayRecord) -> Action:
        if is_manifest(record) and not taken:
            taken.append(bench.take_over())
            return DROP
        return PASS

    bench.relay.after = after
    with caplog.at_level("INFO"):
        bench.mirror.stop()
    assert not bench.mirror.is_behind
    assert "gave the registry up" in caplog.text
    assert bench.reader.copies == 2
    assert bench.read() == taken[0]
    assert taken[0].api_sources["okta"]["cursor"] == "c9"
    # All of it is that one's now.
    assert bench.named < bench.objects
    assert taken[0].generation is not None
    assert bench.lineage == [str(bench.location), taken[0].generation.name]


def test_what_another_one_does_not_go_on_from_was_not_uploaded(bench: Bench) -> None:
    bench.start()
    bench.upload()
    taken: list[Manifest] = []

    def before(record: RelayRecord) -> Action:
        if is_manifest(record) and not taken:
            taken.append(bench.take_over())
        return PASS

    bench.relay.before = before
    bench.change(1)
    bench.mirror.stop()
    assert taken
    assert bench.mirror.is_behind
    assert bench.named <= bench.objects


def test_a_registry_without_delete_or_list_is_held_and_uploaded(bench: Bench) -> None:
    bench.relay.before = lambda record: (
        Answer(403, error_xml("AccessDenied", "no"))
        if record.method == "DELETE" or "list-type" in record.query
        else PASS
    )
    bench.start()
    with pytest.raises(StoreError):
        bench.store.delete(STRAY)
    bench.mirror.start()
    assert wait_until(lambda: bench.mirror.uploads == 1)
    bench.mirror.stop()
    assert bench.read().generation is not None
