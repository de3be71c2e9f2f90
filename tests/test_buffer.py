"""Batches by size or age."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.buffer import BufferLogic
from flicker.errors import RegistryError
from flicker.events import Record
from flicker.items import Batch, Flush, RecordPage
from flicker.settings import Destination, Endpoint, Source

NOON = datetime(2025, 1, 1, 12, tzinfo=timezone.utc)
SIZE = 4
INTERVAL_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Buffer:
    """A logic driven as Bytewax drives it, over any number of restarts."""

    def __init__(self, clock: Clock, size: int = SIZE, name: str = "s") -> None:
        self.clock = clock
        self.size = size
        endpoint = Endpoint("http://127.0.0.1/")
        interval = timedelta(seconds=INTERVAL_S)
        self.sources = {
            name: Source(
                name, endpoint, Destination(endpoint), buffer_size=size, flush_interval=interval
            )
        }
        self.logic = BufferLogic(self.sources, None, clock)
        self.out: list[list[int]] = []
        self.at: list[float] = []

    def put(self, *numbers: int) -> None:
        self._take(self.logic.on_batch([page(*numbers)]))

    def flush(self) -> list[Batch | Flush]:
        out, _ = self.logic.on_batch([Flush("s")])
        return out

    def wait(self, seconds: float) -> None:
        """Let time pass; wake the logic when it asks to be."""
        end = self.clock.now + timedelta(seconds=seconds)
        while (due := self.logic.notify_at()) is not None and due <= end:
            self.clock.now = max(due, self.clock.now)
            self._take(self.logic.on_notify())
        self.clock.now = end

    def restart(self) -> None:
        state = pickle.loads(pickle.dumps(self.logic.snapshot()))
        self.logic = BufferLogic(self.sources, state, self.clock)

    def _take(self, result: tuple[list[Batch | Flush], bool]) -> None:
        out, is_over = result
        assert not is_over
        for batch in out:
            assert isinstance(batch, Batch)
            self.out.append(numbers_of(batch))
            self.at.append((self.clock.now - NOON).total_seconds())


def page(*numbers: int, source: str = "s") -> RecordPage:
    return RecordPage(source, [Record(b"%016d" % number, b"%d" % number) for number in numbers])


def numbers_of(batch: Batch) -> list[int]:
    return [int(record.body) for record in batch.records]


def test_full_batches_go_at_once_and_the_rest_when_it_is_old() -> None:
    """T64: fewer than buffer_size events leave after flush_interval_ms."""
    buffer = Buffer(Clock())
    buffer.put(*range(10))
    assert buffer.out == [[0, 1, 2, 3], [4, 5, 6, 7]]
    buffer.wait(INTERVAL_S - 0.001)
    assert len(buffer.out) == 2
    buffer.wait(0.001)
    assert buffer.out[2:] == [[8, 9]]
    assert buffer.logic.notify_at() is None


def test_a_trickle_does_not_put_the_deadline_off() -> None:
    """T64: the age is that of the first event."""
    buffer = Buffer(Clock(), size=1000)
    for number in range(12):
        buffer.put(number)
        buffer.wait(3.0)
    assert buffer.out == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert buffer.at == [10.0, 22.0, 34.0]


def test_what_a_full_batch_leaves_is_as_young_as_it_is() -> None:
    buffer = Buffer(Clock())
    buffer.put(1)
    buffer.wait(9.0)
    buffer.put(2, 3, 4, 5)
    buffer.wait(9.0)
    assert buffer.out == [[1, 2, 3, 4]]
    buffer.wait(1.0)
    assert buffer.out == [[1, 2, 3, 4], [5]]


def test_a_flush_lets_go_of_the_rest_and_passes_on_behind_it() -> None:
    """T64: shutdown."""
    buffer = Buffer(Clock())
    buffer.put(1, 2)
    first, last = buffer.flush()
    assert isinstance(first, Batch)
    assert numbers_of(first) == [1, 2]
    assert last == Flush("s")
    assert buffer.flush() == [Flush("s")]


def test_the_end_of_the_input_lets_go_of_everything() -> None:
    buffer = Buffer(Clock())
    buffer.put(1, 2)
    (batch,), _ = buffer.logic.on_eof()
    assert isinstance(batch, Batch)
    assert numbers_of(batch) == [1, 2]
    assert buffer.logic.on_eof()[0] == []
    assert buffer.logic.snapshot()["records"] == []


def test_nothing_in_nothing_out() -> None:
    """T64: zero events make no batch and no deadline."""
    buffer = Buffer(Clock())
    buffer.put()
    assert buffer.logic.notify_at() is None
    buffer.wait(1000.0)
    assert buffer.out == []


def test_a_restart_keeps_the_deadline() -> None:
    """T60, T64: restarts more frequent than the interval do not hold events for ever."""
    buffer = Buffer(Clock())
    buffer.put(1)
    for _ in range(4):
        buffer.wait(2.4)
        buffer.restart()
    assert buffer.out == []
    assert buffer.logic.notify_at() == NOON + timedelta(seconds=INTERVAL_S)
    buffer.wait(0.4)
    assert buffer.out == [[1]]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_clock_set_back_does_not_put_the_deadline_off(is_restarted: bool) -> None:
    buffer = Buffer(Clock())
    buffer.put(1)
    buffer.clock.move(-3600.0)
    if is_restarted:
        buffer.restart()
    else:
        buffer.put(2)
    buffer.wait(INTERVAL_S)
    assert buffer.out == [[1] if is_restarted else [1, 2]]


def test_a_source_that_is_configured_no_more_is_flushed_at_once() -> None:
    buffer = Buffer(Clock())
    buffer.put(1, 2)
    buffer.sources.clear()
    buffer.restart()
    buffer.wait(0.0)
    assert buffer.out == [[1, 2]]


def test_a_smaller_size_after_a_restart_is_kept_to() -> None:
    buffer = Buffer(Clock(), size=100)
    buffer.put(*range(7))
    buffer.sources = Buffer(Clock(), size=3).sources
    buffer.restart()
    buffer.put(7)
    assert buffer.out == [[0, 1, 2], [3, 4, 5]]


def test_snapshots_are_builtins_and_do_not_change() -> None:
    buffer = Buffer(Clock())
    buffer.put(1, 2)
    state = buffer.logic.snapshot()
    frozen = pickle.dumps(state)
    assert type(state["first_at"]) is float
    assert [type(record) for record in state["records"]] == [tuple, tuple]
    buffer.put(3, 4, 5)
    assert pickle.dumps(state) == frozen


def test_refuses_state_of_another_version() -> None:
    with pytest.raises(RegistryError, match="version 9"):
        BufferLogic({}, {"version": 9, "source": "s"})


_STEPS: Any = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.floats(0, 15)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=30,
)


@given(steps=_STEPS, size=st.integers(1, 6))
def test_every_record_leaves_once_in_order_in_time_and_in_measure(
    steps: list[tuple[str, Any]], size: int
) -> None:
    """T64: whatever the rhythm."""
    buffer = Buffer(Clock(), size)
    came_at: list[float] = []
    for step, amount in steps:
        if step == "put":
            numbers = range(len(came_at), len(came_at) + amount)
            came_at += [(buffer.clock.now - NOON).total_seconds()] * amount
            buffer.put(*numbers)
        elif step == "wait":
            buffer.wait(amount)
        else:
            buffer.restart()
    buffer.wait(INTERVAL_S)
    assert [number for batch in buffer.out for number in batch] == list(range(len(came_at)))
    for batch, left_at in zip(buffer.out, buffer.at, strict=True):
        assert 1 <= len(batch) <= size
        assert left_at - came_at[batch[0]] <= INTERVAL_S + 1e-5
        assert len(batch) == size or left_at - came_at[batch[0]] >= INTERVAL_S - 1e-5
