"""Duo's signatures, as an example of a signer: `signer: flicker.auth.duo:sign`."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.auth import SigningRequest


def sign(request: SigningRequest, options: Mapping[str, str]) -> dict[str, str]:
    """Sign a GET request to Duo's Admin API, in version 2 of its signatures.

    Source: https://duo.com/docs/adminapi#authentication

    Args:
        request: What will be sent.
        options: `integration_key`, `secret_key`, and `digest` if it is to be
            sha1 and not sha512.
    """
    parts = urlsplit(request.url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    params = sorted((quote(name, "~"), quote(value, "~")) for name, value in pairs)
    date = formatdate(usegmt=False)
    lines = [
        date,
        request.method.upper(),
        (parts.hostname or "").lower(),
        parts.path,
        "&".join(f"{name}={value}" for name, value in params),
    ]
    digest = {"sha1": hashlib.sha1, "sha512": hashlib.sha512}[options.get("digest", "sha512")]
    signature = hmac.new(options["secret_key"].encode(), "\n".join(lines).encode(), digest)
    pair = f"{options['integration_key']}:{signature.hexdigest()}"
    return {"Date": date, "Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
