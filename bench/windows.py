"""Registries of many sources whose dedup windows are full.

One source is read by Flicker itself; the others get what it has in its
registry, under names of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.children import Child
from bench.errors import BenchError
from bench.pages import PAGE_EVENTS
from bench.stage import flicker, write_config
from flicker.dedup import RECENT_COUNT, DedupWindow
from flicker.registry.partitions import POLL_STEP, edit_states, read_states

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from bench.stage import Stage

FULL = RECENT_COUNT
REGISTRY = ".flicker-registry.json.d"


def fill_registry(stage: Stage, directory: Path, sources: list[dict[str, Any]]) -> int:
    """Make a registry in which each source remembers as many events as a scan leaves.

    Args:
        stage: Has the listing that the first source reads.
        directory: Where Flicker is to run.
        sources: All of them are configured alike, but for the listing's path.

    Returns:
        Identities that each source knows.

    Raises:
        BenchError: The windows are not full.
    """
    events = FULL + 2 * PAGE_EVENTS
    name = str(sources[0]["name"])
    listing = stage.source(stage.listing.of(events), name=name, exclude_on=["."])
    write_config(directory, [listing])
    with Child(flicker("--track", "--once"), directory, name="fill") as child:
        child.wait()
    registry = directory / REGISTRY
    states = read_states(registry)
    window = DedupWindow.restore(name, states[POLL_STEP, name]["seen"])
    if len(window) < FULL:
        raise BenchError(f"a scan of {events:,} events leaves {len(window):,} identities")
    edit_states(
        registry,
        {
            (step, str(source["name"])): state
            for (step, _), state in states.items()
            for source in sources
        },
    )
    write_config(directory, sources)
    return len(window)
