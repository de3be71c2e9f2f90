"""How often an API is asked, alone and in a group."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flicker.pace import Pace, Paces


def pace_of(requests_per_second: float | None) -> Pace:
    pace = Pace()
    pace.limit(requests_per_second)
    return pace


def ask(pace: Pace, now: float) -> float:
    """Ask as soon as that may be, by one who looks again when told to."""
    at = ready_at = pace.reserve(now)
    while (next_at := pace.start(at, ready_at)) > ready_at:
        ready_at = next_at
    return ready_at


def test_without_a_limit_nobody_waits() -> None:
    pace = pace_of(None)
    assert [ask(pace, 5.0) for _ in range(3)] == [5.0] * 3


def test_requests_are_as_far_apart_as_the_limit_says() -> None:
    pace = pace_of(4.0)
    assert [ask(pace, 10.0) for _ in range(3)] == [10.0, 10.25, 10.5]


def test_idle_time_is_not_saved_up() -> None:
    pace = pace_of(1.0)
    ask(pace, 0.0)
    assert [ask(pace, 100.0) for _ in range(2)] == [100.0, 101.0]


def test_the_lowest_limit_of_a_group_counts() -> None:
    paces = Paces()
    first = paces.join("g", 10.0)
    assert paces.join("g", 0.5) is first
    assert paces.join("g", None) is first
    paces.join("g", 4.0)
    assert [ask(first, 0.0) for _ in range(2)] == [0.0, 2.0]


def test_groups_do_not_wait_for_each_other() -> None:
    paces = Paces()
    loners = [paces.join(None, 1.0), paces.join(None, 1.0)]
    groups = [paces.join("a", 1.0), paces.join("b", 1.0)]
    for pace in (*loners, *groups):
        assert ask(pace, 0.0) == 0.0
    loners[0].pause(50.0)
    assert ask(loners[1], 1.0) == 1.0


def test_who_came_first_is_served_first() -> None:
    pace = pace_of(1.0)
    early, late = pace.reserve(0.0), pace.reserve(0.0)
    assert pace.start(late, 0.0) == 1.0
    assert pace.start(early, 0.0) == 0.0
    assert pace.start(late, 1.0) == 1.0


def test_a_pause_holds_everybody_and_lets_them_go_one_by_one() -> None:
    pace = pace_of(1.0)
    waiting = [pace.reserve(0.0) for _ in range(3)]
    pace.pause(60.0)
    pace.pause(30.0)
    assert [pace.start(at, 59.0) for at in waiting] == [60.0] * 3
    assert pace.start(waiting[2], 60.0) == 60.0
    assert pace.start(waiting[0], 60.0) == 61.0
    assert pace.start(waiting[0], 61.0) == 61.0
    assert pace.start(waiting[1], 61.0) == 62.0


def test_who_missed_a_turn_asks_nobody_in_two() -> None:
    """A source whose destination is behind may come back much later."""
    pace = pace_of(1.0)
    missed = pace.reserve(0.0)
    assert ask(pace, 10.0) == 10.0
    assert pace.start(missed, 10.0) == 11.0


@given(
    rate=st.sampled_from([0.5, 3.0, 100.0]),
    members=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=20),
    pauses=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 30)), max_size=3),
)
def test_no_two_requests_are_ever_closer_than_the_limit(
    rate: float, members: list[tuple[float, float]], pauses: list[tuple[float, float]]
) -> None:
    """Whoever reserves when, is late by whatever, and whatever pauses come in between."""
    pace = pace_of(rate)
    started: list[float] = []
    waiting = sorted((at + late, at) for at, late in members)
    kept = {at: pace.reserve(at) for at in sorted(at for _, at in waiting)}
    for at, until in pauses:
        pace.pause(max(at, until))
    while waiting:
        now, member = waiting.pop(0)
        ready_at = pace.start(kept[member], now)
        if ready_at <= now:
            started.append(now)
        else:
            waiting = sorted([*waiting, (ready_at, member)])
    assert started == sorted(started)
    gaps = [after - before for before, after in pairwise(started)]
    assert all(gap >= 1 / rate - 1e-9 for gap in gaps)
    assert all(at >= max(map(max, pauses), default=0.0) for at in started)
