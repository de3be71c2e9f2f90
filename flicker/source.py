"""The Bytewax input: polls on time, never waits, never throws."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flicker.ahead import LookAhead
from flicker.client import Client
from flicker.conceal import Concealer, is_concealed, is_lost
from flicker.decode import DecodeOptions, ErrorBodyError, PageDecoder, UnreadablePageError
from flicker.dedup import DedupWindow
from flicker.entries import ATTEMPTS as ENTRY_ATTEMPTS
from flicker.errors import (
    ForeignLinkError,
    HumanNeededError,
    RefusedError,
    RequestError,
    RetryableError,
)
from flicker.fetch import Fetch
from flicker.items import EventPage, Flush, Mark
from flicker.pagination import resolve_link
from flicker.position import (
    Position,
    api_fingerprint,
    check_version,
    dump_position,
    fits,
    load_position,
)
from flicker.request import PageRequest
from flicker.runtime import GRACE_S
from flicker.scan import Scanner
from flicker.worker import keep_thread_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.client import Reply
    from flicker.decode import Page
    from flicker.offload.parent import Offload
    from flicker.outbox import Outbox
    from flicker.pagination import Place
    from flicker.runtime import Runtime
    from flicker.settings import Source

PAUSE_S = 0.05
"""Seconds between two looks at an outbox that is full or is being drained."""

WAIT_S = 0.005
"""Seconds for which a look at a request on its way waits for it, where the worker has
no other source that this would hold up."""

STAGGER_S = 0.001
"""Between the first polls of two sources of a worker."""

IDLE_PAGES = 3
"""Pages of a poll without news that a restart may read once more."""

CURSOR_REFUSALS = frozenset({400, 404, 410, 422})
OFFSET_REFUSALS = frozenset({400, 416, 422})
NOT_FOUND = 404
MISSING = frozenset({404, 410})
PASSING_REFUSALS = frozenset({400, 422})
"""With 404 and 410 a cursor is gone; these an API may say of a good one, now and then."""
PLACE_REFUSALS = 2
"""How often in a row it may, until the cursor is given up: who starts over each time
may never get beyond it."""

PLACE_ATTEMPTS = 3
"""How often a body may say that the request failed, or that there is more but not
where, before the way on from there is given up."""

PAGE, ENTRY = "page", "entry"
"""What is read, for the log."""

logger = logging.getLogger(__name__)

_Read = Callable[["Reply", Callable[["Page"], None]], "Page"]

SourceItem = tuple[str, EventPage | Flush | Mark]


class SourcePartition(StatefulSourcePartition[SourceItem, dict[str, Any]]):
    """What live and retired sources have in common: marks, and an orderly end."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        self._name = name
        self._runtime = runtime
        self._heartbeat = runtime.heartbeats.join()
        self._slack = runtime.slacks.join()
        self._is_first = True
        self._wind_down_at: float | None = None
        self._is_over = False
        self._awake_in_s = 0.0

    def next_batch(self) -> list[SourceItem]:
        """Give what is ready; never waits, but for `WAIT_S`.

        Raises:
            StopIteration: The source was asked to stop, or to read once, and
                its outbox is drained or given up.
        """
        if self._is_over:
            raise StopIteration
        items: list[SourceItem] = []
        outbox = self._runtime.outboxes.get(self._name)
        # The first mark builds the sink's partition and with it the outbox.
        if self._is_first or (outbox is not None and outbox.take_mark()):
            self._is_first = False
            items.append((self._name, Mark()))
        if self._runtime.stop.is_set or self._is_finished():
            items += self._wind_down(outbox)
        else:
            self._awake_in_s = self._heartbeat.next_in_s()
            items += self._poll(outbox)
        return items

    def next_awake(self) -> datetime:
        """Give the time of the next look, at its heartbeat at the latest."""
        self._slack.note(self._awake_in_s)
        return datetime.now(timezone.utc) + timedelta(seconds=self._awake_in_s)

    def _is_finished(self) -> bool:
        return False

    @abstractmethod
    def _poll(self, outbox: Outbox | None) -> list[SourceItem]: ...

    def _wind_down(self, outbox: Outbox | None) -> list[SourceItem]:
        """Have the buffer flushed and the outbox drained, then be over."""
        now = time.monotonic()
        self._awake_in_s = PAUSE_S
        if self._wind_down_at is None:
            self._wind_down_at = now
            self._awake_in_s = 0.0
            if outbox is not None:
                outbox.hurry()
            return [(self._name, Flush(self._name))]
        if outbox is not None and outbox.is_flushed:
            is_settled = outbox.owed == 0 or outbox.gave_up or not outbox.is_deliverable
        else:
            is_settled = outbox is None and now - self._wind_down_at > GRACE_S
        if is_settled or self._runtime.stop.is_overdue:
            self._is_over = True
            self._awake_in_s = 0.0
            if outbox is not None and outbox.owed:
                if self._runtime.once and not self._runtime.stop.is_set:
                    self._runtime.give_up(self._name)
                logger.warning(
                    "stopping with batches not delivered",
                    extra={"source": self._name, "batches_owed": outbox.owed},
                )
            return [(self._name, Mark())]
        return []


