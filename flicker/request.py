"""One request to an API, before credentials are put to it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PageRequest:
    """What to send.

    Attributes:
        url: Absolute; may hold secrets, hence no repr.
        method: `GET` or `POST`.
        body: JSON for `POST`, None for `GET`.
    """

    url: str = field(repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Header lines that the body asks for."""
        return {} if self.body is None else {"Content-Type": "application/json"}
