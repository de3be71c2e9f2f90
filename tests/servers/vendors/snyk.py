"""Snyk's audit logs of an organisation."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, reset_in
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, iso


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "created": iso(instant_ns),
        "event": "org.project.add",
        "org_id": "org-1",
        "content": {"serial": serial},
    }


def _write(page: Page) -> dict[str, object]:
    next_link = {} if page.next_target is None else {"next": page.next_target}
    return {"data": {"items": page.items}, "links": next_link, "jsonapi": {"version": "1.0"}}


def _error(status: int, problem: str) -> dict[str, object]:
    return {"errors": [{"status": str(status), "detail": problem}]}


VENDORS = (
    Vendor(
        name="snyk",
        emulated=(
            "`data.items` without ids; relative `links.next`, missing at the end; `from` "
            "inclusive; newest first unless `sort_order=ASC`; at most 100 a page; 429 with a "
            "structured `X-RateLimit-Limit` and seconds in `X-RateLimit-Reset`"
        ),
        not_emulated="links that go stale between polls",
        routes={
            "GET /rest/orgs/org-1/audit_logs/search": Listing(
                envelope=_write,
                bounds=bounds("from", "to"),
                gaps=1,
                order="desc",
                order_param=("sort_order", {"ASC": "asc", "DESC": "desc"}),
                limit_param="size",
                max_limit=100,
                over_limit="refuse",
                required={"version": "2024-04-29"},
            )
        },
        authorise=headers(authorization="Token snyk-token", accept="application/vnd.api+json"),
        environ=given(SNYK_ORG_ID="org-1", SNYK_TOKEN="snyk-token"),
        make_event=_make_event,
        serial_of=lambda event: str(event["content"]["serial"]),
        limited=reset_in(
            "X-RateLimit",
            _error(429, "Too many requests"),
            limit='160, 160;w=1;name="second"',
        ),
        error_body=_error,
    ),
)