class RetiredPartition(SourcePartition):
    """A source that is in the registry and not in the configuration.

    It polls nothing and keeps its state, so that the source goes on where it
    stood when it is put back; what it owes is still delivered.
    """

    def __init__(self, name: str, runtime: Runtime, resume_state: dict[str, Any] | None) -> None:
        super().__init__(name, runtime)
        if resume_state is not None:
            check_version(resume_state, name)
        self._state = resume_state

    def snapshot(self) -> dict[str, Any] | None:  # type: ignore[override]
        """Give the state as it was found."""
        return self._state

    def _is_finished(self) -> bool:
        return self._runtime.once

    def _poll(self, outbox: Outbox | None) -> list[SourceItem]:
        del outbox
        return []


class ApiPartition(SourcePartition):
    """Polls one API source.

    A page's events and the position behind them leave in the same
    `next_batch`, so no snapshot separates them: at-least-once up to the
    buffer, and at most once short of a crash.

    Args:
        source: What to poll.
        runtime: The process's.
        resume_state: What `snapshot` gave.
    """

    def __init__(
        self, source: Source, runtime: Runtime, resume_state: dict[str, Any] | None
    ) -> None:
        super().__init__(source.name, runtime)
        self._source = source
        authenticator = runtime.authenticators.of(source.endpoint)
        self._concealer = Concealer(
            source.endpoint,
            source.params,
            source.body,
            authenticator.secrets if authenticator is not None else tuple,
        )
        self._fingerprint = api_fingerprint(source)
        position = Position(DedupWindow(source.name))
        if resume_state is not None:
            position = load_position(resume_state, source.name, self._fingerprint, self._concealer)
            place = position.place
            is_seed = resume_state["api"] is None and place is not None
            if _has_gap(position) or (is_seed and not fits(place, source.pagination)):
                # A kept link held a secret that is configured no more, or the
                # readable view told a place of another kind.
                useless = {**resume_state, "api": ""}
                position = load_position(useless, source.name, self._fingerprint, self._concealer)
            self._drop_lost_entries(position, is_same_api=resume_state["api"] == self._fingerprint)
        self._scanner = Scanner(source, position)
        self._client = Client(
            source.endpoint,
            max_response_bytes=source.max_response_bytes,
            authenticator=authenticator,
            concealer=self._concealer,
        )
        pagination = source.pagination
        self._decoder = PageDecoder(
            DecodeOptions(
                source_name=source.name,
                results_field=source.results_field,
                timestamp_field=source.timestamp_field,
                message_field=source.message_field,
                id_field=source.id_field,
                next_cursor_field=pagination.token_field if pagination else None,
                cursor_from_last=pagination.cursor_from_last if pagination else None,
                has_more_field=pagination.has_more_field if pagination else None,
                results_optional=source.results_optional,
                success_field=source.success_field,
                error_field=source.error_field,
                decode_field=source.decode_field,
                explode_field=source.explode_field,
                response_format=source.listing_format,
            )
        )
        self._interval_s = source.poll_interval.total_seconds()
        self._entry_decoder = self._decoder
        if source.fetch_each is not None:
            each = source.fetch_each
            self._entry_decoder = PageDecoder(
                DecodeOptions(
                    source_name=source.name,
                    results_field=each.results_field,
                    timestamp_field=each.timestamp_field,
                    message_field=each.message_field,
                    id_field=each.id_field,
                    success_field=each.success_field,
                    error_field=each.error_field,
                    response_format=source.response_format,
                )
            )
        self._pace = runtime.paces.join(source.rate_limit_group, source.requests_per_second)
        self._is_listed = self._has_begun = False
        # One failure is enough for a poll: the listing shall get its turn.
        self._may_recall = True
        self._said_of_entries: set[str] = set()
        self._fetch: Fetch | None = None
        self._ahead = LookAhead(self._follow)
        # All at once, they would be so at each poll.
        stagger_s = self._heartbeat.number * STAGGER_S % self._interval_s
        self._due_at = time.monotonic() + stagger_s
        self._poll_started_at = self._due_at
        self._typical_s = 0.0
        # Pages with new events, and the last snapshot that was taken between two polls.
        self._news = 0
        self._is_new_scan = False
        self._rest: tuple[tuple[object, ...], dict[str, Any]] | None = None
        self._is_polling = False
        self._failures = 0
        # Scans broken off without progress since one ended: a cursor that is
        # refused each time comes with first pages that succeed each time.
        self._restarts = 0
        self._said: str | None = None
        self._is_read = False
        self._was_mid_scan = self._scanner.in_scan
        # Pages and entries that this poll has read.
        self._counts: Counter[str] = Counter()
        logger.info(
            "resuming" if resume_state is not None else "starting",
            extra={"source": source.name, "mid_scan": self._scanner.in_scan},
        )

    def snapshot(self) -> dict[str, Any]:
        """Give the position.

        A poll that has found nothing new does not show: its state would differ
        from the one before and after it, and be written and uploaded for that.
        All that it may have changed is how often known events were seen.
        """
        position = self._scanner.position
        scan = position.scan
        facts = (
            self._news,
            position.last_timestamp_ns,
            position.place,
            position.place_since,
            position.anchor,
            position.start_ns,
            position.swept_ns,
            position.shifts,
            position.pending.copy(),
        )
        if scan is None or (self._is_new_scan and scan.pages <= IDLE_PAGES):
            known, state = self._rest or (None, {})
            if known == facts:
                return state
        state = dump_position(position, self._fingerprint, self._concealer)
        self._rest = (facts, state) if state["scan"] is None else None
        return state

    def _drop_lost_entries(self, position: Position, *, is_same_api: bool) -> None:
        """Drop the entries that cannot be asked for any more, and say why.

        They are looked for in the listing again, which may have another link.
        """

        def is_outdated(url: str) -> bool:
            if self._source.fetch_each is None or is_concealed(url):
                return True
            try:
                resolve_link(self._source.endpoint.url, url)
            except ForeignLinkError:
                # In the same API it is held up until somebody looks after it.
                return not is_same_api
            return False

        expired = [entry for entry in position.pending if is_lost(entry.url)]
        outdated = [
            entry for entry in position.pending if not is_lost(entry.url) and is_outdated(entry.url)
        ]
        if expired:
            logger.warning(
                "entries were listed and not fetched by a link with a token in it, which is not"
                " kept; listing them again",
                extra={"source": self._name, "entries": len(expired)},
            )
        if outdated:
            logger.error(
                "entries were listed and not fetched before the configuration changed; they are"
                " left out unless they are listed again",
                extra={"source": self._name, "entries": len(outdated)},
            )
        if expired or outdated:
            lost = {*expired, *outdated}
            position.pending = [entry for entry in position.pending if entry not in lost]
            position.list_again(lost)

    def _wind_down(self, outbox: Outbox | None) -> list[SourceItem]:
        if self._fetch is not None:
            self._fetch.drop()
        return super()._wind_down(outbox)

    def _is_finished(self) -> bool:
        return self._is_read

    def _poll(self, outbox: Outbox | None) -> list[SourceItem]:
        items: list[SourceItem] = []
        if self._fetch is not None:
            submit = self._runtime.pool.submit
            self._fetch.look(submit)
            if self._heartbeat.is_alone:
                self._fetch.wait(WAIT_S, submit)
            if not self._fetch.is_done:
                self._awake_in_s = self._look_again_in(self._fetch)
                return items
            items = self._collect(self._fetch, outbox)
            self._fetch = None
        now = time.monotonic()
        if self._is_finished():
            self._awake_in_s = 0.0
        elif outbox is not None and outbox.is_full:
            self._awake_in_s = PAUSE_S
            self._scanner.check_place()
        elif now >= self._due_at:
            self._ask(now, outbox)
        else:
            self._awake_in_s = min(self._heartbeat.next_in_s(), self._due_at - now)
        return items

    def _ask(self, now: float, outbox: Outbox | None) -> None:
        if self._is_polling and self._has_begun and self._scanner.pending is None:
            ahead = self._ahead.take(self._scanner.request())
            if ahead is not None:
                self._wait_for(ahead)
                return
        ready_at = self._pace.start(self._name, now)
        if ready_at > now:
            self._due_at = ready_at
            self._awake_in_s = min(self._heartbeat.next_in_s(), ready_at - now)
            return
        if not self._is_polling:
            self._is_polling = True
            self._is_listed = self._has_begun = False
            # By the schedule, not by when we came to it, or it would drift.
            is_late = now - self._due_at >= self._interval_s
            self._poll_started_at = now if is_late else self._due_at
            self._counts.clear()
        fetch = self._next_fetch()
        if fetch is None:
            self._end_poll(outbox)
            return
        # A token that the poll before ended at may have been asked for by then.
        ahead = self._ahead.take(fetch.request)
        # Of most polls the first page is all there is, and little: no thread is woken for it.
        is_first = self._scanner.pending is None and not self._scanner.is_mid_scan
        if ahead is None and not (is_first and fetch.start()):
            try:
                self._runtime.pool.submit(fetch.run)
            except RuntimeError:
                self._take_failure(RetryableError("cannot be asked, for want of a thread"))
                return
        self._wait_for(ahead or fetch)

    def _wait_for(self, fetch: Fetch) -> None:
        """Have what comes collected, and look ahead of it."""
        self._fetch = fetch
        self._awake_in_s = 0.0 if fetch.is_done else self._look_again_in(fetch)
        self._ahead.lead(fetch)

    def _next_fetch(self) -> Fetch | None:
        """Give what to ask for next; None where there is nothing to ask for yet."""
        scanner = self._scanner
        if self._may_recall and not self._has_begun:
            scanner.entries.recall(time.monotonic())
        pending = scanner.pending
        if pending is not None:
            request = PageRequest(pending.url, response_format=self._source.response_format)
            read = _reader(self._runtime.offload, self._entry_decoder, pending.identity)
            is_body_due = not self._entry_decoder.allows_empty_body
            return self._new_fetch(request, None, read, is_body_due=is_body_due, is_entry=True)
        if scanner.entries.is_full:
            self._warn_of_many_entries()
            return None
        if not self._has_begun:
            self._has_begun = True
            self._is_new_scan = not scanner.in_scan
            if not scanner.begin(time.time_ns()):
                return None
        is_body_due = scanner.is_mid_scan and not self._decoder.allows_empty_body
        read = _reader(self._runtime.offload, self._decoder)
        return self._new_fetch(
            scanner.request(),
            scanner.place,
            read,
            is_body_due=is_body_due,
            # A run of `--once` tells by its exit code that not all was read.
            may_dead_end=self._failures >= PLACE_ATTEMPTS and not self._runtime.once,
        )

    def _new_fetch(
        self,
        request: PageRequest,
        place: Place | None,
        read: _Read,
        *,
        is_body_due: bool,
        may_dead_end: bool = False,
        is_entry: bool = False,
    ) -> Fetch:
        return Fetch(
            self._source,
            self._client,
            request,
            place,
            read,
            self._scanner.guess_next,
            self._ahead.note,
            self._pause,
            is_body_due=is_body_due,
            may_dead_end=may_dead_end,
            is_entry=is_entry,
        )

    def _pause(self, asked_s: float) -> None:
        """Have nobody who shares the quota ask before the API allows it."""
        if not self._runtime.is_hopeless(0, asked_s):
            self._pace.pause(time.monotonic() + asked_s)

    def _follow(self, fetch: Fetch) -> Fetch | None:
        """Ask for what is behind a page, if that may be asked for now."""
        now = time.monotonic()
        outbox = self._runtime.outboxes.get(self._name)
        if (
            fetch.following is None
            or self._runtime.stop.is_set
            or (outbox is not None and outbox.is_full)
            or self._pace.start(self._name, now) > now
        ):
            return None
        place, request = fetch.following
        is_body_due = not self._decoder.allows_empty_body
        ahead = self._new_fetch(
            request, place, _reader(self._runtime.offload, self._decoder), is_body_due=is_body_due
        )
        try:
            self._runtime.pool.submit(ahead.run)
        except RuntimeError:
            return None
        return ahead

    def _collect(self, fetch: Fetch, outbox: Outbox | None) -> list[SourceItem]:
        if fetch.done_at is not None:
            self._typical_s += (fetch.done_at - fetch.started_at - self._typical_s) / 4
        if fetch.page is None:
            self._take_failure(fetch.error or UnreadablePageError("cannot be read"))
            return []
        scanner = self._scanner
        what = PAGE if scanner.pending is None else ENTRY
        self._counts[what] += 1
        if scanner.pending is not None:
            events = scanner.take_fetched(fetch.page)
        else:
            events, self._is_listed = scanner.take(fetch.page, fetch.links, time.time_ns())
        if self._failures and not self._restarts:
            logger.info("source answers again", extra={"source": self._name})
        self._failures = 0
        if not self._restarts:
            self._said = None
        self._warn_of_entries(fetch.page)
        if self._is_listed and scanner.pending is None:
            self._end_poll(outbox)
        logger.debug(
            "page read" if what == PAGE else "entry read",
            extra={
                "source": self._name,
                what: self._counts[what],
                "entries": fetch.page.entries,
                "new": len(events),
            },
        )
        if not events:
            return []
        self._news += 1
        return [(self._name, EventPage(self._name, events))]

    def _warn_of_entries(self, page: Page) -> None:
        if page.skipped:
            logger.warning(
                "entries that are null were skipped",
                extra={"source": self._name, "entries": page.skipped},
            )
        if page.undecoded:
            logger.warning(
                "entries without JSON at decode_field are shipped as they are",
                extra={"source": self._name, "entries": page.undecoded},
            )

    def _end_poll(self, outbox: Outbox | None) -> None:
        self._ahead.rest()
        self._is_polling = False
        self._restarts, self._said = 0, None
        self._may_recall = True
        has_pending = bool(self._scanner.position.pending)
        if not has_pending:
            self._said_of_entries.clear()
        self._due_at = max(self._poll_started_at + self._interval_s, time.monotonic())
        if self._scanner.is_behind:
            self._due_at = time.monotonic()
        if self._runtime.once:
            # A scan that an earlier run left behind began before this run: what
            # came since is read by a scan of its own.
            is_behind = self._scanner.is_behind
            is_left = self._was_mid_scan or self._scanner.in_scan or is_behind
            self._is_read = not is_left and not has_pending
            self._was_mid_scan = self._was_mid_scan and self._scanner.in_scan
            self._due_at = time.monotonic()
            if self._scanner.leads_on_for_ever:
                self._give_up("a thousand empty pages in a row, and a link behind each")
            if has_pending and (not is_left or self._scanner.entries.is_full):
                self._wait_for_entries()
        # A poll that `max_pages` cut has not read all there is.
        if outbox is not None and not self._scanner.in_scan and not has_pending:
            outbox.note_scan_end(self._source.flush_interval.total_seconds())

    def _look_again_in(self, fetch: Fetch) -> float:
        """Give the seconds until the next look at a request on its way.

        Bytewax cannot be woken from outside. The first look comes when an
        answer may be there, going by those before; after that, a tenth of the
        time already waited adds as much to the latency.
        """
        elapsed_s = time.monotonic() - fetch.started_at
        wait_s = max(elapsed_s / 10, 0.9 * self._typical_s - elapsed_s)
        if self._heartbeat.is_alone:
            return min(PAUSE_S, max(0.0, wait_s - WAIT_S))
        return min(PAUSE_S, max(0.001, wait_s))

    def _take_failure(self, error: RequestError) -> None:
        """Decide what a failed request means for the scan, and when to go on."""
        now = time.monotonic()
        runtime = self._runtime
        scanner = self._scanner
        is_listing = scanner.pending is None
        if is_listing and error.status == NOT_FOUND and scanner.take_missing_page():
            self._failures = 0
            if scanner.in_scan:
                # A page back. An API that is gone has none of thousands.
                self._due_at = now + runtime.backoff_s(1)
            else:
                self._end_poll(runtime.outboxes.get(self._name))
            return
        asked_s = getattr(error, "retry_after_s", None)
        if not is_listing:
            self._take_entry_failure(error, asked_s)
            return
        self._failures += 1
        scanner.check_place()
        if error.status in OFFSET_REFUSALS and scanner.take_end_of_offsets():
            self._failures = 0
            self._end_poll(runtime.outboxes.get(self._name))
            return
        may_pass = (
            error.status in PASSING_REFUSALS
            and scanner.is_at_token
            and self._failures < PLACE_REFUSALS
        )
        is_place_useless = not may_pass and (
            error.status in CURSOR_REFUSALS
            or isinstance(error, ForeignLinkError)
            # An expired cursor may be what the body complains of; it does not say.
            or (isinstance(error, ErrorBodyError) and self._failures >= PLACE_ATTEMPTS)
        )
        watermark_ns = scanner.position.last_timestamp_ns
        is_restart = is_place_useless and scanner.take_refusal(time.time_ns())
        if is_restart:
            self._is_polling = False
            is_progress = scanner.position.last_timestamp_ns != watermark_ns
            self._restarts = 1 if is_progress else self._restarts + 1
        attempts = max(self._failures, self._restarts)
        if runtime.is_hopeless(attempts, asked_s):
            self._give_up(str(error))
            return
        needs_human = isinstance(error, (HumanNeededError, RefusedError)) and not may_pass
        is_hopeful = is_restart and not isinstance(error, ForeignLinkError)
        wait_s = runtime.retry_wait_s(attempts, asked_s)
        if needs_human and not is_hopeful and not runtime.once:
            wait_s = runtime.retry.max_delay.total_seconds()
        self._due_at = now + wait_s
        if self._said != str(error):
            self._said = str(error)
            number = self._counts[PAGE] + 1
            logger.log(
                logging.ERROR if needs_human else logging.WARNING,
                "poll failed; the position stays and the request is sent again",
                extra={
                    "source": self._name,
                    PAGE: number,
                    "reason": f"{PAGE} {number} {error}"
                    if isinstance(error, UnreadablePageError)
                    else str(error),
                    "wait_s": round(wait_s, 3),
                },
            )

    def _give_up(self, reason: str) -> None:
        """Leave the source behind in a run of `--once`, as its exit code will tell."""
        logger.error("giving up on the source", extra={"source": self._name, "reason": reason})
        self._runtime.give_up(self._name)
        self._is_read = True

    def _take_entry_failure(self, error: RequestError, asked_s: float | None) -> None:
        """Leave an entry out that the API has no longer, or let the others go before it."""
        runtime, scanner = self._runtime, self._scanner
        entries = scanner.entries
        if runtime.is_hopeless(0, asked_s):
            self._give_up(str(error))
            return
        is_refusal = error.status in MISSING or isinstance(error, RefusedError)
        now = time.monotonic()
        patience_s = runtime.retry.max_delay.total_seconds()
        attempts, refusals, is_gone = entries.note_failure(now, patience_s, is_refusal=is_refusal)
        wait_s = 0.0
        if is_refusal and (is_gone or runtime.is_hopeless(refusals, None)):
            logger.error(
                "the API lists an entry and does not give its events; they are left out",
                extra={"source": self._name, "reason": str(error)},
            )
            entries.leave()
        else:
            failures = entries.failures
            if error.status not in MISSING:
                # It may be the API that fails, and not the entry alone.
                self._may_recall = False
                wait_s = runtime.retry_wait_s(failures, asked_s)
            is_enough = failures >= ENTRY_ATTEMPTS or runtime.is_hopeless(failures, None)
            due_at = now + runtime.retry_wait_s(attempts, asked_s)
            entries.go_on(due_at, with_listing=is_enough)
            self._say_of_entries(error)
        scanner.check_place()
        self._due_at = now
        if self._is_listed and scanner.pending is None:
            self._end_poll(runtime.outboxes.get(self._name))
        self._due_at = max(self._due_at, now + wait_s)

    def _say_of_entries(self, error: RequestError) -> None:
        is_document = isinstance(error, UnreadablePageError)
        reason = f"what it points at {error}" if is_document else str(error)
        if reason in self._said_of_entries:
            return
        self._said_of_entries.add(reason)
        needs_human = isinstance(error, (HumanNeededError, RefusedError))
        logger.log(
            logging.ERROR if needs_human else logging.WARNING,
            "an entry of the listing cannot be fetched; the others go before it, and it is asked"
            " for again",
            extra={"source": self._name, "reason": reason},
        )

    def _warn_of_many_entries(self) -> None:
        message = "too many entries of the listing wait to be fetched again; no more are listed"
        if message not in self._said_of_entries:
            self._said_of_entries.add(message)
            logger.warning(message, extra={"source": self._name})

    def _wait_for_entries(self) -> None:
        """Have a run of `--once` ask again for what could not be fetched, or give it up."""
        entries = self._scanner.entries
        if self._runtime.is_hopeless(entries.failures, None):
            self._give_up("entries of the listing cannot be fetched; the next run asks again")
        else:
            self._due_at = max(self._due_at, entries.due_at)


