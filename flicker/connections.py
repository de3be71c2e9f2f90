"""Connections whose requests are bounded in time and sent to the letter.

urllib3 opens them, since it knows proxies, certificates and handshakes. What
goes over them is written and read here: a bound on a whole request, request
lines as the vendor made them up, headers that end where they should, and a
third of the time.
"""

from __future__ import annotations

import io
import os
import re
import select
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError

from flicker.pagination import DEFAULT_PORTS

SWEEP_S = 0.25

FIRST_BYTES = 64 * 1024
"""Read at once of an answer: most are there as a whole by then."""

SHORT_BYTES = 16 * 1024
"""Bodies up to here are read and unpacked without a thread of their own."""

HEAD_BYTES = 8 * 1024
"""Of a request: up to here, any socket that nothing waits in takes it at once."""

STEP_BYTES = 1024 * 1024
"""Longest single read of a body whose length is not known."""

MAX_HEADERS = 100
"""As http.client has it."""

MAX_INTERIM = 100
"""Interim answers before the one that counts; http.client does not count those with 100."""

_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [^\r\n]*)?\r\n((?:[!#-'*+\-.^-z|~A-Z0-9]+:[^\r\n]*\r\n)*)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,15}")
_LENGTH_LINE = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r", re.IGNORECASE)
_UNBOUNDED = re.compile(rb"\n(?:transfer|content)-encoding:", re.IGNORECASE)
"""In the head of a body that may be longer than its Content-Length says."""

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(eq=False)
class Call:
    """One request on its way.

    Attributes:
        is_broken_off: Whether its time was over.
    """

    deadline: float
    is_broken_off: bool = False
    _sock: socket.socket | None = None
    _is_own: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_on(self, sock: socket.socket | None, *, is_own: bool = False) -> None:
        """Wait on this socket from now on, and on none when it is over.

        Args:
            sock: The connection's, which may serve another call when this one is over.
            is_own: Whether nobody else closes it.
        """
        with self._lock:
            before, was_own = self._sock, self._is_own
            self._sock, self._is_own = sock, is_own
        if before is not None and was_own:
            before.close()

    def break_off(self) -> None:
        """Shut its socket, unless it is over."""
        with self._lock:
            if self._sock is not None:
                self.is_broken_off = True
                with suppress(OSError):
                    # Not as TLS has it, which would have its reader go on without decrypting.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


class _Calls:
    """The requests on their way, so that one that takes too long is broken off.

    Timeouts of sockets bound each wait for bytes, not their sum: a server that
    sends a byte a second holds a thread for ever. A sweep shuts its socket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._sweeper: threading.Thread | None = None

    def begin(self, deadline: float) -> Call:
        """Watch over a request from now on.

        Raises:
            RuntimeError: There is no thread to watch with.
        """
        if self._sweeper is None:
            self._start_sweeper()
        call = Call(deadline)
        # One step under the interpreter's lock; with one of ours, hundreds of
        # threads would stand in line for it.
        self._running.add(call)
        return call

    def end(self, call: Call) -> None:
        """Watch no longer."""
        self._running.discard(call)
        call.wait_on(None)

    def _start_sweeper(self) -> None:
        with self._lock:
            if self._sweeper is None:
                sweeper = threading.Thread(
                    target=self._sweep, name="flicker-deadlines", daemon=True
                )
                sweeper.start()
                self._sweeper = sweeper

    def _sweep(self) -> None:
        pause = threading.Event()
        while not pause.wait(SWEEP_S):
            now = time.monotonic()
            for call in self._running.copy():
                if call.deadline < now:
                    call.break_off()


calls = _Calls()


class Watched(HTTPConnection):
    """A connection that can be broken off while it is being opened.

    Attributes:
        call: The request that it is opened for.
    """

    call: Call | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        if self.call is not None:
            # A handshake hides its own.
            self.call.wait_on(socket.socket(fileno=os.dup(sock.fileno())), is_own=True)
        return sock


class _WatchedTls(Watched, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = Watched


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class Adapter(HTTPAdapter):
    """Has requests use such connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make them for the endpoint itself."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Make them for a proxy; SOCKS has its own."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _Wire(io.RawIOBase):
    """A socket's bytes, behind those that were read already."""

    def __init__(self, sock: Any, ahead: bytes) -> None:
        self._sock = sock
        self._ahead = ahead
        # Only a bare socket has one that waits for all, and only where it blocks.
        self._whole = socket.MSG_WAITALL if type(sock) is socket.socket else 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what fits, or what is there."""
        if self._ahead:
            count = min(len(buffer), len(self._ahead))
            buffer[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            return count
        if self._whole and len(buffer) > io.DEFAULT_BUFFER_SIZE:
            # Room for exactly what is missing: each return to Python would wait
            # for the interpreter's lock.
            return self._sock.recv_into(buffer, 0, self._whole)  # type: ignore[no-any-return]
        return self._sock.recv_into(buffer)  # type: ignore[no-any-return]

    def makefile(self, mode: str) -> io.BufferedReader:
        """Give the stream that http.client reads an answer from."""
        del mode
        return io.BufferedReader(self)


class _Lines:
    """A response's stream, noting the last line read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, *args: int) -> bytes:
        self.last = bytes(self._stream.readline(*args))
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _WholeResponse(HTTPResponse):
    """Notes whether the headers came to their end, and passes over interim answers.

    http.client takes the end of the connection for the end of the headers,
    and what follows for an empty body: an answer cut short would be an empty
    page, which ends a scan. And it takes an interim answer, all but 100, for the
    last: the one behind it would be the next request's.
    """

    is_head_cut = False

    def begin(self) -> None:
        stream, lines = self.fp, _Lines(self.fp)
        self.fp = lines  # type: ignore[assignment]
        try:
            for _ in range(MAX_INTERIM + 1):
                # http.client reads a head where there is none yet.
                self.headers = self.msg = None  # type: ignore[assignment]
                super().begin()
                if not _is_interim(self.status):
                    break
            else:
                raise HTTPException("no answer after so many interim ones")
        finally:
            if self.fp is not None:
                self.fp = stream
        self.is_head_cut = not lines.last


def _is_interim(status: int) -> bool:
    # Source: RFC 9110, section 15.2. Nobody asks for 101, which leaves HTTP.
    return 100 <= status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS


class Answer:
    """An answer whose head has come.

    Args:
        connection: It comes over this one; the request is sent.
        ahead: What came of it already.

    Attributes:
        connection: As above.
        status: As in the status line.
        headers: Lines in their order, names in lower case.
        is_head_cut: Whether the connection ended within the headers.

    Raises:
        HTTPException: It is none.
        OSError: The connection fails.
    """

    def __init__(self, connection: Any, ahead: bytes = b"") -> None:
        self.connection = connection
        self._sock = connection.sock
        self._ahead: bytes = ahead or self._sock.recv(FIRST_BYTES)
        self._length = 0
        self._closes = self._is_read = self.is_head_cut = False
        self._odd: _WholeResponse | None = None
        match = _HEAD.match(self._ahead)
        if match is None or not self._take_head(match):
            self._odd = self._read_odd_head()

    def _take_head(self, match: re.Match[bytes]) -> bool:
        """Take a head as nearly all are; http.client takes several times as long.

        Returns:
            Whether it is one.
        """
        lines = match[2].decode("latin-1").split("\r\n")[:-1]
        split = [line.partition(":") for line in lines]
        self.status = int(match[1])
        self.headers = [(name.lower(), value.strip(" \t")) for name, _, value in split]
        found = dict(self.headers)
        if len(lines) > MAX_HEADERS or len(found) < len(lines) or "transfer-encoding" in found:
            return False
        if self.status not in _WITHOUT_BODY:
            length = found.get("content-length", "")
            if not _LENGTH.fullmatch(length):
                return False
            self._length = int(length)
        self._closes = "close" in found.get("connection", "").lower()
        self._ahead = self._ahead[match.end() :]
        return True

    def _read_odd_head(self) -> _WholeResponse:
        response = _WholeResponse(_Wire(self._sock, self._ahead), method="GET")  # type: ignore[arg-type]
        response.begin()
        self.status = response.status
        self.headers = [(name.lower(), value) for name, value in response.msg.items()]
        self.is_head_cut = response.is_head_cut
        lengths = {value for name, value in self.headers if name == "content-length"}
        if len(lengths) > 1:
            # RFC 9112, section 6.3: nobody can tell where the body ends.
            raise HTTPException("lengths that differ")
        self._closes = response.will_close or self.status == HTTPStatus.SWITCHING_PROTOCOLS
        return response

    @property
    def leaves_connection(self) -> bool:
        """Whether its connection may serve another request."""
        return self._is_read and not self._closes

    def read(self, limit: int) -> bytes:
        """Read the body as it was sent.

        Returns:
            All of it, or a byte more than the limit.

        Raises:
            HTTPException: It is cut short.
            OSError: The connection fails.
        """
        if self._odd is not None:
            return self._read_odd(self._odd, limit)
        body, due = self._ahead, min(self._length, limit + 1)
        if len(body) > due:
            return body[:due]
        if len(body) < due:
            body = io.BufferedReader(_Wire(self._sock, body)).read(due)
            if len(body) < due:
                raise IncompleteRead(b"", due - len(body))
        self._is_read = due == self._length
        return body

    def _read_odd(self, response: _WholeResponse, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while size <= limit:
            part = response.read(min(STEP_BYTES, limit + 1 - size))
            if not part:
                if response.length:
                    raise IncompleteRead(b"", response.length)
                self._is_read = True
                break
            size += len(part)
            parts.append(part)
        return b"".join(parts)


class Started:
    """A request that was sent, and whose answer nobody waits for yet.

    Args:
        call: The request's bound.
        connection: It was sent over this one.
    """

    def __init__(self, call: Call, connection: Any) -> None:
        self.call = call
        self._connection = connection
        self._ahead = b""

    def look(self) -> bool | None:
        """Read what is there; never waits.

        Returns:
            None where nothing is; otherwise whether it is a success as a whole
            and short, so that `answer` and reading it take no time worth a thread.
        """
        sock = self._connection.sock
        if not self._ahead:
            try:
                if type(sock) is socket.socket:
                    self._ahead = sock.recv(FIRST_BYTES, socket.MSG_DONTWAIT)
                else:
                    self._ahead = _recv_at_once(sock)
            except (BlockingIOError, ssl.SSLWantReadError):
                return None
            except OSError:
                # It is found again by who reads on.
                return False
        match = _HEAD.match(self._ahead)
        if match is None or match[1][:1] != b"2" or _UNBOUNDED.search(match[0]):
            return False
        length = _LENGTH_LINE.search(match[0])
        missing = 0 if length is None else match.end() + int(length[1]) - len(self._ahead)
        return length is not None and int(length[1]) <= SHORT_BYTES and missing <= 0

    def wait(self, seconds: float) -> None:
        """Wait until there is something to look at, or for so long."""
        there = select.poll()
        there.register(_bare(self._connection.sock), select.POLLIN)
        there.poll(seconds * 1000)

    def answer(self) -> Answer:
        """Give the answer as soon as its headers are there.

        Raises:
            urllib3.exceptions.HTTPError: None comes.
        """
        return _read_answer(self._connection, self.call, self._ahead)

    def drop(self) -> None:
        """Let nobody have the answer."""
        calls.end(self.call)
        self._connection.close()


class Connections:
    """The connections to one origin.

    requests decides about proxies and certificates, once, and urllib3 opens
    them. Who needs one takes the one that was used last.

    Args:
        url: Of the endpoint.
        count: Of those kept open.
        verify: As requests has it.
        cert: As requests has it.
        proxies: By scheme.
    """

    def __init__(
        self,
        url: str,
        count: int,
        *,
        verify: bool | str,
        cert: str | tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> None:
        self._url = url
        self._adapter = Adapter(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._verify = verify
        self._cert = cert
        self._proxies = proxies
        self._count = count
        self._lock = threading.Lock()
        self._pool: Any = None
        self._is_tunnelled = False
        self._before_target = self._host = ""
        self._proxy_headers: dict[str, str] = {}
        self._idle: deque[Any] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def send(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, call: Call
    ) -> Answer:
        """Send a request, and give the answer as soon as its headers are there.

        Args:
            method: Such as `GET`.
            target: What stands in the request line, byte for byte.
            headers: All but Host, which may be among them.
            body: None where there is none.
            call: The request's bound.

        Raises:
            requests.RequestException: The proxy's address is none.
            urllib3.exceptions.HTTPError: No answer.
            OSError: A file of `tls` cannot be read.
            ValueError: A header is none.
        """
        if self._pool is None:
            self._open_pool()
        head = self._head(method, target, headers)
        connection = self._take_idle()
        if connection is None:
            connection = self._connect(call)
        call.wait_on(_bare(connection.sock))
        try:
            # What it says before it closes the connection counts, as with a body that is too large.
            with suppress(BrokenPipeError, ConnectionResetError):
                _send(connection.sock, head, body)
        except OSError as error:
            call.wait_on(None)
            connection.close()
            raise HTTPError(error) from error
        return _read_answer(connection, call)

    def start(self, target: str, headers: dict[str, str], call: Call) -> Started | None:
        """Send a GET request if that takes no waiting: if a connection is open.

        Args:
            target: What stands in the request line, byte for byte.
            headers: All but Host, which may be among them.
            call: The request's bound.

        Returns:
            None where nothing was sent.

        Raises:
            ValueError: A header is none.
        """
        if self._pool is None:
            return None
        head = self._head("GET", target, headers)
        connection = self._take_idle() if len(head) <= HEAD_BYTES else None
        if connection is None:
            return None
        call.wait_on(_bare(connection.sock))
        try:
            connection.sock.sendall(head)
        except OSError:
            call.wait_on(None)
            connection.close()
            return None
        return Started(call, connection)

    def release(self, answer: Answer) -> None:
        """Keep an answer's connection for the next request, if it may serve another."""
        if answer.leaves_connection and len(self._idle) < self._count:
            self._idle.append(answer.connection)
        else:
            answer.connection.close()

    def close(self) -> None:
        """Close those that are open and idle."""
        _close_all(self._idle)

    def _take_idle(self) -> Any:
        """Give the idle connection that was used last, None where there is none."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_dropped(connection.sock):
                return connection
            connection.close()

    def _connect(self, call: Call) -> Any:
        connection = self._pool._new_conn()  # noqa: SLF001 - as its `urlopen` does
        connection.timeout = max(0.001, call.deadline - time.monotonic())
        connection.call = call
        try:
            if self._is_tunnelled:
                self._pool._prepare_proxy(connection)  # noqa: SLF001
            self._pool._validate_conn(connection)  # noqa: SLF001
            if connection.is_closed:
                connection.connect()
            # From here on, the sweep bounds all waits at once.
            connection.sock.settimeout(None)
        except BaseException as error:
            connection.close()
            if isinstance(error, (OSError, HTTPException)):
                raise HTTPError(error) from error
            raise
        finally:
            connection.call = None
        return connection

    def _head(self, method: str, target: str, headers: dict[str, str]) -> bytes:
        lines = [f"{method} {self._before_target}{target} HTTP/1.1"]
        if not any(name.lower() == "host" for name in headers):
            lines.append(f"Host: {self._host}")
        headers = headers | self._proxy_headers
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = "\r\n".join([*lines, "", ""])
        if not text.count("\r") == text.count("\n") == len(lines) + 1:
            message = "a header has more than one line"
            raise ValueError(message)
        return text.encode("latin-1")

    def _open_pool(self) -> None:
        with self._lock:
            if self._pool is not None:
                return
            request = PreparedRequest()
            request.method, request.url = "GET", self._url
            request.headers = CaseInsensitiveDict()
            pool: Any = self._adapter.get_connection_with_tls_context(
                request, self._verify, proxies=self._proxies, cert=self._cert
            )
            verify: Any = self._adapter.cert_verify
            verify(pool, self._url, self._verify, self._cert)
            sent_url = self._adapter.request_url(request, self._proxies)
            parts = urllib3.util.parse_url(self._url)
            host = (parts.host or "").rstrip(".")
            is_default = parts.port in {None, DEFAULT_PORTS.get(parts.scheme or "")}
            self._host = host if is_default else f"{host}:{parts.port}"
            if not sent_url.startswith("/"):
                self._before_target = f"{parts.scheme}://{self._host}"
                self._proxy_headers = dict(pool.proxy_headers)
            self._is_tunnelled = pool.proxy is not None and not self._before_target
            self._pool = pool


def _read_answer(connection: Any, call: Call, ahead: bytes = b"") -> Answer:
    try:
        return Answer(connection, ahead)
    except BaseException as error:
        call.wait_on(None)
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise HTTPError(error) from error
        if isinstance(error, (OSError, HTTPException)):
            raise ProtocolError(error) from error
        raise


def _recv_at_once(sock: Any) -> bytes:
    """Read what is there over TLS, which knows no flags."""
    sock.settimeout(0)
    try:
        data: bytes = sock.recv(FIRST_BYTES)
    finally:
        sock.settimeout(None)
    return data


def _bare(sock: Any) -> socket.socket:
    """Give the socket below TLS within TLS."""
    bare: socket.socket = sock if isinstance(sock, socket.socket) else sock.socket
    return bare


def _is_dropped(sock: Any) -> bool:
    """Tell whether an idle connection was closed, or says what nobody asked for."""
    try:
        # Below TLS, which has no such question.
        socket.socket.recv(_bare(sock), 1, _PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _send(sock: Any, head: bytes, body: bytes | None) -> None:
    if body is None:
        sock.sendall(head)
    elif type(sock) is socket.socket:
        sent = sock.sendmsg([head, body])
        if sent < len(head) + len(body):
            sock.sendall(memoryview(head + body)[sent:])
    else:
        sock.sendall(head + body)


def _close_all(idle: deque[Any]) -> None:
    while idle:
        idle.pop().close()
