"""Office 365's Management Activity API: blobs are listed, then got one by one."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bearer, given, issue
from tests.servers.vendors.emulator import NS_PER_S, RefusedError, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Ask, VendorApi
    from tests.servers.vendors.listing import Bounds, Page

_TOKEN_PATH = "/tenant-1/oauth2/v2.0/token"
_FEED = "/api/v1.0/tenant-1/activity/feed"
_CONTENT_TYPES = (
    "Audit.AzureActiveDirectory",
    "Audit.Exchange",
    "Audit.SharePoint",
    "Audit.General",
)
_PARTS = 3
_PAGE_SIZE = 20
_DAY_S = 86_400
_OLDEST_S = 7 * _DAY_S
# Events are this much older than the blob that they come in.
_DELAY_NS = 3600 * NS_PER_S


def _parse(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * NS_PER_S


_read_span = bounds("startTime", "endTime", parse=_parse, longest_s=_DAY_S)


def _read_bounds(ask: Ask) -> Bounds:
    """Read both bounds or none, at most a day apart and a week back."""
    since_ns, until_ns = _read_span(ask)
    if (since_ns is None) != (until_ns is None):
        raise RefusedError("startTime and endTime come together or not at all")
    if since_ns is not None and since_ns < time.time_ns() - _OLDEST_S * NS_PER_S:
        raise RefusedError("startTime is more than 7 days ago")
    return since_ns, until_ns


def _make_blob(serial: int, instant_ns: int) -> dict[str, object]:
    # The date before the serial number is when its events happened.
    content_id = f"{iso(instant_ns - _DELAY_NS, 0)}${serial}$audit$na0054"
    return {
        "contentUri": f"{_FEED}/audit/{content_id}",
        "contentId": content_id,
        "contentCreated": iso(instant_ns),
        "contentExpiration": iso(instant_ns + _OLDEST_S * NS_PER_S),
    }


def _list_blobs(page: Page) -> object:
    """Write a page in no order of time."""
    shuffled = [*page.entries[::2], *page.entries[1::2]]
    blobs = [entry.value for entry in shuffled]
    return [{**blob, "contentUri": page.origin + blob["contentUri"]} for blob in blobs]


def _get_blob(_: VendorApi, request: Request) -> Response:
    happened, serial, *_ = request.path.rpartition("/")[2].split("$")
    events = [
        {
            "Id": f"80c76bd2-{serial}-{part}",
            # Without a zone, as they write it; it is UTC.
            "CreationTime": happened.removesuffix("Z"),
            "Operation": "UserLoggedIn",
            "ObjectId": f"{serial}.{part}",
        }
        for part in range(_PARTS)
    ]
    return Response(200, body=events)


VENDORS = (
    Vendor(
        name="office-365",
        emulated=(
            "a list of blobs for each content type, in no order, then each blob by its "
            "`contentUri`; `NextPageUri` header; `startTime` and `endTime` together, at most a day "
            "apart and a week back, without fractions or zone; tokens for client credentials, that "
            "expire; 429 with the code AF429"
        ),
        not_emulated="starting subscriptions, webhooks, blobs that expire or come hours late",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                grant_type="client_credentials",
                client_id="office-id",
                client_secret="office-secret",
                scope="https://manage.office.com/.default",
            ),
            f"GET {_FEED}/subscriptions/content": Listing(
                envelope=_list_blobs,
                headers=lambda page: [("NextPageUri", page.next_url)] if page.next_url else [],
                bounds=_read_bounds,
                page_param="nextPage",
                gaps=1,
                with_cursor="again",
                limit_param=None,
                default_limit=_PAGE_SIZE,
                choices={"contentType": _CONTENT_TYPES, "PublisherIdentifier": ("tenant-1",)},
                lane_of=lambda request: request.params.get("contentType", ""),
            ),
            f"GET {_FEED}/audit/*": _get_blob,
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            O365_TENANT_ID="tenant-1",
            O365_CLIENT_ID="office-id",
            O365_CLIENT_SECRET="office-secret",
        ),
        make_event=_make_blob,
        serial_of=lambda event: str(event["ObjectId"]),
        limited=lambda: Response(
            429, body={"error": {"code": "AF429", "message": "Too many requests."}}
        ),
        parts=_PARTS,
        page_size=_PAGE_SIZE,
        late_s=1800,
        lanes=_CONTENT_TYPES,
        error_body=lambda _, problem: {"error": {"code": "AF20000", "message": problem}},
    ),
)
