"""Anthropic's compliance activities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.vendors.access import given, headers, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso

if TYPE_CHECKING:
    from tests.servers.vendors.listing import Page


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"activity_{serial}",
        "created_at": iso(instant_ns, 0),
        "type": "claude_chat_created",
        "claude_chat_id": f"claude_chat_{serial}",
    }


def _wrap(page: Page) -> dict[str, object]:
    ids = [entry.value["id"] for entry in page.entries] or [None]
    return {
        "data": page.items,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": page.has_more,
    }


VENDORS = (
    Vendor(
        name="anthropic",
        emulated=(
            "newest first, so that `after_id` gives older ones; `has_more`; both headers "
            "insisted on; a minute from event to listing; 429 with `Retry-After`"
        ),
        not_emulated="`before_id`, filters other than by time",
        routes={
            "GET /v1/compliance/activities": Listing(
                envelope=_wrap,
                bounds=bounds("created_at.gte"),
                paging="last_id",
                page_param="after_id",
                order="desc",
            )
        },
        authorise=headers(x_api_key="anthropic-key", anthropic_version="2023-06-01"),
        environ=given(ANTHROPIC_COMPLIANCE_KEY="anthropic-key"),
        make_event=_make_event,
        serial_of=lambda event: str(event["claude_chat_id"].rpartition("_")[2]),
        limited=retry_after({"type": "error", "error": {"type": "rate_limit_error"}}),
        tick_ns=NS_PER_S,
        lag_s=60,
        error_body=lambda _, problem: {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": problem},
        },
    ),
)
