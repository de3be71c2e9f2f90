"""What a measurement comes out as: a row of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One figure and what it should be.

    Attributes:
        key: Names it in the file of results; stays the same.
        reached: None where it could not be measured; `note` then says why.
        to_reach: None where there is only a figure to tell.
        better: Whether more is better, or less.
        spread: Least and greatest of the runs.
        note: What a reader has to know beside the figure.
        facts: Everything else that was measured.
    """

    key: str
    what: str
    against: str
    reached: float | None
    to_reach: float | None
    unit: str = "x"
    better: Literal["more", "less"] = "more"
    spread: tuple[float, float] | None = None
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether it is as it should be; None where that cannot be told."""
        if self.reached is None or self.to_reach is None:
            return None
        if self.better == "more":
            return self.reached >= self.to_reach
        return self.reached <= self.to_reach
