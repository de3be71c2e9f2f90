"""Everything a source's snapshot holds, and its form in a snapshot.

The form is a file format: builtins only, under a version. Changing it is a
migration.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from flicker.dedup import DedupWindow
from flicker.errors import RegistryError
from flicker.pagination import Place
from flicker.timefmt import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flicker.conceal import Concealer
    from flicker.settings import Pagination, Source

STATE_VERSION = 1
"""Of all state in a snapshot: positions, buffers and outboxes."""

_CREDENTIAL_NAME = re.compile(r"token|key|secret|passw|auth|cred|sig|session", re.IGNORECASE)

NEWEST_FIRST_FALLS = 2
"""Events older than the one before that it takes to prove the order."""

ORDER_MAJORITY = 4
"""How many steps in one direction outweigh one in the other. A listing without
order has as many up as down and is taken for neither."""


@dataclass
class Scan:
    """A poll on its way through the pages.

    Its parameters are fixed when it starts, so that a restart in the middle
    goes on with the very same request.

    Attributes:
        place: Where the next page is read.
        started_ns: When this poll began.
        since: Value of the time filter, None to ask without.
        since_ns: The instant that it stands for.
        until: Value of the upper bound, None to ask without.
        until_ns: The instant that it stands for; without one, when the scan began.
        window_end_ns: The same where the scan ends before the present, and so
            one more is due; else None.
        newest_ns: Newest instant seen in it, none of the future.
        pages: Pages read by this poll, for `max_pages`.
        first_request: Whether nothing of this scan was read yet.
        last_place: Where an append-only listing would be read on: the page
            or offset of the last events met.
        last_anchor: Identity of the event that stands first there, if known.
        last_entries: Entries of the page before, where pages have numbers.
        entries_again: What it had before it was asked for once more.
        full_entries: Entries of a full page, where page_size is not heeded.
        check_place: Where to look, after the next page, whether the listing
            shifted; None where there is no reason to.
        check_anchor: Identity of the event that stood first there.
        resume_place: Where to go on after having looked.
        is_probing: Whether the place is sought where known events begin.
        met: Digests of the pages and tokens met, for the loop guard.
        rises: Whether some event was newer than the one before it.
        falls: How many events were older than the one before them.
        latest_ns: Instant of the event before, for these two.
        empty_pages: Empty pages in a row.
        repeats: Pages in a row that were met before.
    """

    place: Place
    started_ns: int
    since: str | None = None
    since_ns: int | None = None
    until: str | None = None
    until_ns: int | None = None
    window_end_ns: int | None = None
    newest_ns: int | None = None
    pages: int = 0
    first_request: bool = True
    last_place: Place | None = None
    last_anchor: bytes | None = None
    last_entries: int | None = None
    entries_again: int | None = None
    full_entries: int | None = None
    check_place: Place | None = None
    check_anchor: bytes | None = None
    resume_place: Place | None = None
    is_probing: bool = False
    met: list[bytes] = field(default_factory=list)
    rises: bool = False
    falls: int = 0
    latest_ns: int | None = None
    empty_pages: int = 0
    repeats: int = 0

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was read or noted since it began."""
        return (
            self.first_request
            and self.pages == 0
            and not self.met
            and not self.is_probing
            and self.last_place is None
            and self.check_place is None
            and self.resume_place is None
            and self.entries_again is None
        )


class Pending(NamedTuple):
    """An entry of a listing whose events are still to be fetched.

    Attributes:
        identity: The entry's.
        url: As the API wrote it.
        timestamp_ns: The entry's, None where it has none.
    """

    identity: bytes
    url: str
    timestamp_ns: int | None


@dataclass
class Position:
    """How far a source has been read.

    Attributes:
        last_timestamp_ns: The watermark: newest instant of finished scans.
        place: Where the next scan goes on, for APIs that allow it.
        place_since: The time filter's value that `place` was obtained with.
        anchor: Identity of the event that stood first at `place`, for a page
            or an offset: while it does, the listing did not shift.
        start_ns: Where a source without a watermark asks from.
        swept_ns: End of the last window that ended before the present, or a
            later instant: all before it was read, whether there was anything or not.
        pending: What is to be fetched before the listing is read on.
        rises: How many events were newer than the one before, lately.
        falls: How many were older.
        shifts: Whether events were put in before those that had been read.
        most_entries: Length of the longest page.
        scan: The unfinished scan, if one is.
        window: Identities of shipped events; where these are fetched, of the
            entries that list them.
        fetched: Identities of fetched events. An entry may hold more of them
            than a window remembers, and must not make it forget the entries.
    """

    window: DedupWindow
    last_timestamp_ns: int | None = None
    place: Place | None = None
    place_since: str | None = None
    anchor: bytes | None = None
    start_ns: int | None = None
    swept_ns: int | None = None
    pending: list[Pending] = field(default_factory=list)
    rises: int = 0
    falls: int = 0
    shifts: bool = False
    most_entries: int = 0
    scan: Scan | None = None
    fetched: DedupWindow = field(default_factory=lambda: DedupWindow(""))

    @property
    def newest_first(self) -> bool:
        """Whether new events come in before the old ones.

        Judged by a clear majority over many scans: a late event makes an
        ascending listing fall, a wrong clock makes a descending one rise.
        """
        return self.shifts or (
            self.falls >= NEWEST_FIRST_FALLS and self.falls > ORDER_MAJORITY * self.rises
        )

    @property
    def ascending(self) -> bool:
        """Whether the oldest events were seen to come first."""
        return self.rises > ORDER_MAJORITY * self.falls

    def list_again(self, entries: Collection[Pending]) -> None:
        """Go back to where these entries are listed, and take them for unknown.

        The dedup window knows the others, which were listed beside them.
        """
        self.window.forget(entry.identity for entry in entries)
        instants = [entry.timestamp_ns for entry in entries if entry.timestamp_ns is not None]
        scan = self.scan
        if scan is not None and scan.rises and not scan.falls and scan.newest_ns is not None:
            # In ascending order all up to here has been listed.
            self.last_timestamp_ns = max(scan.newest_ns, self.last_timestamp_ns or 0)
        if self.last_timestamp_ns is not None:
            self.last_timestamp_ns = min([self.last_timestamp_ns, *instants])
        if self.swept_ns is not None:
            self.swept_ns = min([self.swept_ns, *instants])
        self.scan = self.place = self.place_since = self.anchor = None


