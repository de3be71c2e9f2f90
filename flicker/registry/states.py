"""The states of one source as data: what is owed in them, what was delivered since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.events import split_identities
from flicker.journal import AckJournal
from flicker.registry.partitions import BUFFER_STEP, POLL_STEP, SHIP_STEP, read_states
from flicker.registry.shapes import check_states

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flicker.registry.partitions import StateKey

STEPS = {"poll": POLL_STEP, "buffer": BUFFER_STEP, "ship": SHIP_STEP}
"""Step ids by their names within the flow."""

States = dict["StateKey", Any]


def names_in(states: Iterable[StateKey]) -> set[str]:
    """Give the names of the sources that there are states of."""
    return {name for step, name in states if step in STEPS.values()}


def read_settled(directory: Path) -> States:
    """Read the states, less what the journal knows as delivered since.

    Raises:
        RegistryError: A partition is damaged, or holds what we did not write.
    """
    states = read_states(directory)
    check_states(directory, states)
    for name in names_in(states):
        ship = states.get((SHIP_STEP, name))
        if ship is not None:
            journal = AckJournal(directory / "acks", name)
            delivered = {*split_identities(ship["delivered"])} | journal.resume(ship["segment"])
            _settle(states, name, delivered, journal.next_segment)
    return states


def _settle(states: States, name: str, delivered: set[bytes], segment: int) -> None:
    ship, buffer = states[SHIP_STEP, name], states.get((BUFFER_STEP, name))
    met: set[bytes] = set()
    batches = []
    for identities, bodies in ship["batches"]:
        pairs = list(zip(split_identities(identities), bodies, strict=True))
        met.update(identity for identity, _ in pairs)
        kept = [pair for pair in pairs if pair[0] not in delivered]
        if kept:
            batches.append([b"".join(identity for identity, _ in kept), [body for _, body in kept]])
    if buffer is not None:
        met.update(identity for identity, _ in buffer["records"])
        kept = [record for record in buffer["records"] if record[0] not in delivered]
        first_at = buffer["first_at"] if kept else None
        states[BUFFER_STEP, name] = {**buffer, "records": kept, "first_at": first_at}
    # What was met here comes no more; the rest comes with the pages that are
    # read again.
    states[SHIP_STEP, name] = {
        **ship,
        "batches": batches,
        "delivered": b"".join(sorted(delivered - met)),
        "segment": segment,
    }


def owed_identities(states: States, name: str) -> list[bytes]:
    """Give the identities of what a source read and did not deliver."""
    ship, buffer = states.get((SHIP_STEP, name)), states.get((BUFFER_STEP, name))
    owed = [
        i for identities, _ in (ship or {}).get("batches", ()) for i in split_identities(identities)
    ]
    return owed + [identity for identity, _ in (buffer or {}).get("records", ())]


def refuse_loss(states: States, name: str) -> None:
    """Refuse to drop a source that owes events.

    Raises:
        RegistryError: It does.
    """
    owed = len(owed_identities(states, name))
    if owed:
        message = (
            f"{name}: {owed} event(s) are read and not delivered, and would be lost. Run Flicker "
            "until they are delivered, or add --force"
        )
        raise RegistryError(message)


def unknown_source(states: States, name: str) -> RegistryError:
    """Say that there is no such source, and which there are."""
    known = ", ".join(sorted(names_in(states))) or "none"
    return RegistryError(f"the registry has no source {name!r}; it has: {known}")
