"""The picture for the README: events a second, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rows import Row

NAMES = {
    "relay": "relay: copies bodies, parses nothing",
    "flicker": "Flicker",
    "tuned": "tuned loop: raw.read, orjson",
    "plain": "plain loop: requests, json",
}

WIDTH = 760
LABELS = 250
FIGURES = 90
BAR = 20
LINE = 30
TOP = 44
BOTTOM = 34

# The picture stands on the reader's page, which is light or dark.
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
.other { fill: #8c959f; }
.ours { fill: #bf5b00; }
.name { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .other { fill: #656c76; }
  .ours { fill: #f0883e; }
}"""


def write_picture(path: Path, rows: list[Row], *, caption: str) -> bool:
    """Draw the contenders of the backfill and the peers, the fastest first.

    Args:
        path: Of the SVG.
        rows: All that were measured.
        caption: Says where and when.

    Returns:
        Whether it was drawn: without the backfill there is nothing to draw.
    """
    facts = {row.key: row.facts for row in rows}
    if not facts.get("backfill-plain"):
        return False
    contenders = facts["backfill-plain"]["contenders"]
    rates = {NAMES[name]: contender["events_per_s"] for name, contender in contenders.items()}
    peers = facts.get("peers", {})
    for name, rate in peers.get("events_per_s", {}).items():
        if name in peers["versions"]:
            rates[f"{name} {peers['versions'][name]}"] = rate
    path.write_text(draw(rates, caption))
    return True


def draw(rates: dict[str, float], caption: str) -> str:
    """Write the SVG of some rates."""
    most = max(rates.values())
    height = TOP + LINE * len(rates) + BOTTOM
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    role = 'role="img" aria-label="Events per second"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {role}>',
        f"<style>\n{_STYLE}\n</style>",
        '<text class="title" x="0" y="20">Backfill: events per second</text>',
    ]
    for number, (name, rate) in enumerate(sorted(rates.items(), key=lambda item: -item[1])):
        y = TOP + LINE * number
        middle = y + BAR - 5
        is_ours = name == NAMES["flicker"]
        width = max(1.0, rate / most * (WIDTH - LABELS - FIGURES))
        label = ' class="name"' if is_ours else ""
        kind = "ours" if is_ours else "other"
        lines += [
            f'<text{label} x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}"/>',
            f'<text{label} x="{LABELS + width + 8:.1f}" y="{middle}">{rate:,.0f}</text>',
        ]
    lines += [f'<text class="small" x="0" y="{height - 10}">{escape(caption)}</text>', "</svg>", ""]
    return "\n".join(lines)
