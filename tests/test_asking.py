"""How APIs are asked: POST, many at once, no more often than they bear, entry by entry."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from flicker.client import Client, raise_for_poll
from flicker.demo.servers import Destination, Request, Response
from flicker.errors import ForeignLinkError, HumanNeededError
from flicker.request import PageRequest
from flicker.settings import Credentials, Endpoint, Secret
from tests.processes import CURSOR, Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style
from tests.servers.oauth import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.servers.scripted import ScriptedApi
from tests.test_recovery import Gate, kill_after

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.process

SECRET = "s3cret-b0dy-t0ken"
OTHERS = ("s3cret-first", "s3cret-second")
INTERVAL_S = 0.5
TOLERANCE_S = 0.2
"""By how much two requests may arrive closer than they were sent: threads, connections."""


def once(siem: Destination, count: int) -> bool:
    return siem.wait_for(count, 60) and siem.ids == dict.fromkeys(ids_of(make_events(count)), 1)


def registry_bytes(home: Home) -> bytes:
    files = [path for path in home.recovery_dir.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in [*files, home.registry_path])


# POST


@pytest.mark.parametrize("paging", ["cursor", "offset"])
def test_a_post_is_paged_through_kills(home: Home, paging: Any) -> None:
    """T60: the place stands in the body, and goes on from the snapshot like any other."""
    style = Style(
        paging=paging,
        method="POST",
        limit_param="page.size",
        offset_param="page.skip",
        cursor_param="page.after",
        time_param="filter.since",
    )
    pagination = {**CURSOR, "cursor_param": "page.after", "limit_param": "page.size"}
    if paging == "offset":
        pagination = {
            "pagination_type": "offset",
            "offset_param": "page.skip",
            "limit_param": "page.size",
            "page_size": 20,
        }
    with ListingApi(make_events(300), style) as api, Destination() as siem:
        gate = Gate(siem)
        home.configure(
            make_source(
                "s",
                api.endpoint,
                siem.url,
                method="POST",
                body={"page": {"order": "asc"}},
                time_filter_param="filter.since",
                start_time="2025-01-01T00:00:00Z",
                pagination=pagination,
                destination={"concurrency": 1},
            )
        )
        process = kill_after(home, gate, (1, 6, 0, 9), 60)
        assert once(siem, 300), process.stderr
        assert process.stop() == 0
        bodies = [json.loads(request.body) for request in api.requests]
        assert all(body["page"]["order"] == "asc" for body in bodies)
        assert all(request.target == style.path for request in api.requests)


@pytest.fixture
def client_of() -> Callable[[str], Client]:
    def make(url: str) -> Client:
        endpoint = Endpoint(url, credentials=Credentials(bearer=Secret(SECRET)))
        return Client(endpoint)

    return make


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_method_keeps_the_body(
    client_of: Callable[[str], Client], status: int
) -> None:
    """T34, RFC 9110, sections 15.4.8 and 15.4.9."""
    script = [Response(status, [("Location", "/v2/logs")]), Response(body={"events": []})]
    with ScriptedApi(script) as api:
        reply = client_of(api.url).ask(PageRequest(f"{api.url}/v1/logs", "POST", b'{"a": 1}'))
        assert reply.status == 200
        asked = [(request.method, request.target, request.body) for request in api.requests]
        assert asked == [("POST", "/v1/logs", b'{"a": 1}'), ("POST", "/v2/logs", b'{"a": 1}')]
        assert api.requests[1].headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_may_drop_the_body_is_not_followed(
    client_of: Callable[[str], Client], status: int
) -> None:
    """T34: as GET it would ask for something else."""
    with ScriptedApi([Response(status, [("Location", "/v2/logs")])]) as api:
        reply = client_of(api.url).ask(PageRequest(f"{api.url}/v1/logs", "POST", b"{}"))
        with pytest.raises(HumanNeededError, match=f"answers {status}. Set the endpoint to"):
            raise_for_poll(reply)
        assert len(api.requests) == 1


def test_no_body_leaves_the_origin(client_of: Callable[[str], Client]) -> None:
    """T34: a body may hold credentials as well as a header."""
    with ScriptedApi([Response()]) as other:
        script = [Response(307, [("Location", f"{other.url}/logs")])]
        refused = pytest.raises(ForeignLinkError, match="credentials go nowhere else")
        with ScriptedApi(script) as api, refused:
            client_of(api.url).ask(PageRequest(f"{api.url}/logs", "POST", b'{"k": "s3cret"}'))
        assert other.requests == []


def test_what_is_asked_with_is_kept_nowhere(home: Home) -> None:
    """T67: the API echoes body and parameters in its links; the registry has marks instead."""
    events = make_events(30)
    echo = f"/logs?token={SECRET}&key={OTHERS[0]}&key={OTHERS[1]}&at="
    is_open = threading.Event()

    def respond(request: Request) -> Response:
        at = int(request.params.get("at", 0))
        if at == 20 and not is_open.is_set():
            return Response(503)
        following = f"{echo}{at + 10}" if at < 20 else None
        return Response(body={"events": events[at : at + 10], "next": following})

    with ScriptedApi(respond) as api, Destination() as siem:
        home.configure(
            make_source(
                "s",
                f"{api.url}/logs",
                siem.url,
                method="POST",
                body={"auth": {"tokens": [SECRET]}},
                params={"key": list(OTHERS)},
                time_filter_param=None,
                polling_frequency_ms=3_600_000,
                pagination={"pagination_type": "next_url", "next_url_field": "next"},
            )
        )
        process = home.start("--log-level", "debug")
        assert wait_until(lambda: "***" in str(home.view().get("s", {}).get("cursor")))
        assert siem.wait_for(20, 60), process.stderr
        process.kill()
        kept = registry_bytes(home)
        said = process.stderr
        is_open.set()
        process = home.start("--log-level", "debug")
        assert siem.wait_for(30, 60), process.stderr
        assert process.stop() == 0
        kept += registry_bytes(home)
        said += process.stderr
        for secret in (SECRET, *OTHERS):
            assert secret.encode() not in kept
            assert secret not in said
        assert api.requests[-1].target == f"{echo}20"
        assert all(json.loads(request.body)["auth"] for request in api.requests)


# Many at once


class Rooms:
    """An API with a list of events for each path."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.broken: set[str] = set()

    def respond(self, request: Request) -> Response:
        room = request.path.strip("/")
        if room in self.broken:
            return Response(500)
        since = request.params.get("since", "")
        events = [event for event in self.events[room] if event["timestamp"] >= since[:19]]
        return Response(body={"events": events})


