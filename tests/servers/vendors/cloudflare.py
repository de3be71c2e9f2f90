"""Cloudflare's audit logs, in both versions."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, iso

_ORDERS = ("direction", {"asc": "asc", "desc": "desc"})


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"d5b0f326-{serial}",
        "when": iso(instant_ns, 0),
        "action": {"type": "change_setting", "result": True},
    }


def _make_event_v2(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"d5b0f326-{serial}",
        "action": {"time": iso(instant_ns), "type": "create", "result": "success"},
        "raw": {"method": "POST", "status_code": 200},
    }


def _write(page: Page) -> dict[str, object]:
    return {"result": page.items, "success": True, "errors": [], "messages": []}


def _write_v2(page: Page) -> dict[str, object]:
    info = {"count": len(page.items), "cursor": page.token or ""}
    return {**_write(page), "result_info": info}


def _error(status: int, problem: str) -> dict[str, object]:
    return {"success": False, "errors": [{"code": status, "message": problem}], "result": None}


VENDORS = (
    Vendor(
        name="cloudflare",
        emulated=(
            "`result` with `success`; pages by number, an empty one behind the last; `since` and "
            "`before`; newest first unless `direction=asc`; at most 1,000 a page; 429 with "
            "`Retry-After`"
        ),
        not_emulated="other filters, keys with `X-Auth-Key`",
        routes={
            "GET /client/v4/accounts/account-1/audit_logs": Listing(
                envelope=_write,
                bounds=bounds("since", "before"),
                paging="page",
                page_param="page",
                order="desc",
                order_param=_ORDERS,
                limit_param="per_page",
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer cf-token"),
        environ=given(CLOUDFLARE_ACCOUNT_ID="account-1", CLOUDFLARE_API_TOKEN="cf-token"),
        make_event=_make_event,
        serial_of=lambda event: event["id"].rpartition("-")[2],
        limited=retry_after(_error(429, "rate limited")),
        tick_ns=NS_PER_S,
        error_body=_error,
    ),
    Vendor(
        name="cloudflare-v2",
        emulated=(
            "`result` with `success`; `result_info.cursor`, empty at the end; `since` and `before` "
            "both mandatory; newest first unless `direction=asc`; 429 with `Retry-After`"
        ),
        not_emulated="other filters, the gaps that the beta is said to have",
        routes={
            "GET /client/v4/accounts/account-1/logs/audit": Listing(
                envelope=_write_v2,
                bounds=bounds("since", "before", required=True),
                with_cursor="again",
                order="desc",
                order_param=_ORDERS,
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer cf-token"),
        environ=given(CLOUDFLARE_ACCOUNT_ID="account-1", CLOUDFLARE_API_TOKEN="cf-token"),
        make_event=_make_event_v2,
        serial_of=lambda event: event["id"].rpartition("-")[2],
        limited=retry_after(_error(429, "rate limited")),
        error_body=_error,
    ),
)
