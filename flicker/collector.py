"""When Python's cyclic garbage collector runs."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def at_rest() -> Iterator[None]:
    """Keep it from running while much is made that stays.

    It would go through all of it again and again: a quarter of a second until a
    thousand sources are loaded.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
