"""The servers that play vendors refuse what the vendors refuse, and end where they end."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from flicker.demo.servers import parse_instant
from tests.servers.vendors import VENDORS
from tests.servers.vendors.emulator import NS_PER_MS, NS_PER_S, VendorApi
from tests.servers.vendors.listing import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = {"Authorization": "Bearer access-1"}
DAY_S = 24 * 3600
DAY_NS = DAY_S * NS_PER_S


class Answer:
    """A whole answer."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.raw = response.read()

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Client:
    """Asks one vendor's server, with the same headers always."""

    def __init__(self, api: VendorApi, headers: dict[str, str]) -> None:
        self.api = api
        self._headers = headers

    def get(self, target: str, params: dict[str, str] | None = None) -> Answer:
        """Ask for a path or URL, with parameters."""
        parts = urlsplit(target)
        query = "&".join(filter(None, [parts.query, urlencode(params or {})]))
        return self.send("GET", f"{parts.path}?{query}")

    def send(self, method: str, target: str, body: str | None = None, kind: str = "") -> Answer:
        """Ask anything."""
        connection = HTTPConnection("127.0.0.1", self.api.port, timeout=45)
        headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
        connection.request(method, target, body, headers)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()


@contextmanager
def client_of(name: str, **headers: str) -> Iterator[Client]:
    with VendorApi(VENDORS[name]) as api:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        if VENDORS[name].open_paths:
            named |= {"Authorization": f"Bearer {api.issue_token()}"}
        yield Client(api, named)


def links_of(answer: Answer) -> dict[str, str]:
    """Read the targets of an answer's links by their relation."""
    lines = answer.headers.get_all("Link") or []
    parts = [part for line in lines for part in line.split(", ")]
    return {part.split('"')[1]: part[1 : part.index(">")] for part in parts}


@pytest.mark.parametrize("name", VENDORS)
def test_turns_away_whoever_has_no_credentials(name: str) -> None:
    vendor = VENDORS[name]
    closed = [
        (method, path.replace("*", "x"))
        for method, _, path in (route.partition(" ") for route in vendor.routes)
        if path not in vendor.open_paths
    ]
    with VendorApi(vendor) as api:
        client = Client(api, {})
        for method, path in closed:
            assert client.send(method, path, "{}" if method == "POST" else None).status == 401
        assert len(api.refusals) == len(closed)


def test_says_when_it_is_asked_too_early() -> None:
    with client_of("gitlab", Private_Token="gitlab-token") as client:
        client.api.limit_next()
        target = "/api/v4/audit_events?pagination=keyset&order_by=id&sort=desc"
        assert client.get(target).headers["Retry-After"] == "1"
        assert client.api.refusals == []
        assert client.get(target).status == 429
        assert len(client.api.refusals) == 1


def test_a_revoked_token_is_no_refusal_of_a_wrong_request() -> None:
    with client_of("auth0") as client:
        target = f"/api/v2/logs?from={'9' * 56}"
        assert client.get(target).status == 200
        client.api.revoke_tokens()
        assert client.get(target).status == 401
        assert client.api.revoked_met == 1
        assert client.api.refusals == []


def test_okta_leads_on_for_ever_and_takes_no_time_beside_a_cursor() -> None:
    with client_of("okta", Authorization="SSWS okta-token") as client:
        client.api.add(3)
        first = client.get("/api/v1/logs", {"since": "2025-01-01T00:00:00Z", "limit": "2"})
        second = client.get(links_of(first)["next"])
        third = client.get(links_of(second)["next"])
        assert [len(page.body) for page in (first, second, third)] == [2, 1, 0]
        assert "next" in links_of(third)
        mixed = client.get(links_of(first)["next"], {"since": "2025-01-01T00:00:00Z"})
        assert mixed.status == 400


