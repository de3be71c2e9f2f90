"""SentinelOne's activities."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, retry_after
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, iso


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": str(1234567890123456789 + serial),
        "createdAt": iso(instant_ns, 6),
        "activityType": 27,
        "primaryDescription": "The management user logged in",
    }


def _write(page: Page) -> dict[str, object]:
    return {
        "data": page.items,
        "pagination": {"nextCursor": page.token, "totalItems": page.total},
    }


VENDORS = (
    Vendor(
        name="sentinelone",
        emulated=(
            "`data`; `pagination.nextCursor`, null at the end; `createdAt__gte` inclusive; "
            "`sortBy` and `sortOrder`; at most 1,000 a page; 429 with `Retry-After`"
        ),
        not_emulated="other filters, expiry of API tokens",
        routes={
            "GET /web/api/v2.1/activities": Listing(
                envelope=_write,
                bounds=bounds("createdAt__gte", "createdAt__lte"),
                gaps=1,
                order="desc",
                order_param=("sortOrder", {"asc": "asc", "desc": "desc"}),
                required={"sortBy": "createdAt"},
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="ApiToken s1-token"),
        environ=given(SENTINELONE_DOMAIN="acme.sentinelone.net", SENTINELONE_API_TOKEN="s1-token"),
        make_event=_make_event,
        serial_of=lambda event: str(int(event["id"]) - 1234567890123456789),
        limited=retry_after({"errors": [{"code": 4290010, "title": "Too many requests"}]}),
        tick_ns=1000,
        error_body=lambda status, problem: {"errors": [{"code": status, "title": problem}]},
    ),
)
