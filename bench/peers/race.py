"""Flicker beside other programs that read REST APIs."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from bench.backfill import flicker_contender
from bench.children import Child
from bench.contest import run_once
from bench.errors import BenchError
from bench.peers.programs import PEERS, install
from bench.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers.programs import Peer
    from bench.stage import Stage

PEER_EVENTS = 20_000
RUN_LIMIT_S = 300.0
TO_REACH = 8.0


def measure_peers(stage: Stage) -> list[Row]:
    """Have each read the same listing in its own way, in turns, and compare events a second.

    Raises:
        BenchError: None of them can be run.
    """
    events = min(PEER_EVENTS, stage.events)
    contender = flicker_contender(stage, stage.listing.of(stage.events), stage.events)
    path = stage.listing.of(events)
    installed, failed = _install_all()
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer, _ in installed}
    for _ in range(stage.rounds):
        ours.append(stage.events / run_once(stage, contender).span_s)
        for peer, binaries in installed:
            if peer.name in failed:
                continue
            try:
                theirs[peer.name].append(events / _run(stage, peer, binaries, path, events))
            except BenchError as error:
                failed[peer.name] = str(error)
    rates = {name: statistics.median(done) for name, done in theirs.items() if name not in failed}
    troubles = [f"{name} is missing: {reason}" for name, reason in failed.items()]
    if not rates:
        raise BenchError("; ".join(troubles))
    best = max(rates, key=lambda name: rates[name])
    ratios = [mine / other for mine, other in zip(ours, theirs[best], strict=True)]
    told = [
        f"{peer.name} {peer.version}: {rates[peer.name]:,.0f} events/s, {peer.writes}"
        for peer in PEERS
        if peer.name in rates
    ]
    return [
        Row(
            "peers",
            f"backfill with other programs ({events:,} events; Flicker {stage.events:,})",
            f"the best of them: {best}",
            statistics.median(ratios),
            TO_REACH,
            spread=(min(ratios), max(ratios)),
            note="from the first request to the end of the process (Flicker: to its last "
            f"delivery). {'; '.join([*told, *troubles])}",
            facts=_facts(ours, theirs, failed),
        )
    ]


def _facts(
    ours: list[float], theirs: dict[str, list[float]], failed: dict[str, str]
) -> dict[str, Any]:
    rates = {"flicker": ours, **theirs}
    return {
        "events_per_s": {
            name: round(statistics.median(done)) for name, done in rates.items() if done
        },
        "versions": {peer.name: peer.version for peer in PEERS},
        "failed": failed,
    }


def _install_all() -> tuple[list[tuple[Peer, Path]], dict[str, str]]:
    installed, failed = [], {}
    for peer in PEERS:
        try:
            installed.append((peer, install(peer)))
        except BenchError as error:
            failed[peer.name] = str(error)
    return installed, failed


def _run(stage: Stage, peer: Peer, binaries: Path, path: str, events: int) -> float:
    """Run a peer and check that it has written all events.

    Returns:
        Seconds from its first request to its end.
    """
    directory = stage.new_directory()
    argv = peer.prepare(directory, binaries, stage.api.url(path))
    environ = peer.environ(directory, stage.siem.url("/ingest"))
    stage.api.forget()
    stage.siem.forget()
    with Child(argv, directory, environ, name=peer.name) as child:
        child.wait(RUN_LIMIT_S)
        output = child.output
    hits = stage.api.hits()
    if not hits:
        raise BenchError(f"{peer.name} asked for nothing: {output.strip()[-300:]}")
    if peer.count is not None:
        written = peer.count(directory, output)
    else:
        sent_bytes = sum(hit.sent_bytes for hit in stage.siem.hits())
        # What it adds to each event makes up for what it writes shorter.
        written = min(events, sent_bytes // stage.listing.event_bytes)
    if written != events:
        raise BenchError(f"{peer.name} wrote {written:,} of {events:,} events: {output[-300:]}")
    return child.ended_at - min(hit.began_at for hit in hits)