def test_github_leads_elsewhere_and_searches_to_the_second() -> None:
    with client_of(
        "github", Authorization="Bearer github-token", Accept="application/vnd.github+json"
    ) as client:
        client.api.add(3)
        newest_ns = client.api.log()[-1].instant_ns
        asked = {"phrase": f"created:>={iso(newest_ns)}", "per_page": "1"}
        page = client.get("/orgs/acme/audit-log", asked)
        # Newest first, since no order was asked for.
        assert page.body[0]["@timestamp"] == newest_ns // NS_PER_MS
        assert urlsplit(links_of(page)["next"]).path == "/organizations/80307827/audit-log"
        assert links_of(page)["first"].endswith("?after=&before=")
        assert client.get("/orgs/acme/audit-log", {"page": "2"}).status == 400
        assert client.get("/orgs/acme/audit-log", {"phrase": "created:>=1735732800"}).status == 400


def test_salesforce_leads_on_by_a_relative_url_until_done() -> None:
    with client_of("salesforce-setup-audit-trail") as client:
        client.api.add(200)
        query = (
            "SELECT Id FROM SetupAuditTrail WHERE CreatedDate >= 2025-01-01T00:00:00.000Z "
            "ORDER BY CreatedDate ASC, Id ASC"
        )
        first = client.get("/services/data/v61.0/query", {"q": query}).body
        second = client.get(first["nextRecordsUrl"]).body
        assert first["nextRecordsUrl"].startswith("/services/data/v61.0/query/01g")
        assert [first["done"], second["done"]] == [False, True]
        assert len(first["records"]) + len(second["records"]) == first["totalSize"] == 200
        assert "nextRecordsUrl" not in second
        refused = client.get("/services/data/v61.0/query", {"q": query.replace(">=", "AFTER")})
        assert refused.status == 400
        assert refused.body[0]["errorCode"] == "MALFORMED_QUERY"


def test_slack_takes_whole_seconds_and_ends_with_an_empty_cursor() -> None:
    with client_of("slack", Authorization="Bearer xoxp-slack-token") as client:
        client.api.add(2)
        newest_s = client.api.log()[-1].instant_ns // NS_PER_S
        both = {"oldest": str(newest_s), "latest": str(newest_s)}
        page = client.get("/audit/v1/logs", both).body
        assert [entry["date_create"] for entry in page["entries"]] == [newest_s]
        assert page["response_metadata"]["next_cursor"] == ""
        assert client.get("/audit/v1/logs", {"oldest": f"{newest_s}.5"}).status == 400
        assert client.get("/audit/v1/logs", {"limit": "10000"}).status == 400


def test_graph_refuses_pages_beyond_its_cap() -> None:
    with client_of("entra-directory-audits") as client:
        client.api.add(1)
        path = "/v1.0/auditLogs/directoryAudits"
        (event,) = client.get(path, {"$top": "999"}).body["value"]
        assert len(event["activityDateTime"].partition(".")[2]) == len("1234567Z")
        assert client.get(path, {"$top": "1000"}).status == 400


def test_azure_insists_on_both_bounds_and_remembers_90_days() -> None:
    with client_of("azure-activity-log") as client:
        client.api.add(1)
        path = "/subscriptions/subscription-1/providers/Microsoft.Insights/eventtypes/management"

        def ask(since_ns: int, form: str) -> int:
            bounds = form.format(iso(since_ns), iso(time.time_ns()))
            asked = {"api-version": "2015-04-01", "$filter": bounds}
            return client.get(f"{path}/values", asked).status

        both = "eventTimestamp ge '{}' and eventTimestamp le '{}'"
        now_ns = time.time_ns()
        assert ask(now_ns - 89 * DAY_NS, both) == 200
        assert ask(now_ns - 91 * DAY_NS, both) == 400
        assert ask(now_ns - DAY_NS, "eventTimestamp ge '{}'") == 400
        assert client.get(f"{path}/values", {"api-version": "2015-04-01"}).status == 400


