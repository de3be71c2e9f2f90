"""Several ways to do the same work, in turns, so that all meet the same machine."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.children import Child
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.stage import Stage

POSTS_LIMIT_S = 600.0


@dataclass(frozen=True)
class Run:
    """One run of a contender.

    Attributes:
        span_s: From its first request to its last answer: the work itself.
        wall_s: Of the whole process, with its start and its end.
        cpu_s: Of the processor, where it could be read in time.
    """

    span_s: float
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    posts: int
    sent_bytes: int


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        prepare: Makes a directory ready and gives the command of each process.
        posts: Requests that the destination has to see; None for any number.
        least_bytes: What it has to be sent at the least; whoever sends less
            has not done the work.
        is_endless: Whether it has to be stopped, once `posts` have come.
    """

    name: str
    prepare: Callable[[Path], list[list[str]]]
    posts: int | None = None
    least_bytes: int = 0
    is_endless: bool = False


def compete(stage: Stage, contenders: list[Contender]) -> dict[str, list[Run]]:
    """Run each contender `rounds` times, in turns that begin with another one each.

    Raises:
        BenchError: One of them fails, or leaves work undone.
    """
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(stage.rounds):
        start = number % len(contenders)
        for contender in contenders[start:] + contenders[:start]:
            runs[contender.name].append(run_once(stage, contender))
    return runs


def run_once(stage: Stage, contender: Contender) -> Run:
    """Run a contender and check that it did the work.

    Raises:
        BenchError: It failed, or left work undone.
    """
    directory = stage.new_directory()
    commands = contender.prepare(directory)
    stage.api.forget()
    stage.siem.forget()
    with ExitStack() as started:
        children = [
            started.enter_context(Child(argv, directory, name=f"{contender.name}-{number}"))
            for number, argv in enumerate(commands)
        ]
        if contender.is_endless:
            _wait_for_posts(stage, contender, children[0])
            for child in children:
                child.ask_to_stop()
        for child in children:
            child.wait()
    return take_run(stage, contender, children)


def _wait_for_posts(stage: Stage, contender: Contender, child: Child) -> None:
    # Looked at seldom: what counts is in the servers' log, and looking costs processor.
    child.wait_until(
        lambda: stage.siem.count() >= (contender.posts or 1),
        f"{contender.posts} posts",
        POSTS_LIMIT_S,
        every_s=0.5,
    )


def take_run(stage: Stage, contender: Contender, children: list[Child]) -> Run:
    """Read what the servers saw of a run.

    Raises:
        BenchError: It left work undone.
    """
    gets, posts = stage.api.hits(), stage.siem.hits()
    if not gets or not posts:
        raise BenchError(f"{contender.name} asked {len(gets)} times and shipped {len(posts)} times")
    sent_bytes = sum(hit.sent_bytes for hit in posts)
    refused = [hit.status for hit in gets + posts if hit.status != 200]
    if refused:
        raise BenchError(f"{contender.name} met status {refused[0]}")
    if contender.posts is not None and len(posts) != contender.posts:
        raise BenchError(f"{contender.name} shipped {len(posts)} batches, not {contender.posts}")
    if sent_bytes < contender.least_bytes:
        raise BenchError(f"{contender.name} shipped {sent_bytes:,} bytes, which is not all")
    return Run(
        span_s=max(hit.ended_at for hit in posts) - min(hit.began_at for hit in gets),
        wall_s=max(child.ended_at for child in children) - children[0].started_at,
        cpu_s=sum(child.last_cpu_s for child in children),
        peak_rss_bytes=sum(
            max((sample.rss_bytes for sample in child.samples), default=0) for child in children
        ),
        posts=len(posts),
        sent_bytes=sent_bytes,
    )


def compare(runs: list[Run], others: list[Run]) -> tuple[float, tuple[float, float]]:
    """Give how many times as fast as the others: the median of the rounds, and its spread."""
    ratios = [other.span_s / run.span_s for run, other in zip(runs, others, strict=True)]
    return statistics.median(ratios), (min(ratios), max(ratios))


def describe(runs: dict[str, list[Run]], events: int) -> dict[str, Any]:
    """Give what was measured, for the file of results."""
    return {
        "events": events,
        "contenders": {
            name: {
                "events_per_s": round(events / statistics.median(run.span_s for run in done)),
                "span_s": [round(run.span_s, 3) for run in done],
                "wall_s": [round(run.wall_s, 3) for run in done],
                "cpu_s": [round(run.cpu_s, 2) for run in done],
                "peak_rss_mb": round(max(run.peak_rss_bytes for run in done) / 1e6),
                "posts": done[0].posts,
                "sent_bytes": done[0].sent_bytes,
            }
            for name, done in runs.items()
        },
    }
