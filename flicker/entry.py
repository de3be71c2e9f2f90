"""Where the `flicker` command begins: ready for signals before anything else."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def main() -> int:
    """Run the command.

    A signal that comes while it is still being loaded, which takes the better
    part of a second, stops it as a later one does.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from flicker.cli import main as run  # noqa: PLC0415 - what takes so long

    return run()


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)
