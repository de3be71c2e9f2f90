"""A backfill in windows, in a process that is killed, rewound and upgraded."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from flicker.demo.servers import Destination, Request, Response
from flicker.registry.partitions import POLL_STEP, edit_states, read_states
from tests.processes import Home, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.process

WINDOWS = 30
PER_WINDOW = 8
WINDOW = timedelta(days=1)
STYLE = Style(
    paging="offset",
    time_param="since",
    time_end_param="until",
    longest_s=WINDOW.total_seconds(),
)


@dataclass
class Backfill:
    """As many windows before now, and what happened in them."""

    begin: datetime
    events: list[dict[str, Any]]

    @property
    def ids(self) -> set[str]:
        return {event["id"] for event in self.events}

    def source(self, api: ListingApi, siem: Destination, **changes: Any) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "time_filter_end_param": "until",
            "max_window_ms": int(WINDOW.total_seconds() * 1000),
            "delay_ms": 1000,
            "start_time": text_of(self.begin),
            "pagination": {
                "pagination_type": "offset",
                "limit_param": "limit",
                "offset_param": "offset",
                "page_size": 5,
            },
        }
        return make_source("s", api.endpoint, siem.url, **{**keys, **changes})

    def window_of(self, request: Request) -> int:
        """Give the number of the window that a request asks for."""
        since = datetime.fromisoformat(request.params["since"].replace("Z", "+00:00"))
        return (since - self.begin) // WINDOW


def text_of(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


@pytest.fixture
def backfill() -> Backfill:
    begin = datetime.now(timezone.utc).replace(microsecond=0) - WINDOWS * WINDOW
    step = WINDOW / PER_WINDOW
    events = [
        {"id": f"e{number}", "timestamp": text_of(begin + number * step), "message": f"{number}"}
        for number in range(WINDOWS * PER_WINDOW)
    ]
    # A quiet time of three windows in the middle.
    quiet = range(10 * PER_WINDOW + 1, 13 * PER_WINDOW)
    return Backfill(begin, [event for at, event in enumerate(events) if at not in quiet])


def test_a_kill_in_the_middle_of_a_backfill_goes_on_in_its_window(
    home: Home, backfill: Backfill
) -> None:
    """T57 T59 T60 each event once, nothing longer than a window, no pause between them."""
    held, gate = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if backfill.window_of(request) == 20 and request.params["offset"] != "0":
            held.set()
            gate.wait(60)
        return None

    with ListingApi(backfill.events, STYLE, before_reply=hold) as api, Destination() as siem:
        # Who waited between two windows would be waited for in vain.
        home.configure(backfill.source(api, siem, polling_frequency_ms=3_600_000))
        process = home.start()
        assert wait_until(held.is_set), process.stderr
        before = len(api.requests)
        assert wait_until(is_settled(home, siem)), process.stderr
        process.kill()
        gate.set()
        process = home.start()
        assert siem.wait_for(len(backfill.events), 60), (siem.distinct_count, process.stderr)
        assert wait_until(lambda: not home.view()["s"]["scanning"])
        assert process.stop() == 0
        assert siem.ids == dict.fromkeys(backfill.ids, 1)
        after = [backfill.window_of(request) for request in api.requests[before:]]
        assert min(after) == 20
        assert set(after) >= set(range(20, WINDOWS))


def is_settled(home: Home, siem: Destination) -> Callable[[], bool]:
    """Whether what was read up to the 21st window's second page is in the registry."""

    def look() -> bool:
        view = home.view().get("s", {})
        is_there = view.get("scanning") and view.get("offset") == 5
        return bool(is_there and not view.get("undelivered_batches") and siem.distinct_count)

    return look


def test_once_reads_all_windows(home: Home, backfill: Backfill) -> None:
    """And the next run asks from where this one ended."""
    with ListingApi(backfill.events, STYLE) as api, Destination() as siem:
        home.configure(backfill.source(api, siem, polling_frequency_ms=3_600_000, max_pages=2))
        done = home.run_once()
        assert done.code == 0, done.stderr
        assert siem.ids == dict.fromkeys(backfill.ids, 1)
        before = len(api.requests)
        assert home.run_once().code == 0
        assert {backfill.window_of(request) for request in api.requests[before:]} <= {
            WINDOWS - 1,
            WINDOWS,
        }
        assert siem.ids == dict.fromkeys(backfill.ids, 1)


