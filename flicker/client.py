"""One request, one answer or one classified failure; no loop and no sleep.

Sources and destinations talk HTTP through here. What this module sees to:
bounds on time and size, bodies decompressed within the bound, credentials
that never leave their origin, and messages without secrets.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection

from flicker.auth import Concealer, request_headers
from flicker.errors import (
    ForeignLinkError,
    HumanNeededError,
    RefusedError,
    RequestError,
    RetryableError,
)
from flicker.pagination import parse_links, resolve_link
from flicker.ratelimit import is_quota_exhausted, wait_asked_for

if TYPE_CHECKING:
    from flicker.settings import Endpoint

MAX_REDIRECTS = 5
SWEEP_S = 0.25
EXCERPT_CHARS = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """A whole answer.

    Attributes:
        headers: Names in lower case; repeated lines joined with a comma.
        links: Absolute targets of the Link header lines by relation.
        body: Decompressed.
    """

    status: int
    headers: dict[str, str]
    links: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def wait_s(self) -> float | None:
        """Seconds that the server asks us to stay away, None if it does not."""
        wait = wait_asked_for(self.headers, datetime.now(timezone.utc))
        return None if wait is None else wait.total_seconds()


class _Calls:
    """The requests on their way, so that one that takes too long is broken off.

    Timeouts of sockets bound each wait for bytes, not their sum: a server that
    sends a byte a second holds a thread for ever. A sweep shuts its socket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, tuple[float, list[socket.socket]]] = {}
        self._sweeper: threading.Thread | None = None
        self._local = threading.local()

    def begin(self, timeout_s: float) -> None:
        """Note that this thread starts a request."""
        sockets: list[socket.socket] = []
        self._local.sockets = sockets
        with self._lock:
            self._running[threading.get_ident()] = (time.monotonic() + timeout_s, sockets)
            if self._sweeper is None:
                self._sweeper = threading.Thread(
                    target=self._sweep, name="flicker-deadlines", daemon=True
                )
                self._sweeper.start()

    def use(self, sock: socket.socket | None) -> None:
        """Note the socket that this thread's request waits on."""
        sockets = getattr(self._local, "sockets", None)
        if sockets is not None and sock is not None:
            sockets.append(sock)

    def end(self) -> bool:
        """Note that it is over, and tell whether it was in time."""
        with self._lock:
            deadline, _ = self._running.pop(threading.get_ident())
        return time.monotonic() < deadline

    def _sweep(self) -> None:
        pause = threading.Event()
        while not pause.wait(SWEEP_S):
            now = time.monotonic()
            with self._lock:
                late = [sockets for deadline, sockets in self._running.values() if deadline < now]
            for sockets in late:
                for sock in sockets:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)


_calls = _Calls()


