"""Being asked to stop before there is anything that could be stopped.

An exception out of a signal handler gets lost where Python cannot raise it,
as in the middle of an import. So the wish is noted as well, and looked at
wherever a start-up has got to.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_asked: list[int] = []


def exit_when_asked() -> None:
    """Have SIGTERM and SIGINT end the process with exit code 0 from now on."""
    sys.unraisablehook = _show_unraisable
    for number in _NUMBERS:
        signal.signal(number, _stop)


def exit_if_asked() -> None:
    """Exit, if we were asked to and that got lost.

    Raises:
        SystemExit: We were.
    """
    if _asked:
        sys.exit(0)


def hand_over(stop: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call something else, also the one that got lost."""
    for number in _NUMBERS:
        signal.signal(number, lambda *_: stop())
    if _asked:
        stop()


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _asked.append(number)
    sys.exit(0)


def _show_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    # An exit that gets lost is made up for; its traceback would only alarm.
    if not (_asked and isinstance(unraisable.exc_value, SystemExit)):
        sys.__unraisablehook__(unraisable)