def test_a_rewound_source_reads_its_windows_again(home: Home, backfill: Backfill) -> None:
    """From the instant on, and in windows as before."""
    with ListingApi(backfill.events, STYLE) as api, Destination() as siem:
        home.configure(backfill.source(api, siem))
        assert home.run_once().code == 0
        instant = text_of(backfill.begin + 20 * WINDOW)
        assert home.run("registry", "rewind", "s", "--to", instant).code == 0
        before = len(api.requests)
        done = home.run_once()
        assert done.code == 0, done.stderr
        assert min(backfill.window_of(request) for request in api.requests[before:]) == 20
        assert siem.ids == {
            event["id"]: 1 + (event["timestamp"] >= instant) for event in backfill.events
        }


def test_a_registry_from_before_there_were_windows_is_read_on(
    home: Home, backfill: Backfill
) -> None:
    """An upgrade in the middle of a scan, with windows configured later on."""
    first, rest = backfill.events[:20], backfill.events[20:]
    style = Style(paging="offset", time_param="since")
    held, gate = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if request.params["offset"] == "10":
            held.set()
            gate.wait(60)
        return None

    with ListingApi(first, style, before_reply=hold) as api, Destination() as siem:
        keys = dict.fromkeys(("time_filter_end_param", "max_window_ms", "delay_ms"))
        source = backfill.source(api, siem, **keys)
        home.configure(source)
        process = home.start()
        assert wait_until(held.is_set), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("offset") == 10)
        process.kill()
        gate.set()
        state = read_states(home.recovery_dir)[POLL_STEP, "s"]
        assert state["scan"] is not None
        old = {key: state[key] for key in state.keys() - {"swept", "pending", "fetched"}}
        new = {"since_ns", "until", "until_ns", "window_end"}
        old["scan"] = {key: state["scan"][key] for key in state["scan"].keys() - new}
        edit_states(home.recovery_dir, {(POLL_STEP, "s"): old})
        api.before_reply = None
        done = home.run_once()
        assert done.code == 0, done.stderr
        assert siem.ids == {event["id"]: 1 for event in first}
        api.style = STYLE
        api.add(rest)
        home.configure(backfill.source(api, siem))
        done = home.run_once()
        assert done.code == 0, done.stderr
        assert siem.ids == dict.fromkeys(backfill.ids, 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_bound_on_offsets_is_gone_around_or_said(
    home: Home, backfill: Backfill, order: Any
) -> None:
    """T28 oldest first all arrive; newest first the error stays, and nothing is passed over."""

    def bound(request: Request) -> Response | None:
        return Response(400) if int(request.params["offset"]) >= 20 else None

    style = replace(STYLE, order=order, longest_s=None)
    with ListingApi(backfill.events, style, before_reply=bound) as api, Destination() as siem:
        source = backfill.source(api, siem, max_window_ms=None)
        home.configure(source, retry={"max_retries": 2})
        done = home.run_once()
        if order == "asc":
            assert done.code == 0, done.stderr
        else:
            assert done.code != 0
            assert "answers 400" in done.stderr
            assert siem.distinct_count == 20
            assert len(api.requests) <= 4 + 3
            api.before_reply = None
            assert home.run_once().code == 0
        assert siem.ids == dict.fromkeys(backfill.ids, 1)


def test_a_position_that_is_too_old_is_no_refusal_for_ever(home: Home, backfill: Backfill) -> None:
    """T58 one warning with both instants, and then what the vendor has still."""
    kept = datetime.now(timezone.utc) - 10 * WINDOW

    def keep(request: Request) -> Response | None:
        return Response(400) if request.params["since"] < text_of(kept) else None

    first, rest = backfill.events[:20], backfill.events[20:]
    with ListingApi(first, STYLE) as api, Destination() as siem:
        api.style = replace(STYLE, longest_s=None, time_end_param=None)
        keys = {"delay_ms": None, "time_filter_end_param": None, "max_window_ms": None}
        home.configure(backfill.source(api, siem, **keys))
        assert home.run_once().code == 0
        api.style, api.before_reply = STYLE, keep
        api.add(rest)
        max_age_ms = int((10 * WINDOW).total_seconds() * 1000)
        home.configure(backfill.source(api, siem, max_age_ms=max_age_ms))
        done = home.run_once()
        assert done.code == 0, done.stderr
        warnings = [line for line in done.stderr.splitlines() if "max_age_ms" in line]
        assert len(warnings) == 1
        assert first[-1]["timestamp"] in warnings[0]
        expected = {event["id"] for event in rest if event["timestamp"] > text_of(kept)}
        missing = expected - siem.ids.keys()
        # One may have grown too old since.
        assert len(missing) <= 1
        assert siem.ids.keys() <= expected | {event["id"] for event in first}
