"""OpenAI's audit log of an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.vendors.access import bare, given, headers
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, unix

if TYPE_CHECKING:
    from tests.servers.vendors.listing import Page


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"audit_log-{serial}",
        "type": "project.archived",
        "effective_at": instant_ns // NS_PER_S,
        "actor": {"type": "session", "session": {"ip_address": "192.0.2.7"}},
        # The key has a dot in it.
        "project.archived": {"id": f"proj_{serial}"},
    }


def _wrap(page: Page) -> dict[str, object]:
    ids = [entry.value["id"] for entry in page.entries] or [None]
    return {
        "object": "list",
        "data": page.items,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": page.has_more,
    }


VENDORS = (
    Vendor(
        name="openai",
        emulated=(
            "newest first; `after` is the id of the last event, which `last_id` repeats; "
            "`has_more`; `effective_at[gte]` in whole seconds, inclusive; 400 for more than 100 a "
            "page; 429 that names no time"
        ),
        not_emulated="`before`, the other bounds and filters, the headers of the rate limit",
        routes={
            "GET /v1/organization/audit_logs": Listing(
                envelope=_wrap,
                bounds=bounds("effective_at[gte]", parse=unix),
                paging="last_id",
                page_param="after",
                order="desc",
                default_limit=20,
                max_limit=100,
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer openai-key"),
        environ=given(OPENAI_ADMIN_KEY="openai-key"),
        make_event=_make_event,
        serial_of=lambda event: str(event["project.archived"]["id"].removeprefix("proj_")),
        limited=bare(body={"error": {"type": "requests", "code": "rate_limit_exceeded"}}),
        tick_ns=NS_PER_S,
        error_body=lambda _, problem: {"error": {"message": problem}},
    ),
)
