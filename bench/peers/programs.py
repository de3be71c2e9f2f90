"""How each peer is installed, configured, started and checked."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.children import ROOT
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
VENVS = ROOT / ".bench"
INSTALL_LIMIT_S = 600.0
GROVE_PLUGIN = "listing-0.dist-info"


@dataclass(frozen=True)
class Peer:
    """Another program that reads REST APIs.

    Attributes:
        name: Of the package, and of the file of its requirements.
        writes: Where its events go, for the reader of the table.
        prepare: Writes what it needs into a directory, and gives its command;
            called with the directory, its venv's `bin`, and two URLs.
        environ: Added to its environment; called with the same.
        count: Counts the events that it has written, in the directory; None
            where the destination has them.
    """

    name: str
    writes: str
    prepare: Callable[[Path, Path, str], list[str]]
    environ: Callable[[Path, str], dict[str, str]] = lambda _directory, _siem: {}
    count: Callable[[Path, str], int] | None = None

    @property
    def version(self) -> str:
        """The version that is pinned."""
        for line in (HERE / f"{self.name}.txt").read_text().splitlines():
            if line.startswith(f"{self.name}=="):
                return line.partition("==")[2]
        raise BenchError(f"{self.name}.txt does not pin {self.name}")


def install(peer: Peer) -> Path:
    """Make a venv with the pinned versions, unless there is one.

    Returns:
        The venv's `bin`.

    Raises:
        BenchError: It cannot be installed.
    """
    requirements = HERE / f"{peer.name}.txt"
    venv = VENVS / peer.name
    ready = venv / ".ready"
    pins = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not ready.exists() or ready.read_text() != pins:
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)], peer.name)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", "-r", str(requirements)], peer.name)
        ready.write_text(pins)
    return venv / "bin"


def _run(argv: list[str], name: str) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} is not installed after {INSTALL_LIMIT_S:.0f} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason is given"])[-1]
        raise BenchError(f"{name} cannot be installed: {reason}")


def _prepare_grove(directory: Path, binaries: Path, url: str) -> list[str]:
    (directory / "connectors").mkdir()
    # It writes each event twice by default: raw, and as its processors made it.
    outputs = {"outputs": {"logs": "raw"}}
    document = {"name": "listing", "identity": "bench", "connector": "listing", "url": url}
    document_text = json.dumps({**document, **outputs})
    (directory / "connectors" / "listing.json").write_text(document_text)
    plugin = directory / GROVE_PLUGIN
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: listing\nVersion: 0\n")
    (plugin / "entry_points.txt").write_text(
        "[grove.connectors]\nlisting = bench.peers.grove_listing:Connector\n"
    )
    return [str(binaries / "grove")]


def _grove_environ(directory: Path, siem: str) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{directory}:{ROOT}",
        "GROVE_CONFIG_HANDLER": "local_file",
        "GROVE_CONFIG_LOCAL_FILE_PATH": str(directory / "connectors"),
        "GROVE_OUTPUT_HANDLER": "remote_http",
        "GROVE_OUTPUT_REMOTE_HTTP_URL": siem,
        "GROVE_CACHE_HANDLER": "local_memory",
    }


def _prepare_dlt(directory: Path, binaries: Path, url: str) -> list[str]:
    del directory
    return [str(binaries / "python"), "-m", "bench.peers.dlt_listing", url]


def _dlt_environ(directory: Path, siem: str) -> dict[str, str]:
    del siem
    return {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(directory / "data")}


def _count_dlt(directory: Path, output: str) -> int:
    del output
    count = 0
    for path in (directory / "loaded" / "log" / "events").glob("*.jsonl*"):
        data = path.read_bytes()
        count += (gzip.decompress(data) if path.suffix == ".gz" else data).count(b"\n")
        count += not data.endswith(b"\n") and path.suffix != ".gz"
    return count


def _prepare_airbyte(directory: Path, binaries: Path, url: str) -> list[str]:
    parts = urlsplit(url)
    config = {"origin": f"{parts.scheme}://{parts.netloc}", "path": parts.path}
    (directory / "config.json").write_text(json.dumps(config))
    stream = {"name": "events", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    modes = {"sync_mode": "full_refresh", "destination_sync_mode": "append"}
    catalog = {"streams": [{"stream": stream, **modes}]}
    (directory / "catalog.json").write_text(json.dumps(catalog))
    files = ["--config", "config.json", "--catalog", "catalog.json"]
    manifest = ["--manifest-path", str(HERE / "airbyte_listing.yaml")]
    return [str(binaries / "source-declarative-manifest"), "read", *files, *manifest]


def _prepare_singer(directory: Path, binaries: Path, url: str) -> list[str]:
    (directory / "config.json").write_text(json.dumps({"url": url}))
    module = ["-m", "bench.peers.singer_listing"]
    return [str(binaries / "python"), *module, "--config", "config.json"]


def _count_records(directory: Path, output: str) -> int:
    del directory
    return sum('"type":"RECORD"' in line[:400] + line[-400:] for line in output.splitlines())


PEERS = (
    Peer("grove", "posts to the same destination", _prepare_grove, _grove_environ),
    Peer(
        "dlt",
        "writes JSON lines with its filesystem destination",
        _prepare_dlt,
        _dlt_environ,
        _count_dlt,
    ),
    Peer("airbyte-cdk", "writes JSON lines to its output", _prepare_airbyte, count=_count_records),
    Peer("singer-sdk", "writes JSON lines to its output", _prepare_singer, count=_count_records),
)
