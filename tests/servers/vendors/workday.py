"""Workday's log of users' activity."""

from __future__ import annotations

from tests.servers.vendors.access import basic, bearer, given, issue, retry_after
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, bounds, iso

_TOKEN_PATH = "/ccx/oauth2/acme/token"


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "requestTime": iso(instant_ns),
        "activityAction": "READ",
        "taskDisplayName": "View Worker",
        "sessionId": f"s{serial}",
    }


VENDORS = (
    Vendor(
        name="workday",
        emulated=(
            "`offset` and `limit` with `total`; `from` and `to` mandatory; at most 100 a page; "
            "no ids, and many events in one millisecond; tokens for a refresh token, that expire; "
            "429 with `Retry-After`"
        ),
        not_emulated="`instancesReturned`, filters by user and task",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                check=basic("workday-id", "workday-secret"),
                grant_type="refresh_token",
                refresh_token="workday-refresh",
            ),
            "GET /ccx/api/privacy/v1/acme/activityLogging": Listing(
                envelope=lambda page: {"data": page.items, "total": page.total},
                bounds=bounds("from", "to", required=True),
                paging="offset",
                page_param="offset",
                max_limit=100,
                choices={"instancesReturned": ("1", "3", "10")},
            ),
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            WORKDAY_HOST="wd2.example",
            WORKDAY_TENANT="acme",
            WORKDAY_CLIENT_ID="workday-id",
            WORKDAY_CLIENT_SECRET="workday-secret",
            WORKDAY_REFRESH_TOKEN="workday-refresh",
        ),
        make_event=_make_event,
        serial_of=lambda event: event["sessionId"][1:],
        limited=retry_after({"error": "too many requests"}),
    ),
)
