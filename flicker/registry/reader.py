"""Asking another process to read the partitions, since this one must not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError

if TYPE_CHECKING:
    from pathlib import Path


class Reader:
    """A process that reads the partitions, since this one must not."""

    def __init__(self, directory: Path) -> None:
        self._argv = [sys.executable, "-m", "flicker.registry.partitions", str(directory)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self) -> dict[str, Any]:
        """Have the partitions read.

        Raises:
            RegistryError: They cannot be read.
            OSError: The process cannot be started, or died.
        """
        if self._process is None:
            # In a session of its own: Ctrl-C is for us to answer.
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                text=True,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        line = ""
        if stdin is not None and stdout is not None:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
        if not line:
            self.close()
            raise OSError(None, "the process that reads the registry died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RegistryError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.communicate(timeout=5.0)
            process.kill()
            process.wait()
