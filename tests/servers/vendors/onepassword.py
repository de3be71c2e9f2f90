"""1Password's audit events, by POST (version 2) and by GET (version 3, beta)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.vendors.access import bare, given, headers
from tests.servers.vendors.emulator import NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Ask
    from tests.servers.vendors.listing import Bounds

_AUTHORISE = headers(authorization="Bearer events-token")
_ENVIRON = given(
    ONEPASSWORD_EVENTS_HOST="events.1password.com", ONEPASSWORD_EVENTS_TOKEN="events-token"
)


_LIMITED = bare(body={"status": 429, "message": "Too Many Requests"})
_read_inclusive = bounds("start_time", "end_time")


def _read_start(ask: Ask) -> Bounds:
    """Read bounds of which the lower one does not belong to the span."""
    since_ns, until_ns = _read_inclusive(ask)
    return None if since_ns is None else since_ns + 1, until_ns


def _make_inserted(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "uuid": f"EVENT{serial:021d}",
        "event_time": iso(instant_ns - NS_PER_S, 9),
        "insert_time": iso(instant_ns, 9),
        "action": "vault.create",
        "actor": {"serial": serial},
    }


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
            "POST whose body is a start with a limit or a cursor, never both; a cursor for ever, "
            "the same one while nothing is new; `has_more`; at most 1,000 a page; 429 that names "
            "no time"
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
                with_cursor="alone",
                has_next="always",
                ordered_by="arrival",
                over_limit="refuse",
            )
        },
        authorise=_AUTHORISE,
        environ=_ENVIRON,
        make_event=_make_event,
        serial_of=lambda event: str(event["aux_id"]),
        limited=_LIMITED,
        late_s=3600,
    ),
    Vendor(
        name="1password-v3",
        emulated=(
            "GET with `page_token`, which takes no `start_time` beside it; that is exclusive, and "
            "about the time of arrival; at most 1,000 a page; 429 that names no time"
        ),
        not_emulated="what the beta may have changed since",
        routes={
            "GET /api/v3/auditevents": Listing(
                envelope=lambda page: {
                    "audit_events": page.items,
                    "next_page_token": page.token or "",
                },
                bounds=_read_start,
                page_param="page_token",
                with_cursor="not",
                limit_param="max_page_size",
                over_limit="refuse",
            )
        },
        authorise=_AUTHORISE,
        environ=_ENVIRON,
        make_event=_make_inserted,
        serial_of=lambda event: str(event["actor"]["serial"]),
        limited=_LIMITED,
    ),
)