class ApiSource(FixedPartitionedSource[SourceItem, dict[str, Any]]):
    """Polls API sources, one partition each.

    One step with many partitions: Bytewax balances the partitions of each
    step over the workers, and many steps of one partition all land on one.

    Args:
        sources: Configured sources by name.
        names: All names, those of retired sources too.
        runtime: The process's.
    """

    def __init__(self, sources: Mapping[str, Source], names: list[str], runtime: Runtime) -> None:
        self._sources = sources
        self._names = sorted(names)
        self._runtime = runtime

    def list_parts(self) -> list[str]:
        """List all sources; a name that the registry knows must stay known."""
        return self._names

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> SourcePartition:
        """Build a source's partition at its snapshot's position."""
        del step_id
        keep_thread_state()
        self._runtime.has_begun = True
        source = self._sources.get(for_part)
        if source is None:
            return RetiredPartition(for_part, self._runtime, resume_state)
        return ApiPartition(source, self._runtime, resume_state)


def _has_gap(position: Position) -> bool:
    scan = position.scan
    places = [position.place, *((scan.place, scan.last_place) if scan is not None else ())]
    return any(
        place is not None and place.is_token and is_concealed(str(place.value)) for place in places
    )


def _reader(offload: Offload, decoder: PageDecoder, within: bytes | None = None) -> _Read:
    def read(reply: Reply, on_outline: Callable[[Page], None]) -> Page:
        content_type = reply.headers.get("content-type", "")
        return offload.decode(
            decoder, reply.body, content_type, within=within, on_outline=on_outline
        )

    return read
