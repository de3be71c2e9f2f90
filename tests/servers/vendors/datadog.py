"""Datadog's audit trail."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, reset_in
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, iso


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"AQAAAY{serial}",
        "type": "audit",
        "attributes": {"timestamp": iso(instant_ns), "message": "Dashboard created"},
    }


def _write(page: Page) -> dict[str, object]:
    meta: dict[str, object] = {"elapsed": 132, "status": "done"}
    return {
        "data": page.items,
        "meta": meta if page.token is None else {**meta, "page": {"after": page.token}},
    }


VENDORS = (
    Vendor(
        name="datadog",
        emulated=(
            "`data`; `meta.page.after`, missing at the end; `filter[from]` and `filter[to]` "
            "inclusive; newest first unless `sort=timestamp`; at most 1,000 a page; two keys; 429 "
            "with seconds in `X-RateLimit-Reset`"
        ),
        not_emulated="queries, relative times, the POST form",
        routes={
            "GET /api/v2/audit/events": Listing(
                envelope=_write,
                bounds=bounds("filter[from]", "filter[to]"),
                page_param="page[cursor]",
                order="desc",
                order_param=("sort", {"timestamp": "asc", "-timestamp": "desc"}),
                limit_param="page[limit]",
                default_limit=10,
                over_limit="refuse",
            )
        },
        authorise=headers(dd_api_key="dd-key", dd_application_key="dd-app-key"),
        environ=given(
            DATADOG_SITE="datadoghq.com", DATADOG_API_KEY="dd-key", DATADOG_APP_KEY="dd-app-key"
        ),
        make_event=_make_event,
        serial_of=lambda event: event["id"].removeprefix("AQAAAY"),
        limited=reset_in("X-RateLimit", {"errors": ["Too many requests"]}),
        error_body=lambda _, problem: {"errors": [problem]},
    ),
)
