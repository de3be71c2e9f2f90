"""One page on its way: asked for and read, on a thread of the pool where that takes time."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from flicker.client import raise_for_poll
from flicker.decode import ErrorBodyError, Page, UnreadablePageError
from flicker.errors import ForeignLinkError, RequestError
from flicker.log import fault_facts
from flicker.pagination import (
    NEXT_URL,
    describe_dead_end,
    is_dead_end,
    next_url,
    resolve_link,
)
from flicker.ratelimit import is_quota_exhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.client import Client, Reply
    from flicker.connections import Started
    from flicker.pagination import Place
    from flicker.request import PageRequest
    from flicker.settings import Source

OK = 200
EXCERPT_CHARS = 200

logger = logging.getLogger(__name__)


class Fetch:
    """A request, and what became of it.

    Args:
        source: For its pagination and its name.
        client: Sends the request.
        request: What to send.
        place: Of the page in its listing; None for what is in none.
        decode: Reads the answer, and tells its second argument of the page
            before its events are read.
        guess: Gives what is behind a page, from its place, the page before
            its events are read, and absolute targets by relation.
        on_guess: Told when `following` is known.
        on_pause: Told how long the API wants us to stay away, in seconds, if it
            does; at once, since the page itself may have to wait for its turn.
        is_body_due: Whether an empty body is a failure: no list is not an
            empty list, which would end a scan in its middle, or have the events of
            a listed entry taken for none.
        may_dead_end: Whether a page that says that there is more, and not
            where, is taken all the same.
        is_entry: Whether it asks for what an entry of the listing points at.

    Attributes:
        request: What is sent.
        following: What will be asked for behind it, as far as one can tell,
            once its events are being read.
        started_at: By `time.monotonic`.
        page: What came, None if nothing did.
        links: Absolute targets by relation.
        error: Why there is no page.
        done_at: By `time.monotonic`, when all of these were final; None before.
    """

    def __init__(
        self,
        source: Source,
        client: Client,
        request: PageRequest,
        place: Place | None,
        decode: Callable[[Reply, Callable[[Page], None]], Page],
        guess: Callable[[Place, Page, dict[str, str]], tuple[Place, PageRequest] | None],
        on_guess: Callable[[Fetch], None],
        on_pause: Callable[[float], None],
        *,
        is_body_due: bool = False,
        may_dead_end: bool = False,
        is_entry: bool = False,
    ) -> None:
        self._source = source
        self._client = client
        self.request = request
        self._place = place
        self._decode = decode
        self._guess = guess
        self._on_guess = on_guess
        self._on_pause = on_pause
        self.following: tuple[Place, PageRequest] | None = None
        self._is_body_due = is_body_due
        self._may_dead_end = may_dead_end
        self._is_entry = is_entry
        self.started_at = time.monotonic()
        self.page: Page | None = None
        self.links: dict[str, str] = {}
        self.error: RequestError | None = None
        self.done_at: float | None = None
        self._started: Started | None = None
        self._is_looked_at = False
        self._done = threading.Event()

    @property
    def is_at_token(self) -> bool:
        """Whether it asks for what a cursor or a link leads to."""
        return self._place is not None and self._place.is_token

    @property
    def is_done(self) -> bool:
        """Whether what came is final."""
        return self.done_at is not None

    def start(self) -> bool:
        """Send the request here and now, if that takes no waiting.

        Returns:
            Whether it did; what comes is then for `look` to find.
        """
        self._started = self._client.start(self.request)
        self._is_looked_at = self._started is not None
        return self._is_looked_at

    def look(self, submit: Callable[[Callable[[], None]], None]) -> None:
        """Read an answer that is there; never waits.

        Args:
            submit: Has a thread do what takes time.
        """
        if not self._is_looked_at or self._started is None:
            return
        is_short = self._started.look()
        if is_short is None:
            return
        if is_short:
            self._is_looked_at = False
            self.run()
            return
        # Where there is no thread, the next look tries again.
        with suppress(RuntimeError):
            submit(self.run)
            self._is_looked_at = False

    def wait(self, seconds: float, submit: Callable[[Callable[[], None]], None]) -> None:
        """Wait until what came is final, or for so long.

        Args:
            seconds: As above.
            submit: As for `look`.
        """
        if self._is_looked_at and self._started is not None:
            self._started.wait(seconds)
            self.look(submit)
        if not self._is_looked_at:
            self._done.wait(seconds)

    def drop(self) -> None:
        """Let go of a request whose answer nobody reads."""
        if self._is_looked_at and self._started is not None:
            self._is_looked_at = False
            self._started.drop()

    def run(self) -> None:
        """Fetch the page; what happened is in the attributes afterwards."""
        asked_s: float | None = None
        try:
            reply = self._client.ask(self.request, self._started)
            raise_for_poll(reply, is_entry=self._is_entry)
            if self._is_body_due and reply.status == OK and not reply.body.strip():
                self.error = UnreadablePageError("is empty, where a JSON document is due")
                return
            pause_s = reply.wait_s if is_quota_exhausted(reply.headers) else None

            def note(outline: Page) -> None:
                if pause_s is None and self._place is not None:
                    self.following = self._guess(self._place, outline, self._links(reply, outline))
                    self._on_guess(self)

            page = self._decode(reply, note)
            links = self._links(reply, page)
            pagination = self._source.pagination
            is_lost = not self._may_dead_end and is_dead_end(pagination, page, links)
            if is_lost and pagination is not None:
                self.error = UnreadablePageError(describe_dead_end(pagination))
                return
            self.page, self.links, asked_s = page, links, pause_s
        except ErrorBodyError as error:
            said = self._client.redact(error.excerpt)[:EXCERPT_CHARS]
            self.error = ErrorBodyError(f"{error}. It says: {said}" if said else str(error))
        except RequestError as error:
            self.error = error
            asked_s = getattr(error, "retry_after_s", None)
        except Exception as error:  # noqa: BLE001 - and never the worker
            # A fault of ours must stop neither the source nor its neighbours.
            logger.error(  # noqa: TRY400 - its text may quote URL and body
                "reading a page failed unexpectedly",
                extra={"source": self._source.name, **fault_facts(error)},
            )
            self.error = UnreadablePageError(f"cannot be read ({type(error).__name__})")
        finally:
            if asked_s is not None:
                self._on_pause(asked_s)
            self.done_at = time.monotonic()
            self._done.set()

    def _links(self, reply: Reply, page: Page) -> dict[str, str]:
        target = next_url(self._source.pagination, page, reply.headers)
        if not target:
            return reply.links
        links = {**reply.links, NEXT_URL: target}
        # One that leaves the origin is refused when it is followed.
        with suppress(ForeignLinkError):
            links[NEXT_URL] = resolve_link(self.request.url, target)
        return links
