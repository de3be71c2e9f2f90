"""Atlassian's organisation events and Jira's audit records."""

from __future__ import annotations

from tests.servers.vendors.access import basic, given, headers, reset_on_the_minute, retry_after
from tests.servers.vendors.emulator import NS_PER_MS, Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, iso, unix_ms


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    # Without a fraction where it would be zero.
    digits = 3 if instant_ns // NS_PER_MS % 1000 else 0
    at = iso(instant_ns, digits)
    return {
        "id": f"2508d0a4-{serial}",
        "type": "events",
        "attributes": {"time": at, "processedAt": at, "action": "user_login"},
    }


def _write(page: Page) -> dict[str, object]:
    meta = {} if page.token is None else {"next": page.token}
    return {"data": page.items, "meta": {**meta, "page_size": len(page.items)}}


def _make_record(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": serial + 1,
        "created": iso(instant_ns, zone="+0000"),
        "summary": "User added to group",
        "category": "group management",
    }


def _write_records(page: Page) -> dict[str, object]:
    return {"offset": 0, "limit": 1000, "total": page.total, "records": page.items}


VENDORS = (
    Vendor(
        name="atlassian",
        emulated=(
            "`data` of the stream of events with `sortOrder=asc`; `meta.next`, missing at the end; "
            "`from` and `to` in milliseconds; timestamps with and without a fraction; 429 whose "
            "`X-RateLimit-Reset` is a minute in ISO 8601"
        ),
        not_emulated="the list without `sortOrder`, the quota itself",
        routes={
            "GET /admin/v1/orgs/org-1/events-stream": Listing(
                envelope=_write,
                bounds=bounds("from", "to", parse=unix_ms),
                order="desc",
                order_param=("sortOrder", {"asc": "asc", "desc": "desc"}),
                max_limit=500,
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer atlassian-key"),
        environ=given(ATLASSIAN_ORG_ID="org-1", ATLASSIAN_API_KEY="atlassian-key"),
        make_event=_make_event,
        serial_of=lambda event: event["id"].rpartition("-")[2],
        limited=reset_on_the_minute("X-Ratelimit", {"errors": [{"status": "429"}]}),
        error_body=lambda status, problem: {"errors": [{"status": str(status), "title": problem}]},
    ),
    Vendor(
        name="jira",
        emulated=(
            "`records`, newest first only; `offset` and `limit`; `from` and `to` inclusive; "
            "`+0000` timestamps; ids that are numbers; at most 1,000 a page; Basic authentication; "
            "429 with `Retry-After`"
        ),
        not_emulated="searches",
        routes={
            "GET /rest/api/3/auditing/record": Listing(
                envelope=_write_records,
                bounds=bounds("from", "to"),
                paging="offset",
                page_param="offset",
                order="desc",
            )
        },
        authorise=basic("ada@acme.example", "jira-token"),
        environ=given(
            JIRA_DOMAIN="acme.atlassian.net",
            JIRA_EMAIL="ada@acme.example",
            JIRA_API_TOKEN="jira-token",
        ),
        make_event=_make_record,
        serial_of=lambda event: str(event["id"] - 1),
        limited=retry_after({"errorMessages": ["Rate limit exceeded"]}),
        error_body=lambda _, problem: {"errorMessages": [problem]},
    ),
)
