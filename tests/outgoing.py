"""What the record of an event says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flicker.events import Event


def id_of(event: Event) -> str:
    """The record's id."""
    record_id = json.loads(event.body)["id"]
    assert isinstance(record_id, str)
    return record_id


def message_of(event: Event) -> bytes:
    """The JSON text of the record's message, to the letter."""
    head = event.body[: -1 - event.raw_bytes]
    return head.partition(b',"message":')[2].removesuffix(b',"event":')
