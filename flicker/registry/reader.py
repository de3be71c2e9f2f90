"""Asking another process to read the partitions, since this one must not."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.interpreter import command_of

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_LIMIT_S = 60.0
"""How long the process may take for an answer before it is ended."""

CLOSE_LIMIT_S = 5.0


class Reader:
    """A process that reads the partitions, since this one must not.

    Safe for concurrent use: one question at a time. The process is started
    when it is needed, and again when it was ended.

    Args:
        directory: The recovery partitions.
        answer_limit_s: Seconds after which a process that does not answer is
            ended.
    """

    def __init__(self, directory: Path, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
        self._argv = command_of("flicker.registry.partitions", str(directory))
        self._answer_limit_s = answer_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._summary: dict[str, Any] = {}

    def look(self) -> dict[str, Any]:
        """Have the partitions read, as `partitions.summarise` does.

        Returns:
            The very object that it returned last, where nothing has changed.

        Raises:
            RegistryError: They cannot be read.
            OSError: The process cannot be started, died or did not answer.
        """
        return self._ask({"do": "look"})

    def copy(self, to: Path, unless: str | None) -> dict[str, Any]:
        """Have the partitions copied, as `partitions.copy_partitions` does.

        Args:
            to: Where the copies go.
            unless: A digest; where the states still have it, nothing is
                copied, and the answer has no `partitions`.

        Raises:
            RegistryError: They cannot be read.
            OSError: The copies cannot be written; or as `look`.
        """
        return self._ask({"do": "copy", "to": str(to.absolute()), "unless": unless})

    def close(self) -> None:
        """End the process; a question that waits for it ends with an OSError."""
        if not self._lock.acquire(timeout=CLOSE_LIMIT_S):
            process = self._process
            if process is not None:
                process.kill()
            self._lock.acquire()
        try:
            self._end()
        finally:
            self._lock.release()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._process is None:
                self._process = self._start()
            line = self._exchange(self._process, json.dumps(command).encode() + b"\n")
            if line is None:
                self._process.kill()
                self._end()
                message = "the process that reads the registry died or did not answer"
                raise OSError(None, message)
            answer: dict[str, Any] = json.loads(line)
            if "unchanged" in answer:
                return self._summary
            if command["do"] == "look" and "error" not in answer:
                self._summary = answer
        if "error" not in answer:
            return answer
        if answer["is_registry"]:
            raise RegistryError(answer["error"])
        raise OSError(None, answer["error"])

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C is for us to answer.
        return subprocess.Popen(  # noqa: S603 - our own module
            self._argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )

    def _exchange(self, process: subprocess.Popen[bytes], question: bytes) -> bytes | None:
        """Send a line and wait for one; None where none comes."""
        if process.stdin is None or process.stdout is None:
            return None
        deadline = time.monotonic() + self._answer_limit_s
        try:
            # A pipe takes more than a line, so this does not wait.
            process.stdin.write(question)
        except OSError:
            return None
        answer = bytearray()
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                return None
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            answer += chunk
        return bytes(answer)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_LIMIT_S)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
