"""Credentials as vendors check them, and quotas as they announce them."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from flicker.demo.servers import Request, Response
from tests.servers.vendors.emulator import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.servers.vendors.emulator import VendorApi

    Check = Callable[[VendorApi, Request], str | None]

WAIT_S = 1


def given(**variables: str) -> Callable[[VendorApi, Path], Mapping[str, str]]:
    """Set variables that depend on nothing."""
    return lambda _api, _directory: variables


def headers(**expected: str) -> Check:
    """Insist on headers; `_` in a name stands for `-`."""
    named = {name.replace("_", "-").lower(): text for name, text in expected.items()}

    def check(_: VendorApi, request: Request) -> str | None:
        wrong = [name for name, text in named.items() if request.headers.get(name) != text]
        return f"missing or wrong: {', '.join(wrong)}" if wrong else None

    return check


def basic(username: str, password: str) -> Check:
    """Insist on HTTP Basic authentication."""
    code = base64.b64encode(f"{username}:{password}".encode()).decode()
    return headers(authorization=f"Basic {code}")


def bearer(api: VendorApi, request: Request) -> str | None:
    """Insist on an access token that this server issued."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return api.check_token(token) if kind == "Bearer" else "no bearer token"


def read_form(request: Request) -> dict[str, str]:
    """Read a form, or refuse."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise RefusedError("the body has to be a form")
    return dict(parse_qsl(request.body.decode()))


def read_json(request: Request) -> dict[str, object]:
    """Read a JSON object, or refuse."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise RefusedError("the body has to be JSON")
    body: dict[str, object] = json.loads(request.body)
    return body


def issue(
    read: Callable[[Request], Mapping[str, object]] = read_form,
    *,
    more: Callable[[VendorApi, Request], Mapping[str, object]] = lambda _api, _request: {},
    check: Check = lambda _api, _request: None,
    **expected: str,
) -> Callable[[VendorApi, Request], Response]:
    """Make a route that hands out access tokens.

    Args:
        read: Of the request's body.
        more: Members of the answer beside the usual ones.
        check: Of what is not in the body.
        expected: Members that the body must have, to the letter and no others.
    """

    def route(api: VendorApi, request: Request) -> Response:
        if dict(read(request)) != expected:
            raise RefusedError("invalid_client or invalid_grant", 400)
        problem = check(api, request)
        if problem is not None:
            raise RefusedError(problem, 401)
        body = {"access_token": api.issue_token(), "token_type": "Bearer", "expires_in": 3600}
        return Response(200, body={**body, **more(api, request)})

    return route


def retry_after(body: object = b"", status: int = 429) -> Callable[[], Response]:
    """Refuse as most do: seconds in Retry-After."""
    return lambda: Response(status, [("Retry-After", str(WAIT_S))], body)


def reset_at(
    prefix: str, body: object = b"", *, status: int = 429, limit: str = "120"
) -> Callable[[], Response]:
    """Refuse with the epoch second at which the quota is refilled."""
    # This second is partly over.
    return lambda: Response(status, _quota(prefix, limit, str(int(time.time()) + 1 + WAIT_S)), body)


def reset_in(prefix: str, body: object = b"", *, limit: str = "120") -> Callable[[], Response]:
    """Refuse with the seconds until the quota is refilled."""
    return lambda: Response(429, _quota(prefix, limit, str(WAIT_S)), body)


def reset_on_the_minute(prefix: str, body: object = b"") -> Callable[[], Response]:
    """Refuse with the minute at which the quota is refilled, in ISO 8601.

    The answer's own Date is a second before that, so that nobody waits for long.
    """

    def limited() -> Response:
        minute = datetime.now(timezone.utc).replace(second=0, microsecond=0)
        date = format_datetime(minute - timedelta(seconds=WAIT_S), usegmt=True)
        quota = _quota(prefix, "50", minute.strftime("%Y-%m-%dT%H:%MZ"))
        return Response(429, [("Date", date), *quota], body)

    return limited


def bare(status: int = 429, body: object = b"") -> Callable[[], Response]:
    """Refuse without a word on how long."""
    return lambda: Response(status, body=body)


def _quota(prefix: str, limit: str, reset: str) -> list[tuple[str, str]]:
    return [(f"{prefix}-Limit", limit), (f"{prefix}-Remaining", "0"), (f"{prefix}-Reset", reset)]