class _PlainConnection(HTTPConnection):
    def getresponse(self) -> Any:
        _calls.use(self.sock)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _calls.use(self.sock)
        return super().getresponse()


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Client:
    """Sends requests to one endpoint.

    Args:
        endpoint: Where, as whom, and with which certificates and time limit.
        max_response_bytes: Bound on a body, compressed or not.
        connections: Connections kept open.
    """

    def __init__(
        self, endpoint: Endpoint, *, max_response_bytes: int = 1 << 20, connections: int = 1
    ) -> None:
        self._endpoint = endpoint
        self._max_response_bytes = max_response_bytes
        self._timeout_s = endpoint.timeout.total_seconds()
        self._adapter = HTTPAdapter(
            pool_connections=1, pool_maxsize=connections, max_retries=0, pool_block=False
        )
        # Proxies (HTTPS_PROXY) keep urllib3's own pools: there, only each
        # wait is bounded, not the whole request.
        self._adapter.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        self._proxies = get_environ_proxies(endpoint.url)
        tls = endpoint.tls
        self._verify: bool | str = True
        if tls.accept_invalid_certs:
            self._verify = False
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        elif tls.ca_cert_path is not None:
            self._verify = str(tls.ca_cert_path)
        else:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            self._verify = bundle or True
        self._cert: str | tuple[str, str] | None = None
        if tls.cert_path is not None:
            cert = str(tls.cert_path)
            self._cert = cert if tls.key_path is None else (cert, str(tls.key_path))
        self._headers = {
            "User-Agent": f"flicker/{version('flicker')}",
            "Accept": "application/json",
            # Not `br`: decoding it would take one more dependency.
            "Accept-Encoding": "gzip, deflate",
        }
        own = request_headers(endpoint)
        replaced = {name.lower() for name in own}
        self._headers = {k: v for k, v in self._headers.items() if k.lower() not in replaced} | own
        self._concealer = Concealer(endpoint)

    def get(self, url: str) -> Reply:
        """Get a URL of the endpoint's origin, following redirects within it.

        Raises:
            RetryableError: No answer, or none in time, or none to read.
            ForeignLinkError: The way there leaves the endpoint's origin.
            HumanNeededError: TLS fails, or redirects go on and on.
        """
        url = resolve_link(self._endpoint.url, url)
        for _ in range(MAX_REDIRECTS + 1):
            reply, target = self._exchange("GET", url, None, {})
            if target is None:
                return reply
            url = resolve_link(url, target)
        message = f"redirects more than {MAX_REDIRECTS} times"
        raise HumanNeededError(message, status=reply.status)

    def post(self, body: bytes, headers: dict[str, str]) -> Reply:
        """Post to the endpoint; a redirect is an answer, it is not followed.

        Raises:
            RetryableError: No answer, or none in time.
            HumanNeededError: TLS fails.
        """
        return self._exchange("POST", self._endpoint.url, body, headers)[0]

    def _exchange(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[Reply, str | None]:
        request = requests.PreparedRequest()
        request.method = method
        # Set by hand: `prepare` would decode and re-encode parts of a link.
        request.url = url
        request.headers = CaseInsensitiveDict(self._headers | headers)
        if body is not None:
            request.headers["Content-Length"] = str(len(body))
        request.body = body
        _calls.begin(self._timeout_s)
        in_time = True
        try:
            response = self._adapter.send(
                request,
                stream=True,
                timeout=self._timeout_s,
                verify=self._verify,
                cert=self._cert,
                proxies=self._proxies,
            )
            try:
                reply = self._read(url, response)
                response.raw.drain_conn()
            finally:
                response.raw.release_conn()
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            in_time = _calls.end()
            raise self._failure(error, in_time=in_time) from None
        except BaseException:
            _calls.end()
            raise
        _calls.end()
        redirected = reply.status in {301, 302, 303, 307, 308}
        return reply, response.headers.get("Location") if redirected else None

    def _read(self, url: str, response: requests.Response) -> Reply:
        raw = response.raw
        headers = {name.lower(): value for name, value in raw.headers.items()}
        limit = self._max_response_bytes
        data = raw.read(limit + 1, decode_content=False)
        if len(data) > limit:
            raw.close()
            raise _too_large(limit)
        body = decompress(data, headers.get("content-encoding", ""), limit)
        links = {}
        for relation, target in parse_links(raw.headers.getlist("link")).items():
            # One that leaves the origin is refused when it is followed.
            links[relation] = target
            with suppress(ForeignLinkError):
                links[relation] = resolve_link(url, target)
        return Reply(raw.status, headers, links, body)

    def _failure(self, error: Exception, *, in_time: bool) -> RequestError:
        """Classify; the libraries' own messages hold URLs, query and all."""
        host = urlsplit(self._endpoint.url).netloc
        chain: list[BaseException] = [error]
        while chain[-1] is not None and len(chain) < 12:
            last = chain[-1]
            cause = getattr(last, "reason", None)
            if not isinstance(cause, BaseException):
                nested = [argument for argument in last.args if isinstance(argument, BaseException)]
                cause = nested[-1] if nested else last.__cause__ or last.__context__
            if not isinstance(cause, BaseException) or cause in chain:
                break
            chain.append(cause)
        kinds = {type(link).__name__ for link in chain}
        if not in_time or kinds & {"ReadTimeout", "ConnectTimeout", "TimeoutError"}:
            return RetryableError(f"{host} did not answer within {self._timeout_s:g} s")
        if "SSLCertVerificationError" in kinds:
            detail = next(
                getattr(link, "verify_message", "")
                for link in chain[::-1]
                if hasattr(link, "verify_message")
            )
            return HumanNeededError(
                f"the TLS certificate of {host} is not trusted ({detail}). Set tls.ca_cert_path to "
                "the authority that signed it"
            )
        if "gaierror" in kinds:
            return RetryableError(f"the name of {host} cannot be resolved")
        if "IncompleteRead" in kinds or "ProtocolError" in kinds or "ChunkedEncodingError" in kinds:
            return RetryableError(f"the connection to {host} broke before the answer was complete")
        reasons = [link.strerror for link in chain if isinstance(link, OSError) and link.strerror]
        reason = reasons[-1] if reasons else type(error).__name__
        return RetryableError(f"no answer from {host} ({reason})")

    def redact(self, text: str) -> str:
        """Take the endpoint's secrets out of text that a server sent."""
        return self._concealer.redact(text)


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """Undo a Content-Encoding within a bound.

    What the bytes are counts, not what the header says: proxies decompress
    and leave the header, servers compress twice. JSON starts with none of
    gzip's bytes.

    Args:
        data: As received.
        encoding: Value of the header.
        limit: Bytes that the result may have.

    Raises:
        RetryableError: Larger than the bound, broken, or a form we cannot
            undo.
    """
    for _ in range(2):
        if data[:2] == b"\x1f\x8b":
            data = _inflate(data, 31, limit)
    named = encoding.lower()
    if "deflate" in named and data[:1] not in (b"{", b"[", b""):
        # RFC 9110 means zlib's wrapping; some servers send the bare stream.
        is_wrapped = (
            data[0] & 0x0F == 8 and (data[0] << 8 | data[1 if len(data) > 1 else 0]) % 31 == 0
        )
        data = _inflate(data, 15 if is_wrapped else -15, limit)
    unknown = set(re.split(r"[\s,]+", named)) - {"", "gzip", "x-gzip", "deflate", "identity"}
    if unknown and data.lstrip()[:1] not in (b"{", b"[", b""):
        message = (
            f"is compressed as {', '.join(sorted(unknown))}, though only gzip and deflate were "
            "offered"
        )
        raise RetryableError(message)
    return data


def _inflate(data: bytes, window_bits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data:
        stream = zlib.decompressobj(window_bits)
        try:
            part = stream.decompress(data, limit + 1 - size)
        except zlib.error:
            if parts:
                # Padding behind the last member.
                break
            message = "is compressed, but broken"
            raise RetryableError(message) from None
        size += len(part)
        parts.append(part)
        if size > limit:
            raise _too_large(limit)
        if not stream.eof:
            message = "is compressed, but cut short"
            raise RetryableError(message)
        data = stream.unused_data
    return b"".join(parts)


def _too_large(limit: int) -> RetryableError:
    return RetryableError(
        f"is larger than {limit} bytes. Ask for smaller pages with page_size, or raise "
        "max_response_bytes"
    )


def raise_for_poll(reply: Reply) -> None:
    """Raise what an answer to a poll means, unless it is a page.

    Raises:
        RetryableError: 408, 425, 429, 5xx, or 403 with no quota left.
        HumanNeededError: 401, 403, 404 and redirects.
        RefusedError: Other 4xx: this very request is refused.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    wait_s = reply.wait_s
    if status in {408, 425, 429} or status >= 500:
        raise RetryableError(f"answers {status}", status=status, retry_after_s=wait_s)
    if status == 403 and (is_quota_exhausted(reply.headers) or "retry-after" in reply.headers):
        raise RetryableError(
            "answers 403, its rate limit is used up", status=status, retry_after_s=wait_s
        )
    advice = {
        401: "Check the credentials",
        403: "Check what the credentials are allowed to read",
        404: "Check the endpoint, and that the account's plan has this API",
    }.get(status)
    if advice is not None or status < 400:
        advice = advice or "Set the endpoint to the address it redirects to"
        raise HumanNeededError(f"answers {status}. {advice}", status=status)
    raise RefusedError(
        f"answers {status}. Check the parameters against the vendor's documentation", status=status
    )


def raise_for_delivery(reply: Reply, excerpt: str) -> None:
    """Raise what an answer to a batch means, unless it is accepted.

    Args:
        reply: The destination's answer.
        excerpt: Start of its body, without secrets.

    Raises:
        RetryableError: 408, 425, 429 and 5xx.
        HumanNeededError: The credentials or the address are wrong, which says
            nothing about the events.
        RefusedError: The batch itself is refused, also 413.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    if status in {408, 425, 429} or status >= 500:
        raise RetryableError(f"answers {status}", status=status, retry_after_s=reply.wait_s)
    if status in {401, 403, 407}:
        raise HumanNeededError(
            f"answers {status}. Check the destination's credentials", status=status
        )
    if status < 400 or status in {404, 405, 410, 421, 426}:
        raise HumanNeededError(f"answers {status}. Check the destination's endpoint", status=status)
    raise RefusedError(f"answers {status}", status=status, response=excerpt)
