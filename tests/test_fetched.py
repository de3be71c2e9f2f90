"""Listings whose entries are fetched one by one: what is remembered of entries and of events."""

from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flicker import dedup
from flicker.decode import DecodeOptions, PageDecoder
from flicker.dedup import KEPT_COUNT, RECENT_COUNT, DedupWindow
from flicker.demo.servers import Response
from flicker.position import Position, dump_position, load_position
from flicker.scan import Scanner
from flicker.settings import Endpoint, FetchEach, Secret
from flicker.timefmt import SECOND_NS, format_rfc3339
from tests.outgoing import id_of
from tests.servers.scripted import ScriptedApi
from tests.test_scan import NOON_NS, NOW_NS, URL, make_source
from tests.test_source import Drive, event, said, source_of

if TYPE_CHECKING:
    from flicker.decode import Page
    from flicker.demo.servers import Request

LISTED = PageDecoder(
    DecodeOptions(
        results_field="events", timestamp_field="ts", id_field="id", next_cursor_field="next"
    )
)
FETCHED = PageDecoder(DecodeOptions(results_field="", id_field="id"))
SOURCE = replace(
    make_source("cursor", since=True, lookback=timedelta(hours=1)),
    fetch_each=FetchEach("url"),
    start_time=NOON_NS,
)


def entry(name: str, minute: int) -> dict[str, Any]:
    at = format_rfc3339(NOON_NS + minute * 60 * SECOND_NS)
    return {"id": name, "ts": at, "url": f"{URL}/{name}"}


def page(entries: list[dict[str, Any]], following: str | None = None) -> Page:
    return LISTED.decode(json.dumps({"events": entries, "next": following}).encode())


def content(*ids: str) -> Page:
    return FETCHED.decode(json.dumps([{"id": event_id} for event_id in ids]).encode())


class Reading:
    """Has a scanner read pages and what they list, and counts what it fetches and gives."""

    def __init__(self, scanner: Scanner | None = None) -> None:
        self.scanner = scanner or Scanner(SOURCE, Position(DedupWindow("vendor")))
        self.fetched: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()

    def read(self, answer: Page, contents: dict[str, list[str]]) -> None:
        if not self.scanner.in_scan:
            self.scanner.begin(NOW_NS)
        self.scanner.take(answer, {}, NOW_NS)
        while self.scanner.pending is not None:
            name = self.scanner.pending.url.removeprefix(f"{URL}/")
            self.fetched[name] += 1
            events = self.scanner.take_fetched(content(*contents[name]))
            self.ids.update(id_of(event) for event in events)

    def restart(self) -> None:
        self.scanner = Scanner(SOURCE, restored(self.state()))

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = pickle.loads(
            pickle.dumps(dump_position(self.scanner.position, "f", None))
        )
        return state


def restored(state: dict[str, Any]) -> Position:
    return load_position(state, "vendor", "f", None)


@pytest.mark.parametrize("restarts", [False, True])
def test_however_much_entries_hold_they_are_not_fetched_again(restarts: bool) -> None:
    """A refused cursor has all of the listing read again, out of order as it is."""
    names = [[f"{at}-{row}" for row in range(30)] for at in range(4)]
    contents = {name: [f"{name}:{at}" for at in range(200)] for row in names for name in row}
    pages = [
        # Hours from page to page, and not all in order: the floor rises above what was read.
        [entry(name, 240 * at + row - 2 * (row == 5)) for row, name in enumerate(names[at])]
        for at in range(4)
    ]
    assert sum(map(len, contents.values())) > 2 * RECENT_COUNT
    reading = Reading()
    for at, entries in enumerate(pages):
        reading.read(page(entries, f"a{at}"), contents)
    assert reading.scanner.take_refusal(NOW_NS)
    if restarts:
        reading.restart()
    for at, entries in enumerate(pages):
        reading.read(page(entries, f"b{at}" if at < 3 else None), contents)
    assert reading.fetched == Counter(contents.keys())
    assert reading.ids == Counter(event for events in contents.values() for event in events)


def test_an_event_may_have_the_id_of_its_entry() -> None:
    """A list of tickets, and each ticket behind its URL."""
    reading = Reading()
    reading.read(page([entry("t1", 0), entry("t2", 1)]), {"t1": ["t1"], "t2": ["t2"]})
    assert reading.ids == Counter(["t1", "t2"])


@pytest.mark.parametrize("restarts", [False, True])
def test_an_event_of_several_entries_is_one(restarts: bool) -> None:
    """T05 on one page, on the next, and in the next scan."""
    contents = {"a": ["x", "y"], "b": ["y", "z"], "c": ["z", "q"], "d": ["q", "x", "w"]}
    reading = Reading()
    for answer in (
        page([entry("a", 0), entry("b", 1)], "n1"),
        page([entry("c", 2)]),
        page([entry("c", 2), entry("d", 3)]),
    ):
        reading.read(answer, contents)
        if restarts:
            reading.restart()
    assert reading.fetched == Counter("abcd")
    assert reading.ids == Counter("xyzqw")


