"""Processes that are measured: time, processor, memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
LIMIT_S = 1800.0
STOP_LIMIT_S = 30.0
SAMPLE_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """The memory of a process and its children at an instant of `time.time`."""

    at: float
    rss_bytes: int


class Child:
    """A process that is ended with the `with` block.

    Args:
        argv: The command.
        directory: Where it runs, and where its output goes.
        environ: Added to the environment.
        name: Names the file of the output.
    """

    def __init__(
        self,
        argv: list[str],
        directory: Path,
        environ: Mapping[str, str] | None = None,
        name: str = "child",
    ) -> None:
        self._output = directory / f"{name}.log"
        self.samples: list[Sample] = []
        self.started_at = time.time()
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                argv,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._argv = argv
        self.ended_at = 0.0
        self.last_cpu_s = 0.0
        self._is_over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    @property
    def cpu_s(self) -> float:
        """Seconds of processor that it and its children have used, of all threads."""
        ticks = 0
        for pid in _family(self.pid):
            # Of itself, and of the children that have ended.
            ticks += sum(int(field) for field in _read_stat(pid)[11:15])
        return ticks / _TICKS

    @property
    def rss_bytes(self) -> int:
        """Resident memory of it and its children."""
        return sum(_read_rss(pid) for pid in _family(self.pid))

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text("utf-8", "replace")

    def wait(self, limit_s: float = LIMIT_S) -> None:
        """Wait for its own end.

        Raises:
            BenchError: It failed, or does not end.
        """
        try:
            code = self._popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._title} has not ended after {limit_s:.0f} s") from None
        self.ended_at = time.time()
        if code:
            raise BenchError(f"{self._title} exits with {code}: {self.output.strip()[-400:]}")

    def wait_until(
        self, condition: Callable[[], object], what: str, limit_s: float, every_s: float = 0.05
    ) -> None:
        """Wait for something while it runs.

        Raises:
            BenchError: It ended before, or it takes too long.
        """
        limit_at = time.monotonic() + limit_s
        while not condition():
            if self._popen.poll() is not None:
                raise BenchError(f"{self._title} ended early: {self.output.strip()[-400:]}")
            if time.monotonic() > limit_at:
                raise BenchError(f"{self._title}: {what} not reached in {limit_s:.0f} s")
            time.sleep(every_s)

    def ask_to_stop(self) -> None:
        """Ask it to end."""
        self._popen.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ask it to end, and wait for that.

        Raises:
            BenchError: It does not end, or ends with a failure.
        """
        self.ask_to_stop()
        self.wait(STOP_LIMIT_S)

    @property
    def _title(self) -> str:
        return " ".join(Path(part).name for part in self._argv[:4])

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_S) and self._popen.poll() is None:
            rss_bytes, cpu_s = self.rss_bytes, self.cpu_s
            # A process that has just ended has no memory, and its times are gone: the last
            # reading stands for all.
            if rss_bytes:
                self.samples.append(Sample(time.time(), rss_bytes))
                self.last_cpu_s = max(self.last_cpu_s, cpu_s)


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:
        for tasks in Path(f"/proc/{member}/task").glob("*/children"):
            family += [int(child) for child in _read(tasks).split()]
    return family


def _read_stat(pid: int) -> list[str]:
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _read_rss(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _read(path: Path) -> str:
    """Read a file of a process; empty where it has ended in the meantime."""
    try:
        return path.read_text()
    except OSError:
        return ""
