"""Zoom's report on administrators' operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.vendors.access import basic, bearer, given, issue, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, day, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Ask
    from tests.servers.vendors.listing import Bounds

_TOKEN_PATH = "/oauth/token"
_DAY_NS = 86_400 * NS_PER_S
_LONGEST_NS = 31 * _DAY_NS
_read_days = bounds("from", "to", parse=day, required=True)


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "time": iso(instant_ns, 0),
        "operator": "admin@acme.example",
        "category_type": "User",
        "action": "Update",
        "operation_detail": f"Update User {serial}",
    }


def _read_dates(ask: Ask) -> Bounds:
    """Read whole days; the beginning of a span that is too long is not answered."""
    since_ns, until_ns = _read_days(ask)
    assert since_ns is not None
    assert until_ns is not None
    return max(since_ns, until_ns - _LONGEST_NS), until_ns + _DAY_NS - 1


VENDORS = (
    Vendor(
        name="zoom",
        emulated=(
            "newest first; `from` and `to` are days, a longer span than a month is clipped without "
            "a word; `next_page_token` empty on the last page, and refused where `from` or `to` "
            "changed; at most 300 a page; no ids; tokens for `account_credentials`, that expire; "
            "429 with `Retry-After`"
        ),
        not_emulated="expiry of `next_page_token`, the daily quota of heavy requests",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                check=basic("zoom-id", "zoom-secret"),
                grant_type="account_credentials",
                account_id="zoom-account",
            ),
            "GET /v2/report/operationlogs": Listing(
                envelope=lambda page: {
                    "page_size": len(page.items),
                    "next_page_token": page.token or "",
                    "operation_logs": page.items,
                },
                bounds=_read_dates,
                page_param="next_page_token",
                gaps=1,
                with_cursor="again",
                order="desc",
                limit_param="page_size",
                default_limit=30,
                max_limit=300,
            ),
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            ZOOM_ACCOUNT_ID="zoom-account",
            ZOOM_CLIENT_ID="zoom-id",
            ZOOM_CLIENT_SECRET="zoom-secret",
        ),
        make_event=_make_event,
        serial_of=lambda event: event["operation_detail"].rpartition(" ")[2],
        limited=retry_after({"code": 429, "message": "You have reached the maximum per-second"}),
        tick_ns=NS_PER_S,
        error_body=lambda _, problem: {"code": 300, "message": problem},
    ),
)