def test_each_item_has_a_position_of_its_own(home: Home) -> None:
    rooms = Rooms()
    rooms.events = {"a": make_events(5), "b": make_events(5, 100), "c": make_events(5, 200)}
    rooms.broken = {"b"}
    with ScriptedApi(rooms.respond) as api, Destination() as siem:

        def configure(*items: str) -> None:
            source = make_source("logs", f"{api.url}/{{item}}", siem.url, pagination=None)
            home.configure({**source, "foreach": list(items)})

        configure("a", "b", "c")
        process = home.start()
        assert siem.wait_for(10, 60), process.stderr
        assert wait_until(lambda: (home.view().get("logs/c") or {}).get("last_timestamp"))
        assert process.stop() == 0
        shown = home.run("registry", "show", "--registry-file", str(home.registry_path))
        assert all(f"logs/{item}" in shown.stdout for item in "abc")
        assert home.view()["logs/b"]["last_timestamp"] is None
        before = len(api.requests)

        rooms.broken = set()
        rooms.events["d"] = make_events(5, 300)
        configure("d", "c", "b", "a")
        process = home.start()
        assert siem.wait_for(20, 60), process.stderr
        assert process.stop() == 0
        assert set(siem.ids.values()) == {1}
        first: dict[str, Request] = {}
        for request in api.requests[before:]:
            first.setdefault(request.path, request)
        assert {path for path, asked in first.items() if "since" in asked.params} == {"/a", "/c"}


# No more often than the API bears


def gaps_of(requests: list[Request]) -> list[float]:
    times = sorted(request.received_s for request in requests)
    return [after - before for before, after in pairwise(times)]


def test_a_group_keeps_to_the_lowest_limit_together(home: Home) -> None:
    with ScriptedApi([Response(body={"events": []})]) as api, Destination() as siem:
        sources = [
            make_source(
                name,
                f"{api.url}/{name}",
                siem.url,
                polling_frequency_ms=10,
                pagination=None,
                rate_limit_group="g",
                requests_per_second=rate,
            )
            for name, rate in (("one", 1 / INTERVAL_S), ("two", 50))
        ]
        home.configure(*sources)
        process = home.start()
        assert api.wait_for_requests(10, 60), process.stderr
        assert process.stop() == 0
        assert min(gaps_of(api.requests)) > INTERVAL_S - TOLERANCE_S
        counts = Counter(request.path for request in api.requests)
        assert min(counts["/one"], counts["/two"]) >= 4


