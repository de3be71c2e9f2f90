"""One source's partition against real servers: waits, failures, resumption, the end."""

from __future__ import annotations

import json
import logging
import pickle
import random
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

import pytest

from flicker.client import Client
from flicker.connections import calls
from flicker.deadletter import DeadLetters
from flicker.demo.servers import Destination as DestinationServer
from flicker.demo.servers import OktaApi, Request, Response, in_turn
from flicker.events import Record
from flicker.items import EventPage, Flush, Mark
from flicker.outbox import Outbox
from flicker.pool import Pool
from flicker.runtime import Runtime
from flicker.settings import (
    Credentials,
    Destination,
    Endpoint,
    Pagination,
    Retry,
    Secret,
    Source,
)
from flicker.source import ApiPartition, ApiSource, RetiredPartition
from tests.processes import wait_until
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LIMIT_S = 20.0
STEP_S = 0.5
"""What no `next_batch` takes even on a busy machine; whatever blocks here blocks for longer."""

HEARTBEAT_S = 0.25 + 0.001
SECRET = "s3cret-t0ken"
QUICK = Retry(initial_delay=timedelta(milliseconds=10), max_delay=timedelta(milliseconds=50))
SINCE = "since"
NOWHERE = Destination(Endpoint("http://127.0.0.1:9/"))


class CountingPool(Pool):
    """Counts the tasks that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def submit(self, task: Callable[[], None]) -> None:
        self.count += 1
        super().submit(task)


class Drive:
    """Does with a partition what Bytewax does, and checks what Bytewax relies on."""

    def __init__(
        self,
        source: Source,
        *,
        retry: Retry = QUICK,
        once: bool = False,
        resume_state: dict[str, Any] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.runtime = runtime or Runtime(
            retry=retry,
            dead_letters=DeadLetters(cast("Path", None)),
            once=once,
            rng=random.Random(1),  # noqa: S311 - the same waits in every run
        )
        self.part = ApiPartition(source, self.runtime, resume_state)
        self.ids: list[int] = []
        self.pages: list[list[int]] = []
        self.snapshots: list[bytes] = []
        self.others: list[Flush | Mark] = []
        self.is_over = False
        self._awake_at = 0.0

    def step(self) -> None:
        """Call `next_batch` if it is time; keep a snapshot behind each page."""
        if self.is_over or time.monotonic() < self._awake_at:
            return
        started_at = time.monotonic()
        try:
            items = self.part.next_batch()
        except StopIteration:
            self.is_over = True
            return
        assert time.monotonic() - started_at < STEP_S
        ahead_s = (self.part.next_awake() - datetime.now(timezone.utc)).total_seconds()
        assert ahead_s <= HEARTBEAT_S
        self._awake_at = time.monotonic() + ahead_s
        for name, item in items:
            assert name == self.part._name
            if isinstance(item, EventPage):
                page = [json.loads(event.raw)["id"] for event in item.events]
                self.ids += page
                self.pages.append(page)
                self.snapshots.append(pickle.dumps(self.part.snapshot()))
            else:
                self.others.append(item)

    def until(self, condition: Callable[[], object], *beside: Drive) -> None:
        """Drive until something is so, within a limit."""
        deadline = time.monotonic() + LIMIT_S
        pause = threading.Event()
        drives = (self, *beside)
        while not condition():
            for drive in drives:
                drive.step()
            assert time.monotonic() < deadline, "not in time"
            awake_at = min(drive._awake_at for drive in drives)
            pause.wait(min(max(0.0005, awake_at - time.monotonic()), 0.01))

    def until_scanned(self) -> None:
        """Drive to the end of a scan that is on its way or due."""
        self.until(lambda: self.part._scanner.in_scan)
        self.until(lambda: not self.part._scanner.in_scan)

    @property
    def state(self) -> dict[str, Any]:
        return self.part.snapshot()


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may see a secret in any line, at any level."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert SECRET not in record.getMessage() + str(vars(record))


def event(number: int, *, at: int | None = None, **more: object) -> dict[str, object]:
    """Make an event; three share each second."""
    second = number // 3 if at is None else at
    moment = datetime(2025, 1, 1, 12, tzinfo=timezone.utc) + timedelta(seconds=second)
    return {"id": number, "timestamp": moment.isoformat().replace("+00:00", "Z"), **more}


def events(*numbers: int) -> list[dict[str, object]]:
    return [event(number) for number in numbers]


CURSOR = Pagination(
    "cursor",
    page_size=4,
    limit_param="limit",
    cursor_param="cursor",
    next_cursor_field="pagination.next_cursor",
)
LINK = replace(CURSOR, next_cursor_field="next")
OFFSET = Pagination("offset", page_size=4, limit_param="limit", offset_param="offset")
PAGE = Pagination("page", page_size=4, limit_param="limit", page_param="page")


def source_of(url: str, pagination: Pagination | None = CURSOR, **more: Any) -> Source:
    facts: dict[str, Any] = {
        "name": "s",
        "endpoint": Endpoint(url, credentials=Credentials(bearer=Secret(SECRET))),
        "destination": NOWHERE,
        "poll_interval": timedelta(milliseconds=20),
        "results_field": "events",
        "timestamp_field": "timestamp",
        "id_field": "id",
        "time_filter_param": SINCE,
        "pagination": pagination,
    }
    return Source(**{**facts, **more})


def listing(count: int, paging: Any = "cursor", **more: Any) -> ListingApi:
    return ListingApi(events(*range(count)), Style(paging=paging, time_param=SINCE, **more))


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[Any]:
    return [
        record
        for record in caplog.records
        if record.levelno >= level and record.name.startswith("flicker")
    ]


# Never waiting


def test_waits_neither_for_the_api_nor_for_the_next_poll() -> None:
    """T32: a worker's thread is never held, and epochs are never held up."""
    page = Response(body={"events": events(1)})
    with ScriptedApi([replace(page, fault="silence"), page]) as api:
        drive = Drive(source_of(api.url, None, poll_interval=timedelta(seconds=30)))
        drive.until(lambda: api.wait_for_silence(1, 0))
        silent_until = time.monotonic() + 0.4
        drive.until(lambda: time.monotonic() > silent_until)
        assert drive.ids == []
        api.release()
        drive.until(lambda: drive.ids)
        quiet_until = time.monotonic() + 0.4
        drive.until(lambda: time.monotonic() > quiet_until)
        assert len(api.requests) == 1


