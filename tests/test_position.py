"""What a source's snapshot holds."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from flicker.conceal import Concealer
from flicker.dedup import DedupWindow
from flicker.errors import RegistryError
from flicker.pagination import Place
from flicker.position import (
    Pending,
    Position,
    Scan,
    api_fingerprint,
    dump_position,
    load_position,
)
from flicker.registry.places import view_position
from flicker.settings import Destination, Endpoint, Pagination, Secret, Source

NOON_NS = 1_735_732_800_000_000_000
TOKEN = "tok+en/1234567"
SOURCE = Source(
    name="vendor",
    endpoint=Endpoint("https://api.example.com/v1?tenant=7", (("X-Token", Secret("Bearer abc")),)),
    destination=Destination(Endpoint("https://siem.example.com/")),
    params=(("private_token", Secret(TOKEN)),),
    time_filter_param="since",
    pagination=Pagination("cursor", cursor_param="after", next_cursor_field="next"),
)
CONCEALER = Concealer(SOURCE.endpoint, SOURCE.params)


def full_position() -> Position:
    window = DedupWindow("vendor")
    window.is_new(b"a" * 16, NOON_NS, None)
    window.end_scan(None)
    window.is_new(b"b" * 16, None, None)
    fetched = DedupWindow("vendor")
    fetched.is_new(b"h" * 16, NOON_NS, None)
    link = (
        f"https://api.example.com/v1?private_token={TOKEN.replace('+', '%2B').replace('/', '%2F')}"
    )
    return Position(
        window,
        last_timestamp_ns=NOON_NS + 1,
        place=Place("url", link),
        place_since="2025-01-01T12:00:00Z",
        anchor=b"c" * 16,
        start_ns=NOON_NS - 1,
        swept_ns=NOON_NS - 2,
        pending=[Pending(b"f" * 16, link, NOON_NS), Pending(b"g" * 16, "/logs/2", None)],
        rises=3,
        falls=2,
        shifts=True,
        most_entries=100,
        scan=Scan(
            place=Place("cursor", "30401068764886351"),
            started_ns=NOON_NS,
            since="1735732800",
            since_ns=NOON_NS - 3,
            until="1735733000",
            until_ns=NOON_NS + 201,
            window_end_ns=NOON_NS + 200,
            newest_ns=NOON_NS + 2,
            first_request=False,
            last_place=Place("page", 3),
            last_anchor=b"d" * 16,
            last_entries=4,
            entries_again=5,
            full_entries=6,
            check_place=Place("page", 2),
            check_anchor=b"e" * 16,
            resume_place=Place("page", 4),
            is_probing=True,
            met=[b"01234567", b"89abcdef"],
            rises=True,
            falls=1,
            latest_ns=NOON_NS,
            empty_pages=2,
            repeats=1,
        ),
        fetched=fetched,
    )


def test_all_of_a_position_survives() -> None:
    """T20 T60 whatever is added to it later, too."""
    position = full_position()
    state = dump_position(position, "f", CONCEALER)
    loaded = load_position(pickle.loads(pickle.dumps(state)), "vendor", "f", CONCEALER)
    assert loaded.window.snapshot() == position.window.snapshot()
    assert loaded.fetched.snapshot() == position.fetched.snapshot()
    windows = {"window": position.window, "fetched": position.fetched}
    assert replace(loaded, **windows) == position
    # Only what is not its default proves that it was kept.
    for made in (position, position.scan):
        blank = vars(Position(DedupWindow("x")) if made is position else Scan(Place("top"), 0))
        assert {name for name, value in vars(made).items() if value == blank[name]} <= {"pages"}


@pytest.mark.parametrize(("falls", "read_to_ns"), [(0, NOON_NS + 9), (1, NOON_NS + 5)])
@pytest.mark.parametrize("before_ns", [0, 7, None])
def test_entries_are_listed_again_from_the_oldest_on(
    falls: int, read_to_ns: int, before_ns: int | None
) -> None:
    """T60: or from where the source was read to in order, if that is earlier."""
    at_ns = None if before_ns is None else NOON_NS + before_ns
    entries = [Pending(b"a" * 16, "/1", at_ns), Pending(b"b" * 16, "/2", None)]
    position = Position(
        DedupWindow.knowing("s", [b"a" * 16, b"b" * 16, b"c" * 16]),
        last_timestamp_ns=NOON_NS + 5,
        swept_ns=NOON_NS + 6,
        place=Place("cursor", "x"),
        scan=Scan(Place("cursor", "y"), 0, newest_ns=NOON_NS + 9, rises=True, falls=falls),
    )
    position.list_again(entries)
    assert position.last_timestamp_ns == min(read_to_ns, at_ns or read_to_ns)
    assert position.swept_ns == min(NOON_NS + 6, at_ns or NOON_NS + 6)
    assert position.place is position.scan is None
    assert [position.window.knows(letter * 16) for letter in (b"a", b"b", b"c")] == [0, 0, 1]


def test_no_secret_is_kept() -> None:
    """T67 the token that a link repeats is filled in again with that of the day."""
    state = dump_position(full_position(), "f", CONCEALER)
    assert b"1234567" not in pickle.dumps(state["place"])
    assert "1234567" not in str(view_position({**state, "scan": None}))
    today = Concealer(SOURCE.endpoint, (("private_token", Secret("new-token")),))
    place = load_position(state, "vendor", "f", today).place
    assert place == Place("url", "https://api.example.com/v1?private_token=new-token")


PAGED = Pagination("page", limit_param="limit", page_param="page")


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": Endpoint("https://api.example.org/v1?tenant=7")},
        {"endpoint": Endpoint("https://api.example.com/v2?tenant=7")},
        {"pagination": PAGED},
        {"pagination": None},
        {"pagination": Pagination("cursor", cursor_param="page", next_cursor_field="next")},
        {"time_filter_format": "unix"},
        {"time_filter_param": "after"},
        {"time_filter_end_param": "before"},
        {"results_field": "data"},
    ],
)
def test_a_cursor_is_not_sent_to_another_api(changes: dict[str, Any]) -> None:
    """T65 the place and the scan are dropped; the watermark and what was shipped stay."""
    state = dump_position(full_position(), api_fingerprint(SOURCE), CONCEALER)
    fingerprint = api_fingerprint(replace(SOURCE, **changes))
    position = load_position(state, "vendor", fingerprint, CONCEALER)
    assert (position.place, position.place_since, position.scan) == (None, None, None)
    assert (position.anchor, position.newest_first) == (None, False)
    assert position.last_timestamp_ns == NOON_NS + 1
    assert position.window.knows(b"a" * 16)
    assert position.window.knows(b"b" * 16)


def test_another_query_is_another_listing() -> None:
    """T65 an edited filter must not go on at the old one's link for ever."""
    other = replace(SOURCE, endpoint=Endpoint("https://api.example.com/v1?tenant=8"))
    assert api_fingerprint(other) != api_fingerprint(SOURCE)


