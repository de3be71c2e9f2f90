"""How often an API is asked, alone and in a group."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flicker.pace import PATIENCE_S, Pace, Paces


def pace_of(requests_per_second: float | None) -> Pace:
    pace = Pace()
    pace.limit(requests_per_second)
    return pace


def ask(pace: Pace, now: float, name: str = "a") -> float:
    """Ask as soon as that may be, by one who looks again when told to."""
    while (at := pace.start(name, now)) > now:
        now = at
    return now


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
    """Whoever wakes first, and however quickly the others are back."""
    pace = pace_of(1.0)
    served = [name for name in "abc" if pace.start(name, 0.0) <= 0.0]
    for turn in range(1, 7):
        served += [name for name in "cbacba" if pace.start(name, float(turn)) <= turn]
    assert served == list("abcabca")


def test_a_pause_holds_everybody_and_lets_them_go_one_by_one() -> None:
    pace = pace_of(1.0)
    ask(pace, 0.0)
    pace.pause(60.0)
    pace.pause(30.0)
    assert all(pace.start(name, 59.0) >= 60.0 for name in "abc")
    assert pace.start("a", 60.0) == 60.0
    assert pace.start("b", 60.0) >= 61.0
    assert [ask(pace, 60.5, "b"), ask(pace, 60.5, "c")] == [61.0, 62.0]


def test_a_pause_without_a_limit_lets_all_go_at_once() -> None:
    pace = pace_of(None)
    pace.pause(9.0)
    assert [pace.start(name, 5.0) for name in "ab"] == [9.0, 9.0]
    assert [pace.start(name, 9.0) for name in "ba"] == [9.0, 9.0]


def test_who_does_not_come_back_holds_nobody_up() -> None:
    """A source whose destination is behind may come back much later."""
    pace = pace_of(1.0)
    ask(pace, 0.0, "a")
    assert pace.start("gone", 0.0) == 1.0
    assert pace.start("b", 0.0) > 1.0
    assert pace.start("b", 1.0) > 1.0
    assert pace.start("b", 1.0 + PATIENCE_S) == 1.0 + PATIENCE_S
    assert ask(pace, 1.5, "b") == 2.0 + PATIENCE_S
    assert ask(pace, 2.5, "gone") == 3.0 + PATIENCE_S


@given(
    rate=st.sampled_from([0.5, 3.0, 100.0]),
    members=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=20),
    pauses=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 30)), max_size=3),
)
def test_no_two_requests_are_ever_closer_than_the_limit(
    rate: float, members: list[tuple[float, float]], pauses: list[tuple[float, float]]
) -> None:
    """Whoever comes when, is late by whatever, and whatever pauses come in between."""
    pace = pace_of(rate)
    started: list[float] = []
    waiting = sorted((at, late, str(number)) for number, (at, late) in enumerate(members))
    for at, until in pauses:
        pace.pause(max(at, until))
    while waiting:
        now, late, name = waiting.pop(0)
        ready_at = pace.start(name, now)
        if ready_at <= now:
            started.append(now)
        else:
            waiting = sorted([*waiting, (ready_at + late, 0.0, name)])
    assert started == sorted(started)
    gaps = [after - before for before, after in pairwise(started)]
    assert all(gap >= 1 / rate - 1e-9 for gap in gaps)
    assert all(at >= max(map(max, pauses), default=0.0) for at in started)
