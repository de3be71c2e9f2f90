"""Google Workspace's activity reports, and the tokens of a service account."""

from __future__ import annotations

import base64
import functools
import json
import time
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bare, bearer, read_form
from tests.servers.vendors.emulator import RefusedError, Vendor, VendorApi
from tests.servers.vendors.listing import Listing, Page, bounds, iso

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TOKEN_PATH = "/token"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LONGEST_S = 3600
_CLAIMS = {
    "iss": "flicker@acme.iam.gserviceaccount.com",
    "sub": "admin@acme.example",
    "scope": "https://www.googleapis.com/auth/admin.reports.audit.readonly",
}


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _set_up(api: VendorApi, directory: Path) -> Mapping[str, str]:
    """Write the file that Google makes for a service account."""
    pem = _key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "client_email": _CLAIMS["iss"],
        "private_key_id": "key-1",
        "private_key": pem.decode(),
        "token_uri": api.url + _TOKEN_PATH,
    }
    path = directory / "service-account.json"
    path.write_text(json.dumps(account), encoding="utf-8")
    return {"GOOGLE_KEY_FILE": str(path), "GOOGLE_ADMIN_EMAIL": _CLAIMS["sub"]}


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _read_assertion(assertion: str) -> dict[str, Any]:
    """Read a token's claims, whose signature has to be the account's."""
    signed, _, signature = assertion.rpartition(".")
    try:
        _key().public_key().verify(
            _decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        raise RefusedError("invalid_grant: the signature is wrong") from None
    header, claims = (json.loads(_decode(part)) for part in signed.split("."))
    if header["alg"] != "RS256":
        raise RefusedError("invalid_grant: only RS256 is taken")
    found: dict[str, Any] = claims
    return found


def _issue(api: VendorApi, request: Request) -> Response:
    form = read_form(request)
    if form.keys() != {"grant_type", "assertion"} or form["grant_type"] != _GRANT:
        raise RefusedError("unsupported_grant_type")
    claims = _read_assertion(form["assertion"])
    expected = {**_CLAIMS, "aud": api.url + _TOKEN_PATH}
    if any(claims.get(name) != text for name, text in expected.items()):
        raise RefusedError("invalid_grant: a claim is wrong")
    if not claims["iat"] - 1 <= time.time() < claims["exp"] <= claims["iat"] + _LONGEST_S:
        raise RefusedError("invalid_grant: the token has to be short-lived and of now")
    body = {"access_token": api.issue_token(), "token_type": "Bearer", "expires_in": 3599}
    return Response(200, body=body)


def _make_item(serial: int, instant_ns: int) -> dict[str, object]:
    events = [
        {"name": "login_success", "parameters": [{"name": "number", "value": f"{serial}.{part}"}]}
        for part in range(2)
    ]
    # The qualifier tells apart what has the same time, and nothing else.
    identity = {"time": iso(instant_ns), "uniqueQualifier": str(serial % 1000)}
    return {"kind": "admin#reports#activity", "id": identity, "events": events}


def _write(page: Page) -> dict[str, object]:
    body: dict[str, object] = {"kind": "admin#reports#activities"}
    if page.items:
        body["items"] = page.items
    if page.token is not None:
        body["nextPageToken"] = page.token
    return body


VENDORS = (
    Vendor(
        name="google-workspace",
        emulated=(
            "`items` of several `events`, newest first, a list for each application; no `items` "
            "where there are none; `nextPageToken`; `startTime` inclusive; identity in two parts; "
            "at most 1,000 a page; a service account's signed assertion checked; 429 without a word"
        ),
        not_emulated="other filters, the retention, `nextPageToken` that never ends",
        routes={
            "GET /admin/reports/v1/activity/users/all/applications/*": Listing(
                envelope=_write,
                bounds=bounds("startTime", "endTime"),
                page_param="pageToken",
                order="desc",
                limit_param="maxResults",
                over_limit="refuse",
                lane_of=lambda request: request.path.rpartition("/")[2],
            ),
            f"POST {_TOKEN_PATH}": _issue,
        },
        open_paths=(_TOKEN_PATH,),
        authorise=bearer,
        environ=_set_up,
        make_event=_make_item,
        serial_of=lambda event: str(event["events"]["parameters"][0]["value"]),
        parts=2,
        lag_s=600,
        limited=bare(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}),
        lanes=("admin", "login", "token", "drive"),
        error_body=lambda status, problem: {"error": {"code": status, "message": problem}},
    ),
)
