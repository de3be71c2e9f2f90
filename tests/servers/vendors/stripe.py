"""Stripe's events."""

from __future__ import annotations

from tests.servers.vendors.access import bare, given, headers
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, unix


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"evt_1NG8Du2eZvKYlo2C{serial}",
        "object": "event",
        "api_version": "2024-06-20",
        "created": instant_ns // NS_PER_S,
        "data": {"object": {"id": f"cus_{serial}", "object": "customer"}},
        "type": "customer.created",
    }


VENDORS = (
    Vendor(
        name="stripe",
        emulated=(
            "newest first; `starting_after` is the id of the last event, refused where there is no "
            "such event; `has_more`; `created[gte]` in whole seconds, inclusive; 400 for more than "
            "100 a page and for unknown parameters; 429 that names no time"
        ),
        not_emulated="the 30 days that events are kept, `ending_before`, filters by type",
        routes={
            "GET /v1/events": Listing(
                envelope=lambda page: {
                    "object": "list",
                    "url": "/v1/events",
                    "has_more": page.has_more,
                    "data": page.items,
                },
                bounds=bounds("created[gte]", parse=unix),
                paging="last_id",
                page_param="starting_after",
                order="desc",
                default_limit=10,
                max_limit=100,
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer stripe-key"),
        environ=given(STRIPE_API_KEY="stripe-key"),
        make_event=_make_event,
        serial_of=lambda event: str(event["data"]["object"]["id"].removeprefix("cus_")),
        limited=bare(body={"error": {"code": "rate_limit", "type": "invalid_request_error"}}),
        tick_ns=NS_PER_S,
        error_body=lambda _, problem: {
            "error": {"type": "invalid_request_error", "message": problem}
        },
    ),
)
