"""One request, one answer or one classified failure; no loop and no sleep.

Sources and destinations talk HTTP through here. What this module sees to:
bounds on time and size, bodies decompressed within the bound, credentials
that never leave their origin, and messages without secrets.
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from http.client import HTTPException
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import requests
import urllib3

from flicker.auth.authenticator import SigningRequest
from flicker.auth.static import request_headers
from flicker.body import decompress, too_large
from flicker.conceal import Concealer, hide
from flicker.connections import Answer, Call, Connections, Started, calls
from flicker.errors import (
    ForeignLinkError,
    HumanNeededError,
    RefusedError,
    RequestError,
    RetryableError,
)
from flicker.pagination import parse_links, resolve_link
from flicker.proxies import get_environ_proxies
from flicker.ratelimit import is_quota_exhausted, is_throttled, wait_asked_for

if TYPE_CHECKING:
    from flicker.auth.authenticator import Authenticator
    from flicker.request import PageRequest
    from flicker.settings import Endpoint

MAX_REDIRECTS = 5
EXCERPT_CHARS = 500

ANSWER_BYTES = 64 * 1024
"""Read of a body that is not the point of its answer: a refusal's, a receipt's."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
REPEATING_REDIRECTS = frozenset({307, 308})
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PLAIN = re.compile(r"/[!-\"$-:<-~]*(?<!\?)")
"""Path and query that are sent as they are, with nothing in it that resolving a URL drops."""

# Its warnings name URLs, query and all; this module says the same without.
logging.getLogger("urllib3").setLevel(logging.ERROR)


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
        """Seconds that the server asks us to stay away, None if it does not.

        Some vendors put the quota's next reset, an hour away, on every answer.
        That is no reason to stay away from a server that stumbled.
        """
        about_quota = self.status in {403, 429} or is_quota_exhausted(self.headers)
        if not about_quota and "retry-after" not in self.headers:
            return None
        wait = wait_asked_for(self.headers, datetime.now(timezone.utc))
        return None if wait is None else wait.total_seconds()