def test_a_refusal_pauses_the_group_and_nobody_else(home: Home) -> None:
    refused_at: list[float] = []

    def respond(request: Request) -> Response:
        if request.path == "/one" and not refused_at:
            refused_at.append(time.monotonic())
            return Response(429, [("Retry-After", "3")])
        return Response(body={"events": []})

    with ScriptedApi(respond) as api, Destination() as siem:
        sources = [
            make_source(
                name,
                f"{api.url}/{name}",
                siem.url,
                polling_frequency_ms=50,
                pagination=None,
                **({} if name == "apart" else {"rate_limit_group": "g", "requests_per_second": 2}),
            )
            for name in ("one", "two", "apart")
        ]
        home.configure(*sources)
        process = home.start()

        def after(path: str) -> list[float]:
            found = [request for request in api.requests if request.path == path]
            # What was on its way when the refusal was written is excused.
            return [
                request.received_s - refused_at[0]
                for request in found
                if refused_at and request.received_s > refused_at[0] + INTERVAL_S
            ]

        assert wait_until(lambda: len(after("/one")) > 1 and len(after("/two")) > 1)
        assert process.stop() == 0
        assert min(after("/one") + after("/two")) > 3 - TOLERANCE_S
        assert min(after("/apart")) < 2
        group = [request for request in api.requests if request.path != "/apart"]
        resumed = [r for r in group if r.received_s > refused_at[0] + INTERVAL_S]
        assert min(gaps_of(resumed)) > INTERVAL_S - TOLERANCE_S


QUOTA_S = 2.0
RESET_AT = datetime(2022, 5, 12, 19, 13, tzinfo=timezone.utc)
RESET_S = int(RESET_AT.timestamp())
RESETS = {
    "okta": ("X-Rate-Limit-Reset", str(RESET_S)),
    "github": ("x-ratelimit-reset", str(RESET_S)),
    "terraform": ("X-RateLimit-Reset", "2.0"),
    "snyk": ("X-Ratelimit-Reset", "2"),
    "structured": ("RateLimit-Reset", "2, 2;w=1"),
    "atlassian": ("X-Ratelimit-Reset", "2022-05-12T19:13Z"),
    "milliseconds": ("X-RateLimit-Reset", str(RESET_S * 1000)),
    "retry-after": ("Retry-After", "2"),
}


class Quotas:
    """Has a quota of one request in two seconds for each path, and says so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}
        self.refusals: Counter[str] = Counter()

    def respond(self, request: Request) -> Response:
        """Answer; the server's clock stands two seconds before the reset, each time."""
        name = request.path.strip("/")
        now = time.monotonic()
        with self._lock:
            if now < self._free_at.get(name, 0.0) - TOLERANCE_S:
                self.refusals[name] += 1
                return Response(429)
            self._free_at[name] = now + QUOTA_S
        date = format_datetime(RESET_AT - timedelta(seconds=QUOTA_S), usegmt=True)
        remaining = "0, 0;w=2" if name == "structured" else "0"
        header = "X-Rate-Limit-Remaining" if name == "okta" else "X-RateLimit-Remaining"
        headers = [("Date", date), (header, remaining), RESETS[name]]
        return Response(200, headers, {"events": []})


def test_a_used_up_quota_is_waited_for_in_every_dialect(home: Home) -> None:
    """T30: what a good answer says spares both sides the refusal."""
    quotas = Quotas()
    with ScriptedApi(quotas.respond) as api, Destination() as siem:
        home.configure(
            *(
                make_source(
                    name, f"{api.url}/{name}", siem.url, polling_frequency_ms=10, pagination=None
                )
                for name in RESETS
            )
        )
        process = home.start()
        counts: Counter[str] = Counter()

        def have_all_asked() -> bool:
            nonlocal counts
            counts = Counter(request.path.strip("/") for request in api.requests)
            return all(counts[name] >= 3 for name in RESETS)

        assert wait_until(have_all_asked), (counts, process.stderr)
        assert process.stop() == 0
        assert quotas.refusals == {}


def test_without_a_reset_there_is_nothing_to_wait_for(home: Home) -> None:
    page = Response(200, [("X-RateLimit-Remaining", "0")], {"events": []})
    with ScriptedApi([page]) as api, Destination() as siem:
        home.configure(
            make_source("s", api.url, siem.url, polling_frequency_ms=10, pagination=None)
        )
        process = home.start()
        assert api.wait_for_requests(10, 60), process.stderr
        requests = api.requests
        assert process.stop() == 0
        assert requests[9].received_s - requests[0].received_s < 9


