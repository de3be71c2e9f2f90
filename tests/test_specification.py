"""Every example of the specification, as written there, over real HTTP.

`--once` twice, so that the intervals of the examples need no change: each event
arrives once, and after more were added only they arrive.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flicker.demo.events import make_event
from flicker.demo.servers import Destination, EmbeddedServer, OktaApi, Response
from tests.processes import ROOT, Home, make_events
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process

ENV = {
    "OKTA_TOKEN": "your-okta-token",
    "GITHUB_TOKEN": "ghp_your_token",
    "VENDOR_API_KEY": "your-api-key-here",
    "SIEM_TOKEN": "your-siem-token",
}

OVERVIEW = """
api_sources:
  - name: "okta-audit-logs"
    endpoint: "https://your-domain.okta.com/api/v1/logs"
    polling_frequency_ms: 30000 # Poll every 30 seconds
    # Authentication
    headers:
      Authorization: "SSWS your-api-token"
    # Response parsing
    results_field: "data"
    timestamp_field: "published"
    message_field: "displayMessage"
    # Time filtering
    time_filter_param: "since"
    time_filter_format: "rfc3339"
    # Pagination (offset-based)
    pagination:
      pagination_type: "offset"
      limit_param: "limit"
      offset_param: "offset"
      page_size: 100
    # Buffering
    buffer_size: 50
    flush_interval_ms: 10000
    # Destination
    destination:
      type: "http"
      endpoint: "https://your-siem.com/ingest"
"""

OKTA = """
api_sources:
  - name: "okta-audit-logs"
    endpoint: "https://your-domain.okta.com/api/v1/logs"
    polling_frequency_ms: 60000
    headers:
      Authorization: "SSWS your-okta-token"
    results_field: "" # Array at root level
    timestamp_field: "published"
    message_field: "displayMessage"
    time_filter_param: "since"
    time_filter_format: "iso8601"
    pagination:
      pagination_type: "cursor"
      cursor_param: "after"
      next_cursor_field: "next"
      page_size: 100
    destination:
      type: "http"
      endpoint: "https://your-siem.com/ingest"
"""

GITHUB = """
api_sources:
  - name: "github-audit-log"
    endpoint: "https://api.github.com/orgs/your-org/audit-log"
    polling_frequency_ms: 300000 # 5 minutes
    headers:
      Authorization: "Bearer ghp_your_token"
      Accept: "application/vnd.github+json"
    results_field: ""
    timestamp_field: "created_at"
    time_filter_param: "after"
    time_filter_format: "unix"
    pagination:
      pagination_type: "page"
      page_param: "page"
      limit_param: "per_page"
      page_size: 100
    destination:
      type: "http"
      endpoint: "https://your-siem.com/ingest"
"""

VENDOR = """
api_sources:
  - name: "vendor-audit-api"
    endpoint: "https://api.vendor.com/v1/audit/events"
    polling_frequency_ms: 30000
    api_key: "your-api-key-here"
    results_field: "data.events"
    timestamp_field: "event_time"
    message_field: "description"
    time_filter_param: "from_time"
    time_filter_format: "rfc3339"
    pagination:
      pagination_type: "offset"
      limit_param: "limit"
      offset_param: "skip"
      page_size: 50
    buffer_size: 25
    flush_interval_ms: 15000
    destination:
      type: "http"
      endpoint: "https://your-siem.com/ingest"
      auth:
        type: "bearer"
        token: "your-siem-token"
