"""Slack's audit logs of an Enterprise organisation."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, Page, bounds, unix


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"0123a45b-6c7d-{serial}",
        "date_create": instant_ns // NS_PER_S,
        "action": "user_login",
        "actor": {"type": "user", "user": {"id": "W123AB456", "name": "Ada"}},
    }


def _write(page: Page) -> dict[str, object]:
    return {"entries": page.items, "response_metadata": {"next_cursor": page.token or ""}}


VENDORS = (
    Vendor(
        name="slack",
        emulated=(
            "`entries`, newest first only; an empty `next_cursor` ends; `oldest` and `latest` in "
            "whole seconds, inclusive; at most 9,999 a page; 429 with `Retry-After`"
        ),
        not_emulated="the limit of 50 requests a minute for the whole organisation",
        routes={
            "GET /audit/v1/logs": Listing(
                envelope=_write,
                bounds=bounds("oldest", "latest", parse=unix),
                gaps=1,
                order="desc",
                max_limit=9999,
                over_limit="refuse",
            )
        },
        authorise=headers(authorization="Bearer xoxp-slack-token"),
        environ=given(SLACK_AUDIT_TOKEN="xoxp-slack-token"),
        make_event=_make_event,
        serial_of=lambda event: event["id"].rpartition("-")[2],
        limited=retry_after({"ok": False, "error": "ratelimited"}),
        tick_ns=NS_PER_S,
        error_body=lambda _, problem: {"ok": False, "error": problem},
    ),
)
