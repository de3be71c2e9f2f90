"""Credentials that are the same on every request."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flicker.settings import Endpoint


def request_headers(endpoint: Endpoint) -> dict[str, str]:
    """Give the header lines that identify us to an endpoint on every request.

    Returns:
        Names as written in the configuration; handle as a credential.
    """
    credentials = endpoint.credentials
    headers = {name: value.reveal() for name, value in endpoint.headers}
    if credentials.basic is not None:
        pair = f"{credentials.basic.username.reveal()}:{credentials.basic.password.reveal()}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    if credentials.bearer is not None:
        headers["Authorization"] = f"Bearer {credentials.bearer.reveal()}"
    if credentials.header is not None:
        name, value = credentials.header
        headers[name] = value.reveal()
    if credentials.api_key is not None:
        headers[credentials.api_key_header] = credentials.api_key.reveal()
    return headers
