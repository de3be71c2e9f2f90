"""A token endpoint that gives bearer tokens to one client, and forgets them when told."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

from flicker.demo.servers import EmbeddedServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_ID = "client-1"
CLIENT_SECRET = "s3cret/of client+1"


class TokenServer(EmbeddedServer):
    """Answers token requests as RFC 6749 says, strictly.

    Everything but `check` may be replaced while it runs.
    """

    def __init__(
        self,
        grant: str = "client_credentials",
        *,
        check: Callable[[dict[str, str]], str | None] = lambda _: None,
        auth_style: str = "body",
        body_format: str = "form",
        proves_itself: bool = True,
    ) -> None:
        """Bind the port.

        Args:
            grant: The only one that it knows.
            check: Gives the error that the parameters deserve.
            auth_style: How the client has to prove itself: `body` or `basic`.
            body_format: How the parameters have to be written.
            proves_itself: Whether the client has a secret at all.
        """
        super().__init__()
        self.expires_in: object = 3600
        self.more: dict[str, object] = {}
        self.before_reply: Callable[[Request], Response | None] = lambda _: None
        self.tokens: list[str] = []
        self._revoked: set[str] = set()
        self._grant = grant
        self._check = check
        self._auth_style = auth_style
        self._body_format = body_format
        self._proves_itself = proves_itself
        self._lock = threading.Lock()

    @property
    def token_url(self) -> str:
        """Where tokens are asked for."""
        return f"{self.url}/oauth2/token"

    def revoke(self) -> None:
        """Have no token so far be good any more."""
        with self._lock:
            self._revoked |= set(self.tokens)

    def refusal(self, request: Request) -> Response | None:
        """Give an API's answer to a request without a good token, None to one with it."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        with self._lock:
            is_good = scheme == "Bearer" and token in set(self.tokens) - self._revoked
        return None if is_good else Response(401, body={"detail": "the token is not good"})

    def params(self, request: Request) -> dict[str, str]:
        """Read the parameters of a token request, in the only form that is taken."""
        kinds = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
        if request.headers.get("content-type") != kinds[self._body_format]:
            return {}
        if self._body_format == "json":
            return dict(json.loads(request.body))
        return dict(parse_qsl(request.body.decode(), strict_parsing=True))

    def answer(self, request: Request) -> Response:
        """Give a token, or the error that is due."""
        response = self.before_reply(request)
        if response is not None:
            return response
        if (request.method, request.path) != ("POST", "/oauth2/token"):
            return Response(404)
        params = self.params(request)
        if params.get("grant_type") != self._grant:
            return Response(400, body={"error": "unsupported_grant_type"})
        if self._proves_itself and not self._knows(request, params):
            return Response(401, body={"error": "invalid_client"})
        error = self._check(params)
        if error is not None:
            return Response(400, body={"error": error})
        with self._lock:
            token = f"t0ken-number-{len(self.tokens)}-{self.port}"
            self.tokens.append(token)
        members: dict[str, Any] = {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self.expires_in,
            **self.more,
        }
        return Response(body={name: value for name, value in members.items() if value is not None})

    def _knows(self, request: Request, params: dict[str, str]) -> bool:
        pair = [params.get("client_id"), params.get("client_secret")]
        if self._auth_style == "basic":
            if pair != [None, None]:
                return False
            encoded = request.headers.get("authorization", "").removeprefix("Basic ")
            pair = [unquote_plus(part) for part in base64.b64decode(encoded).decode().split(":")]
        return pair == [CLIENT_ID, CLIENT_SECRET]
