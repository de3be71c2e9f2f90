"""HTTP servers on 127.0.0.1: an API as Okta's, and a destination that keeps count.

Everything a client meets here travels through real sockets, faults included.
The parsing of timestamps and bodies is deliberately not shared with the rest
of Flicker: a witness that repeats the suspect's mistakes proves nothing.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import gzip
import hmac
import json
import os
import random
import re
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlencode

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

Fault = Literal[
    "reset_before_headers",
    "reset_mid_body",
    "silence",
    "silence_mid_body",
    "drip",
    "drip_headers",
    "truncate",
    "bad_chunk",
]
Framing = Literal["length", "chunked", "close"]
Encoding = Literal["gzip", "deflate", "raw-deflate"]
_Socket = socket.socket
_Members = dict[str, str]

_STOP_TIMEOUT_S = 5.0
_LINE_LIMIT = 65536
_NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


@dataclass(frozen=True)
class Request:
    """One request as it arrived.

    Attributes:
        target: Path and query exactly as they stood in the request line.
        header_lines: Name and value of every line, in the order sent.
        body: Before any Content-Encoding is undone.
        received_s: `time.monotonic()` when the request was complete.
    """

    method: str
    target: str
    header_lines: tuple[tuple[str, str], ...]
    body: bytes
    received_s: float

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs, decoded, in order, repeated and blank ones included."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @cached_property
    def params(self) -> dict[str, str]:
        """The query as a dict, for tests that know of no repeated name."""
        return dict(self.query)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers by lower-case name; repeated lines are joined by a comma."""
        headers: dict[str, str] = {}
        for name, value in self.header_lines:
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return headers


@dataclass(frozen=True)
class Response:
    """What a server answers, and how it misbehaves over it.

    Attributes:
        headers: Extra lines, sent as they are; names may repeat. A
            Content-Type, Content-Length or Transfer-Encoding here replaces the
            server's own.
        body: Bytes as they are, text as UTF-8, anything else as JSON.
        fault: What goes wrong on the wire. `silence` says nothing until
            `release()`, then answers normally, and `silence_mid_body` stops
            half-way through the body; `drip` sends the body, and
            `drip_headers` everything, one byte per `drip_interval_s`;
            `truncate` announces one byte more than it sends; `bad_chunk` breaks
            a chunked body in its middle; the resets are TCP resets.
        encoding: Compresses the body and says so; `raw-deflate` is deflate
            without its zlib wrapping, as some servers send it.
        framing: How the body's end is told; `close` is by end of connection.
        delay_s: Wait before the first byte; `stop()` ends it early.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: object = b""
    fault: Fault | None = None
    encoding: Encoding | None = None
    framing: Framing = "length"
    delay_s: float = 0.0
    drip_interval_s: float = 0.05

    def __post_init__(self) -> None:
        needs_body = self.fault in {"reset_mid_body", "silence_mid_body", "drip", "bad_chunk"}
        if needs_body and not self.payload:
            message = f"the fault {self.fault} happens in a body: give the response one"
            raise ValueError(message)

    @property
    def is_success(self) -> bool:
        """Whether the status is one of 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @cached_property
    def payload(self) -> bytes:
        """The body's bytes with `encoding` applied."""
        if isinstance(self.body, bytes):
            plain = self.body
        elif isinstance(self.body, str):
            plain = self.body.encode()
        else:
            plain = json.dumps(self.body, separators=(",", ":")).encode()
        if self.encoding == "gzip":
            return gzip.compress(plain, compresslevel=1)
        if self.encoding == "deflate":
            return zlib.compress(plain)
        if self.encoding == "raw-deflate":
            return zlib.compress(plain)[2:-4]
        return plain


def in_turn(
    responses: Iterable[Response | None], *, last: Response | None = None
) -> Callable[[Request], Response | None]:
    """Turn a list into a hook that serves it in order, to any thread.

    Args:
        responses: One for each request; None means the server's usual answer.
        last: For every request after those.
    """
    remaining = iter(list(responses))

    def respond(_: Request) -> Response | None:
        # `next` on a list's iterator is one step under the interpreter's lock.
        return next(remaining, last)

    return respond


def always(answer: Response | int) -> Callable[[Request], Response]:
    """Make a hook that gives every request the same answer, or bare status."""
    response = answer if isinstance(answer, Response) else Response(answer)
    return lambda _: response


