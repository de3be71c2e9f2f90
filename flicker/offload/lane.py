"""What the two processes share: memory for the bytes, a socket for what is said of them."""

from __future__ import annotations

import mmap
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from flicker.decode import DecodeOptions, Page

if TYPE_CHECKING:
    from typing_extensions import Self

BODY_BYTES = 8 * 1024 * 1024
"""Room for a body; pages that are larger are decoded here."""

MOST_ENTRIES = 50_000
"""Of such a body, or lines, or braces where entries hold several events: more take so long
that the pages of others would wait, and may not fit into the memory."""

PAGE_BYTES = 2 * BODY_BYTES
"""Room for what was read of it. What nobody writes to takes no memory."""

_MESSAGE_BYTES = 128 * 1024
"""Longest message: below what any system takes as one."""


class Job(msgspec.Struct, array_like=True):
    """Asks for a page.

    Attributes:
        options: Of the `PageDecoder`.
        body_bytes: Of the body that stands in the memory.
        content_type: As for `PageDecoder.decode`.
        within: As for `PageDecoder.decode`.
    """

    options: DecodeOptions
    body_bytes: int
    content_type: str
    within: bytes | None


class Outline(msgspec.Struct, array_like=True, tag="outline"):
    """Tells what is known before the events are read."""

    page: Page


class Done(msgspec.Struct, array_like=True, tag="done"):
    """Tells that the page stands in the memory.

    Attributes:
        page_bytes: None where it cannot be given so, or is none.
    """

    page_bytes: int | None


_page_encoder = msgspec.msgpack.Encoder()
_page_decoder = msgspec.msgpack.Decoder(Page)
_answer_decoder = msgspec.msgpack.Decoder(Outline | Done)
_job_decoder = msgspec.msgpack.Decoder(Job)


class Lane:
    """One end of a way on which one page at a time is decoded.

    Args:
        sock: Of a pair that keeps messages apart.
        memory_fd: Of memory that both ends map; both are closed with the lane.
    """

    def __init__(self, sock: socket.socket, memory_fd: int) -> None:
        self._socket = sock
        self._memory_fd = memory_fd
        self._memory = mmap.mmap(memory_fd, BODY_BYTES + PAGE_BYTES)

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """Make a lane, and the socket of its other end.

        Raises:
            OSError: The system has no room for it.
            AttributeError: It has no such memory.
        """
        memory_fd = os.memfd_create("flicker-page")
        with ExitStack() as undo:
            undo.callback(os.close, memory_fd)
            os.ftruncate(memory_fd, BODY_BYTES + PAGE_BYTES)
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.enter_context(near)
            undo.enter_context(far)
            lane = cls(near, memory_fd)
            undo.pop_all()
        return lane, far

    @property
    def memory_fd(self) -> int:
        """What the other end has to map."""
        return self._memory_fd

    def set_timeout(self, seconds: float) -> None:
        """Bound each wait for a message."""
        self._socket.settimeout(seconds)

    def fileno(self) -> int:
        """Give the socket's descriptor, to wait for a message."""
        return self._socket.fileno()

    def ask(self, job: Job, body: bytes) -> None:
        """Ask for a page.

        Raises:
            OSError: The other end is gone.
        """
        self._memory[: len(body)] = body
        self._socket.send(msgspec.msgpack.encode(job))

    def receive_job(self) -> tuple[Job, bytes] | None:
        """Wait for a page's body; None when there will be no more."""
        message = self._socket.recv(_MESSAGE_BYTES)
        if not message:
            return None
        job = _job_decoder.decode(message)
        return job, self._memory[: job.body_bytes]

    def outline(self, page: Page) -> None:
        """Tell what is known of a page; too long a cursor is not told."""
        message = msgspec.msgpack.encode(Outline(page))
        if len(message) <= _MESSAGE_BYTES:
            self._socket.send(message)

    def give(self, page: Page | None) -> None:
        """Give a page, or say that there is none."""
        encoded = b""
        if page is not None:
            try:
                encoded = _page_encoder.encode(page)
            except OverflowError:
                # An instant of a far future has more than 64 bits of nanoseconds.
                page = None
        if len(encoded) > PAGE_BYTES:
            page = None
        if page is not None:
            self._memory[BODY_BYTES : BODY_BYTES + len(encoded)] = encoded
        size = None if page is None else len(encoded)
        self._socket.send(msgspec.msgpack.encode(Done(size)))

    def receive(self) -> Outline | Page | None:
        """Wait for what is said of the page that was asked for.

        Returns:
            An outline, or the page, which is the last; None where it cannot be
            had so.

        Raises:
            OSError: The other end is gone, or silent.
        """
        message = self._socket.recv(_MESSAGE_BYTES)
        if not message:
            raise ConnectionResetError
        answer = _answer_decoder.decode(message)
        if isinstance(answer, Outline) or answer.page_bytes is None:
            return answer if isinstance(answer, Outline) else None
        with (
            memoryview(self._memory) as memory,
            memory[BODY_BYTES : BODY_BYTES + answer.page_bytes] as encoded,
        ):
            return _page_decoder.decode(encoded)

    def close(self) -> None:
        """Let go of the memory, and have the other end see that it is over."""
        self._socket.close()
        self._memory.close()
        os.close(self._memory_fd)
