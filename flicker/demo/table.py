"""What the tour shows: a table redrawn in place on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

LINE_INTERVAL_S = 1.0
"""Time between two lines where no table can be redrawn."""

_MIN_ROWS = 14
_MIN_COLUMNS = 40
_BAR_CELLS = 66

_UP, _CLEAR_BELOW = "\x1b[{}A", "\r\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

_COLUMNS = (("served", 9), ("shipped", 9), ("pending", 9), ("rate", 9))


class Reading(NamedTuple):
    """One look at both servers and at the registry.

    Attributes:
        elapsed_s: Since the tour began.
        recorded: Events that the API has, asked for or not.
        served: Distinct events that were in an answer of the API.
        shipped: Distinct events that the destination accepted.
        rate: Events shipped a second, of late.
        position: What the registry says; empty where it says nothing yet.
        state: What Flicker is doing.
        is_up: Whether Flicker is running.
    """

    elapsed_s: float
    recorded: int
    served: int
    shipped: int
    rate: float
    position: str
    state: str
    is_up: bool

    @property
    def pending(self) -> int:
        """How many events have not arrived at the destination."""
        return self.recorded - self.shipped


class Board(Protocol):
    """Where the tour is watched."""

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line that stays."""

    def show(self, reading: Reading) -> None:
        """Show where things stand."""

    def close(self) -> None:
        """Leave the output as it was found; may be repeated."""


def open_board(out: TextIO, environ: Mapping[str, str]) -> Board:
    """Choose the board for an output.

    Args:
        out: Where to write. What is no terminal gets no control characters.
        environ: Of the process: TERM, and NO_COLOR (https://no-color.org).
    """
    if not out.isatty() or environ.get("TERM", "") in {"", "dumb"}:
        return PlainBoard(out)
    size = _terminal_size(out)
    if size.lines < _MIN_ROWS or size.columns < _MIN_COLUMNS:
        return PlainBoard(out)
    return LiveBoard(out, use_color=not environ.get("NO_COLOR"))


class PlainBoard:
    """Lines only: for pipes, files, and terminals that know no better."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown_at_s: float | None = None
        self._needs_head = True

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line."""
        del style
        self._out.write(_encodable(text, self._out) + "\n")
        self._out.flush()
        self._needs_head = True

    def show(self, reading: Reading) -> None:
        """Print a line of the table, one a second at most."""
        if self._shown_at_s is not None:
            if reading.elapsed_s - self._shown_at_s < LINE_INTERVAL_S:
                return
        elif not reading.shipped:
            return
        self._shown_at_s = reading.elapsed_s
        if self._needs_head:
            self._needs_head = False
            self._out.write(f"    time{_head()}\n")
        self._out.write(f"{reading.elapsed_s:6.1f} s{_row(reading)}\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to undo."""


class LiveBoard:
    """A table at the bottom, redrawn in place; what is said stands above it."""

    def __init__(self, out: TextIO, *, use_color: bool) -> None:
        self._out = out
        self._use_color = use_color
        self._drawn_rows = 0
        self._last: Reading | None = None
        self._is_open = False
        blocks = "█▒░─"
        self._blocks = tuple(blocks if _encodable(blocks, out) == blocks else "#+.-")

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line above the table."""
        line = self._styled(_encodable(text, self._out), style)
        table = self._table(self._last) if self._last is not None else []
        self._redraw([line], table)

    def show(self, reading: Reading) -> None:
        """Redraw the table."""
        if not self._is_open:
            self._is_open = True
            self._out.write(_HIDE_CURSOR)
        self._last = reading
        self._redraw([], self._table(reading))

    def close(self) -> None:
        """Leave the table where it stands, and give the cursor back."""
        self._drawn_rows = 0
        self._last = None
        if self._is_open:
            self._is_open = False
            self._out.write(_SHOW_CURSOR)
            self._out.flush()

    def _redraw(self, said: list[str], table: list[str]) -> None:
        # One write: a table half drawn is seen as a flicker.
        start = _UP.format(self._drawn_rows) + _CLEAR_BELOW if self._drawn_rows else ""
        self._out.write(start + "".join(f"{line}\n" for line in [*said, *table]))
        self._out.flush()
        self._drawn_rows = len(table)

    def _table(self, reading: Reading) -> list[str]:
        full, half, empty, rule = self._blocks
        width = _terminal_size(self._out).columns - 1
        cells = min(_BAR_CELLS, width - 2)
        total = max(reading.recorded, 1)
        shipped = cells * reading.shipped // total
        served = max(cells * reading.served // total, shipped)
        line = self._styled("  " + rule * cells, "dim")
        light = "green" if reading.is_up else "red"
        return [
            line,
            self._styled(_head()[:width], "dim"),
            self._styled(_row(reading)[:width], "bold"),
            "  "
            + self._styled(full * shipped, "green")
            + self._styled(half * (served - shipped), "yellow")
            + self._styled(empty * (cells - served), "dim"),
            self._styled(f"  {reading.elapsed_s:5.1f} s   Flicker {reading.state}"[:width], light),
            line,
        ]

    def _styled(self, text: str, style: str) -> str:
        if not self._use_color or not style or not text:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _head() -> str:
    return "".join(f"{name:>{width}}" for name, width in _COLUMNS) + "   position"


def _row(reading: Reading) -> str:
    numbers = (
        f"{reading.served:,}",
        f"{reading.shipped:,}",
        f"{reading.pending:,}",
        f"{reading.rate:,.0f}/s",
    )
    cells = (f"{text:>{width}}" for text, (_, width) in zip(numbers, _COLUMNS, strict=True))
    return "".join(cells) + f"   {reading.position or '-'}"


def _encodable(text: str, out: TextIO) -> str:
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _terminal_size(out: TextIO) -> os.terminal_size:
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return shutil.get_terminal_size()
    # A terminal that does not know its size says 0.
    return size if size.columns and size.lines else os.terminal_size((80, 24))
