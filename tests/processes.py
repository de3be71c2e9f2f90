"""Flicker in a process of its own, as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMIT_S = 60.0
PACE_S = 0.01
ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "flicker")
HOST = (sys.executable, "-m", "bytewax.run")
CURSOR = {
    "pagination_type": "cursor",
    "limit_param": "limit",
    "cursor_param": "cursor",
    "next_cursor_field": "pagination.next_cursor",
    "page_size": 20,
}
FIRST = datetime(2025, 1, 1, 12, tzinfo=timezone.utc)


def wait_until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> bool:
    """Look until a condition holds; False when it does not in time."""
    pause = threading.Event()
    for _ in range(int(limit_s / PACE_S)):
        if condition():
            return True
        pause.wait(PACE_S)
    return bool(condition())


def make_events(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Make events a millisecond apart, known by number."""
    return [
        {
            "id": f"e{number}",
            "timestamp": (FIRST + timedelta(milliseconds=number))
            .isoformat()
            .replace("+00:00", "Z"),
            "message": f"event {number}",
        }
        for number in range(start, start + count)
    ]


def ids_of(events: list[dict[str, Any]]) -> set[str]:
    """Give the ids of `make_events`."""
    return {event["id"] for event in events}


def make_source(name: str, endpoint: str, siem: str, /, **changes: Any) -> dict[str, Any]:
    """Make a quick source of `make_events` behind offset paging and a time filter.

    Args:
        name: Of the source.
        endpoint: URL to poll.
        siem: URL to ship to.
        changes: Keys to set; None takes a key out, and `destination` is merged
            into the one that is there.
    """
    source: dict[str, Any] = {
        "name": name,
        "endpoint": endpoint,
        "polling_frequency_ms": 100,
        "results_field": "events",
        "timestamp_field": "timestamp",
        "message_field": "message",
        "id_field": "id",
        "time_filter_param": "since",
        "pagination": {
            "pagination_type": "offset",
            "limit_param": "limit",
            "offset_param": "offset",
            "page_size": 50,
        },
        "buffer_size": 10,
        "flush_interval_ms": 100,
        "destination": {"type": "http", "endpoint": siem},
    }
    for key, value in changes.items():
        if value is None:
            source.pop(key, None)
        elif key == "destination":
            source[key] = {**source[key], **value}
        else:
            source[key] = value
    return source


class Process:
    """A running command; its output goes to files, since pipes fill up."""

    def __init__(self, argv: list[str], directory: Path, env: Mapping[str, str], stem: str) -> None:
        """Start it.

        Args:
            argv: The command.
            directory: Where it runs.
            env: Added to the environment.
            stem: Name of the output files.
        """
        self._stdout_path = directory / f"{stem}.out"
        self._stderr_path = directory / f"{stem}.err"
        with self._stdout_path.open("wb") as stdout, self._stderr_path.open("wb") as stderr:
            self._popen = subprocess.Popen(
                argv,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout_path.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._stderr_path.read_text(encoding="utf-8")

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end and give its exit code.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        return self._popen.wait(limit_s)

    def send(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def stop(self, limit_s: float = LIMIT_S) -> int:
        """Ask it to stop and give its exit code.

        Not before the interpreter is up and takes signals: until then, SIGTERM
        ends any process.
        """
        wait_until(lambda: self._takes_sigterm() or not self.is_running)
        self.send(signal.SIGTERM)
        return self.wait(limit_s)

    def _takes_sigterm(self) -> bool:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._popen.kill()
        self._popen.wait(LIMIT_S)


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


class Home:
    """A directory with a configuration, a registry, and processes that use them."""

    def __init__(self, directory: Path) -> None:
        """Take the directory."""
        self.directory = directory
        self.config_path = directory / "config.yaml"
        self.registry_path = directory / ".flicker-registry.json"
        self._processes: list[Process] = []

    @property
    def recovery_dir(self) -> Path:
        """Where the partitions are."""
        return Path(f"{self.registry_path}.d")

    def configure(self, *sources: dict[str, Any], **top: Any) -> None:
        """Write the configuration; retries are quick unless `retry` says otherwise."""
        top["retry"] = {"initial_delay_ms": 50, "max_delay_ms": 500, **top.get("retry", {})}
        text = yaml.safe_dump({"api_sources": list(sources), **top}, sort_keys=False)
        self.config_path.write_text(text, encoding="utf-8")

    def spawn(self, argv: list[str], env: Mapping[str, str] | None = None) -> Process:
        """Start any command here."""
        process = Process(argv, self.directory, env or {}, f"process-{len(self._processes)}")
        self._processes.append(process)
        return process

    def start(
        self, *arguments: str, track: bool = True, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start `flicker -c config.yaml --track` with further arguments."""
        argv = [*COMMAND, "-c", str(self.config_path)]
        return self.spawn([*argv, *(["--track"] if track else []), *arguments], env)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        """Run `flicker` with exactly these arguments until it ends by itself."""
        process = self.spawn([*COMMAND, *arguments], env)
        return Finished(process.wait(), process.stdout, process.stderr)

    def run_once(self, *arguments: str) -> Finished:
        """Run `flicker -c config.yaml --track --once`."""
        process = self.start("--once", *arguments)
        return Finished(process.wait(), process.stdout, process.stderr)

    def host(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start `python -m bytewax.run dataflows.api_tailing` with further arguments."""
        flow = {"FLICKER_CONFIG": str(self.config_path), **(env or {})}
        return self.spawn([*HOST, "dataflows.api_tailing", *arguments], flow)

    def view(self) -> dict[str, Any]:
        """Read the registry's sources; empty while there is no registry."""
        if not self.registry_path.exists():
            return {}
        sources: dict[str, Any] = json.loads(self.registry_path.read_bytes())["api_sources"]
        return sources

    def close(self) -> list[str]:
        """Kill what still runs; give what every process said."""
        for process in self._processes:
            if process.is_running:
                process.kill()
        return [process.stderr for process in self._processes]