def test_a_poll_with_little_to_read_wakes_no_thread() -> None:
    """Only a connection has to be waited for, and what takes longer to come or to read."""
    page = Response(body={"events": events(1)})
    long_page = Response(body={"events": events(1, 2), "more": " " * 20_000})
    with ScriptedApi([page, page, page, long_page, page]) as api:
        drive = Drive(source_of(api.url, None))
        drive.runtime.pool = pool = CountingPool()
        for _ in range(3):
            drive.until_scanned()
        assert pool.count == 1
        drive.until(lambda: len(drive.ids) == 2)
        assert pool.count == 2
    assert drive.ids == [1, 2]


@pytest.mark.parametrize("fault", ["silence", "silence_mid_body", "drip"])
def test_an_answer_that_trickles_in_holds_up_no_worker(fault: Any) -> None:
    """T32: over a connection that was open, too."""
    page = Response(body={"events": events(1)})
    slow = Response(body={"events": events(2)}, fault=fault)
    with ScriptedApi([page, slow, page]) as api:
        endpoint = Endpoint(api.url, timeout=timedelta(seconds=1))
        drive = Drive(source_of(api.url, None, endpoint=endpoint))
        drive.until(lambda: drive.ids == [1])
        drive.until(lambda: drive.part._failures)
        drive.until(lambda: len(api.requests) >= 4 and drive.ids == [1])


def test_a_hanging_api_holds_up_no_other_source() -> None:
    """T32: two partitions, one pool."""
    with (
        ScriptedApi([Response(body=[], fault="silence")]) as hanging,
        ListingApi(events(0), Style(paging="offset")) as healthy,
    ):
        slow = Drive(source_of(hanging.url, None))
        quick = Drive(source_of(healthy.endpoint, OFFSET, name="q"), runtime=slow.runtime)
        quick.until(lambda: hanging.requests, slow)
        for number in range(1, 6):
            healthy.add(events(number))
            quick.until(lambda number=number: number in quick.ids, slow)  # type: ignore[misc]
        assert len(hanging.requests) == 1
    assert quick.ids == list(range(6))


# How long a refusal is waited out