def api_fingerprint(source: Source) -> str:
    """Tell one API and way of paging from another.

    A place obtained from one must not be sent to the other. Query parameters
    count with their values, but for those that are credentials by their name:
    they change, and what they give access to stays the same.
    """
    parts = urlsplit(source.endpoint.url)
    pagination = source.pagination
    facts: list[Any] = [parts.scheme, parts.netloc, parts.path]
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [(name, value.reveal()) for name, value in source.params]
    facts += sorted((name, "" if _CREDENTIAL_NAME.search(name) else value) for name, value in query)
    facts += [source.time_filter_param, source.time_filter_format, source.results_field]
    if pagination is not None:
        facts += [pagination.type, pagination.offset_param, pagination.page_param]
        facts += [pagination.cursor_param, pagination.next_cursor_field, pagination.start_page]
        facts += [pagination.page_size] if pagination.type == "page" else []
        more = [pagination.next_url_field, pagination.next_url_header, pagination.cursor_from_last]
        more += [pagination.rel] if pagination.type == "link_header" else []
        facts += more if any(more) else []
        facts += ["cursor_only"] if pagination.cursor_only else []
    facts += [source.time_filter_template] if source.time_filter_template else []
    facts += [source.method, source.location] if source.method != "GET" else []
    facts += [_shareable(source.body.reveal())] if source.body is not None else []
    facts += [source.time_filter_end_param] if source.time_filter_end_param else []
    facts += [source.fetch_each.url_field] if source.fetch_each is not None else []
    return blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _shareable(body: str) -> str:
    """Give a JSON object without what are credentials by their names."""

    def hide(members: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: "" if _CREDENTIAL_NAME.search(name) else value for name, value in members}

    return json.dumps(json.loads(body, object_pairs_hook=hide))


def dump_position(
    position: Position, fingerprint: str | None, concealer: Concealer | None
) -> dict[str, Any]:
    """Give a position as builtins, without secrets.

    Args:
        position: What to give.
        fingerprint: The API that its places belong to, None where it is unknown.
        concealer: Takes secrets out; None where there are none.
    """
    scan = position.scan
    if scan is not None and scan.is_untouched:
        # Begun anew, it asks the very same. Kept, a poll of an idle source
        # would look like a change.
        scan = None
    return {
        "version": STATE_VERSION,
        "api": fingerprint,
        "last_timestamp": position.last_timestamp_ns,
        "place": _dump_place(position.place, concealer),
        "place_since": position.place_since,
        "anchor": position.anchor,
        "start": position.start_ns,
        "swept": position.swept_ns,
        "pending": [
            [identity, concealer.conceal(url) if concealer else url, at_ns]
            for identity, url, at_ns in position.pending
        ],
        "rises": position.rises,
        "falls": position.falls,
        "shifts": position.shifts,
        "most_entries": position.most_entries,
        "seen": position.window.snapshot(),
        "fetched": position.fetched.snapshot(),
        "scan": None
        if scan is None
        else {
            "place": _dump_place(scan.place, concealer),
            "started": scan.started_ns,
            "since": scan.since,
            "since_ns": scan.since_ns,
            "until": scan.until,
            "until_ns": scan.until_ns,
            "window_end": scan.window_end_ns,
            "newest": scan.newest_ns,
            "first_request": scan.first_request,
            "last_place": _dump_place(scan.last_place, concealer),
            "last_anchor": scan.last_anchor,
            "last_entries": scan.last_entries,
            "entries_again": scan.entries_again,
            "full_entries": scan.full_entries,
            "check_place": _dump_place(scan.check_place, concealer),
            "check_anchor": scan.check_anchor,
            "resume_place": _dump_place(scan.resume_place, concealer),
            "is_probing": scan.is_probing,
            "met": b"".join(scan.met),
            "rises": scan.rises,
            "falls": scan.falls,
            "latest": scan.latest_ns,
            "empty_pages": scan.empty_pages,
            "repeats": scan.repeats,
        },
    }


