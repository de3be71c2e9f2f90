"""When pages are decoded by another process, and what if it is gone.

Python runs one thread at a time. Decoding is half of what a page costs, and
the half that needs nothing but the page's bytes: in a process of its own it
runs on another core. Nothing depends on that process: what it does not give is
decoded here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from flicker.interpreter import command_of
from flicker.offload.lane import BODY_BYTES, MOST_ENTRIES, Job, Lane, Outline

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
"""Of other processes within `FORGET_S`, until no more are started for a while."""

FORGET_S = 3600.0

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL")
"""Of the environment; tokens stand in the rest of it."""

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
        self._unready: subprocess.Popen[bytes] | None = None
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._is_possible = _has_two_cores()
        self._is_starting = False
        self._failed_at: list[float] = []
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
        if self._is_possible and _is_worth_it(decoder, body):
            lane = self._take_lane()
            if lane is not None:
                job = Job(decoder.options, len(body), content_type, within)
                page = self._decode_there(lane, job, body, on_outline)
        if page is not None:
            return page
        return decoder.decode(body, content_type, within=within, on_outline=on_outline)

    def close(self) -> None:
        """End the other process for good, and decode here from now on."""
        with self._lock:
            self._is_possible = False
            process, lanes = self._take_apart()
            unready, self._unready = self._unready, None
        _end(process, lanes)
        # Its start fails by that, on its thread.
        _end(unready, [])

    def _take_apart(self) -> tuple[subprocess.Popen[bytes] | None, list[Lane]]:
        """Forget the process and its lanes; the lock is held.

        Returns:
            The process, and the lanes that are free: where a page is under way, who
            waits for it closes the lane.
        """
        process, free = self._process, self._free
        self._process, self._lanes, self._free = None, [], []
        return process, free

    def _take_lane(self) -> Lane | None:
        now = time.monotonic()
        with self._lock:
            self._worthy = [*self._worthy[1 - WORTH_PAGES :], now]
            if self._free:
                return self._free.pop()
            is_busy = len(self._worthy) == WORTH_PAGES and now - self._worthy[0] < IDLE_S
            self._failed_at = [at for at in self._failed_at if now - at < FORGET_S]
            if (
                self._process is not None
                or self._is_starting
                or not is_busy
                or len(self._failed_at) >= FAILURES
            ):
                return None
            self._is_starting = True
        try:
            self._pool.submit(self._start)
        except RuntimeError:
            self._is_starting = False
        return None

    def _decode_there(
        self, lane: Lane, job: Job, body: bytes, on_outline: Callable[[Page], None]
    ) -> Page | None:
        failure: Exception | None = None
        answer = _ask(lane, job, body)
        while isinstance(answer, Outline):
            try:
                on_outline(answer.page)
            except Exception as error:  # noqa: BLE001 - raised when the lane has been read to its end
                failure = error
            answer = _receive(lane)
        self._put_back(lane, is_sound=answer is not _GONE)
        if failure is not None:
            raise failure
        return None if isinstance(answer, _Gone) else answer

    def _put_back(self, lane: Lane, *, is_sound: bool) -> None:
        """Let another page have a lane, or give up the process behind it."""
        process: subprocess.Popen[bytes] | None = None
        free: list[Lane] = []
        with self._lock:
            is_ours = lane in self._lanes
            if is_ours and is_sound:
                self._free.append(lane)
                return
            if is_ours:
                process, free = self._take_apart()
                self._note_failure()
        _end(process, [lane, *free])

    def _note_failure(self) -> None:
        self._failed_at.append(time.monotonic())
        if len(self._failed_at) == FAILURES:
            logger.warning(
                "the process that decodes large pages fails; they are decoded more slowly"
            )

    def _start(self) -> None:
        try:
            lanes, process = _spawn(self._note_unready)
        except AttributeError:
            # The system has no such memory.
            self._is_possible = False
        except OSError as error:
            # No further process, or one that dies at once.
            logger.debug("no process to decode pages", extra={"reason": error.strerror})
            with self._lock:
                self._unready = None
                self._note_failure()
        else:
            with self._lock:
                is_closed = self._unready is not process
                if not is_closed:
                    self._process, self._unready = process, None
                    self._lanes, self._free = lanes, list(lanes)
            if is_closed:
                _end(process, lanes)
                return
            logger.debug("a process decodes large pages", extra={"pid": process.pid})
            self._pool.submit_later(IDLE_S, self._end_if_idle)
        finally:
            self._is_starting = False

    def _note_unready(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if not self._is_possible:
                raise ConnectionAbortedError
            self._unready = process

    def _end_if_idle(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        lanes: list[Lane] = []
        with self._lock:
            is_idle = not self._worthy or time.monotonic() - self._worthy[-1] >= IDLE_S
            if is_idle:
                process, lanes = self._take_apart()
        if is_idle:
            _end(process, lanes)
        elif self._process is not None:
            self._pool.submit_later(IDLE_S, self._end_if_idle)


class _Gone:
    """Stands for what a process would have said that is gone."""


_GONE = _Gone()


def _ask(lane: Lane, job: Job, body: bytes) -> Outline | Page | _Gone | None:
    try:
        lane.ask(job, body)
    except OSError:
        return _GONE
    return _receive(lane)


def _receive(lane: Lane) -> Outline | Page | _Gone | None:
    try:
        return lane.receive()
    except (OSError, msgspec.MsgspecError):
        return _GONE


def _end(process: subprocess.Popen[bytes] | None, lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.close()
    if process is not None:
        process.kill()
        process.wait()


def _is_worth_it(decoder: PageDecoder, body: bytes) -> bool:
    if not WORTH_BYTES <= len(body) <= BODY_BYTES:
        return False
    options = decoder.options
    if options.response_format == "json" and options.explode_field is None:
        # The other process finds out, in less time than it takes to count here.
        return True
    sign = b"{" if options.response_format == "json" else b"\n"
    return body.count(sign) <= MOST_ENTRIES


def _has_two_cores() -> bool:
    try:
        return len(os.sched_getaffinity(0)) > 1
    except AttributeError:
        return False


def _spawn(
    note: Callable[[subprocess.Popen[bytes]], None],
) -> tuple[list[Lane], subprocess.Popen[bytes]]:
    """Start the process and wait until it serves.

    Args:
        note: Told of the process before it serves; may refuse it with an OSError.

    Raises:
        OSError: It cannot be started, or does not serve.
        AttributeError: The system has no such memory.
    """
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
                command_of("flicker.offload.child", *map(str, descriptors)),
                pass_fds=descriptors,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A Ctrl-C is the parent's to handle.
                start_new_session=True,
            )
        undo.callback(process.wait)
        undo.callback(process.kill)
        note(process)
        for lane in lanes:
            lane.receive()
            lane.set_timeout(ANSWER_S)
        undo.pop_all()
    return lanes, process