def dated(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


def epoch(seconds: float) -> str:
    return str(int(time.time() + seconds))


BACKOFF = (0.5, 1.0)
SLOWLY = (60.0, 60.0)


@pytest.mark.parametrize(
    ("respond", "wait_s", "level"),
    [
        (lambda: Response(429, [("Retry-After", "2")]), (2, 2), logging.WARNING),
        (lambda: Response(429, [("Retry-After", dated(8))]), (6, 8), logging.WARNING),
        (lambda: Response(429, [("Retry-After", "1")]), (1, 1), logging.WARNING),
        (lambda: Response(429, [("Retry-After", "0")]), BACKOFF, logging.WARNING),
        (lambda: Response(429, [("Retry-After", "-5")]), BACKOFF, logging.WARNING),
        (lambda: Response(429, [("Retry-After", "1.5")]), (1.5, 1.5), logging.WARNING),
        (lambda: Response(429, [("Retry-After", "soon")]), BACKOFF, logging.WARNING),
        (lambda: Response(429, [("Retry-After", "86400")]), (3600, 3600), logging.WARNING),
        (lambda: Response(429, [("X-Rate-Limit-Reset", epoch(9))]), (6, 9), logging.WARNING),
        (lambda: Response(429, [("X-RateLimit-Reset", epoch(-9))]), (1, 1), logging.WARNING),
        (lambda: Response(429, [("RateLimit-Reset", "7")]), (7, 7), logging.WARNING),
        (
            lambda: Response(
                403, [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", epoch(9))]
            ),
            (6, 9),
            logging.WARNING,
        ),
        (lambda: Response(403), SLOWLY, logging.ERROR),
        (lambda: Response(401), SLOWLY, logging.ERROR),
        (lambda: Response(404), SLOWLY, logging.ERROR),
        (lambda: Response(400), SLOWLY, logging.ERROR),
        (lambda: Response(302, [("Location", "http://localhost/")]), SLOWLY, logging.ERROR),
        (lambda: Response(503, [("X-RateLimit-Reset", epoch(3500))]), BACKOFF, logging.WARNING),
        (lambda: Response(500), BACKOFF, logging.WARNING),
        (lambda: Response(body={}, fault="reset_before_headers"), BACKOFF, logging.WARNING),
        (lambda: Response(200, body="<html>Sign in</html>"), BACKOFF, logging.WARNING),
    ],
)
def test_waits_as_long_as_the_refusal_means(
    respond: Callable[[], Response],
    wait_s: tuple[float, float],
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T29, T30, T31, T32, T34, T38: clamped, said once, position untouched, stoppable."""
    with ScriptedApi([respond()]) as api:
        drive = Drive(source_of(api.url), retry=Retry())
        drive.until(lambda: said(caplog))
        (record,) = said(caplog)
        assert wait_s[0] <= record.wait_s <= wait_s[1]
        assert record.levelno == level
        assert record.source == "s"
        assert drive.part._due_at - time.monotonic() == pytest.approx(record.wait_s, abs=STEP_S)
        drive.step()
        assert len(api.requests) == 1
        assert drive.state["last_timestamp"] is None
        drive.runtime.stop.set()
        drive.runtime.stop.set()
        drive.until(lambda: drive.is_over)


def test_at_once_again_and_again_is_not_taken_at_its_word() -> None:
    """T29: `Retry-After: 0` on each answer must not make us hammer."""
    with ScriptedApi([Response(429, [("Retry-After", "0")])]) as api:
        retry = Retry(initial_delay=timedelta(milliseconds=20))
        drive = Drive(source_of(api.url), retry=retry)
        drive.until(lambda: len(api.requests) >= 6)
        assert api.requests[5].received_s - api.requests[4].received_s >= 0.16


def test_trouble_for_a_human_is_said_once_and_outlived(caplog: pytest.LogCaptureFixture) -> None:
    """T31: and its end is told."""
    with ScriptedApi([*[Response(401)] * 4, Response(body={"events": events(1)})]) as api:
        drive = Drive(source_of(api.url, None, poll_interval=timedelta(seconds=30)))
        drive.until(lambda: drive.ids)
        assert len(api.requests) == 5
    (record,) = said(caplog)
    assert "answers 401. Check the credentials" in record.reason
    assert [r for r in caplog.records if r.getMessage() == "source answers again"]


def test_goes_on_when_there_is_no_thread_for_a_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T32: an exception out of `next_batch` would stop every source."""
    with listing(3) as api:
        drive = Drive(source_of(api.endpoint))
        submit = drive.runtime.pool.submit
        refusals = iter([True, True])

        def refuse(task: Callable[[], None]) -> None:
            if next(refusals, False):
                raise RuntimeError
            submit(task)

        monkeypatch.setattr(drive.runtime.pool, "submit", refuse)
        drive.until(lambda: drive.ids)
    assert drive.ids == [0, 1, 2]
    assert "want of a thread" in said(caplog)[0].reason


def test_a_fault_of_ours_is_logged_without_what_it_quotes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T67: and neither stops the source nor moves it."""
    with listing(3) as api:
        drive = Drive(source_of(api.endpoint))
        decode = drive.part._decoder.decode
        faults = iter([ValueError(SECRET), RecursionError(SECRET)])

        def fail(body: bytes, content_type: str, **more: Any) -> Any:
            for fault in faults:
                raise fault
            return decode(body, content_type, **more)

        monkeypatch.setattr(drive.part._decoder, "decode", fail)
        drive.until(lambda: drive.ids)
    assert drive.ids == [0, 1, 2]
    assert [r.fault for r in said(caplog) if hasattr(r, "fault")] == [
        "ValueError",
        "RecursionError",
    ]


# What is kept


@pytest.mark.parametrize("is_news", [False, True])
def test_a_poll_without_news_does_not_show(is_news: bool) -> None:
    """T01 but one with news does, as soon as it was given out."""
    release = threading.Event()
    polls = 0

    def answer(request: Request) -> Response:
        nonlocal polls
        at = int(request.params.get("offset", 0))
        polls += at == 0
        if polls < 2:
            return Response(body={"events": events(1, 2)[at:]})
        if at == 0:
            return Response(body={"events": events(2, 3) if is_news else events(2)})
        release.wait(LIMIT_S)
        return Response(body={"events": []})

    with ScriptedApi(answer) as api:
        drive = Drive(source_of(api.url, OFFSET, poll_interval=timedelta(seconds=0.5)))
        drive.until(lambda: polls == 1 and drive.ids and not drive.part._is_polling)
        rest = drive.part.snapshot()
        assert rest["scan"] is None
        drive.until(lambda: polls == 2 and drive.part._scanner.is_mid_scan)
        during = drive.part.snapshot()
        assert (during == rest) == (not is_news)
        assert (during["scan"] is None) == (not is_news)
        release.set()
        drive.until(lambda: not drive.part._is_polling)
        assert (drive.part.snapshot() == rest) == (not is_news)
        again = Drive(
            source_of(api.url, OFFSET, poll_interval=timedelta(seconds=0.5)), resume_state=during
        )
        again.until(lambda: again.part._is_polling)
        again.until(lambda: not again.part._is_polling)
        assert again.ids == []


@pytest.mark.parametrize("once", [False, True])
def test_links_that_never_end_are_not_followed_without_a_pause(once: bool) -> None:
    """T14: though the configuration says that a missing link is the only end."""

    def answer(request: Request) -> Response:
        following = str(int(request.params.get("cursor", "0")) + 1)
        return Response(body={"events": [], "pagination": {"next_cursor": following}})

    with ScriptedApi(answer) as api:
        pagination = replace(CURSOR, stop_on_empty=False)
        source = source_of(api.url, pagination, poll_interval=timedelta(seconds=60))
        drive = Drive(source, once=once)
        if once:
            drive.runtime.outboxes["s"] = Outbox("s", None, None, drive.runtime)
            drive.until(lambda: drive.part._is_read)
            assert drive.runtime.failed == {"s"}
        else:
            drive.until(lambda: len(api.requests) >= 100 and not drive.part._is_polling)
            assert drive.part._due_at > time.monotonic() + 30
            assert len(api.requests) == 100


# On time


def test_polls_keep_to_their_schedule() -> None:
    """However late each of them is looked after, and however long its answer takes."""
    interval_s = 0.6
    with ScriptedApi([Response(body={"events": []})]) as api:
        source = source_of(api.url, None, poll_interval=timedelta(seconds=interval_s))
        drive = Drive(source)
        drive.until(lambda: len(api.requests) == 1)
        first_at = drive.part._poll_started_at
        drive.until(lambda: len(api.requests) == 4)
    assert drive.part._poll_started_at - first_at == pytest.approx(3 * interval_s, abs=1e-6)


def test_sources_of_a_worker_do_not_poll_all_at_once() -> None:
    """Nor after more than their own interval."""
    runtime = Drive(source_of("http://127.0.0.1:9/")).runtime
    for _ in range(5000):
        runtime.heartbeats.join()
    dues = []
    for seconds in (60.0, 0.002):
        source = source_of("http://127.0.0.1:9/", poll_interval=timedelta(seconds=seconds))
        started_at = time.monotonic()
        dues.append(Drive(source, runtime=runtime).part._due_at - started_at)
    assert dues[0] >= 5.0
    assert dues[1] < 1.0


class Glimpses(Drive):
    """Counts how often Bytewax is asked to look again."""

    looks = 0

    def step(self) -> None:
        self.looks += time.monotonic() >= self._awake_at
        super().step()


def test_a_lone_source_waits_for_its_answer_instead_of_looking_for_it() -> None:
    """Whether a thread reads it, as the first, or the worker, as those behind it."""
    answer = Response(body={"events": events(1)}, delay_s=0.05)
    with ScriptedApi([answer]) as api:
        drive = Glimpses(source_of(api.url, None, poll_interval=timedelta(seconds=0.2)))
        drive.until(lambda: len(api.requests) == 10 and not drive.part._is_polling)
    assert drive.ids == [1]
    # A look each millisecond would make 500 of it, one each beat and each 5 ms some 150.
    assert drive.looks < 300


def test_a_request_that_nobody_reads_is_dropped_at_the_end() -> None:
    release = threading.Event()

    def answer(_: Request) -> Response:
        if len(api.requests) > 1:
            release.wait(LIMIT_S)
        return Response(body={"events": events(1)})

    with ScriptedApi(answer) as api:
        drive = Drive(source_of(api.url, None, poll_interval=timedelta(seconds=0.05)))
        drive.until(lambda: drive.part._fetch is not None and drive.part._fetch._is_looked_at)
        fetch = drive.part._fetch
        assert fetch is not None
        assert fetch._started is not None
        assert fetch._started.call in calls._running
        drive.runtime.stop.set()
        drive.runtime.outboxes["s"] = Outbox("s", None, None, drive.runtime)
        drive.until(lambda: drive.is_over)
        assert fetch._started.call not in calls._running
        release.set()


# Looking ahead


@pytest.mark.parametrize(
    ("paging", "pagination"),
    [("cursor", CURSOR), ("link", LINK), ("offset", OFFSET), ("page", PAGE)],
)
def test_two_pages_are_asked_for_ahead(paging: str, pagination: Pagination) -> None:
    """And no more: memory and quota are the user's."""
    with listing(40, paging) as api:
        drive = Drive(source_of(api.endpoint, pagination))
        drive.until(lambda: len(drive.pages) == 2)
        # Nobody takes page 3 now, and what is behind it is read all the same.
        assert api.wait_for_requests(5, LIMIT_S)
        assert wait_until(lambda: [f.is_done for f in drive.part._ahead._ahead] == [True, True])
        assert len(api.requests) == 5
        drive.until(lambda: len(drive.ids) == 40)
        targets = [request.target for request in api.requests]
    assert drive.ids == list(range(40))
    assert len(set(targets[:10])) == 10


@pytest.mark.parametrize("change", ["quota", "last", "full", "stopped", "cut"])
def test_nothing_is_asked_for_ahead_where_it_may_not_be_needed(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T30 a page that is not full may be the last, and a quota that is used up is."""
    pages: dict[str, list[dict[str, Any]]] = {
        "0": events(*range(4)),
        "4": events(*range(4, 8)),
        "8": events(*range(8, 11 if change == "last" else 12)),
    }

    def answer(request: Request) -> Response:
        at = request.params.get("offset", "0")
        spent = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "0.05")]
        headers = spent if change == "quota" and at == "8" else []
        return Response(200, headers, {"events": pages.get(at, [])})

    more = {"max_pages": 100} if change == "cut" else {}
    with ScriptedApi(answer) as api:
        drive = Drive(source_of(api.url, OFFSET, **more))
        drive.until(lambda: len(drive.pages) == 2)
        followed = drive.part._ahead._follow
        leader = drive.part._ahead._leader
        if change == "full":
            box = Outbox("s", None, None, drive.runtime)
            monkeypatch.setattr(Outbox, "is_full", True)
            drive.runtime.outboxes["s"] = box
        elif change == "stopped":
            drive.runtime.stop.set()
        if change in {"full", "stopped"}:
            assert leader is not None
            assert followed(leader) is None
            return
        page_3 = drive.part._fetch
        deadline = time.monotonic() + LIMIT_S
        while page_3 is not None and not page_3.is_done:
            assert time.monotonic() < deadline
        assert drive.part._ahead._ahead == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_asked_with_is_not_in_what_the_api_is_quoted_with(
    caplog: pytest.LogCaptureFixture, method: Literal["GET", "POST"]
) -> None:
    """T67: a key in parameters or body, in a refusal that has the query percent-encoded."""
    key = "key/QpCore88yy+Z="
    ways: dict[str, dict[str, Any]] = {
        "GET": {"params": (("api_token", Secret(key)),)},
        "POST": {"body": Secret(json.dumps({"auth": {"api_token": key}}))},
    }
    refusal = {"ok": False, "error": f"no such query: api_token={quote(key, safe='')}&a=1"}
    with ScriptedApi(lambda _: Response(body=refusal)) as api:
        source = source_of(api.url, None, method=method, success_field="ok", **ways[method])
        Drive(source).until(lambda: said(caplog))
    assert said(caplog)[0].reason.endswith("It says: no such query: api_token=***&a=1")


@pytest.mark.parametrize("before", [0, 100, 185])
def test_no_part_of_a_long_token_is_in_what_the_api_says(
    caplog: pytest.LogCaptureFixture, before: int
) -> None:
    """T67: also where what it says is cut short in the middle of the token."""
    token = "".join(f"tok{number:05}" for number in range(200))
    refusal = {"error": [f"{'x' * before} bad token {token}, get another one"]}
    with ScriptedApi(lambda _: Response(body=refusal)) as api:
        endpoint = Endpoint(api.url, credentials=Credentials(bearer=Secret(token)))
        source = source_of(api.url, None, endpoint=endpoint, error_field="error")
        Drive(source).until(lambda: said(caplog))
    reason = said(caplog)[0].reason
    assert "It says: " in reason
    assert len(reason) < 600
    assert "tok0" not in reason


def test_at_the_tail_of_a_busy_api_each_cursor_is_used_once() -> None:
    """T18: a poll ends there at events of now, and the next one goes on with the same cursor."""
    cursors: list[str] = []

    def answer(request: Request) -> Response:
        cursor = request.params.get("cursor", "0")
        cursors.append(cursor)
        if cursors.count(cursor) > 1:
            return Response(400)
        at = int(cursor)
        now = datetime.now(timezone.utc).isoformat()
        page = [{**event, "timestamp": now} for event in events(*range(4 * at, 4 * at + 4))]
        return Response(body={"events": page, "pagination": {"next_cursor": str(at + 1)}})

    with ScriptedApi(answer) as api:
        drive = Drive(source_of(api.url, CURSOR, time_filter_param=None))
        drive.until(lambda: len(drive.ids) >= 200)
    assert drive.ids == list(range(len(drive.ids)))
    assert len(set(cursors)) == len(cursors)


def test_what_an_api_asks_for_is_heeded_though_the_page_has_to_wait() -> None:
    """T27: Retry-After counts from the answer, for all who share the quota."""

    def answer(request: Request) -> Response:
        at = int(request.params.get("offset", 0))
        if at >= 12:
            return Response(429, [("Retry-After", "30")])
        return Response(body={"events": events(*range(at, at + 4))})

    with ScriptedApi(answer) as api:
        drive = Drive(source_of(api.url, OFFSET))
        drive.until(lambda: len(drive.pages) == 2)
        deadline = time.monotonic() + LIMIT_S
        while drive.part._pace._paused_until < time.monotonic() + 20:
            assert time.monotonic() < deadline


# Nothing lost, nothing twice


@pytest.mark.parametrize(
    ("paging", "pagination"),
    [("cursor", CURSOR), ("link", LINK), ("offset", OFFSET), ("page", PAGE)],
)
def test_a_storm_of_failures_costs_no_event(paging: str, pagination: Pagination) -> None:
    """T32, T35, T36, T41: each page in turn fails in some way, and is read once."""
    dice = random.Random(7)  # noqa: S311
    body = json.dumps({"events": events(90, 91)}).encode()
    troubles = [
        Response(503),
        Response(429, [("Retry-After", "0")]),
        Response(500, body="<html>"),
        Response(body=body, fault="reset_before_headers"),
        Response(body=body, fault="reset_mid_body"),
        Response(body=body, fault="truncate"),
        Response(body=body, fault="bad_chunk"),
        Response(body=body[:-3]),
        Response(body=body + body),
        Response(body=body + b"<!-- -->"),
        Response(body=b"{}\n{}\n"),
        Response(body=b"callback(" + body + b")"),
        Response(body="<html>Sign in</html>", headers=[("Content-Type", "text/html")]),
        Response(body={"error": "maintenance"}),
        Response(headers=[("Content-Encoding", "br")], body=b"\x0b\x02\x80"),
    ]
    dice.shuffle(troubles)
    coming = iter([answer for trouble in troubles for answer in (trouble, None)])
    with listing(30, paging) as api:
        api.before_reply = lambda _: next(coming, None)
        drive = Drive(source_of(api.endpoint, pagination))
        drive.until_scanned()
        drive.until(lambda: next(coming, "over") == "over")
        api.add(events(30))
        drive.until(lambda: 30 in drive.ids)
    assert drive.ids == list(range(31))


@pytest.mark.parametrize("answer", [Response(204), Response(200), Response(body={"events": []})])
def test_an_empty_answer_is_no_event_and_no_failure(
    answer: Response, caplog: pytest.LogCaptureFixture
) -> None:
    """T36: the next poll reads on."""
    with ScriptedApi([answer, answer, Response(body={"events": events(1)})]) as api:
        drive = Drive(source_of(api.url, None))
        drive.until(lambda: drive.ids)
    assert drive.ids == [1]
    assert said(caplog) == []


@pytest.mark.parametrize("status", [400, 404, 410, 422])
@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(("paging", "pagination"), [("cursor", CURSOR), ("link", LINK)])
def test_a_refused_cursor_costs_no_event(
    status: int, at_start: bool, paging: str, pagination: Pagination
) -> None:
    """T18: mid-scan, and at start-up with a kept one, the scan starts over from the watermark."""
    with listing(10, paging, never_ends=True) as api:
        source = source_of(api.endpoint, pagination)
        drive = Drive(source)
        refused: list[str] = []

        def refuse(request: Request) -> Response | None:
            # 400 and 422 may be passing, so that one is not enough.
            times = 1 if status in {404, 410} else 2
            if "cursor" in request.params and len(refused) < times:
                refused.append(request.target)
                return Response(status, body={"error": "the cursor is expired"})
            return None

        if at_start:
            drive.until_scanned()
            assert drive.ids == list(range(10))
            ids = drive.ids
            drive = Drive(source, resume_state=pickle.loads(pickle.dumps(drive.state)))
            drive.ids = ids
        api.before_reply = refuse
        count = len(api.requests)
        drive.until(lambda: refused)
        api.add(events(10, 11))
        drive.until(lambda: 11 in drive.ids)
        anew = next(r for r in api.requests[count:] if "cursor" not in r.params)
        if at_start:
            assert anew.params[SINCE] == "2025-01-01T12:00:03Z"
    assert drive.ids == list(range(12))


@pytest.mark.parametrize("status", [400, 422])
def test_a_cursor_that_is_refused_now_and_then_is_asked_for_again(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """T18: who starts over each time never gets far where timestamps do not rise."""
    with listing(30, order="desc") as api:
        targets: set[str] = set()

        def refuse_once(request: Request) -> Response | None:
            if "cursor" not in request.params or request.target in targets:
                return None
            targets.add(request.target)
            return Response(status)

        api.before_reply = refuse_once
        drive = Drive(source_of(api.endpoint, poll_interval=timedelta(hours=1)))
        drive.until_scanned()
        assert drive.ids == list(range(30))[::-1]
        assert sum("cursor" not in request.params for request in api.requests) == 1
        assert said(caplog, logging.ERROR) == []


@pytest.mark.parametrize("once", [False, True])
def test_a_cursor_that_is_always_refused_is_not_hammered(
    once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """T18: first pages that succeed in between do not count as recovery."""
    with listing(10, order="desc") as api:
        api.before_reply = lambda r: Response(410) if "cursor" in r.params else None
        retry = Retry(initial_delay=timedelta(milliseconds=20), max_retries=4 if once else None)
        drive = Drive(source_of(api.endpoint), retry=retry, once=once)
        if once:
            drive.until(lambda: Flush("s") in drive.others)
            assert drive.runtime.failed == {"s"}
            assert len(api.requests) == 10
        else:
            drive.until(lambda: len(api.requests) >= 12)
            # The fifth restart waits 16 times the first delay, less jitter.
            assert api.requests[10].received_s - api.requests[9].received_s >= 0.16
            assert len(said(caplog, logging.ERROR)) == 1
        assert drive.ids == [9, 8, 7, 6]


def test_an_api_whose_cursors_are_all_refused_is_read_as_far_as_timestamps_lead() -> None:
    """T18: each restart gets on by a page, and that is no reason to slow down."""
    with listing(25) as api:
        api.before_reply = lambda r: Response(410) if "cursor" in r.params else None
        retry = Retry(max_retries=3, initial_delay=timedelta(milliseconds=10))
        drive = Drive(source_of(api.endpoint), retry=retry, once=True)
        drive.until(lambda: Flush("s") in drive.others)
        assert drive.runtime.failed == set()
    assert drive.ids == list(range(25))


def test_a_page_number_beyond_a_shrunken_listing_is_approached_politely() -> None:
    """T11: 404 for page after page, as of an API that is gone, is no hot loop."""
    with ListingApi(events(*range(16)), Style(paging="page", beyond="404")) as api:
        source = source_of(api.endpoint, PAGE, time_filter_param=None)
        drive = Drive(source)
        drive.until_scanned()
        assert drive.state["place"] is not None
        resumed = Drive(source, resume_state=drive.state, retry=Retry())
        api.before_reply = lambda _: Response(404)
        count = len(api.requests)
        resumed.until(lambda: len(api.requests) >= count + 2)
        gap_s = api.requests[count + 1].received_s - api.requests[count].received_s
        assert gap_s >= 0.4


@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1:{other}/x?{query}",
        "https://127.0.0.1:{own}/x",
        "http://u@127.0.0.1:{own}/",
    ],
)
def test_a_link_off_the_origin_is_not_followed_but_its_page_is_shipped(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T24: no request arrives there; the source recovers when the link is right again."""
    with ScriptedApi([Response(body=[])]) as other, listing(10, "link") as api:
        target = where.format(other=other.port, own=api.port, query=SECRET)
        wrong = Response(
            headers=[("Link", f'<{target}>; rel="next"')], body={"events": events(0, 1, 2, 3)}
        )
        api.before_reply = lambda _: wrong
        drive = Drive(source_of(api.endpoint, LINK))
        drive.until(lambda: len(api.requests) >= 4)
        assert drive.ids == [0, 1, 2, 3]
        (record,) = said(caplog, logging.ERROR)
        assert "off the configured origin" in record.reason
        api.before_reply = None
        drive.until(lambda: 9 in drive.ids)
        drive.until_scanned()
        assert other.requests == []
    assert drive.ids == list(range(10))


def test_a_link_off_the_origin_ends_a_run_of_once() -> None:
    """T24: which otherwise would start over for ever."""
    wrong = Response(
        headers=[("Link", '<http://localhost:1/>; rel="next"')], body={"events": events(0)}
    )
    with ScriptedApi([wrong]) as api:
        drive = Drive(source_of(api.url, LINK), retry=replace(QUICK, max_retries=2), once=True)
        drive.until(lambda: Flush("s") in drive.others)
        assert drive.runtime.failed == {"s"}
        assert drive.ids == [0]


def test_events_of_the_future_are_shipped_once_and_blind_nobody() -> None:
    """T54: a clock of ours that is behind is the same thing."""
    ahead = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    with listing(3) as api:
        api.add([{"id": 90, "timestamp": ahead}])
        drive = Drive(source_of(api.endpoint))
        drive.until_scanned()
        api.add(events(3))
        drive.until(lambda: 3 in drive.ids)
        drive.until_scanned()
        drive.until_scanned()
        since = [request.params[SINCE] for request in api.requests if SINCE in request.params]
    assert sorted(drive.ids) == [0, 1, 2, 3, 90]
    assert since == sorted(since)
    assert since[-1] == "2025-01-01T12:00:01Z"


def test_okta_is_read_without_loss_or_repeat() -> None:
    """T19, T25, T29: links are followed as they are, 429 waited out, late events read."""
    token = SECRET
    with OktaApi(token=token, every_nth_429=4, rng=random.Random(3)) as api:  # noqa: S311
        late = datetime.now(timezone.utc) - timedelta(minutes=5)
        for number in range(12):
            moment = late + timedelta(seconds=number if number != 9 else 0)
            api.add(
                [
                    {
                        "uuid": f"u{number}",
                        "id": number,
                        "published": moment.isoformat(timespec="milliseconds")[:-6] + "Z",
                    }
                ]
            )
        source = source_of(
            api.url + "/api/v1/logs",
            replace(LINK, cursor_param="after"),
            endpoint=Endpoint(
                api.url + "/api/v1/logs", headers=(("Authorization", Secret(f"SSWS {token}")),)
            ),
            results_field="",
            timestamp_field="published",
            id_field="uuid",
            start_time=timedelta(days=1),
        )
        drive = Drive(source)
        drive.until(lambda: len(drive.ids) >= 12 and api.limited_count > 0)
        requested = [request.target for request in api.requests]
    assert drive.ids == list(range(12))
    assert all(target.count("limit=") == 1 and target.count("after=") <= 1 for target in requested)


# Snapshots


def builtins_only(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(builtins_only, [*value, *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(builtins_only, value))
    return type(value) in {str, bytes, int, float, bool, type(None)}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    ("paging", "pagination"),
    [("cursor", CURSOR), ("link", LINK), ("offset", OFFSET), ("page", PAGE)],
)
def test_a_partition_rebuilt_at_any_page_reads_on_as_it_would_have(
    paging: str, order: str, pagination: Pagination
) -> None:
    """T09, T19, T25, T67: the next request is the same to the byte, and so are the events.

    The token in the query, which this vendor echoes in its links, is in no snapshot.
    """
    with listing(18, paging, order=order) as api:
        source = source_of(
            api.endpoint, pagination, params=(("token", Secret(SECRET)), ("q", Secret("a+b/c=d e")))
        )
        drive = Drive(source)
        drive.until_scanned()
        requests = [request.target for request in api.requests]
        assert sorted(drive.ids) == list(range(18))
        assert len(drive.snapshots) == 5
        for number, packed in enumerate(drive.snapshots, 1):
            state = pickle.loads(packed)
            assert builtins_only(state)
            assert SECRET.encode() not in packed
            if number == len(drive.snapshots) == len(requests):
                continue
            count = len(api.requests)
            resumed = Drive(source, resume_state=state)
            assert pickle.dumps(resumed.state) == packed
            resumed.until(lambda count=count: len(api.requests) > count)  # type: ignore[misc]
            assert api.requests[count].target == requests[number]
            resumed.until(lambda resumed=resumed: not resumed.part._scanner.in_scan)  # type: ignore[misc]
            assert resumed.pages == drive.pages[number:]
            # What was read on does not reach back into the snapshot.
            assert pickle.dumps(state) == packed


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ((("token", Secret("another-one")),), "another-one"),
        ((("token", Secret("short")),), None),
    ],
)
def test_a_kept_link_takes_the_token_of_today_or_is_dropped(
    params: tuple[tuple[str, Secret], ...], sent: str | None
) -> None:
    """T67: a link whose token is gone is useless; the scan starts over from the watermark."""
    with listing(10, "link") as api:
        source = source_of(api.endpoint, LINK, params=(("token", Secret(SECRET)),))
        drive = Drive(source)
        drive.until(lambda: drive.snapshots)
        state = pickle.loads(drive.snapshots[0])
        drive.until_scanned()
        count = len(api.requests)
        resumed = Drive(replace(source, params=params), resume_state=state)
        resumed.until(lambda: 9 in resumed.ids)
        request = api.requests[count]
        assert ("cursor" in request.params) is (sent is not None)
        assert request.params["token"] == (sent or "short")
        assert "\0" not in "".join(r.target for r in api.requests)
    assert drive.ids[:4] + resumed.ids == list(range(10))


@pytest.mark.parametrize(
    ("paging", "pagination", "change"),
    [
        ("cursor", CURSOR, {"pagination": OFFSET}),
        ("cursor", CURSOR, {"pagination": replace(CURSOR, cursor_param="offset")}),
        ("link", LINK, {"pagination": PAGE}),
        ("cursor", CURSOR, {"time_filter_param": "cursor"}),
        ("offset", OFFSET, {"pagination": PAGE}),
    ],
)
def test_a_place_is_not_sent_to_another_api(
    paging: str, pagination: Pagination, change: dict[str, Any]
) -> None:
    """T65: pagination, parameters and addresses change between two runs."""
    with listing(10, paging) as api, ScriptedApi([Response(body={"events": []})]) as changed:
        source = source_of(api.endpoint, pagination)
        drive = Drive(source)
        drive.until_scanned()
        drive.until(lambda: len(drive.pages) >= 3)
        middle = pickle.loads(drive.snapshots[1])
        resumed = Drive(
            replace(source, **{"endpoint": Endpoint(changed.url), **change}), resume_state=middle
        )
        resumed.until(lambda: changed.requests)
        (request, *_) = changed.requests
    allowed = {("limit", "4"), ("offset", "0"), ("page", "1")}
    assert set(request.query) <= allowed


def test_a_changed_endpoint_is_asked_from_the_watermark() -> None:
    """T65: the timestamp still means what it meant."""
    with listing(10, "link", never_ends=True) as api:
        source = source_of(api.endpoint, LINK)
        drive = Drive(source)
        drive.until_scanned()
        with ScriptedApi([Response(body={"events": events(9, 10)})]) as changed:
            moved = replace(source, endpoint=Endpoint(changed.url + "/v2"))
            resumed = Drive(moved, resume_state=drive.state)
            resumed.until(lambda: resumed.ids)
            (request, *_) = changed.requests
    assert request.target == "/v2?since=2025-01-01T12:00:03Z&limit=4"
    assert resumed.ids == [10]


# Backpressure and the end


def outbox_of(drive: Drive, destination: DestinationServer) -> Outbox:
    endpoint = Endpoint(destination.url)
    outbox = Outbox("s", Destination(endpoint), Client(endpoint), drive.runtime)
    drive.runtime.outboxes["s"] = outbox
    return outbox


def record(number: int) -> Record:
    return Record(
        number.to_bytes(16, "big"),
        b'{"source":"s","id":"e%d","timestamp":null,"message":null,"event":{}}' % number,
    )


def test_pauses_while_its_outbox_is_full() -> None:
    """T63: no request before something was delivered, and then at once."""
    with listing(3) as api, DestinationServer() as destination:
        destination.respond = lambda _: Response(503, fault="silence")
        drive = Drive(source_of(api.endpoint), retry=replace(QUICK, max_queue_size=2))
        outbox = outbox_of(drive, destination)
        for number in range(2):
            outbox.add([record(number)])
        paused_until = time.monotonic() + 0.3
        drive.until(lambda: time.monotonic() > paused_until)
        assert api.requests == []
        destination.respond = None
        assert destination.wait_for_silence(2, LIMIT_S)
        destination.release()
        drive.until(lambda: drive.ids)
    assert drive.ids == [0, 1, 2]


def test_stops_when_what_it_owes_is_delivered() -> None:
    """T64: first the buffer is flushed, then the outbox drained, then it is over."""
    with listing(3) as api, DestinationServer() as destination:
        drive = Drive(source_of(api.endpoint))
        outbox = outbox_of(drive, destination)
        drive.until_scanned()
        destination.respond = lambda _: Response(200, fault="silence")
        outbox.add([record(1)])
        drive.runtime.stop.set()
        drive.until(lambda: Flush("s") in drive.others)
        asked = len(api.requests)
        waited_until = time.monotonic() + 0.2
        drive.until(lambda: time.monotonic() > waited_until)
        assert not drive.is_over
        outbox.is_flushed = True
        waited_until = time.monotonic() + 0.2
        drive.until(lambda: time.monotonic() > waited_until)
        assert not drive.is_over
        assert destination.wait_for_silence(1, LIMIT_S)
        destination.respond = None
        destination.release()
        drive.until(lambda: drive.is_over)
        assert outbox.owed == 0
        assert len(api.requests) == asked
    assert drive.others[0] == Mark()
    assert drive.others.count(Flush("s")) == 1
    assert drive.others[-1] == Mark()
    with pytest.raises(StopIteration):
        drive.part.next_batch()


def test_does_not_stop_before_the_buffer_has_let_go() -> None:
    """T64: an outbox that owes nothing yet may be owed to in a moment."""
    with listing(3) as api, DestinationServer() as destination:
        drive = Drive(source_of(api.endpoint))
        outbox = outbox_of(drive, destination)
        drive.until_scanned()
        drive.runtime.stop.set()
        waited_until = time.monotonic() + 0.2
        drive.until(lambda: time.monotonic() > waited_until)
        assert not drive.is_over
        outbox.is_flushed = True
        drive.until(lambda: drive.is_over)


def test_asked_twice_it_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """T64: and says what is not delivered, which stays in the registry."""
    with listing(3) as api, DestinationServer() as destination:
        destination.respond = lambda _: Response(503, fault="silence")
        drive = Drive(source_of(api.endpoint))
        outbox = outbox_of(drive, destination)
        outbox.add([record(1)])
        drive.runtime.stop.set()
        drive.runtime.stop.set()
        drive.until(lambda: drive.is_over)
        assert outbox.owed == 1
    assert [r.batches_owed for r in said(caplog) if hasattr(r, "batches_owed")] == [1]


@pytest.mark.parametrize("max_pages", [None, 2])
def test_reads_once_and_ends(max_pages: int | None) -> None:
    """`--once`: one whole scan, whatever one poll may ask."""
    with listing(10, never_ends=True) as api, DestinationServer() as destination:
        source = source_of(api.endpoint, max_pages=max_pages)
        drive = Drive(source, once=True)
        outbox_of(drive, destination).is_flushed = True
        drive.until(lambda: drive.is_over)
        assert drive.runtime.failed == set()
        assert sorted(drive.ids) == list(range(10))


def test_once_reads_what_came_since_the_scan_it_found_unfinished() -> None:
    """T09: a run that was killed in mid-scan must not leave the news to the run after the next."""
    with listing(10, order="desc") as api, DestinationServer() as destination:
        source = source_of(api.endpoint)
        drive = Drive(source)
        drive.until(lambda: len(drive.ids) == 4)
        api.add([event(10)])
        again = Drive(source, once=True, resume_state=drive.state)
        outbox_of(again, destination).is_flushed = True
        again.until(lambda: again.is_over)
        assert sorted(drive.ids + again.ids) == list(range(11))


def test_an_empty_body_in_mid_scan_is_no_empty_page() -> None:
    """T36: it would end a newest-first scan, and the watermark pass over the rest."""
    with listing(10, order="desc") as api:
        drive = Drive(source_of(api.endpoint))
        drive.until(lambda: len(drive.ids) == 4)
        api.before_reply = in_turn([Response(200, body=b"")], last=None)
        drive.until(lambda: not drive.part._scanner.in_scan)
        assert sorted(drive.ids) == list(range(10))


def test_once_gives_up_on_an_api_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """`--once`: after `max_retries`, and says so."""
    with ScriptedApi([Response(503)]) as api, DestinationServer() as destination:
        drive = Drive(source_of(api.url), retry=replace(QUICK, max_retries=3), once=True)
        outbox_of(drive, destination).is_flushed = True
        drive.until(lambda: drive.is_over)
        assert len(api.requests) == 4
        assert drive.runtime.failed == {"s"}
    assert "giving up on the source" in [r.getMessage() for r in said(caplog, logging.ERROR)]


@pytest.mark.parametrize("state", [None, {"version": 1, "kept": b"as it is"}])
def test_a_retired_source_polls_nothing_and_keeps_its_state(state: dict[str, Any] | None) -> None:
    runtime = Runtime(retry=QUICK, dead_letters=DeadLetters(cast("Path", None)))
    source = ApiSource({}, ["b", "a"], runtime)
    assert source.list_parts() == ["a", "b"]
    part = source.build_part("poll", "a", state)
    assert isinstance(part, RetiredPartition)
    assert part.next_batch() == [("a", Mark())]
    assert part.next_batch() == []
    assert part.snapshot() == state
    runtime.stop.set()
    runtime.stop.set()
    items: Sequence[Any] = part.next_batch()
    assert items == [("a", Flush("a"))]
    assert part.next_batch() == [("a", Mark())]
    with pytest.raises(StopIteration):
        part.next_batch()
