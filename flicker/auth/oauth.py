"""OAuth 2.0 with the client's own credentials, or a refresh token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flicker.auth.tokens import TokenRequest
from flicker.conceal import oauth2_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.settings import OAuth2, Secret


class OAuth2Grant:
    """The grants client_credentials, refresh_token, and Zoom's account_credentials.

    Source: RFC 6749, sections 2.3.1, 4.4 and 6.

    Args:
        settings: What was configured.
    """

    def __init__(self, settings: OAuth2) -> None:
        self._settings = settings
        self._refresh_token = _text(settings.refresh_token)

    def request(self) -> TokenRequest:
        """Give the request of this moment."""
        settings = self._settings
        secret = _text(settings.client_secret)
        params = {
            "refresh_token": self._refresh_token,
            "scope": settings.scope,
            "audience": settings.audience,
            **{name: value.reveal() for name, value in settings.extra},
        }
        basic = None
        if settings.auth_style == "basic":
            basic = (settings.client_id, secret or "")
        else:
            params |= {"client_id": settings.client_id, "client_secret": secret}
        return TokenRequest(
            settings.grant_type, {name: text for name, text in params.items() if text}, basic
        )

    def note(self, answer: Mapping[str, Any]) -> None:
        """Remember a refresh token that replaces the one that was used."""
        rotated = answer.get("refresh_token")
        if self._refresh_token is not None and isinstance(rotated, str) and rotated:
            self._refresh_token = rotated

    def note_refusal(self) -> None:
        """Go back to the configured refresh token: it may have been the last that was good."""
        self._refresh_token = _text(self._settings.refresh_token)

    def secrets(self) -> list[str]:
        """Give what is configured."""
        return [text for _, text in oauth2_secrets(self._settings)]

    def obtained(self) -> list[str]:
        """Give the refresh token that replaced the configured one."""
        token = self._refresh_token
        return [] if token is None or token == _text(self._settings.refresh_token) else [token]


def _text(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