def test_a_single_run_does_not_wait_for_an_hour(home: Home) -> None:
    """A reset far away is for the next run; a neighbour's refusal is no reason to wait either."""
    style = Style(paging="offset", time_param="since")
    hour = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "3500")]

    is_refused = threading.Event()

    def respond(request: Request) -> Response:
        if request.path == "/refused":
            is_refused.set()
            return Response(429, [("Retry-After", "3500")])
        at = int(request.params["offset"])
        # The pages behind the first are asked for when the refusal was read.
        is_refused.wait(30)
        return Response(200, hour, {"events": make_events(100)[at : at + 50]}, delay_s=0.5)

    with ScriptedApi(respond) as api, Destination() as siem:
        home.configure(
            *(
                make_source(name, f"{api.url}/{name}", siem.url, rate_limit_group="g")
                for name in ("refused", style.path.strip("/"))
            )
        )
        started_at = time.monotonic()
        finished = home.run_once()
        assert finished.code == 1, finished.stderr
        assert "giving up on the source" in finished.stderr
        assert time.monotonic() - started_at < 60
        assert once(siem, 100)


# A listing, and what its entries point at


class Blobs:
    """A listing of blobs, ten events in each, as Office 365 and Salesforce have them."""

    def __init__(self, count: int, size: int = 10) -> None:
        self.events = make_events(count * size)
        self.size = size
        self.shown = count
        self.gone: set[int] = set()
        self.origin = ""
        self.query = ""
        self.fetched: Counter[int] = Counter()
        self._lock = threading.Lock()

    def respond(self, request: Request) -> Response:
        _, kind, number = f"{request.path}/".split("/")[:3]
        if kind == "list":
            return Response(body={"events": [self.entry(at) for at in range(self.shown)]})
        at = int(number)
        with self._lock:
            self.fetched[at] += 1
        if at in self.gone:
            return Response(404)
        return Response(body=self.events[at * self.size : (at + 1) * self.size])

    def entry(self, at: int) -> dict[str, object]:
        return {
            "id": f"blob-{at}",
            "timestamp": self.events[at * self.size]["timestamp"],
            "uri": f"{self.origin}/blob/{at}{self.query}",
        }


def blob_source(api: ScriptedApi, siem: Destination, **changes: Any) -> dict[str, Any]:
    return make_source(
        "s",
        f"{api.url}/list",
        siem.url,
        **{
            "headers": {"Authorization": f"Bearer {SECRET}"},
            "pagination": None,
            "message_field": None,
            "fetch_each": {
                "url_field": "uri",
                "timestamp_field": "timestamp",
                "message_field": "message",
                "id_field": "id",
            },
            **changes,
        },
    )


def test_entries_are_fetched_through_kills(home: Home) -> None:
    """T60: whatever the next snapshot lacks is fetched again, and known again."""
    blobs = Blobs(40)
    with ScriptedApi(blobs.respond) as api, Destination() as siem:
        gate = Gate(siem)
        home.configure(blob_source(api, siem, destination={"concurrency": 1}))
        process = kill_after(home, gate, (1, 4, 0, 9), 60)
        assert once(siem, 400), process.stderr
        assert process.stop() == 0
        assert all(blobs.fetched[at] >= 1 for at in range(40))


def test_a_snapshot_remembers_which_entries_are_left(home: Home) -> None:
    """T60: and the view does not tell that what was read up to them is delivered."""
    blobs = Blobs(30)
    shut = Shut(blobs, 12)
    with ScriptedApi(shut.respond) as api, Destination() as siem:
        home.configure(blob_source(api, siem))
        process = home.start()
        assert siem.wait_for(120, 60), process.stderr
        assert wait_until(lambda: home.view().get("s", {}).get("undelivered_batches") == 0)
        polls = len(api.requests)
        assert api.wait_for_requests(polls + 10, 60)
        assert wait_until(lambda: home.view()["s"]["last_timestamp"])
        view = home.view()["s"]
        assert view["scanning"] is True
        assert view["pending_entries"] == 18
        assert view["delivered_up_to"].get("last_timestamp") is None
        process.kill()
        assert sum(blobs.fetched.values()) == 12
        shut.is_open = True
        blobs.shown = 0
        process = home.start()
        assert once(siem, 300), process.stderr
        assert process.stop() == 0
        assert set(blobs.fetched.values()) == {1}


