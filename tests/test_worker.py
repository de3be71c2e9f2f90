"""What a worker's thread keeps from one call to the next."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSink, cluster_main

from flicker.worker import keep_thread_state

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


class _Source(FixedPartitionedSource[int, None]):
    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps

    def list_parts(self) -> list[str]:
        return ["one", "two"]

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Partition:
        del step_id, for_part, resume_state
        if self._keeps:
            keep_thread_state()
        return _Partition()


@pytest.mark.parametrize(
    ("keeps", "counted"), [(True, sorted(2 * [*range(1, CALLS + 1)])), (False, 2 * CALLS * [1])]
)
def test_a_workers_thread_keeps_its_state(keeps: bool, counted: list[int]) -> None:
    """Left to itself it does not, or there would be nothing to do."""
    out: list[int] = []
    flow = Dataflow("f")
    op.output("out", op.input("in", flow, _Source(keeps=keeps)), TestingSink(out))
    cluster_main(flow, [], 0, worker_count_per_proc=1)
    assert sorted(out) == counted
