"""1Password's audit events, by POST (version 2) and by GET (version 3, beta)."""

from __future__ import annotations

from tests.servers.vendors.access import bare, given, headers
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, bounds, iso

_AUTHORISE = headers(authorization="Bearer events-token")
_ENVIRON = given(ONEPASSWORD_EVENTS_TOKEN="events-token")


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "uuid": f"EVENT{serial:021d}",
        # The zone that their own examples have.
        "timestamp": iso(instant_ns, 9, "-03:00"),
        "action": "join",
        "object_type": "gm",
        "aux_id": serial,
    }


VENDORS = (
    Vendor(
        name="1password",
        emulated=(
            "POST whose body is a start or a cursor, never both; a cursor for ever, the same one "
            "while nothing is new; `has_more`; at most 1,000 a page; 429 that names no time"
        ),
        not_emulated="the 120 days that events are kept, sign-ins and uses of items",
        routes={
            "POST /api/v2/auditevents": Listing(
                envelope=lambda page: {
                    "cursor": page.token,
                    "has_more": page.has_more,
                    "items": page.items,
                },
                bounds=bounds("start_time", "end_time"),
                with_cursor="not",
                has_next="always",
                ordered_by="arrival",
                over_limit="refuse",
            )
        },
        authorise=_AUTHORISE,
        environ=_ENVIRON,
        make_event=_make_event,
        serial_of=lambda event: str(event["aux_id"]),
        limited=bare(body={"status": 429, "message": "Too Many Requests"}),
        late_s=3600,
    ),
    Vendor(
        name="1password-v3",
        emulated=(
            "GET with `next_page_token` and `has_more`; `start_time` inclusive; at most 1,000 a "
            "page; 429 that names no time"
        ),
        not_emulated="the true names in the answer, which are a guess",
        routes={
            "GET /api/v3/auditevents": Listing(
                envelope=lambda page: {
                    "audit_events": page.items,
                    "next_page_token": page.token,
                    "has_more": page.has_more,
                },
                bounds=bounds("start_time", "end_time"),
                page_param="next_page_token",
                limit_param="page_size",
                over_limit="refuse",
            )
        },
        authorise=_AUTHORISE,
        environ=_ENVIRON,
        make_event=_make_event,
        serial_of=lambda event: str(event["aux_id"]),
        limited=bare(body={"status": 429, "message": "Too Many Requests"}),
    ),
)
