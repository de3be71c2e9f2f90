"""A client with credentials against an API that asks for them."""

from __future__ import annotations

from datetime import timedelta

from flicker.auth.shared import Authenticators
from flicker.client import Client
from flicker.request import PageRequest
from flicker.settings import Credentials, Endpoint


class Asker:
    """Asks an API as a source does.

    Args:
        url: Of the API.
        credentials: How it proves itself.
        shared: The authenticators of the process, where several sources are played.
        timeout_s: Of the source.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        shared: Authenticators | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Make the client."""
        endpoint = Endpoint(url, credentials=credentials, timeout=timedelta(seconds=timeout_s))
        self.authenticator = (shared or Authenticators()).of(endpoint)
        self._url = url
        self.client = Client(endpoint, authenticator=self.authenticator)

    def ask(self, path: str = "", body: bytes | None = None) -> int:
        """Send a request and give the status."""
        method = "GET" if body is None else "POST"
        return self.client.ask(PageRequest(self._url + path, method, body)).status
