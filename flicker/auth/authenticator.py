"""What the client asks of credentials that differ from request to request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class SigningRequest:
    """A request as it will go over the wire, before it is authenticated.

    Attributes:
        method: Such as `GET`.
        url: Absolute; path and query are spelt as in the request line.
        headers: All that Flicker sets itself, without Host and Content-Length.
        body: None where there is none.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


class Authenticator(Protocol):
    """Proves who we are; shared by all sources with the same credentials."""

    def headers(self, request: SigningRequest) -> dict[str, str]:
        """Give the headers to add to this very request; may ask for a token.

        Raises:
            RetryableError: There are no credentials now.
            HumanNeededError: There will be none until somebody repairs something.
        """

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Forget what was refused with 401, if it is what would be sent next.

        Args:
            refused: What `headers` gave.

        Returns:
            Whether it is worth asking once more.
        """

    def secrets(self) -> Iterable[str]:
        """Give what nobody may see and is not configured, such as the present token."""
