"""Pages decoded by a process of their own: the same pages, whatever becomes of it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flicker.decode import DecodeOptions, Page, PageDecoder, UnreadablePageError
from flicker.demo.servers import Destination
from flicker.offload import parent
from flicker.offload.lane import BODY_BYTES, MOST_ENTRIES
from flicker.offload.parent import FAILURES, WORTH_BYTES, WORTH_PAGES, Offload
from flicker.pool import Pool
from tests.processes import CURSOR, Home, Process, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not hasattr(os, "memfd_create") or len(os.sched_getaffinity(0)) < 2,
        reason="a second process needs Linux, and pays on a second core",
    ),
]

FIELDS = DecodeOptions(
    source_name="v",
    results_field="events",
    timestamp_field="ts",
    message_field="m",
    id_field="id",
    next_cursor_field="next",
)
EXPLODED = DecodeOptions(results_field="events", id_field=("id", "x"), explode_field="l")
PADDING = b" " * WORTH_BYTES


def body_of(*events: bytes, tail: bytes = b"") -> bytes:
    return b'{"next":"n1","events":[%b]%b}' % (b",".join(events), tail) + PADDING


BODY = body_of(
    b'{"id":7,"ts":"2025-01-01T13:00:00.5+01:00","m":"h\\u00e9","n":1e400}',
    b'{"id":"\xc3\xa9","ts":null}',
    b"null",
    b'{"x":1}',
    b'{"x":1}',
)


@pytest.fixture
def offload(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offload]:
    """One whose process runs, and has to answer soon."""
    monkeypatch.setattr(parent, "ANSWER_S", 2.0)
    offload = Offload(Pool())
    for _ in range(WORTH_PAGES):
        read(offload, BODY)
    assert wait_until(lambda: offload.pid)
    yield offload
    offload.close()


def read(
    offload: Offload,
    body: bytes,
    options: DecodeOptions = FIELDS,
    within: bytes | None = None,
    note: Callable[[Page], object] = lambda _: None,
) -> Page:
    return offload.decode(PageDecoder(options), body, "", within=within, on_outline=note)


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def cpu_ticks(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(stat[11]) + int(stat[12])


@pytest.mark.parametrize(
    ("body", "options", "within"),
    [
        (BODY, FIELDS, None),
        (BODY, FIELDS, b"w" * 16),
        (body_of(), FIELDS, None),
        (b'{"a":1,"b":"2"}\n' * 10_000, DecodeOptions(response_format="ndjson"), None),
        (
            body_of(b'{"id":[1,2],"l":[{"n":1},{"n":2}]}'),
            EXPLODED,
            None,
        ),
        # Nanoseconds of 64 bits end in 2262.
        (body_of(b'{"id":"a","ts":"9999-12-31T23:59:59Z"}'), FIELDS, None),
    ],
)
def test_a_page_is_the_same_wherever_it_is_decoded(
    offload: Offload, body: bytes, options: DecodeOptions, within: bytes | None
) -> None:
    outlines: list[Page] = []
    expected = PageDecoder(options).decode(body, within=within, on_outline=outlines.append)
    told: list[Page] = []
    assert read(offload, body, options, within, told.append) == expected
    assert told[:1] == outlines
    assert offload.pid


def test_pages_are_decoded_by_the_other_process(offload: Offload) -> None:
    assert offload.pid
    body = body_of(*(b'{"id":%d,"m":"x"}' % number for number in range(20_000)))
    before = cpu_ticks(offload.pid)
    # Ten ticks of processor time there are more than any crossing takes.
    assert wait_until(lambda: read(offload, body) and cpu_ticks(offload.pid or 0) - before > 10)


@pytest.mark.parametrize("body", [b"<html>" + PADDING, b'{"events":7}' + PADDING, b"{" + PADDING])
def test_what_is_no_page_is_refused_in_the_same_words(offload: Offload, body: bytes) -> None:
    with pytest.raises(UnreadablePageError) as here:
        PageDecoder(FIELDS).decode(body)
    with pytest.raises(UnreadablePageError) as there:
        read(offload, body)
    assert str(there.value) == str(here.value)
    assert read(offload, BODY) == PageDecoder(FIELDS).decode(BODY)


def test_small_and_huge_pages_are_decoded_here() -> None:
    offload = Offload(Pool())
    for _ in range(2 * WORTH_PAGES):
        read(offload, b'{"events":[]}')
        read(offload, b'{"events":[]}' + b" " * BODY_BYTES)
        # Of so many parts or lines that others' pages would have to wait for them.
        read(offload, body_of(*[b"{}"] * (MOST_ENTRIES + 1)), EXPLODED)
        read(offload, b"{}\n" * (MOST_ENTRIES + 1), DecodeOptions(response_format="ndjson"))
    assert offload.pid is None
    offload.close()


def test_a_page_of_too_many_entries_is_given_back(offload: Offload) -> None:
    """Others' pages would have to wait for it, and it may not fit into the memory."""
    decoded: list[int] = []

    class Here(PageDecoder):
        def decode(self, *args: Any, **options: Any) -> Page:
            page = super().decode(*args, **options)
            decoded.append(page.entries)
            return page

    few = [b"[%b]" % b",".join([b"{}"] * (MOST_ENTRIES + 1))]
    for entries in (few, [b"1"] * MOST_ENTRIES, [b"1"] * (MOST_ENTRIES + 1)):
        told: list[Page] = []
        assert offload.decode(
            Here(FIELDS), body_of(*entries), "", within=None, on_outline=told.append
        )
        assert [outline.entries for outline in told] == [len(entries)]
    assert decoded == [MOST_ENTRIES + 1]
    assert offload.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_page_is_decoded_here_where_the_other_process_fails(
    offload: Offload, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    for _ in range(FAILURES):
        assert wait_until(lambda: read(offload, BODY).entries and offload.pid)
        pid = offload.pid
        assert pid
        os.kill(pid, number)
        assert read(offload, BODY) == PageDecoder(FIELDS).decode(BODY)
        assert wait_until(lambda pid=pid: is_gone(pid) and offload.pid != pid)  # type: ignore[misc]
    # Whoever fails so often is not started again, and that is said once.
    for _ in range(2 * WORTH_PAGES):
        read(offload, BODY)
    assert offload.pid is None
    assert caplog.text.count("decoded more slowly") == 1


def test_who_stops_all_processes_stops_no_decoding(offload: Offload) -> None:
    """As a service manager does, that has the last pages delivered all the same."""
    pid = offload.pid
    assert pid
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert read(offload, BODY) == PageDecoder(FIELDS).decode(BODY)
    assert offload.pid == pid
    assert not is_gone(pid)


def test_one_core_has_no_second_process() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        offload = Offload(Pool())
    finally:
        os.sched_setaffinity(0, cores)
    for _ in range(2 * WORTH_PAGES):
        read(offload, BODY)
    assert not offload._is_starting
    assert offload.pid is None


def test_the_other_process_is_told_no_token(offload: Offload) -> None:
    environ = Path(f"/proc/{offload.pid}/environ").read_text(encoding="utf-8")
    assert "PATH=" in environ
    assert "PYTEST" not in environ


def test_what_listens_to_an_outline_and_fails_leaves_the_lane_behind(offload: Offload) -> None:
    def fail(_: Page) -> None:
        raise LookupError

    for _ in range(5):
        with pytest.raises(LookupError):
            read(offload, BODY, note=fail)
        assert read(offload, BODY) == PageDecoder(FIELDS).decode(BODY)


def test_an_idle_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "IDLE_S", 0.3)
    offload = Offload(Pool())
    pids: set[int] = set()

    def is_up() -> bool:
        read(offload, BODY)
        pids.update({offload.pid} if offload.pid else ())
        return bool(pids)

    assert wait_until(is_up)
    assert wait_until(lambda: offload.pid is None and all(map(is_gone, pids)))


