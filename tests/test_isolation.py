"""One bad source or destination never slows another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from flicker.ahead import PAGES_AHEAD
from flicker.demo.servers import Destination, Request, RequestRecord, Response, always
from tests.processes import Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.process

STYLE = Style(paging="offset", time_param="since")


def first_pages(api: ListingApi) -> list[float]:
    """Give the instants at which polls began."""
    return [request.received_s for request in api.requests if request.params["offset"] == "0"]


def goes_on_polling(api: ListingApi) -> bool:
    """Whether a source polls on while another hangs or sleeps for 30 s.

    Held up, it would not poll twice in 15 s; a busy machine makes eight polls.
    """
    start = len(first_pages(api))
    return wait_until(lambda: len(first_pages(api)) >= start + 8, 45)


def test_a_source_that_sleeps_30_s_does_not_hold_a_quick_one(home: Home) -> None:
    """On two workers: epochs go on, so the quick one polls on time and its position is durable."""
    with (
        ListingApi(make_events(10), STYLE) as slow,
        ListingApi(make_events(10), STYLE) as quick,
        Destination() as siem,
    ):
        home.configure(
            make_source("a-slow", slow.endpoint, siem.url, polling_frequency_ms=30_000),
            make_source("b-quick", quick.endpoint, siem.url, polling_frequency_ms=300),
        )
        process = home.start("--workers", "2")
        assert siem.wait_for(lambda: siem.delivered_count >= 20, 45), process.stderr
        assert goes_on_polling(quick)
        quick.add(make_events(10, 10))
        newest = "2025-01-01T12:00:00.019Z"
        assert wait_until(lambda: home.view().get("b-quick", {}).get("last_timestamp") == newest)
        assert len(first_pages(slow)) == 1
        assert process.stop() == 0
        assert siem.delivered_count == 30


def test_an_api_that_hangs_does_not_hold_a_healthy_one(home: Home) -> None:
    """T32: nor does it hold the stop."""
    hanging = Response(200, body={"events": []}, fault="silence")
    with (
        ListingApi([], STYLE, before_reply=always(hanging)) as dead,
        ListingApi(make_events(10), STYLE) as healthy,
        Destination() as siem,
    ):
        home.configure(
            make_source("dead", dead.endpoint, siem.url),
            make_source("healthy", healthy.endpoint, siem.url, polling_frequency_ms=200),
        )
        process = home.start()
        assert dead.wait_for_silence(1, 45), process.stderr
        assert siem.wait_for(10, 45)
        assert goes_on_polling(healthy)
        healthy.add(make_events(10, 10))
        assert siem.wait_for(20, 45)
        asked_at = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - asked_at < 5


def test_a_dead_destination_does_not_hold_a_living_one(home: Home) -> None:
    """T62: the dead one's source pauses at max_queue_size, the other goes on."""
    with (
        ListingApi(make_events(1000), STYLE) as api,
        ListingApi(make_events(200), STYLE) as other,
        Destination() as dead,
        Destination() as living,
    ):
        dead.respond = always(Response(503, fault="silence"))
        home.configure(
            make_source("doomed", api.endpoint, dead.url),
            make_source("well", other.endpoint, living.url, polling_frequency_ms=200),
            retry={"max_queue_size": 7},
        )
        process = home.start()
        assert dead.wait_for_silence(1, 45), process.stderr
        assert living.wait_for(200, 45)
        assert goes_on_polling(other)
        # 7 batches of 10, the page of 50 that was on its way, and two behind it.
        assert len(api.requests) <= 5
        assert wait_until(lambda: home.view().get("doomed", {}).get("undelivered_batches", 0) >= 7)
        assert home.view()["doomed"]["undelivered_batches"] <= 15
        process.kill()
        dead.respond = None
        dead.release()
        process = home.start()
        assert dead.wait_for(1000, 45), process.stderr
        assert process.stop() == 0
        assert dead.ids == dict.fromkeys(ids_of(make_events(1000)), 1)
        assert living.ids == dict.fromkeys(ids_of(make_events(200)), 1)


def test_a_slow_destination_slows_its_source_and_loses_nothing(home: Home) -> None:
    """T63: the queue is bounded, so is memory; all arrives in the end."""
    queue, page, batch = 4, 50, 10
    most = 0

    def before_reply(request: Request) -> Response | None:
        nonlocal most
        most = max(most, int(request.params["offset"]) + page - siem.delivered_count)
        return None

    with (
        ListingApi(make_events(800), STYLE, before_reply=before_reply) as api,
        Destination(delay_s=0.02) as siem,
    ):
        home.configure(
            make_source("s", api.endpoint, siem.url, polling_frequency_ms=60_000),
            retry={"max_queue_size": queue},
        )
        process = home.start()
        assert siem.wait_for(800, 45), process.stderr
        # The page that is asked for, those behind it, and one that is on its way to the queue.
        assert most <= queue * batch + (PAGES_AHEAD + 2) * page
        assert process.stop() == 0
        assert siem.ids == dict.fromkeys(ids_of(make_events(800)), 1)


def _ages(posts: list[RequestRecord], served_at: Callable[[str], float]) -> list[float]:
    return [
        post.received_s - min(served_at(record.id) for record in post.records) for post in posts
    ]


def test_a_trickle_is_flushed_on_time(home: Home) -> None:
    """T64: the age of a batch counts from its first event, however steadily more arrive."""
    with ListingApi([], STYLE) as api, Destination() as siem:
        home.configure(
            make_source(
                "s",
                api.endpoint,
                siem.url,
                polling_frequency_ms=50,
                flush_interval_ms=500,
                buffer_size=1000,
            )
        )
        added_at: dict[str, float] = {}

        def trickle(_: Request) -> None:
            if len(added_at) < 60:
                (event,) = make_events(1, len(added_at))
                added_at[event["id"]] = time.monotonic()
                api.add([event])

        api.before_reply = trickle
        process = home.start()
        assert siem.wait_for(60, 45), process.stderr
        assert process.stop() == 0
    ages = _ages(siem.posts, added_at.__getitem__)
    assert max(ages) < 1.2
    assert sorted(ages)[len(ages) // 2] > 0.4
    assert len(siem.posts) <= 12