def test_cloudflare_insists_on_the_same_bounds_with_a_cursor() -> None:
    with client_of("cloudflare-v2", Authorization="Bearer cf-token") as client:
        client.api.add(2)
        path = "/client/v4/accounts/account-1/logs/audit"
        asked = {"since": "2025-01-01T00:00:00Z", "before": iso(time.time_ns()), "limit": "1"}
        first = client.get(path, asked).body
        on = {**asked, "cursor": first["result_info"]["cursor"]}
        assert client.get(path, on).body["result_info"]["cursor"] == ""
        assert client.get(path, {**on, "since": "2025-01-02T00:00:00Z"}).status == 400
        assert client.get(path, {"since": "2025-01-01T00:00:00Z"}).status == 400


def test_auth0_repeats_its_link_when_nothing_is_new() -> None:
    with client_of("auth0") as client:
        client.api.add(2)
        first = client.get("/api/v2/logs", {"from": "900".ljust(56, "0"), "take": "100"})
        second = client.get(links_of(first)["next"])
        assert [len(first.body), len(second.body)] == [2, 0]
        assert links_of(second) == links_of(first)
        assert client.get("/api/v2/logs", {"from": "2025-01-01T00:00:00Z"}).status == 400
        assert client.get("/api/v2/logs", {"from": "9" * 56, "take": "101"}).status == 400