class Client:
    """Sends requests to one endpoint.

    Args:
        endpoint: Where, as whom, and with which certificates and time limit.
        max_response_bytes: Bound on a body, compressed or not.
        connections: Connections kept open.
        authenticator: Adds to the configured headers of each request of `ask`.
        concealer: Knows what is asked with, where that is more than the endpoint.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        max_response_bytes: int = 1 << 20,
        connections: int = 1,
        authenticator: Authenticator | None = None,
        concealer: Concealer | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._authenticator = authenticator
        self._max_response_bytes = max_response_bytes
        self._timeout_s = endpoint.timeout.total_seconds()
        tls = endpoint.tls
        verify: bool | str = True
        if tls.accept_invalid_certs:
            verify = False
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        elif tls.ca_cert_path is not None:
            verify = str(tls.ca_cert_path)
        else:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            verify = bundle or True
        cert: str | tuple[str, str] | None = None
        if tls.cert_path is not None:
            cert = str(tls.cert_path)
            cert = cert if tls.key_path is None else (cert, str(tls.key_path))
        proxies = get_environ_proxies(endpoint.url)
        self._connections = Connections(
            endpoint.url, connections, verify=verify, cert=cert, proxies=proxies
        )
        self._headers = {
            "User-Agent": _user_agent(),
            "Accept": "application/json",
            # Not `br`: decoding it would take one more dependency.
            "Accept-Encoding": "gzip, deflate",
        }
        own = request_headers(endpoint)
        self._own_names = {name.lower() for name in own}
        replaced = {name.lower() for name in own}
        self._headers = {k: v for k, v in self._headers.items() if k.lower() not in replaced} | own
        self._concealer = concealer or Concealer(endpoint)
        parts = urlsplit(endpoint.url)
        self._origin = f"{parts.scheme}://{parts.netloc}"

    def start(self, request: PageRequest) -> Started | None:
        """Send a request, if that takes no waiting for a connection or a token.

        Returns:
            What `ask` then goes on with; None where nothing was sent.
        """
        if self._authenticator is not None or request.body is not None:
            return None
        call: Call | None = None
        started: Started | None = None
        # What fails here is told by `ask`.
        with suppress(ForeignLinkError, ValueError, RuntimeError):
            _, target = self._locate(request.url)
            headers = self._all_headers(self._unless_configured(request.headers))
            call = calls.begin(time.monotonic() + self._timeout_s)
            started = self._connections.start(target, headers, call)
        if call is not None and started is None:
            calls.end(call)
        return started

    def ask(self, request: PageRequest, started: Started | None = None) -> Reply:
        """Ask the endpoint's origin for a page, following redirects within it.

        Credentials that are refused are renewed once, where they can be, and
        the very same request is sent again.

        Args:
            request: What to send.
            started: What `start` gave for it.

        Raises:
            RetryableError: No answer, or none in time, or none to read; or no
                credentials now.
            ForeignLinkError: The way there leaves the endpoint's origin.
            HumanNeededError: TLS fails, or redirects go on and on; or there
                are no credentials.
        """
        url, target = self._locate(request.url)
        headers = self._unless_configured(request.headers)
        deadline = started.call.deadline if started else time.monotonic() + self._timeout_s
        redirects, is_renewed = 0, False
        while redirects <= MAX_REDIRECTS:
            started_at = time.monotonic()
            own = self._authenticate(request, url, target, headers)
            # The time that a token takes is not the API's.
            deadline += time.monotonic() - started_at
            reply = self._exchange(
                request.method,
                url,
                target,
                request.body,
                headers | own,
                deadline,
                started,
                is_page=True,
            )
            started = None
            if reply.status == 401 and not is_renewed and self._renew(own):
                is_renewed = True
                continue
            location = reply.headers.get("location")
            if location is None or reply.status not in REDIRECTS:
                return reply
            if request.body is not None and reply.status not in REPEATING_REDIRECTS:
                # The others may turn a POST into a GET, which asks for something else.
                return reply
            url = resolve_link(url, location)
            target = _request_target(url)
            redirects += 1
        message = f"redirects more than {MAX_REDIRECTS} times"
        raise HumanNeededError(message, status=reply.status)

    def post(self, body: bytes, headers: dict[str, str]) -> Reply:
        """Post to the endpoint; a redirect is an answer, it is not followed.

        Returns:
            The answer and the start of its body, which is empty where it
            could not be read: the status line alone acknowledges.

        Raises:
            RetryableError: No answer, or none in time.
            HumanNeededError: TLS fails.
        """
        deadline = time.monotonic() + self._timeout_s
        # What was configured wins: some collectors want a content type of their own.
        headers = self._unless_configured(headers)
        url = self._endpoint.url
        target = _request_target(url)
        return self._exchange("POST", url, target, body, headers, deadline, is_page=False)

    def _locate(self, url: str) -> tuple[str, str]:
        """Resolve a URL, and give what stands for it in a request line.

        Raises:
            ForeignLinkError: It leaves the endpoint's origin.
        """
        target = url[len(self._origin) :]
        if url.startswith(self._origin) and "@" not in self._origin and _PLAIN.fullmatch(target):
            # As nearly all are; what follows finds the same in twenty times the time.
            return url, target
        url = resolve_link(self._endpoint.url, url)
        return url, _request_target(url)

    def _authenticate(
        self, request: PageRequest, url: str, target: str, headers: dict[str, str]
    ) -> dict[str, str]:
        if self._authenticator is None:
            return {}
        # As it will stand in the request line: signatures are over that.
        parts = urlsplit(url)
        url = f"{parts.scheme}://{parts.netloc}{target}"
        return self._authenticator.headers(
            SigningRequest(request.method, url, self._headers | headers, request.body)
        )

    def _renew(self, refused: dict[str, str]) -> bool:
        return self._authenticator is not None and self._authenticator.renew(refused)

    def _unless_configured(self, headers: dict[str, str]) -> dict[str, str]:
        return {k: v for k, v in headers.items() if k.lower() not in self._own_names}

    def _all_headers(self, headers: dict[str, str]) -> dict[str, str]:
        if not headers:
            return self._headers
        names = {name.lower() for name in headers}
        return {k: v for k, v in self._headers.items() if k.lower() not in names} | headers

    def _exchange(
        self,
        method: str,
        url: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
        deadline: float,
        started: Started | None = None,
        *,
        is_page: bool,
    ) -> Reply:
        headers = self._all_headers(headers)
        if body is not None:
            headers = headers | {"Content-Length": str(len(body))}
        call = started.call if started else calls.begin(deadline)
        answer: Answer | None = None
        try:
            if started:
                answer = started.answer()
            else:
                answer = self._connections.send(method, target, headers, body, call)
            return self._read(url, answer, call, is_page=is_page)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            HTTPException,
            OSError,
            ValueError,
        ) as error:
            raise self._failure(error, in_time=not call.is_broken_off) from None
        finally:
            # First of all: the connection may serve another call from then on.
            calls.end(call)
            if answer is not None:
                self._connections.release(answer)

    def _read(self, url: str, answer: Answer, call: Call, *, is_page: bool) -> Reply:
        headers: dict[str, str] = {}
        links: list[str] = []
        for name, line in answer.headers:
            value = _as_utf8(line)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if name == "link":
                links.append(value)
        encoding = headers.get("content-encoding", "")
        if is_page and answer.is_head_cut:
            raise urllib3.exceptions.ProtocolError
        if is_page and 200 <= answer.status < 300:
            limit = self._max_response_bytes
            data = answer.read(limit)
            if len(data) > limit:
                raise too_large(limit)
            if call.is_broken_off:
                # A body that ends with its connection looks complete all the same.
                raise TimeoutError
            body = decompress(data, encoding, limit)
        else:
            # The status says what there is to know. A receipt that cannot be
            # read must not have its events sent again, nor a broken refusal
            # lose its Retry-After.
            body = b""
            with suppress(HTTPException, OSError, RetryableError):
                body = decompress(answer.read(ANSWER_BYTES), encoding, ANSWER_BYTES)
        targets = parse_links(links)
        for relation, target in targets.items():
            # One that leaves the origin is refused when it is followed.
            with suppress(ForeignLinkError):
                targets[relation] = resolve_link(url, target)
        return Reply(answer.status, headers, targets, body)

    def _failure(self, error: Exception, *, in_time: bool) -> RequestError:
        """Classify; the libraries' own messages hold URLs, query and all."""
        host = urlsplit(self._endpoint.url).netloc
        tls = self._endpoint.tls
        files = (tls.cert_path, tls.key_path, tls.ca_cert_path)
        is_missing = any(path is not None and not path.exists() for path in files)
        # As requests says it when a path leads nowhere, such as that of REQUESTS_CA_BUNDLE.
        if is_missing or (type(error) is OSError and error.strerror is None):
            message = "a file named in tls cannot be found. Check cert_path, key_path, ca_cert_path"
            return HumanNeededError(message)
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
        if not in_time or kinds & {"ReadTimeoutError", "ConnectTimeoutError", "TimeoutError"}:
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
        more = () if self._authenticator is None else self._authenticator.secrets()
        return hide(self._concealer.redact(text), more)