def test_an_entry_that_is_gone_holds_nothing_up(home: Home) -> None:
    blobs = Blobs(6)
    blobs.gone = {2}
    with ScriptedApi(blobs.respond) as api, Destination() as siem:
        home.configure(blob_source(api, siem))
        process = home.start()
        assert siem.wait_for(50, 60), process.stderr
        blobs.shown, blobs.events = 7, [*blobs.events, *make_events(10, 60)]
        assert siem.wait_for(60, 60), process.stderr
        assert wait_until(lambda: "they are left out" in process.stderr), process.stderr
        polls = len(api.requests)
        assert api.wait_for_requests(polls + 3, 60)
        assert process.stop() == 0
        # Three tries at the least, and what is listed again is known.
        assert blobs.fetched.pop(2) >= 3
        assert blobs.fetched == {0: 1, 1: 1, 3: 1, 4: 1, 5: 1, 6: 1}
        assert siem.duplicates == {}
        said = [line for line in process.stderr.splitlines() if " error " in line]
        assert any("they are left out" in line for line in said), process.stderr


def test_an_entry_elsewhere_gets_no_credentials(home: Home) -> None:
    """T24, T34: who writes the listing does not choose where the token goes."""
    blobs = Blobs(2)
    with ScriptedApi([Response(body=[])]) as other, Destination() as siem:
        blobs.origin = other.url
        with ScriptedApi(blobs.respond) as api:
            home.configure(blob_source(api, siem))
            process = home.start()
            assert wait_until(lambda: "credentials go nowhere else" in process.stderr)
            assert wait_until(lambda: home.view().get("s", {}).get("scanning"))
            assert process.stop() == 0
        assert other.requests == []
        assert SECRET not in process.stderr


def test_thousands_of_entries_cost_as_many_requests(home: Home) -> None:
    blobs = Blobs(2_000, size=1)
    with ScriptedApi(blobs.respond) as api, Destination() as siem:
        home.configure(blob_source(api, siem, buffer_size=100, polling_frequency_ms=3_600_000))
        process = home.start()
        sizes: list[int] = []

        def is_done() -> bool:
            files = home.recovery_dir.rglob("*")
            sizes.append(sum(path.stat().st_size for path in files if path.is_file()))
            return siem.distinct_count == 2_000

        assert wait_until(is_done, 100), (siem.distinct_count, process.stderr)
        assert process.stop() == 0
        assert set(blobs.fetched.values()) == {1}
        assert once(siem, 2_000)
        # One snapshot holds all that is pending, some 200 KB; the log has a few of them.
        assert max(sizes) < 16 * 1024 * 1024, max(sizes)


class Shut:
    """Refuses the blobs from one on until it is opened."""

    def __init__(self, blobs: Blobs, first: int) -> None:
        self._blobs = blobs
        self._first = first
        self.is_open = False

    def respond(self, request: Request) -> Response:
        kind, _, number = request.path.strip("/").partition("/")
        if kind == "blob" and int(number) >= self._first and not self.is_open:
            return Response(503)
        return self._blobs.respond(request)


def oauth2_of(tokens: TokenServer) -> dict[str, Any]:
    return {
        "token_url": tokens.token_url,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }


def leave_pending(home: Home, siem: Destination, delivered: int) -> None:
    """Have a source deliver so much, and end with the rest listed and not fetched."""
    process = home.start()
    assert siem.wait_for(delivered, 60), process.stderr
    assert wait_until(lambda: home.view().get("s", {}).get("scanning"))
    assert process.stop() == 0


@pytest.mark.parametrize("to", ["2025-01-01T12:00:00.030Z", "2025-02-01T00:00:00Z"])
def test_a_rewound_source_still_fetches_what_was_listed(home: Home, to: str) -> None:
    """Also where the API is asked for nothing that old any more."""
    blobs = Blobs(6)
    shut = Shut(blobs, 2)
    with ScriptedApi(shut.respond) as api, Destination() as siem:
        home.configure(blob_source(api, siem))
        leave_pending(home, siem, 20)
        registry = ("--registry-file", str(home.registry_path))
        assert home.run("registry", "rewind", "s", "--to", to, *registry).code == 0
        shut.is_open = True
        blobs.shown = 0
        process = home.start()
        expected = 60 if to.startswith("2025-02") else 30
        assert siem.wait_for(expected, 60), process.stderr
        assert process.stop() == 0


