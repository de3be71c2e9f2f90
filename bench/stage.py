"""What every measurement needs: two servers, a listing, a directory, and Flicker's commands."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench.children import PYTHON
from bench.nginx import Nginx
from bench.pages import PAGE_EVENTS, Listing

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

NUMBER_PARAM = "number"
START_TIME = "2025-01-01T00:00:00Z"


@dataclass
class Stage:
    """The place that all measurements of one run share.

    Attributes:
        events: Of the backfill; the other measurements scale with it.
        rounds: How often each contender runs.
        sources: Of the measurements with many.
        api: Serves listings.
        siem: Takes POST requests.
    """

    events: int
    rounds: int
    sources: int
    directory: Path = field(init=False)
    api: Nginx = field(init=False)
    siem: Nginx = field(init=False)
    listing: Listing = field(init=False)
    _count: int = 0

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="flicker-bench-"))
        try:
            self.api = Nginx(self.directory / "api").__enter__()
            self.siem = Nginx(self.directory / "siem").__enter__()
            self.siem.check_reads_bodies()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.listing = Listing(self.api.files)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in ("api", "siem"):
            if hasattr(self, name):
                getattr(self, name).__exit__(kind, error, trace)
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_directory(self) -> Path:
        """Make an empty directory for one run."""
        self._count += 1
        directory = self.directory / f"run-{self._count}"
        directory.mkdir()
        return directory

    def fleet(self, path: str, /, **changes: Any) -> list[dict[str, Any]]:
        """Write the configuration of many sources, which ask `path` with a number of their own.

        One request is one poll: the listings that they ask for have one page.
        """
        return [
            self.source(
                path,
                name=f"source-{number:04}",
                **{
                    "pagination": None,
                    "params": {NUMBER_PARAM: str(number)},
                    "flush_interval_ms": 1000,
                    **changes,
                },
            )
            for number in range(self.sources)
        ]

    def source(self, path: str, siem_path: str = "/ingest", /, **changes: Any) -> dict[str, Any]:
        """Write a source's configuration; None takes a key out."""
        source: dict[str, Any] = {
            "name": "backfill",
            "endpoint": self.api.url(path),
            "polling_frequency_ms": 3_600_000,
            "results_field": "events",
            "timestamp_field": "published",
            "message_field": "displayMessage",
            "id_field": "uuid",
            "time_filter_param": "since",
            "start_time": START_TIME,
            "pagination": {
                "pagination_type": "page",
                "limit_param": "limit",
                "page_param": "page",
                "page_size": PAGE_EVENTS,
            },
            "buffer_size": 1000,
            "destination": {"type": "http", "endpoint": self.siem.url(siem_path)},
        }
        for key, value in changes.items():
            if value is None:
                source.pop(key, None)
            elif key == "destination":
                source[key] = {**source[key], **value}
            else:
                source[key] = value
        return source


def write_config(directory: Path, sources: list[dict[str, Any]]) -> Path:
    """Write a configuration file."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump({"api_sources": sources}, sort_keys=False))
    return path


def flicker(*arguments: str) -> list[str]:
    """Give the command line of Flicker with the configuration of its directory."""
    quiet = ("--log-level", "warning")
    return [PYTHON, "-m", "flicker", "-c", "config.yaml", *quiet, *arguments]


def loop(name: str, api: str, siem: str, *, batch_size: int = 1000) -> list[str]:
    """Give the command line of a loop to compare with."""
    options = ("--page-size", str(PAGE_EVENTS), "--batch-size", str(batch_size))
    return [PYTHON, "-m", "bench.loops", name, api, siem, *options]