def wide_events(count: int) -> list[dict[str, Any]]:
    return [{**event, "padding": "x" * 1000} for event in make_events(count)]


def decoders_of(pid: int) -> list[int]:
    """The decoding processes among a process's children; the registry has one as well."""
    with suppress(OSError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(task / "children").read_text(encoding="ascii") for task in tasks]
        children = [int(child) for text in texts for child in text.split()]
        return [
            child
            for child in children
            if b"flicker.offload" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    return []


def test_kills_of_either_process_lose_and_repeat_nothing_else(home: Home) -> None:
    """T09 T60 the decoding process dies, then Flicker, and no process is left."""
    count = 12_000
    style = Style(paging="cursor", time_param="since")
    with ListingApi(wide_events(count), style) as api, Destination(delay_s=0.05) as siem:
        source = make_source(
            "big",
            api.endpoint,
            siem.url,
            buffer_size=100,
            pagination={**CURSOR, "page_size": 200},
        )
        source["destination"]["concurrency"] = 1
        home.configure(source, retry={"max_queue_size": 10})
        process = home.start()
        assert wait_until(lambda: decoders_of(process.pid))
        [decoder] = decoders_of(process.pid)
        os.kill(decoder, signal.SIGKILL)
        seen = siem.distinct_count
        assert siem.wait_for(seen + 500, 45)
        assert wait_until(
            lambda: set(decoders_of(process.pid)) - {decoder} or not process.is_running
        )
        left = decoders_of(process.pid)
        process.kill()
        assert wait_until(lambda: all(map(is_gone, left)))
        again = home.start()
        assert siem.wait_for(count, 45)
        assert again.stop() == 0
    assert siem.ids.keys() == ids_of(make_events(count))
    # One request at a time: only that one had no answer when Flicker was killed.
    assert sum(siem.duplicates.values()) <= 100


@pytest.mark.parametrize("start", [Home.start, Home.host])
def test_an_orderly_stop_leaves_no_process_behind(
    home: Home, start: Callable[[Home], Process]
) -> None:
    """One that was stopped does not see its parent go."""
    with (
        ListingApi(wide_events(4000), Style(paging="cursor")) as api,
        Destination(delay_s=0.05) as siem,
    ):
        source = make_source("big", api.endpoint, siem.url, pagination={**CURSOR, "page_size": 200})
        home.configure(source, retry={"max_queue_size": 10})
        process = start(home)
        assert wait_until(lambda: decoders_of(process.pid))
        [decoder] = decoders_of(process.pid)
        os.kill(decoder, signal.SIGSTOP)
        process.stop()
        assert wait_until(lambda: is_gone(decoder))
