"""An API that says exactly what a test tells it to, well-formed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flicker.demo.servers import EmbeddedServer, Request, Response, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class ScriptedApi(EmbeddedServer):
    """Answers from a list in order, the last one for ever, or from a callable."""

    def __init__(
        self,
        responses: Sequence[Response] | Callable[[Request], Response],
        *,
        port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        client_ca: str | Path | None = None,
    ) -> None:
        """Bind the port.

        Args:
            responses: At least one; or a callable that must bear several
                threads at a time.
            port: 0 for a free one.
            tls: Paths of the certificate chain and its key, in PEM.
            client_ca: PEM file that clients' certificates must be signed by.
        """
        super().__init__(port=port, tls=tls, client_ca=client_ca)
        # May be replaced while the server runs.
        self.respond: Callable[[Request], Response | None] = (
            responses if callable(responses) else in_turn(responses, last=responses[-1])
        )

    def answer(self, request: Request) -> Response:
        """Answer what the script says."""
        response = self.respond(request)
        if response is None:
            message = f"the script has no answer for {request.target}"
            raise ValueError(message)
        return response
