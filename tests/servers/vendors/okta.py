"""Okta's System Log."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, reset_at
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, bounds, iso, links


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "uuid": f"0b7e35b0-{serial:012d}",
        "published": iso(instant_ns),
        "eventType": "user.session.start",
        "displayMessage": "User login to Okta",
    }


VENDORS = (
    Vendor(
        name="okta",
        emulated=(
            "root array; `next` link for ever, in a line beside `self`; ordered and filtered by "
            "arrival; `since` inclusive and never beside `after`; at most 1,000 a page; 429 with "
            "`X-Rate-Limit-Reset`"
        ),
        not_emulated="bounded requests, searches, the age limit of `since`",
        routes={
            "GET /api/v1/logs": Listing(
                envelope=lambda page: page.items,
                headers=links,
                bounds=bounds("since"),
                page_param="after",
                with_cursor="not",
                has_next="always",
                ordered_by="arrival",
                filtered_by="arrival",
                order_param=("sortOrder", {"ASCENDING": "asc"}),
            )
        },
        authorise=headers(authorization="SSWS okta-token"),
        environ=given(OKTA_DOMAIN="acme.okta.com", OKTA_API_TOKEN="okta-token"),
        make_event=_make_event,
        serial_of=lambda event: str(int(event["uuid"].rpartition("-")[2])),
        limited=reset_at("X-Rate-Limit", {"errorCode": "E0000047"}),
        lag_s=2,
        late_s=3600,
        error_body=lambda _, problem: {"errorCode": "E0000001", "errorSummary": problem},
    ),
)
