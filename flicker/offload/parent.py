"""When pages are decoded by another process, and what if it is gone.

Python runs one thread at a time. Decoding is half of what a page costs, and
the half that needs nothing but the page's bytes: in a process of its own it
runs on another core. Nothing depends on that process: what it does not give is
decoded here.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from flicker.offload.lane import BODY_BYTES, Job, Lane, Outline

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.decode import Page, PageDecoder
    from flicker.pool import Pool

WORTH_BYTES = 128 * 1024
"""Of a body from which on two crossings cost less than decoding it."""

WORTH_PAGES = 4
"""Of that size within `IDLE_S` for which a process is started: it takes 30 MB."""

LANES = 3
"""Pages under way: one that is decoded, and those that are to be next. For more, this
process decodes as well."""

IDLE_S = 20.0
ANSWER_S = 10.0
"""Seconds after which the other process is taken to be gone."""

START_S = 60.0
FAILURES = 3
"""Of other processes, until no more are started."""

_COMMAND = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from flicker.offload.child import main
main([int(number) for number in sys.argv[2:]])
"""

logger = logging.getLogger(__name__)


class Offload:
    """Decodes pages in another process where that is faster. Safe for concurrent use.

    Args:
        pool: Threads to start and to end it on.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._is_wanted = _has_two_cores()
        self._is_starting = False
        self._failures = 0
        self._worthy: list[float] = []

    @property
    def pid(self) -> int | None:
        """Of the other process, None where there is none."""
        process = self._process
        return None if process is None else process.pid

    def decode(
        self,
        decoder: PageDecoder,
        body: bytes,
        content_type: str,
        *,
        within: bytes | None,
        on_outline: Callable[[Page], None],
    ) -> Page:
        """Do what `PageDecoder.decode` does, here or there.

        Raises:
            UnreadablePageError: As `PageDecoder.decode`.
        """
        page = None
        if WORTH_BYTES <= len(body) <= BODY_BYTES and self._is_wanted:
            lane = self._take_lane()
            if lane is not None:
                job = Job(decoder.options, len(body), content_type, within)
                page = self._decode_there(lane, job, body, on_outline)
        if page is not None:
            return page
        return decoder.decode(body, content_type, within=within, on_outline=on_outline)

    def close(self) -> None:
        """End the other process."""
        with self._lock:
            process, self._process = self._process, None
            # A lane on which a page is under way is closed by who has it.
            lanes, self._lanes, self._free = self._free, [], []
        for lane in lanes:
            lane.close()
        if process is not None:
            process.kill()
            process.wait()

    def _take_lane(self) -> Lane | None:
        now = time.monotonic()
        with self._lock:
            self._worthy = [*self._worthy[1 - WORTH_PAGES :], now]
            if self._free:
                return self._free.pop()
            is_busy = len(self._worthy) == WORTH_PAGES and now - self._worthy[0] < IDLE_S
            if self._process is not None or self._is_starting or not is_busy:
                return None
            self._is_starting = True
        with suppress(RuntimeError):
            self._pool.submit(self._start)
        return None

    def _decode_there(
        self, lane: Lane, job: Job, body: bytes, on_outline: Callable[[Page], None]
    ) -> Page | None:
        try:
            lane.ask(job, body)
            answer = lane.receive()
            while isinstance(answer, Outline):
                on_outline(answer.page)
                answer = lane.receive()
        except (OSError, msgspec.MsgspecError) as error:
            logger.debug("the decoding process fails: %s", type(error).__name__)
            self._give_up(lane)
            return None
        with self._lock:
            is_kept = lane in self._lanes
            if is_kept:
                self._free.append(lane)
        if not is_kept:
            lane.close()
        return answer

    def _give_up(self, lane: Lane) -> None:
        lane.close()
        with self._lock:
            if lane not in self._lanes:
                return
            self._note_failure()
        self.close()

    def _note_failure(self) -> None:
        self._failures += 1
        self._is_wanted = self._failures < FAILURES

    def _start(self) -> None:
        try:
            lanes, process = _spawn()
        except (OSError, AttributeError) as error:
            # No such memory or sockets, no further process, or one that dies at once.
            logger.debug("no process to decode pages: %s", type(error).__name__)
            with self._lock:
                self._is_starting = False
                self._note_failure()
            return
        with self._lock:
            self._process = process
            self._lanes, self._free = lanes, list(lanes)
            self._is_starting = False
        logger.debug("a process decodes large pages", extra={"pid": process.pid})
        self._pool.submit_later(IDLE_S, self._end_if_idle)

    def _end_if_idle(self) -> None:
        with self._lock:
            is_idle = not self._worthy or time.monotonic() - self._worthy[-1] >= IDLE_S
        if is_idle:
            self.close()
        elif self._process is not None:
            self._pool.submit_later(IDLE_S, self._end_if_idle)


def _has_two_cores() -> bool:
    try:
        return len(os.sched_getaffinity(0)) > 1
    except AttributeError:
        return False


def _spawn() -> tuple[list[Lane], subprocess.Popen[bytes]]:
    """Start the process and wait until it serves.

    Raises:
        OSError: It cannot be started, or does not serve.
        AttributeError: The system has no such memory.
    """
    paths = json.dumps([path for path in sys.path if path])
    with ExitStack() as undo:
        lanes, descriptors = [], []
        with ExitStack() as handed_over:
            for _ in range(LANES):
                near, far = Lane.pair()
                undo.callback(near.close)
                handed_over.callback(far.close)
                near.set_timeout(START_S)
                lanes.append(near)
                descriptors += [far.fileno(), near.memory_fd]
            process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [sys.executable, "-c", _COMMAND, paths, *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A Ctrl-C is the parent's to handle.
                start_new_session=True,
            )
        undo.callback(process.wait)
        undo.callback(process.kill)
        for lane in lanes:
            lane.receive()
            lane.set_timeout(ANSWER_S)
        undo.pop_all()
    return lanes, process
