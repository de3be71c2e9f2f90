"""Credentials onto a request, and out of everything that is kept or shown."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from flicker.settings import Endpoint, Secret

MIN_SECRET_CHARS = 6
"""Shorter header values (`1`, `json`) are no credentials, and turn up anywhere."""


def request_headers(endpoint: Endpoint) -> dict[str, str]:
    """Give the header lines that identify us to an endpoint.

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
        headers["X-API-Key"] = credentials.api_key.reveal()
    return headers


class Concealer:
    """Takes configured secrets out of URLs before they are kept.

    Vendors echo the request's query in their next links, token and all. What
    is kept has a mark in its place, which is filled in again when the URL is
    used, with the token of that day.

    Args:
        endpoint: Its headers and query values count as secrets.
        params: So do these.
    """

    def __init__(self, endpoint: Endpoint, params: tuple[tuple[str, Secret], ...] = ()) -> None:
        secrets = {
            f"query:{name}": value for name, value in parse_qsl(urlsplit(endpoint.url).query)
        }
        secrets |= {f"query:{name}": value.reveal() for name, value in params}
        for name, value in request_headers(endpoint).items():
            # `Bearer abc`: the token may come back without its scheme.
            secrets[f"header:{name.lower()}"] = value.split()[-1] if value.split() else ""
        credentials = endpoint.credentials
        if credentials.basic is not None:
            secrets["basic:password"] = credentials.basic.password.reveal()
        self._marks = sorted(
            (
                (f"\0{name}\0", text)
                for name, text in secrets.items()
                if len(text) >= MIN_SECRET_CHARS
            ),
            key=lambda mark: -len(mark[1]),
        )

    def conceal(self, text: str) -> str:
        """Put marks in the place of secrets."""
        for mark, secret in self._marks:
            for form in (quote(secret, safe=""), quote(secret), secret):
                text = text.replace(form, mark)
        return text

    def restore(self, text: str) -> str:
        """Put secrets, percent-encoded, in the place of marks."""
        for mark, secret in self._marks:
            text = text.replace(mark, quote(secret, safe=""))
        return text

    def redact(self, text: str) -> str:
        """Put stars in the place of secrets, for people to read."""
        for mark, _ in self._marks:
            text = text.replace(mark, "***")
        for _, secret in self._marks:
            text = text.replace(secret, "***")
        return text