def parse_instant(text: str) -> int:
    """Read a strict RFC 3339 instant, as an API that means it would.

    Returns:
        Nanoseconds since 1970 (UTC).

    Raises:
        ValueError: The text is anything else.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        message = f"not an RFC 3339 instant: {text!r}"
        raise ValueError(message)
    seconds, fraction, zone = match.groups()
    moment = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    # Whole seconds only: floats of seconds cannot hold a fraction exactly.
    whole = (moment - _EPOCH) // timedelta(seconds=1)
    return whole * _NS_PER_S + int((fraction or "").ljust(9, "0"))


class _HangUpError(Exception):
    """Leave the connection without another byte."""


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, asks the owner, plays the response."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener
    connection: _Socket

    def handle(self) -> None:
        # A client that went away is the client's business; so is one that we hung up on.
        with contextlib.suppress(OSError, _HangUpError):
            super().handle()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(_LINE_LIMIT + 1)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if not self.parse_request():
            return
        try:
            body = self._read_body()
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            # Not self.path, in which http.server collapses leading slashes.
            target=self.requestline.split()[1],
            header_lines=tuple(self.headers.items()),
            body=body,
            received_s=time.monotonic(),
        )
        owner = self.server.owner
        with owner.exchange(request) as response:
            self._play(response)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited name
        """Say nothing: the tour owns the terminal, and tests read what was recorded."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._read_chunks())
        return self._read_exactly(int(self.headers.get("Content-Length", "0")))

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(_LINE_LIMIT).partition(b";")[0], 16):
            yield self._read_exactly(size)
            self.rfile.readline(_LINE_LIMIT)
        while self.rfile.readline(_LINE_LIMIT).strip():
            pass

    def _read_exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            # The client died in the middle: there was no request.
            raise _HangUpError
        return data

    def _play(self, response: Response) -> None:
        owner = self.server.owner
        owner.pause(response.delay_s)
        if response.fault == "silence":
            owner.hold()
        if response.fault == "reset_before_headers":
            self._reset()
        head, body = self._frame(response)
        half = len(body) // 2
        if response.fault == "reset_mid_body":
            self.connection.sendall(head + body[:half])
            self._reset()
        elif response.fault == "silence_mid_body":
            self.connection.sendall(head + body[:half])
            owner.hold()
            self.connection.sendall(body[half:])
        elif response.fault == "drip":
            self.connection.sendall(head)
            self._drip(body, response.drip_interval_s)
        elif response.fault == "drip_headers":
            self._drip(head + body, response.drip_interval_s)
        else:
            # One write for head and body: half the system calls, and no reader sees one alone.
            self.connection.sendall(head + body)

    def _drip(self, data: bytes, interval_s: float) -> None:
        for index in range(len(data)):
            self.server.owner.pause(interval_s)
            self.connection.sendall(data[index : index + 1])

    def _reset(self) -> None:
        # Lingering for zero seconds makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _HangUpError

    def _frame(self, response: Response) -> tuple[bytes, bytes]:
        lines = list(response.headers)
        named = {name.lower() for name, _ in lines}
        body = response.payload
        if body and "content-type" not in named:
            lines.append(("Content-Type", "application/json"))
        if response.encoding:
            lines.append(("Content-Encoding", response.encoding.removeprefix("raw-")))
        framing = "chunked" if response.fault == "bad_chunk" else response.framing
        if named & {"content-length", "transfer-encoding"}:
            # Whether it is true is the test's affair; a reused connection would be out of step.
            self.close_connection = True
        elif response.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            body = b""
        elif framing == "chunked":
            lines.append(("Transfer-Encoding", "chunked"))
            body = _chunk(body, is_bad=response.fault == "bad_chunk")
        elif framing == "close":
            lines.append(("Connection", "close"))
            self.close_connection = True
        else:
            lines.append(("Content-Length", str(len(body) + (response.fault == "truncate"))))
        if response.fault in {"truncate", "bad_chunk"}:
            self.close_connection = True
        return _write_head(response.status, lines), b"" if self.command == "HEAD" else body


def _write_head(status: int, lines: list[tuple[str, str]]) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status} {reason}\r\n{text}\r\n".encode("latin-1")


