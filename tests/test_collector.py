"""When the garbage collector runs."""

from __future__ import annotations

import gc

import pytest

from flicker import collector


def test_it_rests_until_the_end_even_where_that_is_an_error() -> None:
    seen: list[bool] = []

    def work() -> None:
        with collector.at_rest():
            seen.append(gc.isenabled())
            raise ValueError("of the work")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="of the work"):
        work()
    assert seen == [False]
    assert gc.isenabled()
