"""Tailscale's configuration log."""

from __future__ import annotations

from tests.servers.vendors.access import bare, basic, given
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, bounds, iso


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "eventTime": iso(instant_ns, 9),
        "eventGroupID": "f2b3",
        "type": "CONFIG",
        "action": "CREATE",
        "target": {"id": f"n{serial}CNTRL", "type": "NODE"},
    }


VENDORS = (
    Vendor(
        name="tailscale",
        emulated=(
            "the whole span in one answer, without pages; `start` and `end` both mandatory and "
            "inclusive, to the nanosecond; no ids; 429 that names no time"
        ),
        not_emulated="the 90 days that the log is kept",
        routes={
            "GET /api/v2/tailnet/-/logging/configuration": Listing(
                envelope=lambda page: {"version": "1.1", "tailnet": "acme", "logs": page.items},
                bounds=bounds("start", "end", required=True),
                paging="none",
                limit_param=None,
                default_limit=1_000_000,
            )
        },
        authorise=basic("tailscale-key", ""),
        environ=given(TAILSCALE_API_KEY="tailscale-key"),
        make_event=_make_event,
        serial_of=lambda event: event["target"]["id"].removesuffix("CNTRL")[1:],
        limited=bare(body={"message": "rate limit exceeded"}),
        error_body=lambda _, problem: {"message": problem},
    ),
)