"""


class Vendor:
    """What an example polls: an API that holds events, and takes more."""

    def __init__(
        self, server: EmbeddedServer, path: str, add: Callable[[int, int], set[str]]
    ) -> None:
        self.server = server
        self.endpoint = server.url + path
        self.add = add


def _listing(style: Style, make: Callable[[dict[str, Any]], dict[str, Any]]) -> Vendor:
    api = ListingApi([], style)

    def add(count: int, start: int) -> set[str]:
        events = [make(event) for event in make_events(count, start)]
        api.add(events)
        return {json.dumps(event) for event in events}

    return Vendor(api, style.path, add)


def overview_api() -> Vendor:
    style = Style(
        paging="offset",
        path="/api/v1/logs",
        results_field="data",
        timestamp_field="published",
        time_param="since",
        required_headers={"authorization": "SSWS your-api-token"},
    )
    return _listing(
        style, lambda e: {"published": e["timestamp"], "displayMessage": e["message"], "u": e["id"]}
    )


def okta_api() -> Vendor:
    api = OktaApi(token="your-okta-token")
    rng = random.Random(1)  # noqa: S311 - the same events in every run

    def add(count: int, start: int) -> set[str]:
        events = [make_event(start + n, time.time_ns(), rng) for n in range(count)]
        api.add(events)
        return {json.dumps(event) for event in events}

    return Vendor(api, "/api/v1/logs", add)


def github_api(*, ignores_paging: bool) -> Vendor:
    style = Style(
        paging="page",
        path="/orgs/your-org/audit-log",
        results_field="",
        timestamp_field="created_at",
        limit_param="per_page",
        time_param="after",
        time_format="unix",
        ignores_paging=ignores_paging,
        required_headers={
            "authorization": "Bearer ghp_your_token",
            "accept": "application/vnd.github+json",
        },
    )
    first_ms = 1_735_732_800_000
    return _listing(
        style,
        lambda e: {"created_at": first_ms + int(e["id"][1:]), "_document_id": e["id"]},
    )


def vendor_api() -> Vendor:
    style = Style(
        paging="offset",
        path="/v1/audit/events",
        results_field="data.events",
        timestamp_field="event_time",
        offset_param="skip",
        time_param="from_time",
        required_headers={"x-api-key": "your-api-key-here"},
    )
    return _listing(
        style, lambda e: {"event_time": e["timestamp"], "description": e["message"], "n": e["id"]}
    )


def _delivered(siem: Destination) -> list[str]:
    return sorted(json.dumps(event) for event in siem.events)


@pytest.mark.parametrize(
    ("example", "config", "make_api", "token", "count"),
    [
        (OVERVIEW, "overview", overview_api, None, 250),
        (OKTA, "okta", okta_api, None, 250),
        (GITHUB, "github", lambda: github_api(ignores_paging=False), None, 250),
        (GITHUB, "github", lambda: github_api(ignores_paging=True), None, 80),
        (VENDOR, "custom-vendor", vendor_api, "your-siem-token", 130),
    ],
    ids=["overview", "okta", "github", "github ignoring page", "vendor"],
)
def test_a_complete_example_ships_every_event_exactly_once(
    home: Home,
    example: str,
    config: str,
    make_api: Callable[[], Vendor],
    token: str | None,
    count: int,
) -> None:
    """T01, T26: then more are added, and only they arrive."""
    ready = (ROOT / "configs" / f"{config}.yaml").read_text(encoding="utf-8")
    api = make_api()
    with api.server, Destination(token=token) as siem:
        (source,) = yaml.safe_load(example)["api_sources"]
        moved = example.replace(source["endpoint"], api.endpoint)
        home.config_path.write_text(
            moved.replace(source["destination"]["endpoint"], siem.url + "/ingest")
        )
        expected = api.add(count, 0)
        assert len(expected) == count
        for added in (0, 15, 0):
            expected |= api.add(added, count)
            finished = home.run_once()
            assert finished.code == 0, finished.stderr
            assert _delivered(siem) == sorted(expected)
        assert len(api.server.requests) < 25
        batch = source.get("buffer_size", 100)
        assert max(len(post.records) for post in siem.posts) == min(batch, count)
        assert {record.source for record in siem.delivered} == {source["name"]}
        for name, value in ENV.items():
            ready = ready.replace(f"${{{name}}}", value)
        told = yaml.safe_load(ready)["api_sources"]
        told[0].get("headers", {}).pop("Authorization", None)
        source.get("headers", {}).pop("Authorization", None)
        assert told == [source], "the ready configuration is the specification's example"


@contextmanager
def shipped(home: Home, api: EmbeddedServer, snippet: str, **top: Any) -> Iterator[Destination]:
    """Run a part of a source once, its destination and endpoint filled in."""
    source = {"name": "my-api", "endpoint": f"{api.url}/api/events", **yaml.safe_load(snippet)}
    destination = {"type": "http", **source.get("destination", {})}
    with Destination() as siem:
        source["destination"] = {**destination, "endpoint": siem.url}
        home.configure(source, **top)
        finished = home.run_once()
        assert finished.code == 0, finished.stderr
        yield siem


PAGINATION = {
    "offset": (
        """