def test_a_changed_configuration_still_fetches_what_was_listed(home: Home) -> None:
    """T65: the listing does not show an entry again that it showed before."""
    blobs = Blobs(6)
    shut = Shut(blobs, 2)
    with ScriptedApi(shut.respond) as api, Destination() as siem:
        home.configure(blob_source(api, siem))
        leave_pending(home, siem, 20)
        shut.is_open = True
        blobs.shown = 0
        home.configure(blob_source(api, siem, params={"kind": "all"}))
        process = home.start()
        assert once(siem, 60), process.stderr
        assert process.stop() == 0


def test_entries_of_another_api_are_left_out_loudly(home: Home) -> None:
    """T65: they would hold up the new one for ever."""
    blobs = Blobs(6)
    shut = Shut(blobs, 2)
    other = Blobs(1)
    with ScriptedApi(shut.respond) as api, Destination() as siem:
        blobs.origin = api.url
        home.configure(blob_source(api, siem))
        leave_pending(home, siem, 20)
        other.events = make_events(10, 900)
        with ScriptedApi(other.respond) as elsewhere:
            home.configure(blob_source(elsewhere, siem, id_field=None))
            process = home.start()
            assert siem.wait_for(30, 60), process.stderr
            assert process.stop() == 0
        assert "entries were listed and not fetched before the configuration" in process.stderr
        assert "entries=4" in process.stderr


@pytest.mark.parametrize("more", [{"resource": "ORIGIN"}, {"tenant": "events"}])
def test_what_a_token_is_asked_for_with_may_stand_in_entries(
    home: Home, more: dict[str, str]
) -> None:
    """T60, T67: as an origin or a tenant's name does in Office 365."""
    blobs = Blobs(6)
    shut = Shut(blobs, 2)
    with TokenServer() as tokens, Destination() as siem:

        def respond(request: Request) -> Response:
            return tokens.refusal(request) or shut.respond(request)

        with ScriptedApi(respond) as api:
            blobs.origin, blobs.query = api.url, "?kind=events"
            extra = {name: text.replace("ORIGIN", api.url) for name, text in more.items()}
            oauth2 = {**oauth2_of(tokens), "extra": extra}
            home.configure(blob_source(api, siem, headers=None, oauth2=oauth2))
            leave_pending(home, siem, 20)
            shut.is_open = True
            # Nothing is listed a second time.
            blobs.shown = 0
            process = home.start()
            assert once(siem, 60), process.stderr
            assert process.stop() == 0


@pytest.mark.parametrize("is_listed", [True, False])
def test_entries_with_a_token_in_their_link_are_listed_again(
    home: Home, *, is_listed: bool
) -> None:
    """T60, T67: from the oldest of them on, whether or not the listing was read to its end."""
    blobs = Blobs(6)
    shut = Shut(blobs, 2)
    with TokenServer() as tokens, Destination() as siem:

        def respond(request: Request) -> Response:
            refusal = tokens.refusal(request)
            if refusal is not None or request.path != "/list":
                return refusal or shut.respond(request)
            blobs.query = f"?access_token={tokens.tokens[-1]}"
            entries = [blobs.entry(at) for at in range(6)]
            since = request.params.get("since", "").removesuffix("Z")
            entries = [entry for entry in entries if str(entry["timestamp"]) >= since]
            at = int(request.params.get("page", 0))
            pages = [entries] if is_listed else [entries[:5], entries[5:]]
            following = None if pages[at + 1 :] == [] else f"/list?since={since}&page={at + 1}"
            return Response(body={"events": pages[at], "next": following})

        with ScriptedApi(respond) as api:
            pagination = {"pagination_type": "next_url", "next_url_field": "next"}
            keys = {"headers": None, "oauth2": oauth2_of(tokens), "pagination": pagination}
            home.configure(blob_source(api, siem, **keys))
            leave_pending(home, siem, 20)
            shut.is_open = True
            process = home.start()
            assert once(siem, 60), process.stderr
            assert process.stop() == 0
            assert "a link with a token in it, which is not kept" in process.stderr
            # The listing may have been read on beside the entries that were put off.
            counts = (4,) if is_listed else (3, 4)
            assert any(f"entries={count}" in process.stderr for count in counts)
            assert "the configuration changed" not in process.stderr
            assert blobs.fetched[0] == blobs.fetched[1] == 1
            assert not any(token.encode() in registry_bytes(home) for token in tokens.tokens)