def load_position(
    state: dict[str, Any], source_name: str, fingerprint: str | None, concealer: Concealer | None
) -> Position:
    """Rebuild a position.

    Args:
        state: What `dump_position` gave.
        source_name: For messages.
        fingerprint: The API of today's configuration. Where it is another
            than the snapshot's, places are dropped and the watermark stays.
            None keeps everything as it is.
        concealer: Fills secrets in; None leaves their marks.

    Raises:
        RegistryError: A newer Flicker wrote it.
    """
    check_version(state, source_name)
    position = Position(
        window=DedupWindow.restore(source_name, state["seen"]),
        last_timestamp_ns=state["last_timestamp"],
        start_ns=state["start"],
        swept_ns=state.get("swept"),
        # One window held both, once.
        fetched=DedupWindow.restore(source_name, state.get("fetched", state["seen"])),
    )
    # Nothing lists these a second time, so that they outlive a change of the API's paging.
    position.pending = [
        Pending(identity, concealer.restore(url) if concealer else url, at_ns)
        for identity, url, at_ns in state.get("pending", ())
    ]
    if fingerprint is not None and state["api"] not in {fingerprint, None}:
        return position
    position.place = _load_place(state["place"], concealer)
    position.place_since = state["place_since"]
    position.anchor = state["anchor"]
    position.rises = state["rises"]
    position.falls = state["falls"]
    position.shifts = state["shifts"]
    position.most_entries = state["most_entries"]
    scan = state["scan"]
    if scan is not None:
        met = scan["met"]
        position.scan = Scan(
            place=_load_place(scan["place"], concealer) or Place("top"),
            started_ns=scan["started"],
            since=scan["since"],
            since_ns=scan.get("since_ns"),
            until=scan.get("until"),
            until_ns=scan.get("until_ns"),
            window_end_ns=scan.get("window_end"),
            newest_ns=scan["newest"],
            first_request=scan["first_request"],
            last_place=_load_place(scan["last_place"], concealer),
            last_anchor=scan["last_anchor"],
            last_entries=scan["last_entries"],
            entries_again=scan["entries_again"],
            full_entries=scan["full_entries"],
            check_place=_load_place(scan["check_place"], concealer),
            check_anchor=scan["check_anchor"],
            resume_place=_load_place(scan["resume_place"], concealer),
            is_probing=scan["is_probing"],
            met=[met[at : at + 8] for at in range(0, len(met), 8)],
            rises=scan["rises"],
            falls=scan["falls"],
            latest_ns=scan["latest"],
            empty_pages=scan["empty_pages"],
            repeats=scan["repeats"],
        )
    return position


def seed_state(view: Mapping[str, Any]) -> dict[str, Any]:
    """Make a state of what people read, coarse as it is.

    It names no API, so its place goes to whatever is configured, provided
    that the kind of pagination fits.

    Args:
        view: `last_timestamp`, and `cursor`, `offset` or `page`, as the
            readable view has them or as the Rust Flicker wrote them.
    """
    position = Position(DedupWindow(""))
    timestamp, cursor = view.get("last_timestamp"), view.get("cursor")
    if isinstance(timestamp, (str, int)):
        position.last_timestamp_ns = parse_timestamp(str(timestamp))
    if position.last_timestamp_ns is not None:
        # A `start_time` such as `24h` would be counted from now, and what came
        # between this instant and then would be passed over.
        position.start_ns = 0
    if isinstance(cursor, (str, int)) and str(cursor) and "***" not in str(cursor):
        is_url = str(cursor).startswith(("http://", "https://"))
        position.place = Place("url" if is_url else "cursor", str(cursor))
    for kind in ("offset", "page"):
        number = view.get(kind)
        if isinstance(number, int) and number >= 0:
            position.place = Place(kind, number)
    return dump_position(position, None, None)


def fits(place: Place | None, pagination: Pagination | None) -> bool:
    """Tell whether a place is one of a way of paging."""
    if place is None or pagination is None:
        return place is None
    return place.kind == pagination.type or (place.kind == "url" and pagination.has_tokens)


def check_version(state: Any, source_name: str) -> None:
    """Refuse state that this Flicker cannot read.

    Raises:
        RegistryError: It is of another version, or no state of ours.
    """
    version = state.get("version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        message = (
            f"{source_name}: the registry holds state of version {version!r}, and this Flicker "
            f"reads version {STATE_VERSION}. Run the Flicker that wrote it, or a newer one"
        )
        raise RegistryError(message)


def _dump_place(place: Place | None, concealer: Concealer | None) -> list[Any] | None:
    if place is None:
        return None
    if place.is_token and concealer is not None:
        return [place.kind, concealer.conceal(str(place.value))]
    return [place.kind, place.value]


def _load_place(kept: list[Any] | None, concealer: Concealer | None) -> Place | None:
    if kept is None:
        return None
    place = Place(*kept)
    if place.is_token and concealer is not None:
        return Place(place.kind, concealer.restore(str(place.value)))
    return place
