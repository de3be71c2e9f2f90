"""Tokens for assertions signed with a private key."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import jwt

from flicker.auth.tokens import TokenRequest
from flicker.conceal import jwt_bearer_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.settings import JwtBearer

LIFE_S = 120
"""Of an assertion, which is used at once; some vendors take none that lives longer than minutes."""

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class AssertionGrant:
    """A JWT that is the grant itself, or that stands for the client's secret.

    Source: RFC 7523, sections 2.1, 2.2 and 3.

    Args:
        settings: What was configured; the key was checked with it.
    """

    def __init__(self, settings: JwtBearer) -> None:
        self._settings = settings

    def request(self) -> TokenRequest:
        """Give the request of this moment."""
        settings = self._settings
        params = {name: value.reveal() for name, value in settings.extra}
        if settings.style == "grant":
            # As Google has it: the scope is a claim, and no parameter.
            assertion = self._sign({"sub": settings.subject, "scope": settings.scope})
            return TokenRequest(_GRANT_TYPE, {**params, "assertion": assertion})
        params |= {
            "client_id": settings.client_id or settings.issuer,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._sign({"sub": settings.subject or settings.issuer}),
        }
        if settings.scope is not None:
            params["scope"] = settings.scope
        return TokenRequest("client_credentials", params)

    def _sign(self, claims: dict[str, str | None]) -> str:
        settings = self._settings
        now_s = int(time.time())
        whole: dict[str, Any] = {
            "iss": settings.issuer,
            "aud": settings.audience or settings.token_url,
            "iat": now_s,
            "exp": now_s + LIFE_S,
            "jti": str(uuid.uuid4()),
            **{name: text for name, text in claims.items() if text is not None},
        }
        return jwt.encode(
            whole,
            settings.private_key.reveal(),
            algorithm=settings.algorithm,
            headers=None if settings.key_id is None else {"kid": settings.key_id},
        )

    def note(self, answer: Mapping[str, Any]) -> None:
        """Need nothing: each request has an assertion of its own."""

    def note_refusal(self) -> None:
        """Need nothing."""

    def secrets(self) -> list[str]:
        """Give what is configured."""
        return [text for _, text in jwt_bearer_secrets(self._settings)]

    def obtained(self) -> list[str]:
        """Give nothing: an answer has no more than a token."""
        return []
