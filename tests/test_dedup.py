"""Remembering what was shipped, as long as it can come again."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker import dedup
from flicker.dedup import EVERYTHING, KEPT_COUNT, NOTHING, RECENT_COUNT, DedupWindow
from flicker.events import Event


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def read(
    window: DedupWindow, numbers: range | list[int], floor: int | None, *, size: int = 100
) -> list[int]:
    """Read a scan whose events have their number as their instant."""
    new = []
    for at, number in enumerate(numbers, 1):
        if window.is_new(name(number), number, floor):
            new.append(number)
        if at % size == 0:
            window.trim(floor, size)
    window.trim(floor, size)
    return new


def reborn(window: DedupWindow) -> DedupWindow:
    return DedupWindow.restore("vendor", pickle.loads(pickle.dumps(window.snapshot())))


def test_instants_of_any_year_outlive_a_restart() -> None:
    """T51: in nanoseconds, 64 bits end in 2262."""
    window = DedupWindow("vendor")
    for number, instant in enumerate([-(10**20), 10**20, 7]):
        assert window.is_new(name(number), instant, EVERYTHING)
    again = reborn(window)
    assert [again.knows(name(number)) for number in range(4)] == [True, True, True, False]
    assert again.snapshot() == window.snapshot()


@pytest.mark.parametrize("floor", [EVERYTHING, NOTHING, 0, 5])
def test_an_event_is_new_once(floor: int | None) -> None:
    """T01 T05 within a page, across pages, across scans and across restarts."""
    window = DedupWindow("vendor")
    assert read(window, [1, 1, 5, 9, 5], floor, size=2) == [1, 5, 9]
    for _ in range(3):
        window = reborn(window)
        assert window.knows(name(5))
        assert not window.knows(name(4))
        window.end_scan(floor)
        assert read(window, [1, 5, 9, 5], floor) == []


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([None, 3, 4, 5, 6, 9])))),
    st.sampled_from([EVERYTHING, NOTHING, 0, 5, 20]),
    st.booleans(),
)
def test_a_page_is_taken_as_its_events_one_by_one(
    pages: list[list[tuple[int, int | None]]], floor: int | None, ends_scan: bool
) -> None:
    """T01 T05 T51 the same are new, and the same is remembered of them."""
    window, other = DedupWindow("vendor"), DedupWindow("vendor")
    for page in pages:
        events = [Event(name(number), b"{}", at, 0) for number, at in page]
        alone = [e for e in events if other.is_new(e.identity, e.timestamp_ns, floor)]
        assert window.take(events, floor) == alone
        assert window.snapshot() == other.snapshot()
        if ends_scan:
            window.end_scan(floor)
            other.end_scan(floor)


def test_events_without_a_timestamp_are_known_as_long_as_scans_bring_them() -> None:
    """T51 T07 no instant tells when they will stop to come."""
    window = DedupWindow("vendor")
    for scan in range(5):
        fresh = [window.is_new(name(number), None, 10**6) for number in range(5000)]
        window.trim(10**6, 5000)
        window.end_scan(10**6)
        window = reborn(window)
        assert any(fresh) == (scan == 0)


def test_what_no_scan_can_bring_again_is_forgotten() -> None:
    """The window is as long as the API's memory, not as long as ours."""
    window = DedupWindow("vendor")
    for start in range(0, 50_000, 1000):
        read(window, range(start, start + 1000), start + 999)
        window.end_scan(start + 999)
    assert len(window) <= KEPT_COUNT + 1000
    assert window.knows(name(49_999))
    window = DedupWindow("vendor")
    read(window, range(50_000), NOTHING)
    assert len(window) == RECENT_COUNT
    window.end_scan(NOTHING)
    assert len(window) == KEPT_COUNT


@pytest.mark.parametrize("newest_first", [False, True])
def test_everything_from_the_floor_on_is_known(newest_first: bool) -> None:
    """T03 T04 any number of events on the last instants, in either order."""
    window = DedupWindow("vendor")
    numbers = list(range(30_000))
    read(window, numbers[::-1] if newest_first else numbers, 5000)
    window.end_scan(5000)
    window = reborn(window)
    assert all(window.knows(name(number)) for number in range(5000, 30_000))
    assert read(window, range(5000, 30_001), 5000) == [30_000]


def test_pages_of_any_size_stay_known() -> None:
    """T05 T10 the two last pages, though they are larger than the usual bound."""
    window = DedupWindow("vendor")
    size = RECENT_COUNT + 500
    assert len(read(window, range(2 * size), NOTHING, size=size)) == 2 * size
    assert read(window, range(size, 2 * size), NOTHING, size=size) == []


def test_a_full_window_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bounded, and said so with the source's name."""
    monkeypatch.setattr(dedup, "CAPACITY", 300)
    window = DedupWindow("vendor")
    with caplog.at_level(logging.WARNING):
        read(window, range(500), EVERYTHING)
    assert len(window) <= 300
    assert [vars(record)["source"] for record in caplog.records] == ["vendor"]
    assert window.knows(name(499))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("page"), st.lists(st.integers(0, 30), max_size=6)),
        st.tuples(st.just("end"), st.just([])),
    ),
    max_size=15,
)
floors = st.sampled_from([EVERYTHING, NOTHING, 0, 10, 20])


def play(window: DedupWindow, script: list[tuple[str, list[int]]], floor: int | None) -> list[bool]:
    fresh = []
    for kind, numbers in script:
        if kind == "end":
            window.end_scan(floor)
        else:
            fresh += [
                window.is_new(name(number), number if number % 5 else None, floor)
                for number in numbers
            ]
            window.trim(floor, len(numbers))
    return fresh


@given(steps, steps, floors)
def test_a_restored_window_is_the_same_window(
    before: list[tuple[str, list[int]]], after: list[tuple[str, list[int]]], floor: int | None
) -> None:
    """Snapshots hold bytes only, do not change, and lose nothing."""
    window = DedupWindow("vendor")
    play(window, before[: len(before) // 2], floor)
    window.snapshot()
    play(window, before[len(before) // 2 :], floor)
    packed = window.snapshot()
    kept = pickle.dumps(packed)
    assert all(type(part) is bytes for part in packed)
    other = DedupWindow.restore("vendor", pickle.loads(kept))
    assert play(window, after, floor) == play(other, after, floor)
    assert window.snapshot() == other.snapshot()
    assert pickle.dumps(packed) == kept