def test_atlassian_tells_seconds_from_milliseconds_and_a_reset_by_the_minute() -> None:
    with client_of("atlassian", Authorization="Bearer atlassian-key") as client:
        path = "/admin/v1/orgs/org-1/events-stream"
        now_ns = time.time_ns()
        assert client.get(path, {"from": str(now_ns // NS_PER_MS)}).status == 200
        assert client.get(path, {"from": str(now_ns // NS_PER_S)}).status == 400
        client.api.limit_next()
        reset = client.get(path).headers["X-Ratelimit-Reset"]
        assert len(reset) == len("2022-05-12T19:13Z")


def test_gitlab_ends_behind_an_empty_page_and_takes_30_days() -> None:
    with client_of("gitlab", Private_Token="gitlab-token") as client:
        client.api.add(2)
        target = "/api/v4/audit_events?pagination=keyset&order_by=id&sort=desc"
        first = client.get(target, {"per_page": "2"})
        assert [event["id"] for event in first.body] == [2, 1]
        second = client.get(links_of(first)["next"])
        assert second.body == []
        assert "next" not in links_of(second)
        now_ns = time.time_ns()
        for days, status in ((29, 200), (31, 400)):
            since = iso(now_ns - days * DAY_NS, 0)
            assert client.get(target, {"created_after": since}).status == status
        assert client.get(target, {"created_after": iso(now_ns)}).status == 400


def test_google_takes_only_what_its_own_account_signed() -> None:
    with VendorApi(VENDORS["google-workspace"]) as api:
        client = Client(api, {})
        forged = f"e30.e30.{'A' * 342}"
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": forged}
        kind = "application/x-www-form-urlencoded"
        answer = client.send("POST", "/token", urlencode(form), kind)
        assert answer.status == 400
        assert "signature" in answer.body["error"]["message"]


def test_google_leaves_items_out_where_there_are_none() -> None:
    with client_of("google-workspace") as client:
        path = "/admin/reports/v1/activity/users/all/applications"
        assert "items" not in client.get(f"{path}/login").body
        client.api.add(1)
        assert len(client.get(f"{path}/login").body["items"]) == 1
        assert client.get(f"{path}/chess").status == 404


def test_snyk_leads_on_by_a_relative_url() -> None:
    headers = {"Authorization": "Token snyk-token", "Accept": "application/vnd.api+json"}
    with client_of("snyk", **headers) as client:
        client.api.add(2)
        asked = {"version": "2024-04-29", "sort_order": "ASC", "size": "1"}
        first = client.get("/rest/orgs/org-1/audit_logs/search", asked).body
        second = client.get(first["links"]["next"]).body
        assert first["links"]["next"].startswith("/rest/orgs/")
        assert second["links"] == {}
        stamps = [page["data"]["items"][0]["created"] for page in (first, second)]
        assert sorted(stamps, key=parse_instant) == stamps


OFFICE = "/api/v1.0/tenant-1/activity/feed/subscriptions/content"


@pytest.mark.parametrize(
    ("since_s", "until_s", "digits", "zone"),
    [
        (DAY_S + 60, 30, 0, ""),
        (7 * DAY_S + 60, 7 * DAY_S, 0, ""),
        (60, None, 0, ""),
        (0, 60, 0, ""),
        (60, 0, 0, "Z"),
        (60, 0, 3, ""),
    ],
    ids=["longer than a day", "older than a week", "one bound", "backwards", "zone", "fraction"],
)
def test_office_refuses_a_span(since_s: int, until_s: int | None, digits: int, zone: str) -> None:
    ago = {"startTime": since_s, "endTime": until_s}
    span = {
        name: iso(time.time_ns() - seconds * NS_PER_S, digits, zone)
        for name, seconds in ago.items()
        if seconds is not None
    }
    with client_of("office-365") as client:
        assert client.get(OFFICE, {"contentType": "Audit.General", **span}).status == 400


def test_office_lists_blobs_in_no_order_and_leads_on_by_a_header() -> None:
    with client_of("office-365") as client:
        client.api.add(47, spread=7)
        pages = [client.get(OFFICE, {"contentType": "Audit.General"})]
        while "NextPageUri" in pages[-1].headers:
            pages.append(client.get(pages[-1].headers["NextPageUri"]))
        assert [len(page.body) for page in pages] == [20, 20, 7]
        blobs = [blob for page in pages for blob in page.body]
        created = [blob["contentCreated"] for blob in blobs]
        assert created != sorted(created)
        serials = {
            client.api.vendor.serial_of(event)
            for blob in blobs
            for event in client.get(blob["contentUri"]).body
        }
        own = {entry.serial for entry in client.api.log("Audit.General")}
        assert serials == {f"{serial}.{part}" for serial in own for part in range(3)}


@pytest.mark.parametrize("count", [0, 25])
def test_office_has_empty_pages_that_lead_on(count: int) -> None:
    with VendorApi(VENDORS["office-365"], has_gaps=True) as api:
        client = Client(api, {"Authorization": f"Bearer {api.issue_token()}"})
        api.add(count)
        pages = [client.get(OFFICE, {"contentType": "Audit.General"})]
        while "NextPageUri" in pages[-1].headers:
            pages.append(client.get(pages[-1].headers["NextPageUri"]))
        assert [len(page.body) for page in pages] == ([0, 20, 0, 5] if count else [0, 0])
        assert api.refusals == []


def test_box_tells_a_position_from_what_a_float_makes_of_it() -> None:
    with client_of("box") as client:
        client.api.add(12)
        asked = {"stream_type": "admin_logs_streaming", "limit": "5"}
        position = client.get("/2.0/events", asked).body["next_stream_position"]
        rounded = int(float(position))
        assert rounded != position
        exact = client.get("/2.0/events", {**asked, "stream_position": str(position)})
        other = client.get("/2.0/events", {**asked, "stream_position": str(rounded)})
        assert exact.body["next_stream_position"] == position + 3
        assert other.raw != exact.raw


def test_box_repeats_events_and_gives_them_out_of_order() -> None:
    with client_of("box") as client:
        client.api.add(12)
        asked = {"stream_type": "admin_logs_streaming", "limit": "10"}
        first = client.get("/2.0/events", asked).body
        asked["stream_position"] = str(first["next_stream_position"])
        second = client.get("/2.0/events", asked).body
        ids = [event["event_id"] for page in (first, second) for event in page["entries"]]
        assert len(ids) > len(set(ids)) == 12
        assert ids != sorted(ids)


def test_zoom_clips_a_long_span_without_a_word() -> None:
    with client_of("zoom") as client:
        client.api.add(1, ago_s=40 * DAY_S)
        client.api.add(1)
        now_ns = time.time_ns()
        span = {"from": iso(now_ns - 60 * DAY_NS)[:10], "to": iso(now_ns)[:10]}
        page = client.get("/v2/report/operationlogs", span).body
        assert len(page["operation_logs"]) == 1
        assert page["next_page_token"] == ""


def test_zoom_takes_a_page_token_only_with_the_days_that_it_came_with() -> None:
    with client_of("zoom") as client:
        client.api.add(3)
        path, now_ns = "/v2/report/operationlogs", time.time_ns()
        span = {"from": iso(now_ns - DAY_NS)[:10], "to": iso(now_ns)[:10], "page_size": "2"}
        on = {**span, "next_page_token": client.get(path, span).body["next_page_token"]}
        assert client.get(path, on).status == 200
        assert client.get(path, {**on, "from": iso(now_ns - 2 * DAY_NS)[:10]}).status == 400


@pytest.mark.parametrize(
    "asked",
    [{"limit": "101"}, {"starting_after": "evt_none"}, {"created[gte]": "1.5"}, {"since": "1"}],
    ids=str,
)
def test_stripe_refuses(asked: dict[str, str]) -> None:
    with client_of("stripe", Authorization="Bearer stripe-key") as client:
        client.api.add(3)
        assert client.get("/v1/events", asked).status == 400


@pytest.mark.parametrize("given", [("start",), ("end",), ()], ids=str)
def test_tailscale_wants_both_bounds(given: tuple[str, ...]) -> None:
    key = base64.b64encode(b"tailscale-key:").decode()
    with client_of("tailscale", Authorization=f"Basic {key}") as client:
        asked = {name: iso(time.time_ns()) for name in given}
        path = "/api/v2/tailnet/-/logging/configuration"
        assert client.get(path, asked).status == 400


def test_zendesk_wants_both_bounds_under_one_name() -> None:
    user = base64.b64encode(b"auditor@acme.example/token:zendesk-token").decode()
    with client_of("zendesk", Authorization=f"Basic {user}") as client:
        bound = urlencode({"filter[created_at][]": iso(time.time_ns(), 0)})
        assert client.get(f"/api/v2/audit_logs.json?{bound}&{bound}").status == 200
        assert client.get(f"/api/v2/audit_logs.json?{bound}").status == 422


def test_1password_repeats_its_cursor_while_nothing_is_new() -> None:
    with client_of("1password", Authorization="Bearer events-token") as client:
        client.api.add(3)

        def ask(**body: object) -> Answer:
            return client.send("POST", "/api/v2/auditevents", json.dumps(body), "application/json")

        first = ask(limit=3).body
        cursor = first["cursor"]
        assert [len(first["items"]), first["has_more"]] == [3, False]
        assert ask(cursor=cursor).body == {"cursor": cursor, "has_more": False, "items": []}
        assert ask(cursor=cursor, start_time=iso(time.time_ns())).status == 400
        assert ask(cursor=cursor, limit=3).status == 400
        assert ask(limit=1001).status == 400


def test_1password_v3_leaves_the_bound_itself_out() -> None:
    with client_of("1password-v3", Authorization="Bearer events-token") as client:
        client.api.add(2)
        first_ns, last_ns = (entry.instant_ns for entry in client.api.log())
        page = client.get("/api/v3/auditevents", {"start_time": iso(first_ns, 9)}).body
        assert [event["insert_time"] for event in page["audit_events"]] == [iso(last_ns, 9)]


def test_openai_calls_after_what_is_older() -> None:
    with client_of("openai", Authorization="Bearer openai-key") as client:
        client.api.add(3)
        first = client.get("/v1/organization/audit_logs", {"limit": "2"}).body
        second = client.get("/v1/organization/audit_logs", {"after": first["last_id"]}).body
        assert [first["has_more"], second["has_more"]] == [True, False]
        stamps = [event["effective_at"] for page in (first, second) for event in page["data"]]
        assert stamps == sorted(stamps, reverse=True)
        assert client.get("/v1/organization/audit_logs", {"limit": "101"}).status == 400