def _chunk(body: bytes, *, is_bad: bool) -> bytes:
    half = (len(body) + 1) // 2
    parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part]
    if is_bad:
        return parts[0] + b"not-a-size\r\n" + body[half:]
    return b"".join(parts) + b"0\r\n\r\n"


class _Listener(ThreadingHTTPServer):
    """Accepts connections, a daemon thread for each, and can drop them all at once."""

    daemon_threads = True
    request_queue_size = 128
    # For handle_request(), which is only called when a connection is waiting.
    timeout = 0

    def __init__(self, owner: EmbeddedServer, port: int, context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self.failed_handshakes = 0
        self._context = context
        self._idle = threading.Condition()
        self._open: set[_Socket] = set()
        self._wake_reader, self._wake_writer = socket.socketpair()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a host name, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def run(self) -> None:
        # Not serve_forever(), whose end waits for a polling interval.
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while all(key.fileobj is self for key, _ in selector.select()):
                self.handle_request()

    def get_request(self) -> tuple[_Socket, Any]:
        connection, address = super().get_request()
        if self._context is not None:
            # The handshake waits for the client, so it belongs on the connection's own thread.
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._idle:
            self._open.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except OSError:
                self.failed_handshakes += 1
                return
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        # The inherited one says FIN before it closes, which would spoil a reset.
        request.close()
        with self._idle:
            self._open.discard(request)
            self._idle.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            self.owner.keep_error(error)

    def wake(self) -> None:
        """Make `run` return."""
        self._wake_writer.send(b"x")

    def drop_all(self, timeout_s: float) -> bool:
        """Break every connection and wait for the threads to leave theirs."""
        with self._idle:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return self._idle.wait_for(lambda: not self._open, timeout_s)

    def server_close(self) -> None:
        super().server_close()
        self._wake_reader.close()
        self._wake_writer.close()


class EmbeddedServer(ABC):
    """A recording HTTP server on a free port of 127.0.0.1; a context manager.

    Subclasses say what to answer. An exception out of that is answered with
    500, kept, and raised at the end of the `with` block. Connections wait in
    the listening queue between construction and `start`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        client_ca: str | Path | None = None,
    ) -> None:
        """Bind the port.

        Args:
            port: 0 for a free one; a stopped server's for a rebirth.
            tls: Paths of the certificate chain and its key, in PEM.
            client_ca: PEM file; only clients with a certificate signed by one
                of these are let in.
        """
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._errors: list[Exception] = []
        self._in_flight = 0
        self._peak_in_flight = 0
        self._is_stopping = threading.Event()
        self._released = threading.Event()
        self._silent = 0
        self._scheme = "http" if tls is None else "https"
        context = None if tls is None else _make_tls_context(tls, client_ca)
        self._listener = _Listener(self, port, context)
        self._thread = threading.Thread(
            target=self._listener.run, name=type(self).__name__, daemon=True
        )

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """Decide the response; called on the connection's thread, several at a time."""

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._listener.server_port

    @property
    def url(self) -> str:
        """Scheme, address and port, without a slash at the end."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order of their arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were ever unanswered at the same time."""
        with self._changed:
            return self._peak_in_flight

    @property
    def failed_handshakes(self) -> int:
        """Connections that did not survive the beginning of TLS."""
        return self._listener.failed_handshakes

    def wait_for_requests(self, count: int, timeout_s: float) -> bool:
        """Wait until that many requests have arrived; False when they have not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout_s)

    def wait_for_silence(self, count: int, timeout_s: float) -> bool:
        """Wait until that many responses are silent at once, so that `release` frees them all."""
        with self._changed:
            return self._changed.wait_for(lambda: self._silent >= count, timeout_s)

    def release(self) -> None:
        """Let every response that is silent now go on; later ones are silent anew."""
        with self._changed:
            self._released.set()
            self._released = threading.Event()

    def start(self) -> Self:
        """Begin to accept connections."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Break every connection, free the port and join the threads; may be repeated.

        Raises:
            TimeoutError: A thread is stuck in a hook.
        """
        if self._is_stopping.is_set():
            return
        self._is_stopping.set()
        self.release()
        self._listener.wake()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_S)
        is_over = self._listener.drop_all(_STOP_TIMEOUT_S)
        self._listener.server_close()
        if self._thread.is_alive() or not is_over:
            message = f"{self.url} did not stop within {_STOP_TIMEOUT_S:g} s: is a hook stuck?"
            raise TimeoutError(message)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None and self._errors:
            message = f"{self.url} failed over a request"
            raise RuntimeError(message) from self._errors[0]

    @contextlib.contextmanager
    def exchange(self, request: Request) -> Iterator[Response]:
        """Record a request and hold it as unanswered until the block is left."""
        with self._changed:
            recorded = self._record(request)
            self._in_flight += 1
            self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
            self._changed.notify_all()
        try:
            yield self._answer_safely(recorded)
        finally:
            with self._changed:
                self._in_flight -= 1

    def pause(self, delay_s: float) -> None:
        """Wait on a connection's thread, no longer than the server lives."""
        if delay_s > 0:
            self._is_stopping.wait(delay_s)
        if self._is_stopping.is_set():
            raise _HangUpError

    def hold(self) -> None:
        """Wait on a connection's thread for `release`."""
        with self._changed:
            released = self._released
            self._silent += 1
            self._changed.notify_all()
        if not self._is_stopping.is_set():
            released.wait()
        with self._changed:
            self._silent -= 1
        if self._is_stopping.is_set():
            raise _HangUpError

    def keep_error(self, error: Exception) -> None:
        """Keep a failure for the end of the `with` block."""
        self._errors.append(error)

    def _record(self, request: Request) -> Request:
        self._requests.append(request)
        return request

    def _answer_safely(self, request: Request) -> Response:
        try:
            return self.answer(request)
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self.keep_error(error)
            return Response(500, body={"error": type(error).__name__})


def _make_tls_context(
    tls: tuple[str | Path, str | Path], client_ca: str | Path | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class OktaApi(EmbeddedServer):
    """`GET /api/v1/logs` as Okta's polling mode serves it.

    Filtered and ordered by persistence time, which is the instant of `add`: an
    event added late with an older `published` stands at the end. The next link
    never ends. Bounded requests (`until`), search and descending order are not
    played, and refused. A `limit` above 1000 is cut to it.

    Source: Okta's System Log query guide, "Polling requests" and "Next link
    response header", and its rate limit guide.
    """

    _DEFAULT_LIMIT = 100
    _MAX_LIMIT = 1000
    _DEFAULT_SPAN_NS = 7 * 24 * 3600 * _NS_PER_S
    _SIGNATURE_BYTES = 9
    _PARAMS = frozenset({"since", "after", "limit", "sortOrder"})

    def __init__(
        self,
        *,
        token: str,
        rng: random.Random | None = None,
        clock: Callable[[], int] = time.time_ns,
        every_nth_429: int | None = None,
        rate_limit: int = 1200,
        port: int = 0,
    ) -> None:
        """Bind the port.

        Args:
            token: What must follow `SSWS` in `Authorization`.
            rng: For the signing of `after` and the ids of errors.
            clock: Nanoseconds since 1970 (UTC).
            every_nth_429: Each n-th authorised request is told to come back at
                the next full second.
            rate_limit: Requests a minute that `X-Rate-Limit-*` announce;
                exceeding it is not punished.
            port: 0 for a free one.
        """
        super().__init__(port=port)
        self.every_nth_429 = every_nth_429
        self._authorization = f"SSWS {token}"
        self._rng = rng or random.Random()
        self._key = self._rng.getrandbits(256).to_bytes(32, "big")
        self._clock = clock
        self._rate_limit = rate_limit
        self._window = (0, 0)
        self._lock = threading.Lock()
        self._bodies: list[bytes] = []
        self._uuids: list[str] = []
        self._persisted_ns: list[int] = []
        self._served: set[str] = set()
        self._authorised_count = 0
        self._unauthorised_count = 0
        self._limited_count = 0

    def add(self, events: Iterable[Mapping[str, object]]) -> None:
        """Persist events now, in this order; each needs a `uuid`."""
        added = [(str(event["uuid"]), _dump(event)) for event in events]
        with self._lock:
            # The clock may be set back; a log's order of arrival may not.
            now_ns = max(self._clock(), self._persisted_ns[-1] if self._persisted_ns else 0)
            self._uuids.extend(uuid for uuid, _ in added)
            self._bodies.extend(body for _, body in added)
            self._persisted_ns.extend([now_ns] * len(added))

    @property
    def uuids(self) -> list[str]:
        """The uuid of every event added, in order of persistence."""
        with self._lock:
            return list(self._uuids)

    @property
    def served(self) -> frozenset[str]:
        """The uuids of the events that were in an answer at least once."""
        with self._lock:
            return frozenset(self._served)

    @property
    def served_count(self) -> int:
        """How many distinct events were in an answer."""
        with self._lock:
            return len(self._served)

    @property
    def unauthorised_count(self) -> int:
        """Requests turned away for their token."""
        with self._lock:
            return self._unauthorised_count

    @property
    def limited_count(self) -> int:
        """Requests answered with 429."""
        with self._lock:
            return self._limited_count

    def answer(self, request: Request) -> Response:
        """Answer as Okta: see the class."""
        now_ns = self._clock()
        if request.path != "/api/v1/logs":
            return self._refuse(404, "E0000007", "Not found: Resource not found")
        if request.method != "GET":
            return self._refuse(405, "E0000022", "The endpoint does not support that method")
        if request.headers.get("authorization") != self._authorization:
            with self._lock:
                self._unauthorised_count += 1
            return self._refuse(401, "E0000011", "Invalid token provided")
        limits, is_limited = self._count(now_ns)
        if is_limited:
            summary = "API call exceeded rate limit due to too many requests."
            return self._refuse(429, "E0000047", summary, limits)
        try:
            start, since_ns, limit = self._read_query(request.query, now_ns)
        except ValueError as error:
            summary = f"Api validation failed: {error}"
            return self._refuse(400, "E0000001", summary, limits)
        return self._serve_page(request, start, since_ns, limit, limits)

    def _serve_page(
        self,
        request: Request,
        start: int | None,
        since_ns: int,
        limit: int,
        limits: list[tuple[str, str]],
    ) -> Response:
        with self._lock:
            if start is None:
                start = bisect.bisect_left(self._persisted_ns, since_ns)
            bodies = self._bodies[start : start + limit]
            self._served.update(self._uuids[start : start + limit])
        # The client's own name for us, or a link would leave its origin.
        origin = f"{self._scheme}://{request.headers.get('host', f'127.0.0.1:{self.port}')}"
        query = urlencode({"after": self._mint(start + len(bodies)), "limit": limit})
        headers = [
            *limits,
            ("Link", f'<{origin}{request.target}>; rel="self"'),
            ("Link", f'<{origin}{request.path}?{query}>; rel="next"'),
        ]
        return Response(200, headers, b"[" + b",".join(bodies) + b"]")

    def _read_query(self, query: list[tuple[str, str]], now_ns: int) -> tuple[int | None, int, int]:
        """Return the position of `after`, else None and the instant of `since`; the limit."""
        params = dict(query)
        if len(params) < len(query):
            message = "a parameter is repeated"
            raise ValueError(message)
        if unknown := params.keys() - self._PARAMS:
            message = f"{min(unknown)}: not supported"
            raise ValueError(message)
        if params.get("sortOrder", "ASCENDING") != "ASCENDING":
            message = "sortOrder: not supported"
            raise ValueError(message)
        limit_text = params.get("limit", str(self._DEFAULT_LIMIT))
        if not re.fullmatch("[0-9]{1,9}", limit_text):
            message = "limit: must be a number from 0 to 1000"
            raise ValueError(message)
        limit = min(int(limit_text), self._MAX_LIMIT)
        if "after" in params:
            if "since" in params:
                message = "since and after are mutually exclusive"
                raise ValueError(message)
            return self._read_after(params["after"]), 0, limit
        if "since" in params:
            return None, parse_instant(params["since"]), limit
        return None, now_ns - self._DEFAULT_SPAN_NS, limit

    def _mint(self, position: int) -> str:
        # The standard alphabet, not the URL-safe one: its +, / and = must survive the client.
        text = str(position).encode()
        return base64.b64encode(self._sign(text) + text).decode()

    def _read_after(self, after: str) -> int:
        try:
            token = base64.b64decode(after, validate=True)
        except ValueError:
            token = b""
        signature, text = token[: self._SIGNATURE_BYTES], token[self._SIGNATURE_BYTES :]
        if not hmac.compare_digest(signature, self._sign(text)):
            message = "after: not a value that this server handed out"
            raise ValueError(message)
        return int(text)

    def _sign(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")[: self._SIGNATURE_BYTES]

    def _count(self, now_ns: int) -> tuple[list[tuple[str, str]], bool]:
        """Count an authorised request; return its rate limit headers and whether it is refused."""
        now_s = now_ns // _NS_PER_S
        minute = now_s // 60
        with self._lock:
            self._authorised_count += 1
            nth = self.every_nth_429
            is_limited = nth is not None and self._authorised_count % nth == 0
            self._limited_count += is_limited
            used = self._window[1] + 1 if self._window[0] == minute else 1
            self._window = (minute, used)
        remaining = 0 if is_limited else max(self._rate_limit - used, 0)
        reset_s = now_s + 1 if is_limited else (minute + 1) * 60
        headers = [
            ("Date", formatdate(now_s, usegmt=True)),
            ("X-Rate-Limit-Limit", str(self._rate_limit)),
            ("X-Rate-Limit-Remaining", str(remaining)),
            ("X-Rate-Limit-Reset", str(reset_s)),
        ]
        return headers, is_limited

    def _refuse(
        self, status: int, code: str, summary: str, headers: Sequence[tuple[str, str]] = ()
    ) -> Response:
        with self._lock:
            error_id = f"oae{self._rng.getrandbits(80):020x}"
        body = {
            "errorCode": code,
            "errorSummary": summary,
            "errorLink": code,
            "errorId": error_id,
            "errorCauses": [],
        }
        return Response(status, headers, body)


class BadBodyError(ValueError):
    """A POST that is not in Flicker's wire format; the message says where."""


class Record(msgspec.Struct, frozen=True):
    """One object of Flicker's wire format."""

    source: str
    id: str
    event: msgspec.Raw
    timestamp: str | None = None
    message_json: msgspec.Raw = msgspec.field(name="message", default=msgspec.Raw(b"null"))

    @property
    def raw_event(self) -> bytes:
        """The event exactly as it stood in the body."""
        return bytes(self.event)

    @property
    def value(self) -> Any:
        """The event, parsed."""
        return json.loads(self.raw_event)

    @property
    def message(self) -> Any:
        """The message, parsed."""
        return json.loads(bytes(self.message_json))


@dataclass(frozen=True)
class RequestRecord(Request):
    """A request to a destination."""

    @cached_property
    def content(self) -> bytes:
        """The body with its Content-Encoding undone.

        Raises:
            BadBodyError: It is not in that encoding, or in an unknown one.
        """
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "identity":
            return self.body
        if encoding != "gzip":
            message = f"Content-Encoding {encoding} is not spoken here"
            raise BadBodyError(message)
        try:
            return gzip.decompress(self.body)
        except (OSError, EOFError, zlib.error) as error:
            message = f"the body is not gzip: {error}"
            raise BadBodyError(message) from None

    @cached_property
    def records(self) -> list[Record]:
        """The body's records, from a JSON array or from one object a line.

        Raises:
            BadBodyError: The body is anything else.
        """
        return decode_records(self.content)


_ARRAY_DECODER = msgspec.json.Decoder(list[Record])
_LINE_DECODER = msgspec.json.Decoder(Record)
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_ENDS = re.compile(rb"[\n\r]")


def decode_records(content: bytes) -> list[Record]:
    """Read a body in Flicker's wire format, as strictly as a SIEM might.

    Args:
        content: UTF-8; an array if it begins with a bracket, else one object
            a line.

    Raises:
        BadBodyError: It is not that.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: {error}"
        raise BadBodyError(message) from None
    try:
        if content.lstrip().startswith(b"["):
            return _ARRAY_DECODER.decode(content)
        return [_LINE_DECODER.decode(line) for line in content.split(b"\n") if line.strip()]
    except msgspec.ValidationError as error:
        message = f"not Flicker's wire format: {error}"
        raise BadBodyError(message) from None
    except msgspec.DecodeError:
        # msgspec takes a lone surrogate (a legal "\ud800") for a syntax error, so this is no
        # verdict yet.
        return _decode_slowly(text)


def _decode_slowly(text: str) -> list[Record]:
    try:
        if text.lstrip().startswith("["):
            items = _cut_array(text)
        else:
            items = [line for line in text.split("\n") if line.strip()]
        return [_build_record(_cut_object(item)) for item in items]
    except (ValueError, KeyError, RecursionError, msgspec.ValidationError) as error:
        message = f"the body is not JSON: {type(error).__name__}: {error}"
        raise BadBodyError(message) from None


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _build_record(members: _Members) -> Record:
    known = {"message": "null", "timestamp": "null", **members}
    return Record(
        source=msgspec.convert(json.loads(known["source"]), str),
        id=msgspec.convert(json.loads(known["id"]), str),
        event=msgspec.Raw(known["event"].encode()),
        timestamp=msgspec.convert(json.loads(known["timestamp"]), str | None),
        message_json=msgspec.Raw(known["message"].encode()),
    )


def _cut_array(text: str) -> list[str]:
    """Cut a JSON array into the text of its items."""
    _check_whole(text, list)
    items = []
    at = _skip_space(text, text.index("[") + 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        items.append(text[at:end])
        at = _skip_separator(text, end)
    return items


def _cut_object(text: str) -> _Members:
    """Cut a JSON object into the text of its members' values."""
    _check_whole(text, dict)
    members = {}
    at = _skip_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, end) + 1)
        end = _DECODER.raw_decode(text, start)[1]
        members[key] = text[start:end]
        at = _skip_separator(text, end)
    return members


def _check_whole(text: str, kind: type) -> None:
    # Once proven to be JSON, the text can be cut without looking at every comma.
    if not isinstance(_DECODER.decode(text), kind):
        message = f"expected a JSON {kind.__name__}"
        raise ValueError(message)  # noqa: TRY004 - about the text, not an argument


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _skip_separator(text: str, at: int) -> int:
    at = _skip_space(text, at)
    return _skip_space(text, at + 1) if text[at] == "," else at


class Destination(EmbeddedServer):
    """Takes POSTs at any path in Flicker's wire format, and keeps count of them.

    A body that is not in that format gets 400, a wrong token 401. The `respond`
    hook may be set at any time and goes before everything else; where it
    returns None, or is None, the answer is the usual one. A response of 2xx
    counts the request's records as delivered, before its first byte is sent,
    whatever its fault: `Response(200, fault="reset_before_headers")` takes the
    POST and then breaks the connection, `Response(503, fault="silence")` hangs
    and takes nothing.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        responses: Iterable[Response | None] = (),
        delay_s: float = 0.0,
        persist: Path | None = None,
        keep: bool = True,
        port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        client_ca: str | Path | None = None,
    ) -> None:
        """Bind the port, and take up the count of `persist` where there is one.

        Args:
            token: The bearer token to insist on.
            responses: For the first requests, in turn; then the usual answers.
            delay_s: Before each usual answer; may be changed at any time.
            persist: File to which each delivered record is appended as a line
                of JSON before its POST is answered.
            keep: False forgets requests and events, and only counts, for runs
                larger than memory.
            port: 0 for a free one.
            tls: Paths of the certificate chain and its key, in PEM.
            client_ca: PEM file that clients' certificates must be signed by.
        """
        super().__init__(port=port, tls=tls, client_ca=client_ca)
        script = list(responses)
        self.respond: Callable[[RequestRecord], Response | None] | None = (
            in_turn(script) if script else None
        )
        self.delay_s = delay_s
        self._authorization = None if token is None else f"Bearer {token}"
        self._keep = keep
        self._ids: Counter[str] = Counter()
        self._delivered: list[Record] = []
        self._order: dict[str, list[str]] = {}
        self._request_count = 0
        self._delivered_count = 0
        self._unauthorised_count = 0
        self._problems: list[str] = []
        self._persist_fd = -1 if persist is None else self._take_up(persist)

    @property
    def request_count(self) -> int:
        """How many requests arrived, kept or not."""
        with self._changed:
            return self._request_count

    @property
    def posts(self) -> list[RequestRecord]:
        """The requests, typed: each knows its `records`."""
        return [request for request in self.requests if isinstance(request, RequestRecord)]

    @property
    def ids(self) -> Counter[str]:
        """How often each record id was delivered."""
        with self._changed:
            return Counter(self._ids)

    @property
    def distinct_count(self) -> int:
        """How many distinct record ids were delivered."""
        with self._changed:
            return len(self._ids)

    @property
    def delivered_count(self) -> int:
        """How many records were delivered, repeats included."""
        with self._changed:
            return self._delivered_count

    @property
    def duplicates(self) -> dict[str, int]:
        """For each id delivered more than once, how often too often."""
        with self._changed:
            return {key: count - 1 for key, count in self._ids.items() if count > 1}

    @property
    def delivered(self) -> list[Record]:
        """The records delivered, repeats included, in order of acceptance."""
        with self._changed:
            return list(self._delivered)

    @property
    def events(self) -> list[Any]:
        """The events delivered, parsed."""
        return [record.value for record in self.delivered]

    @property
    def raw_events(self) -> list[bytes]:
        """The events delivered, each exactly as it stood in its body."""
        return [record.raw_event for record in self.delivered]

    @property
    def unauthorised_count(self) -> int:
        """Requests turned away for their token."""
        with self._changed:
            return self._unauthorised_count

    @property
    def problems(self) -> list[str]:
        """What was wrong with each POST that got 400 for its body."""
        with self._changed:
            return list(self._problems)

    def delivered_order(self, source: str) -> list[str]:
        """Return the ids delivered for a source, repeats included, in order."""
        with self._changed:
            return list(self._order.get(source, ()))

    def wait_for(self, what: int | Callable[[], bool], timeout_s: float) -> bool:
        """Wait for deliveries.

        Args:
            what: A number of distinct ids, or a condition, looked at whenever
                something arrives or is delivered.
            timeout_s: Bound on the wait.

        Returns:
            False when it did not come about in time.
        """
        if callable(what):
            is_reached = what
        else:
            count = what

            def is_reached() -> bool:
                return len(self._ids) >= count

        with self._changed:
            return self._changed.wait_for(is_reached, timeout_s)

    def answer(self, request: Request) -> Response:
        """Answer as scripted or as usual: see the class."""
        post = _as_post(request)
        respond = self.respond
        response = None if respond is None else respond(post)
        if response is None:
            response = self._answer_as_usual(post)
        if response.is_success and post.method == "POST":
            with contextlib.suppress(BadBodyError):
                self._accept(post.records)
        return response

    def stop(self) -> None:
        """Stop serving and close the file of `persist`."""
        try:
            super().stop()
        finally:
            with self._changed:
                descriptor, self._persist_fd = self._persist_fd, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _record(self, request: Request) -> Request:
        self._request_count += 1
        post = _as_post(request)
        return super()._record(post) if self._keep else post

    def _answer_as_usual(self, post: RequestRecord) -> Response:
        if post.method != "POST":
            return Response(405, [("Allow", "POST")], {"error": "only POST is taken here"})
        if self._authorization not in {None, post.headers.get("authorization")}:
            with self._changed:
                self._unauthorised_count += 1
                self._changed.notify_all()
            return Response(401, body={"error": "the bearer token is missing or wrong"})
        try:
            count = len(post.records)
        except BadBodyError as error:
            with self._changed:
                self._problems.append(str(error))
                self._changed.notify_all()
            return Response(400, body={"error": str(error)})
        return Response(200, body={"accepted": count}, delay_s=self.delay_s)

    def _accept(self, records: list[Record]) -> None:
        with self._changed:
            if self._persist_fd >= 0 and records:
                # A line must stay one line, whatever white space stands inside the event.
                lines = [_LINE_ENDS.sub(b" ", msgspec.json.encode(record)) for record in records]
                _write_all(self._persist_fd, b"\n".join(lines) + b"\n")
            self._tally(records)
            self._changed.notify_all()

    def _tally(self, records: list[Record]) -> None:
        self._delivered_count += len(records)
        self._ids.update([record.id for record in records])
        if self._keep:
            self._delivered.extend(records)
            for record in records:
                self._order.setdefault(record.source, []).append(record.id)

    def _take_up(self, path: Path) -> int:
        """Count what the file holds, cut off a torn last line, and open it for more."""
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self._tally(decode_records(whole))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(descriptor, len(whole))
        return descriptor


def _as_post(request: Request) -> RequestRecord:
    if isinstance(request, RequestRecord):
        return request
    return RequestRecord(
        request.method, request.target, request.header_lines, request.body, request.received_s
    )


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _dump(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
