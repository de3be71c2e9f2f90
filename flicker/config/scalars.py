"""Plain values of a file that remember where they came from."""

from __future__ import annotations

import re

_SWITCHES = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Expanded(str):
    """Text that came, at least in part, from the environment or a file.

    It may stand where a number or a switch is asked for, which text of the
    configuration itself may not.
    """

    __slots__ = ()

    def as_whole(self) -> int | None:
        """Read it as a whole number; None where it is none."""
        text = self.strip()
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None

    def as_number(self) -> float | None:
        """Read it as a number, with or without a fraction; None where it is none."""
        text = self.strip()
        return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None

    def as_switch(self) -> bool | None:
        """Read it as true or false; None where it is neither."""
        return _SWITCHES.get(self.strip().lower())


class WrittenInt(int):
    """A whole number that remembers how it was written: `007` is not `7`."""

    text: str


class WrittenFloat(float):
    """A number with a fraction that remembers how it was written."""

    text: str
