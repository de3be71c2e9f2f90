"""Box's stream of enterprise events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bearer, given, issue, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Ask, RefusedError, Vendor
from tests.servers.vendors.listing import iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import VendorApi

_TOKEN_PATH = "/oauth2/token"
# Odd and beyond 2**53: whoever makes a float of it asks for another place.
_FIRST_POSITION = 30_401_068_764_886_351
_MAX_LIMIT = 500
_REPEATED = 2


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "type": "event",
        "event_id": f"b9a2393a-{serial:012d}",
        "created_at": iso(instant_ns, 0, "-07:00"),
        "event_type": "LOGIN",
        "source": {"type": "user", "id": str(serial)},
    }


def _list_events(api: VendorApi, request: Request) -> Response:
    """Answer from a position on, with the page's order and its repeats as Box warns of them."""
    ask = Ask(request)
    if ask.take("stream_type") != "admin_logs_streaming":
        raise RefusedError("stream_type has to be admin_logs_streaming")
    limit = min(int(ask.take("limit") or 100), _MAX_LIMIT)
    log = api.log()
    place = ask.take("stream_position") or "0"
    start = 0 if place == "0" else int(place) - _FIRST_POSITION
    ask.finish()
    if not 0 <= start <= len(log):
        raise RefusedError("stream_position was never handed out")
    fresh = log[start : start + limit - _REPEATED]
    again = log[max(start - _REPEATED, 0) : start] if fresh else []
    shown = [entry.value for entry in (*reversed(fresh), *again)]
    body = {
        "chunk_size": len(shown),
        "next_stream_position": _FIRST_POSITION + start + len(fresh),
        "entries": shown,
    }
    return Response(200, body=json.dumps(body))


VENDORS = (
    Vendor(
        name="box",
        emulated=(
            "`admin_logs_streaming`: numeric positions beyond 2^53, handed out for ever; events "
            "out of order and more than once; no time filter; at most 500 a page; tokens for "
            "client credentials with a subject, that expire; 429 with `Retry-After`"
        ),
        not_emulated="`admin_logs` and its filters, positions as text, the two weeks of history",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                grant_type="client_credentials",
                client_id="box-id",
                client_secret="box-secret",
                box_subject_type="enterprise",
                box_subject_id="1234",
            ),
            "GET /2.0/events": _list_events,
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            BOX_CLIENT_ID="box-id", BOX_CLIENT_SECRET="box-secret", BOX_ENTERPRISE_ID="1234"
        ),
        make_event=_make_event,
        serial_of=lambda event: str(event["source"]["id"]),
        limited=retry_after(),
        tick_ns=NS_PER_S,
        late_s=86_400,
        error_body=lambda status, problem: {"type": "error", "status": status, "message": problem},
    ),
)