def test_a_cursor_that_echoes_a_secret_is_kept_without_it() -> None:
    """T67 and is sent with it again."""
    position = Position(DedupWindow("vendor"), place=Place("cursor", f"k={TOKEN}&after=9"))
    state = dump_position(position, "f", CONCEALER)
    assert TOKEN not in str(state["place"])
    assert TOKEN not in str(view_position(state))
    loaded = load_position(state, "vendor", "f", CONCEALER)
    assert loaded.place == position.place


@pytest.mark.parametrize(
    "changes",
    [
        {"params": (("private_token", Secret("another")),)},
        {"message_field": "text"},
        {"max_pages": 3},
    ],
)
def test_the_place_stays_where_the_api_stays(changes: dict[str, Any]) -> None:
    """T65 T66 a new token, say: parameters count with their values, credentials do not."""
    assert api_fingerprint(replace(SOURCE, **changes)) == api_fingerprint(SOURCE)


def test_the_size_of_numbered_pages_counts() -> None:
    """T65 page 7 of another size is another place."""
    sizes = {
        api_fingerprint(replace(SOURCE, pagination=replace(PAGED, page_size=size)))
        for size in (50, 100)
    }
    assert len(sizes) == 2


@pytest.mark.parametrize("state", [None, [], {}, {"version": 2}, {"version": "1"}])
def test_state_of_another_version_is_refused(state: Any) -> None:
    """T61 with the source's name and what to do."""
    with pytest.raises(RegistryError, match=r"vendor.*newer"):
        load_position(state, "vendor", "f", CONCEALER)


@pytest.mark.parametrize(
    ("rises", "falls", "newest_first", "ascending"),
    [
        (0, 0, False, False),
        (0, 1, False, False),
        (0, 2, True, False),
        (1, 0, False, True),
        (50, 50, False, False),
        (3, 97, True, False),
        (97, 3, False, True),
    ],
)
def test_an_order_is_a_clear_majority(
    rises: int, falls: int, newest_first: bool, ascending: bool
) -> None:
    """T10 T12 late events and wrong clocks do not turn a listing round."""
    position = Position(DedupWindow("vendor"), rises=rises, falls=falls)
    assert (position.newest_first, position.ascending) == (newest_first, ascending)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (None, {"cursor": None}),
        (Place("offset", 9), {"cursor": None, "offset": 9}),
        (Place("page", 2), {"cursor": None, "page": 2}),
        (Place("cursor", "30401068764886351"), {"cursor": "30401068764886351"}),
    ],
)
def test_people_see_the_timestamp_and_the_place(place: Place | None, shown: dict[str, Any]) -> None:
    """T20 the cursor with every digit."""
    position = Position(DedupWindow("vendor"), last_timestamp_ns=NOON_NS, place=place)
    assert view_position(dump_position(position, "f", CONCEALER)) == {
        "last_timestamp": "2025-01-01T12:00:00Z",
        "scanning": False,
        **shown,
    }


def test_a_poll_that_has_read_nothing_yet_is_no_change() -> None:
    """Begun anew it asks the same; kept, an idle source would have its registry uploaded."""
    position = Position(DedupWindow("s"), last_timestamp_ns=NOON_NS)
    idle = dump_position(position, None, None)
    position.scan = Scan(Place("top"), started_ns=NOON_NS + 5, since="2025-01-01T12:00:00Z")
    assert dump_position(position, None, None) == idle
    position.scan.first_request = False
    assert dump_position(position, None, None)["scan"] is not None


def test_a_new_credential_in_the_body_is_the_same_api() -> None:
    """T65, T67: a token that is renewed costs no cursor, another question does."""

    def fingerprint(body: str) -> str:
        return api_fingerprint(replace(SOURCE, method="POST", body=Secret(body)))

    first = fingerprint('{"query": "a", "auth": {"user": "x"}, "in": [{"token": "1"}]}')
    assert first == fingerprint('{"query": "a", "auth": {"user": "y"}, "in": [{"token": "2"}]}')
    assert first != fingerprint('{"query": "b", "auth": {"user": "x"}, "in": [{"token": "1"}]}')
