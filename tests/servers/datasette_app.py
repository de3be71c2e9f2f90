"""Applications of other people, each in a process of its own, and Datasette as one of them."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import requests

from tests.processes import LIMIT_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import Home, Process

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
# Uvicorn and Django's server both log the request line between quotation marks.
_REQUEST_LINE = re.compile(r'"GET (\S+) HTTP/')


class ServedApp:
    """A web application in a process of its own, on a port that the system chose."""

    def __init__(self, process: Process, probe: str) -> None:
        """Wait until it answers.

        Args:
            process: Just started on port 0 of 127.0.0.1; it says its address,
                and logs each request.
            probe: Path that it answers with 200 when it is up.

        Raises:
            TimeoutError: It said no address, or gave no answer, in time.
        """
        self._process = process
        self.url = ""
        if not wait_until(lambda: not process.is_running or self._is_up(probe)) or not self.url:
            message = f"the application does not answer:\n{process.stdout}{process.stderr}"
            raise TimeoutError(message)

    @property
    def requests(self) -> list[str]:
        """Path and query of each request that it logged so far."""
        return _REQUEST_LINE.findall(self._process.stderr + self._process.stdout)

    def get(self, target: str) -> bytes:
        """Fetch a page as any client would; `target` is a path, or a URL of this server."""
        url = target if target.startswith(self.url) else self.url + target
        response = requests.get(url, timeout=LIMIT_S)
        response.raise_for_status()
        return response.content

    def _is_up(self, probe: str) -> bool:
        address = _ADDRESS.search(self._process.stdout + self._process.stderr)
        if address is None:
            return False
        self.url = address.group()
        try:
            self.get(probe)
        except OSError:
            self.url = ""
        return bool(self.url)


def start_datasette(home: Home, database: Path) -> ServedApp:
    """Have Datasette's own command serve a SQLite file: a table is at `/STEM/TABLE.json`."""
    command = [sys.executable, "-m", "datasette", "serve", str(database), "--port", "0"]
    # Neither changes what is served; both save seconds on a small machine.
    for name, value in {"suggest_facets": "off", "sql_time_limit_ms": "10000"}.items():
        command += ["--setting", name, value]
    return ServedApp(home.spawn(command), f"/{database.stem}.json")
