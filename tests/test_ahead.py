"""Asking for a page before the one in front of it is read."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flicker.ahead import AHEAD_S, LookAhead
from flicker.request import PageRequest


def fetch_of(number: int, *, is_followed: bool = True, is_at_token: bool = False) -> Any:
    following = (None, PageRequest(f"/{number + 1}")) if is_followed else None
    return SimpleNamespace(
        request=PageRequest(f"/{number}"),
        following=following,
        done_at=None,
        is_at_token=is_at_token,
    )


@pytest.fixture
def look_ahead() -> LookAhead:
    """One whose fetches never end."""

    def follow(fetch: Any) -> Any:
        return fetch_of(int(fetch.following[1].url[1:]))

    return LookAhead(cast("Any", follow))


def test_what_is_behind_the_leader_is_asked_for_once(look_ahead: LookAhead) -> None:
    """Whether that is known when it leads, or later."""
    leader, other = fetch_of(1, is_followed=False), fetch_of(7)
    look_ahead.lead(leader)
    look_ahead.note(other)
    assert look_ahead._ahead == []
    leader.following = (None, PageRequest("/2"))
    look_ahead.note(leader)
    [ahead] = look_ahead._ahead
    look_ahead.note(leader)
    assert look_ahead._ahead == [ahead]
    assert look_ahead.take(PageRequest("/2")) is ahead
    assert look_ahead.take(PageRequest("/2")) is None
    look_ahead.lead(ahead)
    assert look_ahead.take(PageRequest("/3")) is not None


def test_so_many_pages_are_asked_for_ahead_and_no_more(look_ahead: LookAhead) -> None:
    """Each as soon as it is known, and none twice."""
    look_ahead.lead(fetch_of(1))
    for _ in range(2):
        for fetch in look_ahead._ahead.copy():
            look_ahead.note(fetch)
    ahead = look_ahead._ahead.copy()
    assert [fetch.request.url for fetch in ahead] == ["/2", "/3"]
    assert look_ahead.take(PageRequest("/2")) is ahead[0]
    look_ahead.lead(ahead[0])
    look_ahead.note(ahead[1])
    assert look_ahead._ahead[0] is ahead[1]
    assert [fetch.request.url for fetch in look_ahead._ahead] == ["/3", "/4"]


def test_what_is_behind_a_wrong_guess_is_dropped_with_it(look_ahead: LookAhead) -> None:
    leader = fetch_of(1)
    look_ahead.lead(leader)
    look_ahead.note(look_ahead._ahead[0])
    leader.following = (None, PageRequest("/7"))
    look_ahead.note(leader)
    assert [fetch.request.url for fetch in look_ahead._ahead] == ["/7"]


def test_a_wrong_guess_is_dropped(look_ahead: LookAhead) -> None:
    look_ahead.lead(fetch_of(1))
    assert look_ahead.take(PageRequest("/2", "POST")) is None
    assert look_ahead.take(PageRequest("/2")) is None


@pytest.mark.parametrize(("age_s", "is_taken"), [(0.0, True), (AHEAD_S + 1, False)])
def test_a_page_does_not_wait_for_long(look_ahead: LookAhead, age_s: float, is_taken: bool) -> None:
    """The listing has changed by then; but who is slow to answer is waited for."""
    look_ahead.lead(fetch_of(1))
    ahead: Any = look_ahead._ahead[0]
    ahead.started_at = time.monotonic() - 60
    ahead.done_at = time.monotonic() - age_s
    assert (look_ahead.take(PageRequest("/2")) is ahead) == is_taken


def test_a_page_at_a_token_is_kept_until_it_is_asked_for() -> None:
    """T18: what was asked for with a token that may be used once is there once."""

    def follow(fetch: Any) -> Any:
        return fetch_of(int(fetch.following[1].url[1:]), is_at_token=True)

    look_ahead = LookAhead(cast("Any", follow))
    look_ahead.lead(fetch_of(1))
    ahead: Any = look_ahead._ahead[0]
    ahead.done_at = time.monotonic() - 100 * AHEAD_S
    assert look_ahead.take(PageRequest("/7")) is None
    look_ahead.rest()
    # It is what is behind the leader, so it is not asked for twice.
    look_ahead.lead(fetch_of(1))
    assert look_ahead.take(PageRequest("/2")) is ahead
    # Until something else is behind it.
    look_ahead.lead(fetch_of(2))
    look_ahead.lead(fetch_of(8))
    assert look_ahead.take(PageRequest("/3")) is None
    assert look_ahead.take(PageRequest("/9")) is not None


def test_a_page_at_an_offset_is_dropped_with_its_poll(look_ahead: LookAhead) -> None:
    look_ahead.lead(fetch_of(1))
    look_ahead.rest()
    assert look_ahead.take(PageRequest("/2")) is None
