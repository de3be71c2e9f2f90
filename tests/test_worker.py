"""What a worker's thread keeps from one call to the next."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSink, cluster_main

from flicker.deadletter import DeadLetters
from flicker.runtime import Runtime
from flicker.settings import Retry
from flicker.source import ApiSource
from flicker.worker import keep_thread_state

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 5


class _Partition(StatefulSourcePartition[int, None]):
    """Counts its calls in what belongs to the thread, and is lost with its state."""

    def __init__(self) -> None:
        self._calls = 0
        self._of_thread = threading.local()

    def next_batch(self) -> list[int]:
        self._calls += 1
        if self._calls > CALLS:
            raise StopIteration
        self._of_thread.calls = getattr(self._of_thread, "calls", 0) + 1
        return [self._of_thread.calls]

    def snapshot(self) -> None:
        return None


def _build_source() -> None:
    runtime = Runtime(Retry(), DeadLetters(Path()))
    ApiSource({}, ["retired"], runtime).build_part("poll", "retired", None)


class _Source(FixedPartitionedSource[int, None]):
    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare

    def list_parts(self) -> list[str]:
        return ["one", "two"]

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Partition:
        del step_id, for_part, resume_state
        self._prepare()
        return _Partition()


KEPT = sorted(2 * [*range(1, CALLS + 1)])


@pytest.mark.parametrize(
    ("prepare", "counted"),
    [(keep_thread_state, KEPT), (_build_source, KEPT), (lambda: None, 2 * CALLS * [1])],
    ids=["asked to", "building a source", "left to itself"],
)
def test_a_workers_thread_keeps_its_state(prepare: Callable[[], None], counted: list[int]) -> None:
    """Left to itself it does not, or there would be nothing to do."""
    out: list[int] = []
    flow = Dataflow("f")
    op.output("out", op.input("in", flow, _Source(prepare)), TestingSink(out))
    cluster_main(flow, [], 0, worker_count_per_proc=1)
    assert sorted(out) == counted
