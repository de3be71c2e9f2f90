"""One authenticator for all sources that have the same credentials."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flicker.settings import Endpoint

if TYPE_CHECKING:
    from flicker.auth.authenticator import Authenticator
    from flicker.settings import JwtBearer, OAuth2

# What each way needs is loaded with the first source that has it: the AWS
# library alone takes half a second.
# ruff: noqa: PLC0415


class Authenticators:
    """The authenticators of a process, by what they are made from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[object, Authenticator | None] = {}

    def of(self, endpoint: Endpoint) -> Authenticator | None:
        """Give the authenticator of an endpoint, None where static headers do."""
        credentials = endpoint.credentials
        ways = (
            credentials.oauth2,
            credentials.jwt_bearer,
            credentials.aws_sigv4,
            credentials.signer,
        )
        key = (*ways, endpoint.tls, endpoint.timeout)
        with self._lock:
            if key not in self._made:
                self._made[key] = _make(endpoint)
            return self._made[key]


def _make(endpoint: Endpoint) -> Authenticator | None:
    credentials = endpoint.credentials
    if credentials.oauth2 is not None:
        from flicker.auth.oauth import OAuth2Grant
        from flicker.auth.tokens import BearerTokens

        oauth2 = credentials.oauth2
        grant = OAuth2Grant(oauth2)
        return BearerTokens(grant, _token_endpoint(oauth2, endpoint), oauth2.body_format)
    if credentials.jwt_bearer is not None:
        from flicker.auth.assertion import AssertionGrant
        from flicker.auth.tokens import BearerTokens

        jwt_bearer = credentials.jwt_bearer
        return BearerTokens(
            AssertionGrant(jwt_bearer), _token_endpoint(jwt_bearer, endpoint), "form"
        )
    if credentials.aws_sigv4 is not None:
        from flicker.auth.aws import AwsSigner

        return AwsSigner(credentials.aws_sigv4)
    if credentials.signer is not None:
        from flicker.auth.plugin import PluginSigner

        return PluginSigner(credentials.signer)
    return None


def _token_endpoint(grant: OAuth2 | JwtBearer, endpoint: Endpoint) -> Endpoint:
    return Endpoint(grant.token_url, tls=endpoint.tls, timeout=endpoint.timeout)