results_field: events
pagination:
  pagination_type: "offset"
  limit_param: "limit"
  offset_param: "offset"
  page_size: 100
""",
        [
            "/api/events?limit=100&offset=0",
            "/api/events?limit=100&offset=100",
            "/api/events?limit=100&offset=200",
        ],
    ),
    "page": (
        """
results_field: events
pagination:
  pagination_type: "page"
  limit_param: "per_page"
  page_param: "page"
  page_size: 100
""",
        [
            "/api/events?per_page=100&page=1",
            "/api/events?per_page=100&page=2",
            "/api/events?per_page=100&page=3",
        ],
    ),
}


@pytest.mark.parametrize("paging", ["offset", "page"])
def test_pages_are_asked_for_as_the_example_calls_show(home: Home, paging: Any) -> None:
    snippet, targets = PAGINATION[paging]
    limit = "per_page" if paging == "page" else "limit"
    with ListingApi(make_events(250), Style(paging=paging, limit_param=limit)) as api:
        with shipped(home, api, snippet) as siem:
            assert siem.delivered_count == siem.distinct_count == 250
        assert [request.target for request in api.requests][:3] == targets


def test_cursors_are_asked_for_as_the_example_calls_show(home: Home) -> None:
    """T19: the cursor reaches the API as it was given."""
    cursors = ["eyJpZCI6MTIzfQ==", "eyJpZCI6MjIzfQ==", None]
    pages = [
        Response(body={"events": make_events(1, number), "pagination": {"next_cursor": cursor}})
        for number, cursor in enumerate(cursors)
    ]
    snippet = """
results_field: events
pagination:
  pagination_type: "cursor"
  limit_param: "limit"
  cursor_param: "cursor"
  next_cursor_field: "pagination.next_cursor"
  page_size: 100
"""
    with ScriptedApi(pages) as api:
        with shipped(home, api, snippet) as siem:
            assert siem.delivered_count == 3
        assert [request.query for request in api.requests] == [
            [("limit", "100")],
            [("limit", "100"), ("cursor", cursors[0])],
            [("limit", "100"), ("cursor", cursors[1])],
        ]
        assert api.requests[0].target == "/api/events?limit=100"


@pytest.mark.parametrize(
    ("snippet", "headers"),
    [
        (
            'headers: {Authorization: "Bearer your-token-here"}',
            {"authorization": "Bearer your-token-here"},
        ),
        (
            'basic: {username: "your-username", password: "your-password"}',
            {"authorization": "Basic " + base64.b64encode(b"your-username:your-password").decode()},
        ),
        ('api_key: "your-api-key"', {"x-api-key": "your-api-key"}),
        (
            'headers: {X-Custom-Auth: "custom-value", X-Tenant-ID: "tenant-123"}',
            {"x-custom-auth": "custom-value", "x-tenant-id": "tenant-123"},
        ),
    ],
    ids=["bearer", "basic", "api key", "custom"],
)
def test_credentials_are_sent_as_the_examples_say(
    home: Home, snippet: str, headers: dict[str, str]
) -> None:
    with ScriptedApi([Response(body=[])]) as api:
        with shipped(home, api, snippet):
            pass
        (request,) = api.requests
        assert {name: request.headers.get(name) for name in headers} == headers
        names = {"authorization", "x-api-key", "x-custom-auth", "x-tenant-id"}
        assert names & request.headers.keys() == headers.keys()


NESTED = {"time": "2025-01-01T12:00:00Z", "details": {"message": "Action performed"}}


@pytest.mark.parametrize(
    ("body", "snippet", "message"),
    [
        (
            {"events": [{"timestamp": "2025-01-01T12:00:00Z", "message": "User logged in"}]},
            'results_field: "events"\ntimestamp_field: "timestamp"\nmessage_field: "message"',
            "User logged in",
        ),
        (
            {"data": {"logs": [{"event": NESTED}]}},
            """
