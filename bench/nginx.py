"""nginx as the API and as the destination, so that neither is the bottleneck.

The API serves files. The destination answers when it has the whole body and
keeps none of it: `echo_read_request_body` of the echo module reads it into
memory. (`return 200` answers before the body is there, and WebDAV's PUT
writes it to the disk.)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BenchError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PACKAGE = "nginx-light"
START_LIMIT_S = 10.0
PROBE_BYTES = 1_000_000

_CONFIG = """\
load_module {module};
{user}
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 8192; }}
http {{
  log_format facts '$msec $request_time $request_length $status $request_uri';
  log_format facts_and_body
    '$msec $request_time $request_length $status $request_uri $request_body';
  access_log {directory}/access.log facts;
  client_body_buffer_size 16m;
  client_max_body_size 0;
  client_body_temp_path {directory}/temp;
  proxy_temp_path {directory}/temp;
  fastcgi_temp_path {directory}/temp;
  uwsgi_temp_path {directory}/temp;
  scgi_temp_path {directory}/temp;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  sendfile on;
  tcp_nopush on;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {directory}/files;
    # Listings: page by page out of a directory, and an empty page behind the last.
    location ~ ^/(?<set>[a-z0-9-]+)/events$ {{ try_files /$set/$arg_page.json /empty.json =404; }}
    # One file, after a while.
    location ~ ^/after/(?<delay>[0-9.]+)/(?<file>[a-z0-9-]+\\.json)$ {{
      echo_sleep $delay;
      echo_exec /$file;
    }}
    # Destinations: at once, after a while, and with the body in the log.
    location = /ingest {{ echo_read_request_body; echo '{{}}'; }}
    location ~ ^/ingest/after/(?<delay>[0-9.]+)$ {{
      echo_read_request_body;
      echo_sleep $delay;
      echo '{{}}';
    }}
    location = /ingest/shown {{
      access_log {directory}/access.log facts_and_body;
      echo_read_request_body;
      echo '{{}}';
    }}
  }}
}}
"""


class Hit(NamedTuple):
    """One request that nginx answered.

    Attributes:
        began_at: When its first byte came, in seconds since 1970.
        ended_at: When it was answered.
        sent_bytes: Of the request, its head included.
        body: Where the location logs it, with control characters escaped.
    """

    began_at: float
    ended_at: float
    sent_bytes: int
    status: int
    uri: str
    body: str


class Nginx:
    """A server on 127.0.0.1 in a directory of its own.

    Args:
        directory: Where it keeps its files and its log; is created.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = directory / "files"
        self.files.mkdir(parents=True)
        (self.files / "empty.json").write_text('{"events":[],"next":null}')
        (directory / "temp").mkdir()
        self._log = directory / "access.log"
        self._port = free_port()
        self._read_to = 0
        (directory / "nginx.conf").write_text(
            _CONFIG.format(
                directory=directory,
                module=find_module(),
                port=self._port,
                # Its workers give up root's rights otherwise, and cannot read a private directory.
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        argv = [find_nginx(), "-p", str(self.directory), "-c", str(self.directory / "nginx.conf")]
        self._popen = subprocess.Popen([*argv, "-e", str(self.directory / "error.log")])
        limit_at = time.monotonic() + START_LIMIT_S
        while not _answers(self._port):
            if self._popen.poll() is not None or time.monotonic() > limit_at:
                self.__exit__(None, None, None)
                reason = (self.directory / "error.log").read_text().strip()[-500:]
                raise BenchError(f"nginx does not start: {reason}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._popen is not None:
            self._popen.terminate()
            self._popen.wait()

    def url(self, path: str) -> str:
        """Give the URL of a path."""
        return f"http://127.0.0.1:{self._port}{path}"

    def forget(self) -> None:
        """Let the next `hits` begin here."""
        self._read_to = self._log.stat().st_size

    def hits(self) -> list[Hit]:
        """Give what was answered since the last `forget`, in the order of the answers."""
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [_parse_hit(line) for line in lines if line.count(" ") >= 4]

    def count(self) -> int:
        """Count what was answered since the last `forget`, for less than `hits` costs."""
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))

    def check_reads_bodies(self) -> None:
        """Make sure that the destination answers when it has the whole body, and not before.

        Raises:
            BenchError: It does not.
        """
        head = b"POST /ingest HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % PROBE_BYTES
        half = b"x" * (PROBE_BYTES // 2)
        with socket.create_connection(("127.0.0.1", self._port)) as probe:
            probe.sendall(head + half)
            probe.settimeout(0.2)
            try:
                probe.recv(1)
            except TimeoutError:
                probe.settimeout(START_LIMIT_S)
                probe.sendall(half)
                if probe.recv(12) == b"HTTP/1.1 200":
                    return
        raise BenchError(
            "the destination does not read whole bodies; its figures would mean nothing"
        )


def install() -> None:
    """Have nginx and its echo module, by apt where it may be installed.

    Raises:
        BenchError: They are missing and cannot be installed from here.
    """
    if _find_program() and _find_module():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BenchError(f"nginx is missing: install {PACKAGE} (apt-get install {PACKAGE}) first")
    print(f"installing {PACKAGE}", flush=True)
    # At runlevel 1 the package does not start a server of its own on port 80.
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for argv in (["update"], ["install", "--yes", "--no-install-recommends", PACKAGE]):
        done = subprocess.run(
            ["apt-get", "-q", *argv], env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode and argv[0] == "install":
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise BenchError(f"apt-get cannot install {PACKAGE}: {reason}")


def find_nginx() -> str:
    """Give the path of the program.

    Raises:
        BenchError: It is missing.
    """
    program = _find_program()
    if program is None:
        raise BenchError(f"nginx is missing: install {PACKAGE}")
    return program


def find_module() -> Path:
    """Give the path of the echo module.

    Raises:
        BenchError: It is missing.
    """
    module = _find_module()
    if module is None:
        raise BenchError(f"nginx has no echo module: install {PACKAGE}, which brings it along")
    return module


def _find_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _find_module() -> Path | None:
    module = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
    return module if module.exists() else None


def free_port() -> int:
    """Give a port on 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _parse_hit(line: str) -> Hit:
    ended, took, sent, status, uri, *body = line.split(" ", 5)
    ended_at = float(ended)
    return Hit(
        ended_at - float(took), ended_at, int(sent), int(status), uri, body[0] if body else ""
    )
