"""Being asked to stop while Flicker starts."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from flicker import signals
from flicker.demo.servers import Destination
from tests.processes import Home, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from collections.abc import Iterator

both = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

DELAYS_S = [0.8 * index / 24 for index in range(25)]


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test installs is gone after it."""
    monkeypatch.setattr(signals, "_asked", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@both
def test_a_signal_exits_with_0(number: int) -> None:
    signals.exit_when_asked()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(number)
    assert caught.value.code == 0


@both
def test_an_exit_that_got_lost_is_made_up_for(number: int) -> None:
    """By the next look; and where there is a flow by now, that is stopped."""
    signals.exit_when_asked()
    with suppress(SystemExit):
        signal.raise_signal(number)
    with pytest.raises(SystemExit) as caught:
        signals.exit_if_asked()
    assert caught.value.code == 0
    stops: list[None] = []
    signals.hand_over(lambda: stops.append(None))
    assert len(stops) == 1


class _StopsWhenForgotten:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


class _FailsWhenForgotten:
    def __del__(self) -> None:
        raise LookupError("of the finalizer")


def test_only_an_exit_gets_lost_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Where Python cannot raise it, it would print a traceback instead."""
    signals.exit_when_asked()
    _StopsWhenForgotten()
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        signals.exit_if_asked()
    _FailsWhenForgotten()
    assert "of the finalizer" in capsys.readouterr().err


@both
def test_nobody_who_was_not_asked_stops(number: int) -> None:
    """And a flow is only told to: it ends by itself."""
    stops: list[None] = []
    signals.exit_when_asked()
    signals.exit_if_asked()
    signals.hand_over(lambda: stops.append(None))
    assert stops == []
    signal.raise_signal(number)
    assert len(stops) == 1


@pytest.mark.process
def test_sigterm_at_any_moment_of_a_start_ends_it_with_0(home: Home) -> None:
    """Once the interpreter takes it, which is before Flicker is loaded."""
    pause = threading.Event()

    def stop_after(delay_s: float) -> tuple[int, str]:
        process = home.start("--registry-file", f"registry-{delay_s:.3f}.json")
        assert wait_until(lambda: process._takes_sigterm() or not process.is_running)
        pause.wait(delay_s)
        process.send(signal.SIGTERM)
        return process.wait(), process.stderr

    with (
        ListingApi(make_events(5), Style(paging="offset", time_param="since")) as api,
        Destination() as siem,
        ThreadPoolExecutor(3) as pool,
    ):
        home.configure(make_source("s", api.endpoint, siem.url))
        ends = list(pool.map(stop_after, DELAYS_S))
    assert [end for end in ends if end[0] != 0] == []
