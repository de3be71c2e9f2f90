"""A relay in front of an S3 store that loses, delays and replaces answers."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from tests.servers.s3 import S3Server

STOP_LIMIT_S = 2.0
UPSTREAM_LIMIT_S = 60.0


class Fate(Enum):
    """What becomes of a request, or of its answer."""

    PASS = "pass"
    DROP = "drop"
    HANG = "hang"


PASS: Final = Fate.PASS
"""Pass it on."""
DROP: Final = Fate.DROP
"""Close the connection without an answer."""
HANG: Final = Fate.HANG
"""Wait for `S3Relay.release`, then pass it on; the relay's end closes the connection."""


@dataclass(frozen=True)
class Answer:
    """An answer: the upstream's, or one of the test's own.

    It goes out with these headers only, and a `Content-Length` where they have
    none: no `Date` unless it is given.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/xml"),)
    reason: str | None = None


Action = Fate | Answer


@dataclass
class RelayRecord:
    """A request that the relay received."""

    number: int  # from 1, in order of arrival
    method: str
    path: str  # as received: percent-encoded
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)  # without the chunks of the transfer encoding
    upstream: Answer | None = field(default=None, repr=False)  # None until it answered

    @property
    def body_length(self) -> int:
        """Bytes in the body."""
        return len(self.body)

    @property
    def status(self) -> int | None:
        """What the upstream answered, whatever the client was told; None while it has not."""
        return None if self.upstream is None else self.upstream.status

    def header(self, name: str) -> str | None:
        """Give a header's first value, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def error_xml(code: str, message: str) -> bytes:
    """Make the body of an S3 error."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    ).encode()


def _pass(_: RelayRecord) -> Action:
    return PASS


class S3Relay:
    """Passes every request on to the upstream, unless a hook says otherwise.

    Method, target, headers (the `Host` as well, so that signatures stay
    valid) and body go on as they came. `before` is asked when a request has been
    read, `after` when the upstream has answered it; both may be replaced
    while the relay runs and must bear several threads at a time.
    An error raised by a hook closes the connection and is raised again at the
    end of the `with` block.
    """

    def __init__(
        self,
        upstream_endpoint: str,
        *,
        before: Callable[[RelayRecord], Action] = _pass,
        after: Callable[[RelayRecord], Action] = _pass,
    ) -> None:
        """Bind the port; requests are answered inside the `with` block."""
        self.before = before
        self.after = after
        self.upstream = urlsplit(upstream_endpoint)
        self.is_away = False
        self._lock = threading.Lock()
        self._records: list[RelayRecord] = []
        self._errors: list[BaseException] = []
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._hanging = 0
        self._release = threading.Event()
        self._is_stopped = False
        self._server = _Server(self)
        self._acceptor = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="relay", daemon=True
        )

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None and self._errors:
            raise self._errors[0]

    @property
    def endpoint(self) -> str:
        """URL of the relay."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def records(self) -> list[RelayRecord]:
        """The requests so far, those that hang as well."""
        with self._lock:
            return list(self._records)

    @property
    def hanging(self) -> int:
        """How many requests hang."""
        with self._lock:
            return self._hanging

    def env_of(self, server: S3Server) -> dict[str, str]:
        """Give the server's environment with the relay as its endpoint."""
        return {**server.env, "AWS_ENDPOINT_URL": self.endpoint}

    def away(self) -> None:
        """Close every connection, and each new one at once; what hangs is dropped."""
        with self._lock:
            self.is_away = True
        self._cut()

    def back(self) -> None:
        """Undo `away`."""
        with self._lock:
            self.is_away = False

    def release(self) -> None:
        """Let everything go on that hangs now."""
        with self._lock:
            self._release.set()
            self._release = threading.Event()

    def stop(self) -> None:
        """Close all connections and end, whatever hangs.

        Raises:
            TimeoutError: A thread is still there after `STOP_LIMIT_S`; a hook
                that waits can do that.
        """
        with self._lock:
            self._is_stopped = True
        if self._acceptor.is_alive():
            self._server.shutdown()
            self._acceptor.join(STOP_LIMIT_S)
        self._server.server_close()
        self._cut()
        deadline = time.monotonic() + STOP_LIMIT_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError("a request of the relay does not end")

    def _cut(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        # Before the release, so that a request that hung finds its connection closed.
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.release()

    def add(self, method: str, target: str, headers: list[Any], body: bytes) -> RelayRecord:
        """Record a request."""
        path, _, query = target.partition("?")
        with self._lock:
            number = len(self._records) + 1
            record = RelayRecord(number, method, path, query, tuple(headers), body)
            self._records.append(record)
        return record

    def add_error(self, error: BaseException) -> None:
        """Keep what a hook raised."""
        with self._lock:
            self._errors.append(error)

    def open(self, connection: socket.socket) -> None:
        """Track a connection of the current thread.

        Raises:
            ConnectionAbortedError: There are to be no connections now.
        """
        with self._lock:
            if self._is_stopped or self.is_away:
                raise ConnectionAbortedError("the relay is away")
            self._sockets.add(connection)
            self._threads.add(threading.current_thread())

    def close(self, connection: socket.socket) -> None:
        """Track a connection no more."""
        with self._lock:
            self._sockets.discard(connection)

    def leave(self) -> None:
        """Track the current thread no more."""
        with self._lock:
            self._threads.discard(threading.current_thread())

    def hang(self, connection: socket.socket) -> None:
        """Wait for the release.

        Raises:
            ConnectionAbortedError: The client's connection was cut meanwhile.
        """
        with self._lock:
            release = self._release
            # Nobody would release what comes after `_cut` has released.
            is_open = connection in self._sockets
            self._hanging += 1
        if is_open:
            release.wait()
        with self._lock:
            self._hanging -= 1
            is_open = connection in self._sockets
        if not is_open:
            raise ConnectionAbortedError("the relay is away")


class _Server(ThreadingHTTPServer):
    """Ends without waiting for its threads: `S3Relay.stop` does, within its limit."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, relay: S3Relay) -> None:
        self.relay = relay
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection while the relay is there."""
        try:
            self.relay.open(request)
        except ConnectionAbortedError:
            self.shutdown_request(request)
            return
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.relay.leave()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.relay.close(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Keep what is no trouble with a connection: those are what the relay is for."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (OSError, http.client.HTTPException)):
            self.relay.add_error(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent: the records are the log."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._relay
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        """Let the client send its body, which waits for this line."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _relay(self) -> None:
        relay = self.server.relay
        # `self.path` has lost slashes.
        target = self.raw_requestline.decode("latin-1").split()[1]
        raw, body = self._read_body()
        record = relay.add(self.command, target, self.headers.items(), body)
        answer = self._decide(relay.before(record))
        if answer is None:
            record.upstream = self._ask(target, raw)
            answer = self._decide(relay.after(record)) or record.upstream
        self._send(answer)

    def _decide(self, action: Action) -> Answer | None:
        """Give the answer to send; None means to go on."""
        if isinstance(action, Answer):
            return action
        if action is DROP:
            raise ConnectionAbortedError("dropped")
        if action is HANG:
            self.server.relay.hang(self.connection)
        return None

    def _read_body(self) -> tuple[bytes, bytes]:
        """Give the body as it came and without the chunks of the transfer encoding."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read(int(self.headers.get("Content-Length", 0)))
            return body, body
        raw, body = b"", b""
        while True:
            line = self.rfile.readline()
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            chunk = self._read(size + 2)
            raw, body = raw + line + chunk, body + chunk[:-2]
        while line.strip():  # the last chunk, trailers, and the empty line
            raw, line = raw + line, self.rfile.readline()
        return raw + line, body

    def _read(self, size: int) -> bytes:
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client left in mid-body")
        return body

    def _ask(self, target: str, raw: bytes) -> Answer:
        """Have the upstream answer; its troubles are the client's."""
        relay = self.server.relay
        # One for each request: one that is kept may be closed just when it is used again.
        connection = http.client.HTTPConnection(
            relay.upstream.hostname or "", relay.upstream.port, timeout=UPSTREAM_LIMIT_S
        )
        try:
            connection.connect()
            relay.open(connection.sock)
            upstream = connection.sock
            try:
                connection.putrequest(
                    self.command, target, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(raw or None)
                response = connection.getresponse()
                body = response.read()
            finally:
                relay.close(upstream)
        finally:
            connection.close()
        headers = [pair for pair in response.getheaders() if pair[0].lower() != "transfer-encoding"]
        return Answer(response.status, body, tuple(headers), response.reason)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers:
            self.send_header(name, value)
        has_body = self.command != "HEAD" and answer.status not in {204, 304}
        names = {name.lower() for name, _ in answer.headers}
        if "content-length" not in names and answer.status not in {204, 304}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if has_body:
            self.wfile.write(answer.body)
        self.wfile.flush()