results_field: "data.logs"
timestamp_field: "event.time"
message_field: "event.details.message"
""",
            "Action performed",
        ),
    ],
    ids=["basic", "nested"],
)
def test_fields_are_found_as_the_examples_say(
    home: Home, body: object, snippet: str, message: str
) -> None:
    with ScriptedApi([Response(body=body)]) as api, shipped(home, api, snippet) as siem:
        (record,) = siem.delivered
        assert (record.timestamp, record.message) == ("2025-01-01T12:00:00Z", message)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("rfc3339", "2025-01-01T12:00:00Z"),
        ("iso8601", "2025-01-01T12:00:00.000Z"),
        ("unix", "1735732800"),
    ],
)
def test_the_time_filter_is_the_last_timestamp(home: Home, form: str, text: str) -> None:
    """T56: `?since=2025-01-01T12:00:00Z`, letter for letter."""
    event = {"timestamp": "2025-01-01T13:00:00+01:00", "id": 1}
    snippet = f"""
results_field: events
timestamp_field: timestamp
time_filter_param: since
time_filter_format: {form}
"""
    with ScriptedApi([Response(body={"events": [event]})]) as api:
        with shipped(home, api, snippet):
            pass
        with shipped(home, api, snippet) as siem:
            assert siem.delivered_count == 0
        assert [request.target for request in api.requests] == [
            "/api/events",
            f"/api/events?since={text}",
        ]


def test_only_matching_events_are_shipped(home: Home) -> None:
    """T64: the position passes those that are not."""
    types = [
        "user.session.start",
        "user.session.end",
        "user.authentication.failed",
        "system.internal user.session.start",
        "userXsessionXstart",
    ]
    snippet = r"""
results_field: ""
match_on:
  - "user\\.session\\.start"
  - "user\\.authentication\\.failed"
exclude_on:
  - "system\\.internal"
"""
    page = Response(body=[{"eventType": kind} for kind in types])
    with ScriptedApi([page]) as api, shipped(home, api, snippet) as siem:
        assert [event["eventType"] for event in siem.events] == [types[0], types[2]]


RAW = (
    b'{"id":30401068764886351, "at":"2025-01-01T12:00:00.25Z",\n "text":"caf\\u00e9 \xe2\x82\xac"}',
    b'{"id":"b","text":null}',
)


@pytest.mark.parametrize(
    ("form", "content_type", "body"),
    [
        (
            "json",
            "application/json",
            b'[{"source":"my-api","id":"30401068764886351","timestamp":"2025-01-01T12:00:00.250Z",'
            b'"message":"caf\\u00e9 \xe2\x82\xac","event":%b},'
            b'{"source":"my-api","id":"b","timestamp":null,"message":null,"event":%b}]' % RAW,
        ),
        (
            "ndjson",
            "application/x-ndjson",
            b'{"source":"my-api","id":"30401068764886351","timestamp":"2025-01-01T12:00:00.250Z",'
            b'"message":"caf\\u00e9 \xe2\x82\xac","event":%b}\n'
            b'{"source":"my-api","id":"b","timestamp":null,"message":null,"event":%b}\n'
            % (RAW[0].replace(b"\n", b" "), RAW[1]),
        ),
    ],
)
@pytest.mark.parametrize("compression", [False, True])
def test_what_arrives_is_the_wire_format_to_the_byte(
    home: Home, form: str, content_type: str, body: bytes, *, compression: bool
) -> None:
    """T20, T45, T46: the event is the vendor's own bytes."""
    snippet = f"""
results_field: ""
timestamp_field: at
message_field: text
id_field: id
destination: {{format: {form}, compression: {str(compression).lower()}}}
"""
    page = Response(body=b"[" + b",".join(RAW) + b"]")
    with ScriptedApi([page]) as api, shipped(home, api, snippet) as siem:
        (post,) = siem.posts
        assert post.method == "POST"
        assert post.headers["content-type"] == content_type
        assert post.headers.get("content-encoding") == ("gzip" if compression else None)
        assert (gzip.decompress(post.body) if compression else post.body) == body


def test_without_a_message_field_the_message_is_null(home: Home) -> None:
    page = Response(body=[{"message": "m"}])
    with ScriptedApi([page]) as api, shipped(home, api, 'results_field: ""') as siem:
        (record,) = siem.delivered
        assert (record.message, record.timestamp) == (None, None)