def test_a_state_that_kept_entries_and_events_together_is_known_on_both_sides() -> None:
    """As it was written before they were told apart."""
    reading = Reading()
    reading.read(page([entry("a", 0)]), {"a": ["x"]})
    state = reading.state()
    parts = zip(state["seen"], state.pop("fetched"), strict=True)
    state["seen"] = [entries + events for entries, events in parts]
    reading.scanner = Scanner(SOURCE, restored(state))
    reading.read(page([entry("a", 0), entry("b", 1)]), {"b": ["x", "y"]})
    assert reading.ids == Counter("xy")
    # Where nothing is fetched, nothing is remembered twice.
    plain = Scanner(replace(SOURCE, fetch_each=None), restored(state))
    assert dump_position(plain.position, "f", None)["fetched"] == [b""] * 6


def test_all_that_a_source_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events make way, entries stay."""
    monkeypatch.setattr(dedup, "CAPACITY", 500)
    reading = Reading(Scanner(replace(SOURCE, time_filter_param=None), Position(DedupWindow("v"))))
    names = [f"n{at}" for at in range(100)]
    contents = {name: [f"{name}:{at}" for at in range(20)] for name in names}
    reading.read(page([entry(name, at) for at, name in enumerate(names)], "more"), contents)
    position = reading.scanner.position
    assert len(position.window) == 100
    assert len(position.window) + len(position.fetched) == 500


def test_events_are_forgotten_where_entries_come_and_go() -> None:
    """A listing without a time filter brings everything again; each of its entries is read once."""
    reading = Reading(Scanner(replace(SOURCE, time_filter_param=None), Position(DedupWindow("v"))))
    count = KEPT_COUNT + 1000
    for at in range(6):
        name = f"n{at}"
        reading.read(page([entry(name, at)]), {name: [f"{name}:{n}" for n in range(count)]})
    assert len(reading.ids) == 6 * count
    assert len(reading.scanner.position.fetched) <= KEPT_COUNT + 2 * count


@pytest.mark.parametrize("own", [None, "text/plain"])
def test_asks_for_the_form_that_is_configured(own: str | None) -> None:
    """The listing is JSON; what a user wrote into `headers` goes out instead."""

    def respond(request: Request) -> Response:
        if request.path == "/list":
            return Response(body={"events": [event(1, url="/file")]})
        return Response(body=b"id,name\n7,x\n", headers=(("Content-Type", "text/csv"),))

    with ScriptedApi(respond) as api:
        headers = () if own is None else (("accept", Secret(own)),)
        source = source_of(
            f"{api.url}/list",
            None,
            endpoint=Endpoint(f"{api.url}/list", headers),
            fetch_each=FetchEach("url", id_field=("id",)),
            response_format="csv",
        )
        drive = Drive(source)
        drive.until(lambda: drive.ids)
        accepted = {
            request.path: value
            for request in api.requests
            for name, value in request.header_lines
            if name.lower() == "accept"
        }
    assert accepted == {
        "/list": own or "application/json",
        "/file": own or "text/csv, */*;q=0.5",
    }


def test_a_failure_names_the_entry_that_it_befell(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = {"/a": Response(body=[event(1)]), "/b": Response(body={"oops": 1})}

    def respond(request: Request) -> Response:
        listed = [event(at, url=url) for at, url in enumerate(answers, 10)]
        return answers.get(request.path) or Response(body={"events": listed})

    with ScriptedApi(respond) as api:
        drive = Drive(source_of(f"{api.url}/list", None, fetch_each=FetchEach("url")))
        drive.until(lambda: said(caplog))
    (record,) = said(caplog)
    assert record.reason.startswith("what it points at has no list at the root")
    assert not hasattr(record, "page")
    read = [record.getMessage() for record in caplog.records if hasattr(record, "entries")]
    assert read == ["page read", "entry read"]


def test_an_entry_elsewhere_is_held_up_over_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """T65 whoever looks after it may let it be fetched; another API's never can be."""
    listed = Response(body={"events": [event(1, url="https://elsewhere.example/1")]})
    with ScriptedApi([listed]) as api:
        source = source_of(f"{api.url}/list", None, fetch_each=FetchEach("url"))
        reading = Drive(source)
        reading.until(lambda: said(caplog))
    state = pickle.loads(pickle.dumps(reading.state))
    assert len(state["pending"]) == 1
    assert Drive(source, resume_state=state).state["pending"] == state["pending"]
    changed = replace(source, params=(("kind", Secret("all")),))
    assert Drive(changed, resume_state=state).state["pending"] == []
