"""Configuration in, dataflow out: the only wiring."""

from __future__ import annotations

import gc
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flicker.buffer import BufferLogic
from flicker.deadletter import DeadLetters
from flicker.errors import FlickerError
from flicker.filter import compile_filter
from flicker.items import EventPage, Flush, Mark, RecordPage
from flicker.registry.caretaker import Caretaker
from flicker.registry.partitions import FLOW_ID
from flicker.render import render_page
from flicker.runtime import Runtime
from flicker.sink import HttpSink
from flicker.source import ApiSource

if TYPE_CHECKING:
    from flicker.registry.local import Registry
    from flicker.settings import Settings

_SQLITE_FAILURE = re.compile(r'SqliteFailure\(.*Some\("(.*?)"\)', re.DOTALL)
_PEER_FAILURE = re.compile(
    r"^(?:Send|Recv) thread panic|MergeQueue poisoned|timely communication error"
)

DEAD_LETTER_NAME = "flicker-dead-letter.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A dataflow and what has to run beside it.

    Attributes:
        partitions: How many the input has.
        caretaker: Of the registry; None without one.
    """

    flow: Dataflow
    runtime: Runtime
    partitions: int
    caretaker: Caretaker | None


def build(
    settings: Settings,
    registry: Registry | None = None,
    *,
    once: bool = False,
    dead_letter_dir: Path | None = None,
) -> Plan:
    """Build the dataflow of a configuration.

    The same graph whoever runs it. Step ids are part of the registry's
    format.

    Args:
        settings: What to poll and where to ship.
        registry: What is known from before; None keeps nothing.
        once: Read each source once, deliver, end.
        dead_letter_dir: Where the dead-letter file is by default.
    """
    sources = {source.name: source for source in settings.sources}
    dead_letter_path = settings.dead_letter_path or (dead_letter_dir or Path()) / DEAD_LETTER_NAME
    runtime = Runtime(
        retry=settings.retry,
        dead_letters=DeadLetters(dead_letter_path),
        journal_dir=registry.journal_dir if registry else None,
        once=once,
    )
    if registry is not None and registry.remote is not None:
        runtime.may_ship = registry.remote.may_ship
    names = sorted({*sources, *(registry.names if registry else ())})
    for name in names:
        if name not in sources:
            logger.warning(
                "source is in the registry and not in the configuration; it is not polled, and "
                "what it owes is delivered",
                extra={"source": name},
            )
    filters = {name: compile_filter(source) for name, source in sources.items()}

    def match(item: tuple[str, EventPage | Flush | Mark]) -> tuple[str, EventPage | Flush] | None:
        name, value = item
        if isinstance(value, EventPage):
            page = filters[name](value)
            return None if page is None else (name, page)
        return (name, value) if isinstance(value, Flush) else None

    def render(item: tuple[str, EventPage | Flush]) -> tuple[str, RecordPage | Flush]:
        name, value = item
        return (name, render_page(value)) if isinstance(value, EventPage) else (name, value)

    def new_buffer(resume_state: dict[str, Any] | None) -> BufferLogic:
        return BufferLogic(sources, resume_state)

    flow = Dataflow(FLOW_ID)
    polled = op.input("poll", flow, ApiSource(sources, names, runtime))
    # Marks pass the buffer by: going through would snapshot it each time.
    split = op.branch("split", polled, lambda item: isinstance(item[1], Mark))
    matched = op.filter_map("match", split.falses, match)
    rendered = op.map("render", matched, render)
    batched = op.stateful_batch("buffer", rendered, new_buffer)
    shipped: Any = op.merge("join", batched, split.trues)
    op.output("ship", shipped, HttpSink(sources, names, runtime))
    # What is here by now stays, and the collector takes longer over it than a
    # page takes to be read.
    gc.freeze()
    caretaker = Caretaker(registry, set(sources), runtime.outboxes) if registry else None
    return Plan(flow, runtime, len(names), caretaker)


def explain_failure(error: BaseException, registry: Registry | None) -> str:
    """Say in one line what ended a dataflow, and what to do about it.

    Args:
        error: What Bytewax raised: an exception of an operator's, or a panic,
            whose text is all there is.
        registry: The one that was in use.
    """
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, FlickerError):
        return str(cause)
    text = " ".join(str(cause).split())
    failure = _SQLITE_FAILURE.search(text)
    if registry is not None and failure is not None and "malformed" in failure[1]:
        return (
            f"the registry {registry.directory} is damaged ({failure[1]}). Restore it from a "
            "backup, or delete it: sources then go on from the readable view beside it"
        )
    if registry is not None and failure is not None:
        return (
            f"the registry {registry.directory} cannot be written ({failure[1]}). Nothing is lost: "
            "make room or repair the disk, and start again"
        )
    if _PEER_FAILURE.search(text):
        return "another process of the cluster is gone. Nothing is lost: start all of them again"
    return (
        f"stopped by a fault of Flicker's own ({type(cause).__name__}: {text}). Start it again "
        "at log level debug, which shows where, and report it"
    )
