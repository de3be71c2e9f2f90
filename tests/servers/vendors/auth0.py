"""Auth0's tenant logs, read from checkpoints."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bearer, given, issue, read_json, reset_at
from tests.servers.vendors.emulator import NS_PER_S, Ask, RefusedError, Vendor, origin_of
from tests.servers.vendors.listing import iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Entry, VendorApi

_MAX_TAKE = 100
_DIGITS = 56


def _log_id(entry: Entry) -> str:
    """Give an id that sorts by the instant of arrival."""
    moment = datetime.fromtimestamp(entry.persisted_ns // NS_PER_S, timezone.utc)
    return f"900{moment:%Y%m%d%H%M%S}{entry.arrival + 1:039d}"


def _list(api: VendorApi, request: Request) -> Response:
    """List what came after a checkpoint; the link to go on by is always there."""
    ask = Ask(request)
    checkpoint = ask.take("from")
    take = int(ask.take("take") or 50)
    ask.finish()
    if checkpoint is None or len(checkpoint) != _DIGITS or not checkpoint.isdigit():
        raise RefusedError("from is no log_id")
    if take > _MAX_TAKE:
        raise RefusedError(f"take is above {_MAX_TAKE}")
    found = [entry for entry in api.log() if _log_id(entry) > checkpoint][:take]
    last = _log_id(found[-1]) if found else checkpoint
    following = f"{request.path}?{urlencode({'from': last, 'take': take})}"
    return Response(
        200,
        [("Link", f'<{origin_of(request)}{following}>; rel="next"')],
        [{**entry.value, "_id": _log_id(entry), "log_id": _log_id(entry)} for entry in found],
    )


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {"date": iso(instant_ns), "type": "s", "details": {"serial": serial}}


VENDORS = (
    Vendor(
        name="auth0",
        emulated=(
            "root array in order of arrival; `from` and `take` only; `Link` that is always there "
            "and repeats when nothing is new; at most 100 a page; OAuth client credentials as "
            "JSON with `audience`; 429 with `X-RateLimit-Reset`"
        ),
        not_emulated="the search mode, retention, checkpoints that were deleted",
        routes={
            "GET /api/v2/logs": _list,
            "POST /oauth/token": issue(
                read_json,
                grant_type="client_credentials",
                client_id="auth0-client",
                client_secret="auth0-secret",
                audience="https://acme.us.auth0.com/api/v2/",
            ),
        },
        open_paths=("/oauth/token",),
        authorise=bearer,
        environ=given(
            AUTH0_DOMAIN="acme.us.auth0.com",
            AUTH0_CLIENT_ID="auth0-client",
            AUTH0_CLIENT_SECRET="auth0-secret",
        ),
        make_event=_make_event,
        serial_of=lambda event: str(event["details"]["serial"]),
        limited=reset_at("X-RateLimit", {"errorCode": "too_many_requests"}),
        lag_s=5,
        late_s=3600,
        error_body=lambda status, problem: {"statusCode": status, "message": problem},
    ),
)
