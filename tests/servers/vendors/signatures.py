"""What vendors compute to check a signed request, written from their documents alone."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

if TYPE_CHECKING:
    from flicker.demo.servers import Request

_CLOCK_SKEW = timedelta(minutes=5)


def is_signed_for_duo(request: Request, integration_key: str, secret_key: str) -> bool:
    """Check the signature of Duo's Admin API, version 2.

    The user name is the integration key, the password the hexadecimal HMAC of
    date, method, host, path and sorted parameters, one a line; SHA-1 and
    SHA-512 are both taken.
    """
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    user, _, signature = b64decode(encoded).decode().partition(":")
    dated = request.headers.get("x-duo-date") or request.headers.get("date")
    if scheme != "Basic" or user != integration_key or dated is None:
        return False
    # UTC in either spelling: a date that ends in -0000 is read without a zone.
    signed_at = parsedate_to_datetime(dated).replace(tzinfo=timezone.utc)
    if abs(datetime.now(timezone.utc) - signed_at) > _CLOCK_SKEW:
        return False
    params = "&".join(sorted(f"{_escape(name)}={_escape(text)}" for name, text in request.query))
    host = request.headers["host"].partition(":")[0].lower()
    signed = f"{dated}\n{request.method}\n{host}\n{request.path}\n{params}"
    return any(
        hmac.compare_digest(
            signature, hmac.new(secret_key.encode(), signed.encode(), digest).hexdigest()
        )
        for digest in ("sha1", "sha512")
    )


def region_signed_for(request: Request, service: str, secret_key: str) -> str | None:
    """Check a signature of AWS, version 4, and give the region in its scope.

    Returns:
        None where the signature is missing, stale, for another service, or wrong.

    Source: IAM User Guide, "Create a signed AWS API request".
    """
    algorithm, _, rest = request.headers.get("authorization", "").partition(" ")
    stamp = request.headers.get("x-amz-date", "")
    if algorithm != "AWS4-HMAC-SHA256" or not stamp:
        return None
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    _, day, region, signed_service, end = fields["Credential"].split("/")
    signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    is_stale = abs(datetime.now(timezone.utc) - signed_at) > _CLOCK_SKEW
    if is_stale or signed_service != service or end != "aws4_request" or day != stamp[:8]:
        return None
    names = fields["SignedHeaders"].split(";")
    pairs = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    canonical = "\n".join(
        [
            request.method,
            request.path,
            "&".join(sorted(f"{_escape(name)}={_escape(text)}" for name, text in pairs)),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            "",
            fields["SignedHeaders"],
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signed = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    expected = hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()
    is_right = hmac.compare_digest(expected, fields["Signature"])
    # Unsigned, these two could be replaced on the way.
    return region if is_right and {"host", "x-amz-date"} <= set(names) else None


def _escape(text: str) -> str:
    return quote(text, safe="-_.~")
