"""Zendesk's audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flicker.demo.servers import parse_instant
from tests.servers.vendors.access import basic, given, retry_after
from tests.servers.vendors.emulator import NS_PER_S, RefusedError, Vendor
from tests.servers.vendors.listing import Listing, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Ask
    from tests.servers.vendors.listing import Bounds

_FILTER = "filter[created_at][]"


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": 498483 + serial,
        "created_at": iso(instant_ns, 0),
        "action": "update",
        "source_id": serial,
        "change_description": "Role changed",
    }


def _read_pair(ask: Ask) -> Bounds:
    """Read the two bounds, which have one name."""
    texts = ask.take_all(_FILTER)
    if not texts:
        return None, None
    try:
        since_ns, until_ns = (parse_instant(text) for text in texts)
    except ValueError:
        raise RefusedError(f"{_FILTER} has to be two instants", 422) from None
    return since_ns, until_ns


VENDORS = (
    Vendor(
        name="zendesk",
        emulated=(
            "`page[size]` and `page[after]`, `meta.has_more`, and a last cursor that is repeated "
            "while nothing is new; `filter[created_at][]` given twice, inclusive; at most 100 a "
            "page; `sort`; 429 with `Retry-After`"
        ),
        not_emulated="offset paging, other filters",
        routes={
            "GET /api/v2/audit_logs.json": Listing(
                envelope=lambda page: {
                    "audit_logs": page.items,
                    "meta": {"has_more": page.has_more, "after_cursor": page.token},
                    "links": {"next": page.next_url},
                },
                bounds=_read_pair,
                page_param="page[after]",
                with_cursor="again",
                has_next="always",
                order="desc",
                order_param=("sort", {"created_at": "asc", "-created_at": "desc"}),
                limit_param="page[size]",
                max_limit=100,
            )
        },
        authorise=basic("auditor@acme.example/token", "zendesk-token"),
        environ=given(
            ZENDESK_DOMAIN="acme.zendesk.com",
            ZENDESK_EMAIL="auditor@acme.example",
            ZENDESK_API_TOKEN="zendesk-token",
        ),
        make_event=_make_event,
        serial_of=lambda event: str(event["source_id"]),
        limited=retry_after({"error": "TooManyRequests"}),
        tick_ns=NS_PER_S,
        error_body=lambda status, problem: {"error": status, "description": problem},
    ),
)
