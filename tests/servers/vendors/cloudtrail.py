"""AWS CloudTrail's LookupEvents, in several regions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.servers.vendors.access import bare, given
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso, unix
from tests.servers.vendors.signatures import region_signed_for

if TYPE_CHECKING:
    from flicker.demo.servers import Request
    from tests.servers.vendors.emulator import VendorApi
    from tests.servers.vendors.listing import Page

_SECRET_KEY = "aws-secret"
_PROTOCOL = {
    "content-type": "application/x-amz-json-1.1",
    "x-amz-target": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
}


def _region_of(request: Request) -> str:
    return region_signed_for(request, "cloudtrail", _SECRET_KEY) or ""


def _authorise(_: VendorApi, request: Request) -> str | None:
    wrong = [name for name, text in _PROTOCOL.items() if request.headers.get(name) != text]
    if wrong:
        return f"missing or wrong: {', '.join(wrong)}"
    return None if _region_of(request) else "the signature does not match"


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    event_id = f"5c5a2f01-{serial:012d}"
    detail = {
        "eventVersion": "1.09",
        "eventID": event_id,
        "eventTime": iso(instant_ns, 0),
        "eventName": "GetObject",
        "requestParameters": {"key": str(serial)},
    }
    return {
        "EventId": event_id,
        "EventName": "GetObject",
        "EventTime": float(instant_ns // NS_PER_S),
        "CloudTrailEvent": json.dumps(detail),
    }


def _wrap(page: Page) -> dict[str, object]:
    more = {} if page.token is None else {"NextToken": page.token}
    return {"Events": page.items, **more}


VENDORS = (
    Vendor(
        name="aws-cloudtrail",
        emulated=(
            "POST signed with version 4, the signature recomputed; a log for each region; newest "
            "first; `NextToken` refused beside other parameters than it came with; events as text "
            "of JSON; some minutes from event to listing, more for some than for others; 400 for "
            "more than 50 a page; throttling by an exception of status 400"
        ),
        not_emulated="two requests a second, the 90 days, session tokens, lookup attributes",
        routes={
            "POST /": Listing(
                envelope=_wrap,
                bounds=bounds("StartTime", "EndTime", parse=unix),
                page_param="NextToken",
                gaps=6,
                with_cursor="again",
                order="desc",
                limit_param="MaxResults",
                default_limit=50,
                max_limit=50,
                over_limit="refuse",
                lane_of=_region_of,
            )
        },
        authorise=_authorise,
        environ=given(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY=_SECRET_KEY),
        make_event=_make_event,
        serial_of=lambda event: str(event["requestParameters"]["key"]),
        limited=bare(400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
        tick_ns=NS_PER_S,
        lag_s=300,
        late_s=600,
        lanes=("us-east-1", "us-west-2", "eu-west-1"),
        error_body=lambda _, problem: {"__type": "InvalidRequest", "message": problem},
    ),
)