def _request_target(url: str) -> str:
    """Give path and query of a URL, with only that encoded which no request line bears."""
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    return quote(target, safe=_PRINTABLE)


def _as_utf8(value: str) -> str:
    """Read a header as UTF-8 where it is; http.client takes all for Latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def raise_for_poll(reply: Reply, *, is_entry: bool = False) -> None:
    """Raise what an answer to a poll means, unless it is a page.

    Args:
        reply: The API's answer.
        is_entry: Whether what was asked for is not the listing, but what one of
            its entries points at.

    Raises:
        RetryableError: 408, 425, 429, 5xx, or 400 or 403 for a rate limit.
        HumanNeededError: 401, 403, 404 and redirects.
        RefusedError: Other 4xx: this very request is refused.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    wait_s = reply.wait_s
    if status in {408, 425, 429} or status >= 500:
        raise RetryableError(f"answers {status}", status=status, retry_after_s=wait_s)
    if status in {400, 403} and is_throttled(reply.body):
        raise RetryableError(
            f"answers {status}, its rate limit is used up", status=429, retry_after_s=wait_s
        )
    if status == 403 and (is_quota_exhausted(reply.headers) or "retry-after" in reply.headers):
        raise RetryableError(
            "answers 403, its rate limit is used up", status=status, retry_after_s=wait_s
        )
    advice = {
        401: "Check the credentials",
        403: "Check what the credentials are allowed to read",
        404: "Check the endpoint, and that the account's plan has this API",
    }.get(status)
    if is_entry and status in {403, 404}:
        advice = (
            "The listing has this entry, and the API does not give what the entry points at: see"
            " how long the vendor keeps it, and what the credentials are allowed to read"
        )
    if advice is not None or status < 400:
        advice = advice or "Set the endpoint to the address it redirects to"
        raise HumanNeededError(f"answers {status}. {advice}", status=status)
    refused = "what an entry of the listing points at" if is_entry else "the parameters"
    raise RefusedError(
        f"answers {status}. Check {refused} against the vendor's documentation", status=status
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


@cache
def _user_agent() -> str:
    # Half a millisecond, and a thousand sources have a client each.
    return f"flicker/{version('flicker')}"
