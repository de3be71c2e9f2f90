"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.processes import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A busy machine makes no test fail; one that hangs ends at pytest's limit.
settings.register_profile("flicker", deadline=None)
settings.load_profile("flicker")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What one test does to the log is no other's."""
    root, ours = logging.getLogger(), logging.getLogger("flicker")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A directory to run Flicker in; no process outlives the test, none dies ugly."""
    home = Home(tmp_path)
    yield home
    for said in home.close():
        assert "Traceback" not in said
        assert "panicked" not in said
