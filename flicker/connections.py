"""Connections whose requests are bounded in time and sent to the letter.

What urllib3 and http.client leave out: a bound on a whole request, request
lines as the vendor made them up, and headers that end where they should.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import urllib3
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

SWEEP_S = 0.25


@dataclass(eq=False)
class Call:
    """One request on its way.

    Attributes:
        target: What stands in the request line, byte for byte.
        sockets: Duplicates of those it waits on: a handshake hides its own.
        is_broken_off: Whether its time was over.
        is_head_cut: Whether the connection ended within the headers.
    """

    deadline: float
    target: str
    sockets: list[socket.socket] = field(default_factory=list)
    is_broken_off: bool = False
    is_head_cut: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: bool = False

    def end(self) -> None:
        """Be over: the connection may serve another call from now on."""
        with self._lock:
            self._is_over = True
        for sock in self.sockets:
            sock.close()

    def break_off(self) -> None:
        """Shut its sockets, unless it is over."""
        with self._lock:
            if self._is_over:
                return
            self.is_broken_off = True
            for sock in list(self.sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class _Calls:
    """The requests on their way, so that one that takes too long is broken off.

    Timeouts of sockets bound each wait for bytes, not their sum: a server that
    sends a byte a second holds a thread for ever. A sweep shuts its socket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._sweeper: threading.Thread | None = None
        self._local = threading.local()

    @property
    def current(self) -> Call | None:
        """The request of this thread."""
        return getattr(self._local, "call", None)

    @contextmanager
    def running(self, call: Call) -> Iterator[None]:
        """Watch over this thread's request."""
        self._local.call = call
        # One step under the interpreter's lock; with one of ours, hundreds of
        # threads would stand in line for it.
        self._running.add(call)
        if self._sweeper is None:
            self._start_sweeper()
        try:
            yield
        finally:
            self._local.call = None
            self._running.discard(call)
            call.end()

    def _start_sweeper(self) -> None:
        with self._lock:
            if self._sweeper is None:
                self._sweeper = threading.Thread(
                    target=self._sweep, name="flicker-deadlines", daemon=True
                )
                self._sweeper.start()

    def use(self, sock: socket.socket) -> None:
        """Note the socket that this thread's request waits on."""
        call = self.current
        if call is not None:
            with suppress(OSError):
                call.sockets.append(socket.socket(fileno=os.dup(sock.fileno())))

    def _sweep(self) -> None:
        pause = threading.Event()
        while not pause.wait(SWEEP_S):
            now = time.monotonic()
            for call in self._running.copy():
                if call.deadline < now:
                    call.break_off()


calls = _Calls()


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
    """Notes whether the headers came to their end.

    http.client takes the end of the connection for the end of the headers,
    and what follows for an empty body: an answer cut short would be an empty
    page, which ends a scan.
    """

    def begin(self) -> None:
        stream, lines = self.fp, _Lines(self.fp)
        self.fp = lines  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = stream
        call = calls.current
        if call is not None:
            call.is_head_cut = not lines.last


class Watched(HTTPConnection):
    """A connection whose requests are bounded in time and sent verbatim."""

    response_class = _WholeResponse

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        calls.use(sock)
        return sock

    def putrequest(
        self,
        method: str,
        url: str,
        skip_host: bool = False,  # noqa: FBT002 - inherited
        skip_accept_encoding: bool = False,  # noqa: FBT002
    ) -> None:
        """Write the request line as the request has it."""
        call = calls.current
        if call is not None:
            if self.sock is not None and not call.sockets:
                calls.use(self.sock)
            if url.startswith("/"):
                # urllib3 would rewrite what the vendor made up, and may have signed.
                url = call.target
        super().putrequest(method, url, skip_host, skip_accept_encoding)


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


class Connections:
    """The connections to one origin.

    requests decides about proxies and certificates, once. Each request then
    goes to urllib3 itself, in half the time that requests takes for it.

    Args:
        count: Of those kept open.
        verify: As requests has it.
        cert: As requests has it.
        proxies: By scheme.
    """

    def __init__(
        self,
        count: int,
        *,
        verify: bool | str,
        cert: str | tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> None:
        self._adapter = Adapter(
            pool_connections=1, pool_maxsize=count, max_retries=0, pool_block=False
        )
        self._verify = verify
        self._cert = cert
        self._proxies = proxies
        self._lock = threading.Lock()
        self._pool: Any = None
        self._is_full_url = False

    def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        call: Call,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and give the answer as soon as its headers are there.

        Raises:
            requests.RequestException: The proxy's address is none.
            urllib3.exceptions.HTTPError: No answer.
            OSError: A file of `tls` cannot be read.
        """
        pool = self._pool
        if pool is None:
            pool = self._open(url)
        timeout_s = max(0.001, call.deadline - time.monotonic())
        response: urllib3.BaseHTTPResponse = pool.urlopen(
            method,
            url if self._is_full_url else call.target,
            body=body,
            headers=headers,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=self._adapter.max_retries,
            timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s),
        )
        return response

    def _open(self, url: str) -> Any:
        with self._lock:
            if self._pool is None:
                request = PreparedRequest()
                request.method, request.url = "GET", url
                request.headers = CaseInsensitiveDict()
                pool = self._adapter.get_connection_with_tls_context(
                    request, self._verify, proxies=self._proxies, cert=self._cert
                )
                verify: Any = self._adapter.cert_verify
                verify(pool, url, self._verify, self._cert)
                sent_url = self._adapter.request_url(request, self._proxies)
                self._is_full_url = not sent_url.startswith("/")
                self._pool = pool
            return self._pool

    def close(self) -> None:
        """Close those that are open and idle."""
        self._adapter.close()
