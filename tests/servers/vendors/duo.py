"""Duo's logs of administrators and of authentications, both asked for by signed requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.servers.vendors.access import bare, given
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso, unix, unix_ms
from tests.servers.vendors.signatures import is_signed_for_duo

if TYPE_CHECKING:
    from flicker.demo.servers import Request
    from tests.servers.vendors.emulator import VendorApi
    from tests.servers.vendors.listing import Bounds, Key, Page

_ENVIRON = given(
    DUO_API_HOST="api-acme.duosecurity.com",
    DUO_INTEGRATION_KEY="duo-integration",
    DUO_SECRET_KEY="duo-secret",
)
_LIMITED = bare(body={"code": 42901, "message": "Too Many Requests", "stat": "FAIL"})


def _authorise(_: VendorApi, request: Request) -> str | None:
    is_right = is_signed_for_duo(request, "duo-integration", "duo-secret")
    return None if is_right else "the signature does not match"


def _make_error(status: int, problem: str) -> object:
    return {"code": status * 100 + 3, "message": problem, "stat": "FAIL"}


def _make_admin_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "action": "user_update",
        "description": json.dumps({"notes": str(serial)}),
        "isotimestamp": iso(instant_ns, 0, "+00:00"),
        "timestamp": instant_ns // NS_PER_S,
        "username": "admin",
    }


def _make_authentication(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "txid": f"340a23e3-{serial:012d}",
        "event_type": "authentication",
        "isotimestamp": iso(instant_ns, 6, "+00:00"),
        "timestamp": instant_ns // NS_PER_S,
        "result": "success",
        "alias": str(serial),
    }


class _OffsetListing(Listing):
    """Hands out the cursor in two parts, and takes them with a comma between."""

    def _read_token(self, token: str, asked: Bounds) -> tuple[Key, Bounds]:
        return super()._read_token(token.partition(",")[2], asked)


def _wrap_authentications(page: Page) -> dict[str, object]:
    offset = None
    if page.token is not None:
        offset = [str(page.entries[-1].instant_ns // 1_000_000), page.token]
    metadata = {"next_offset": offset, "total_objects": page.total}
    return {"stat": "OK", "response": {"authlogs": page.items, "metadata": metadata}}


VENDORS = (
    Vendor(
        name="duo-admin",
        emulated=(
            "HMAC over date, method, host, path and parameters, checked; oldest first from "
            "`mintime` on, inclusive, in seconds; 1,000 at most and no way to a next page; no "
            "ids; 429 that names no time"
        ),
        not_emulated="the limit of requests a minute",
        routes={
            "GET /admin/v1/logs/administrator": Listing(
                envelope=lambda page: {"stat": "OK", "response": page.items},
                bounds=bounds("mintime", parse=unix),
                paging="none",
                limit_param=None,
                default_limit=1000,
            )
        },
        authorise=_authorise,
        environ=_ENVIRON,
        make_event=_make_admin_event,
        serial_of=lambda event: str(json.loads(event["description"])["notes"]),
        limited=_LIMITED,
        page_size=1000,
        tick_ns=NS_PER_S,
        error_body=_make_error,
    ),
    Vendor(
        name="duo-auth",
        emulated=(
            "HMAC, checked; `mintime` and `maxtime` mandatory, inclusive, in milliseconds; "
            "`next_offset` an array, sent with a comma; two minutes from event to listing; at most "
            "1,000 a page; 429 that names no time"
        ),
        not_emulated="the 180 days, filters",
        routes={
            "GET /admin/v2/logs/authentication": _OffsetListing(
                envelope=_wrap_authentications,
                bounds=bounds("mintime", "maxtime", parse=unix_ms, required=True),
                page_param="next_offset",
                with_cursor="again",
                order="desc",
                order_param=("sort", {"ts:asc": "asc", "ts:desc": "desc"}),
                over_limit="refuse",
            )
        },
        authorise=_authorise,
        environ=_ENVIRON,
        make_event=_make_authentication,
        serial_of=lambda event: str(event["alias"]),
        limited=_LIMITED,
        lag_s=120,
        error_body=_make_error,
    ),
)
