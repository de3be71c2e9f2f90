"""One exchange: heads as http.client reads them, connections used again, proxies."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from flicker.client import Client
from flicker.connections import FIRST_BYTES, SHORT_BYTES, Answer, Started
from flicker.demo.servers import Request, Response
from flicker.errors import RetryableError
from flicker.request import PageRequest
from flicker.settings import Endpoint, Secret, Tls
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 45.0
PAGE = b'[{"id":1}]'
LONG_PAGE = b'["' + b"x" * (3 * FIRST_BYTES) + b'"]'
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def connect(
    url: str,
    *,
    headers: dict[str, str] | None = None,
    tls: Tls | None = None,
    timeout_s: float = LIMIT_S,
) -> Client:
    own = tuple((name, Secret(value)) for name, value in (headers or {}).items())
    endpoint = Endpoint(url, headers=own, tls=tls or Tls(), timeout=timedelta(seconds=timeout_s))
    return Client(endpoint)


class Wire:
    """What an answer asks of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


@contextmanager
def sent(data: bytes) -> Iterator[socket.socket]:
    """Give a socket on which all of this arrives, and then the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


@contextmanager
def listening(*serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection after the other, each by a function of its own."""
    failed: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)

        def run() -> None:
            try:
                for each in serve:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(LIMIT_S)
                        each(connection)
            except BaseException as error:  # noqa: BLE001 - for the test to raise
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        assert failed == []


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65536)
        assert part, "no request came"
        head += part
    return head


# Heads


@pytest.mark.parametrize(
    "data",
    [
        HEAD % 2 + b"[]",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 Tr\xe8s bien\r\nX-A: \xe2\x82\xac\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Colons: a:b: c\r\ncOnTent-LENGTH:\t2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nSet: 1\r\nSet: 2\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n" + HEAD % 2 + b"[]",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n[]",
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n  folded: 2\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nX-A: 1\rX-B: 2\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno colon\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n[]",
        CHUNKED + b"1\r\n[\r\n1;x\r\n]\r\n0\r\nT: t\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 700 ?\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_reads_heads_as_http_client_does(data: bytes) -> None:
    with sent(data) as ours:
        known = HTTPResponse(ours)
        known.begin()
        body = known.read()
        headers = [(name.lower(), value.strip()) for name, value in known.msg.items()]
    with sent(data) as ours:
        answer = Answer(Wire(ours))
        assert answer.status == known.status
        assert [(name, value.strip()) for name, value in answer.headers] == headers
        assert answer.read(1000) == body
        assert answer.leaves_connection is not known.will_close


def test_lengths_that_differ_are_no_answer() -> None:
    """The first of them might make an empty page of it, which ends a scan."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n[]"
    with sent(data) as ours, pytest.raises(HTTPException):
        Answer(Wire(ours))


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "interim",
    [
        INTERIM,
        INTERIM * 100,
        b"HTTP/1.1 102 Processing\n\n",
        b"HTTP/1.1 199 Soon\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_interim_answers_are_passed_over(interim: bytes) -> None:
    with sent(interim + HEAD % 2 + b"[]") as ours:
        answer = Answer(Wire(ours))
        assert answer.status == 200
        assert answer.headers == [("content-length", "2")]
        assert answer.read(1000) == b"[]"
        assert answer.leaves_connection


def test_interim_answers_have_a_bound_and_an_end() -> None:
    for data in (INTERIM * 101 + HEAD % 2 + b"[]", INTERIM, INTERIM[:-2]):
        with sent(data) as ours, pytest.raises(HTTPException):
            Answer(Wire(ours))


def test_a_connection_that_leaves_http_is_not_used_again() -> None:
    with sent(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as ours:
        answer = Answer(Wire(ours))
        assert (answer.status, answer.read(1000)) == (101, b"")
        assert not answer.leaves_connection


def test_the_answer_behind_an_interim_one_is_not_the_next_requests() -> None:
    """A batch that was refused would count as delivered, and a page stand for another."""

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(INTERIM)
        connection.sendall(HEAD % 5 + b"first")
        read_head(connection)
        connection.sendall(HEAD % 6 + b"second")

    with listening(serve) as port:
        client = connect(f"http://127.0.0.1:{port}/")
        assert client.post(b"{}", {}).body == b"first"
        assert client.post(b"", {}).body == b"second"


@pytest.mark.parametrize("by_bytes", [False, True])
@pytest.mark.parametrize("body", [PAGE, LONG_PAGE])
def test_an_answer_comes_in_any_pieces(body: bytes, by_bytes: bool) -> None:
    data = HEAD % len(body) + body
    pieces = [data[at : at + 1] for at in range(80)] + [data[80:]] if by_bytes else [data]

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            read_head(connection)
            for piece in pieces:
                connection.sendall(piece)

    with listening(serve) as port:
        client = connect(f"http://127.0.0.1:{port}/")
        for _ in range(2):
            assert client.ask(PageRequest(f"http://127.0.0.1:{port}/")).body == body


# Connections that are used again


def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    """T32: no failure is made of a server's bound on idle connections."""
    closed = threading.Event()

    def first(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % len(PAGE) + PAGE)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    def second(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % 2 + b"[]")

    with listening(first, second) as port:
        url = f"http://127.0.0.1:{port}/"
        client = connect(url)
        assert client.ask(PageRequest(url)).body == PAGE
        assert closed.wait(LIMIT_S)
        assert client.ask(PageRequest(url)).body == b"[]"


def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    def first(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % len(PAGE) + PAGE + HEAD % 5 + b"wrong")
        with suppress(OSError):
            connection.recv(65536)

    def second(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % 2 + b"[]")

    with listening(first, second) as port:
        url = f"http://127.0.0.1:{port}/"
        client = connect(url)
        assert client.ask(PageRequest(url)).body == PAGE
        assert client.ask(PageRequest(url)).body == b"[]"


def test_a_connection_that_breaks_before_the_answer_is_worth_another_try() -> None:
    """T32: and it is not tried in secret, since a POST may have arrived."""

    def first(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % len(PAGE) + PAGE)
        read_head(connection)

    def second(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % 2 + b"[]")

    with listening(first, second) as port:
        url = f"http://127.0.0.1:{port}/"
        client = connect(url)
        client.ask(PageRequest(url))
        with pytest.raises(RetryableError, match="broke before the answer was complete"):
            client.ask(PageRequest(url))
        assert client.ask(PageRequest(url)).body == b"[]"


def test_a_refusal_counts_though_the_body_was_not_taken() -> None:
    """T62: collectors answer 413 and close, with most of the body on its way."""

    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(
            b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )

    with listening(refuse) as port:
        reply = connect(f"http://127.0.0.1:{port}/").post(bytes(30_000_000), {})
    assert reply.status == 413


def test_a_long_body_is_sent_to_its_end() -> None:
    body = bytes(range(256)) * 40_000
    with ScriptedApi([Response()]) as api:
        assert connect(api.url).post(body, {}).status == 200
        assert api.requests[0].body == body


@pytest.mark.parametrize(
    ("configured", "sent_host"), [({}, "127.0.0.1:{}"), ({"host": "api.example"}, "api.example")]
)
def test_says_once_which_host_is_meant(configured: dict[str, str], sent_host: str) -> None:
    with ScriptedApi([Response(body=PAGE)]) as api:
        connect(api.url, headers=configured).ask(PageRequest(api.url))
        lines = api.requests[0].header_lines
    hosts = [value for name, value in lines if name.lower() == "host"]
    assert hosts == [sent_host.format(api.port)]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb"])
def test_a_header_is_one_line(value: str) -> None:
    with ScriptedApi([Response(body=PAGE)]) as api:
        with pytest.raises(RetryableError) as caught:
            connect(api.url).post(PAGE, {"X-A": value})
        assert "Evil" not in str(caught.value)
        assert api.requests == []


# Requests that are sent and looked after now and then


def look(started: Started) -> bool:
    """Look until there is something."""
    deadline = time.monotonic() + LIMIT_S
    pause = threading.Event()
    while (found := started.look()) is None:
        assert time.monotonic() < deadline
        pause.wait(0.001)
    return found


@contextmanager
def gated(*answers: Response, tls: tuple[Path, Path] | None = None) -> Iterator[tuple[Any, Any]]:
    """Serve answers, all but the first only when they are let through."""
    gate = threading.Semaphore(1)
    left = iter(answers)

    def respond(_: Request) -> Response:
        assert gate.acquire(timeout=LIMIT_S)
        return next(left)

    with ScriptedApi(respond, tls=tls) as api:
        yield api, gate.release


@pytest.mark.parametrize("over_tls", [False, True])
def test_an_answer_that_is_there_is_read_without_waiting(
    over_tls: bool, pem: dict[str, Path]
) -> None:
    tls = (pem["server"], pem["server"]) if over_tls else None
    with gated(*[Response(body=PAGE)] * 3, tls=tls) as (api, let_through):
        client = connect(api.url, tls=Tls(ca_cert_path=pem["ca"]) if over_tls else None)
        request = PageRequest(f"{api.url}/logs?x=%2B|")
        assert client.start(request) is None
        assert client.ask(request).body == PAGE
        for _ in range(2):
            started = client.start(request)
            assert started is not None
            assert started.look() is None
            let_through()
            assert look(started)
            reply = client.ask(request, started)
            assert (reply.status, reply.body) == (200, PAGE)
        assert [each.target for each in api.requests] == ["/logs?x=%2B|"] * 3
        assert api.requests[2].headers == api.requests[0].headers


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (Response(body=b" " * (SHORT_BYTES + 1)), 200, b" " * (SHORT_BYTES + 1)),
        (Response(body=LONG_PAGE), 200, LONG_PAGE),
        (Response(body=PAGE, encoding="gzip"), 200, PAGE),
        (Response(body=PAGE, framing="chunked"), 200, PAGE),
        (Response(body=PAGE, framing="close"), 200, PAGE),
        (Response(body=PAGE, fault="drip", drip_interval_s=0.001), 200, PAGE),
        (Response(503, [("Retry-After", "7")], body="later"), 503, b"later"),
        (Response(302, [("Location", "/moved")]), 200, b"[]"),
    ],
)
def test_what_takes_time_is_left_to_a_thread(response: Response, status: int, body: bytes) -> None:
    """T32: a worker reads what is there as a whole, follows nothing and unpacks little."""
    with gated(Response(body=PAGE), response, Response(body=b"[]")) as (api, let_through):
        client = connect(api.url)
        request = PageRequest(api.url)
        client.ask(request)
        started = client.start(request)
        assert started is not None
        let_through()
        let_through()
        assert not look(started)
        reply = client.ask(request, started)
        assert (reply.status, reply.body) == (status, body)


def test_what_was_started_is_bounded_in_time() -> None:
    """T32: nobody waits on it, and the sweep breaks it off all the same."""
    with gated(Response(body=PAGE), Response(fault="silence")) as (api, let_through):
        client = connect(api.url, timeout_s=0.2)
        client.ask(PageRequest(api.url))
        let_through()
        started = client.start(PageRequest(api.url))
        assert started is not None
        assert not look(started)
        with pytest.raises(RetryableError, match="did not answer within"):
            client.ask(PageRequest(api.url), started)


def test_a_started_request_that_breaks_is_worth_another_try() -> None:
    with gated(Response(body=PAGE), Response(fault="reset_before_headers")) as (api, let_through):
        client = connect(api.url)
        client.ask(PageRequest(api.url))
        started = client.start(PageRequest(api.url))
        assert started is not None
        let_through()
        assert not look(started)
        with pytest.raises(RetryableError, match=r"broke|reset"):
            client.ask(PageRequest(api.url), started)


def test_a_started_request_may_be_dropped() -> None:
    """Its connection is not used again: the answer would be taken for another's."""

    def first(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % len(PAGE) + PAGE)
        read_head(connection)
        assert connection.recv(1) == b""

    def second(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(HEAD % 2 + b"[]")

    with listening(first, second) as port:
        url = f"http://127.0.0.1:{port}/"
        client = connect(url)
        client.ask(PageRequest(url))
        started = client.start(PageRequest(url))
        assert started is not None
        started.drop()
        assert client.ask(PageRequest(url)).body == b"[]"


# Proxies


@pytest.fixture(scope="module", name="pem")
def make_pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    paths = {name: directory / f"{name}.pem" for name in ("ca", "server")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(paths["server"]))
    return paths


def test_long_bodies_come_over_tls(pem: dict[str, Path]) -> None:
    with ScriptedApi([Response(body=LONG_PAGE)], tls=(pem["server"], pem["server"])) as api:
        client = connect(api.url, tls=Tls(ca_cert_path=pem["ca"]))
        for _ in range(2):
            assert client.ask(PageRequest(api.url)).body == LONG_PAGE
        assert client.post(LONG_PAGE, {}).status == 200
        assert api.requests[-1].body == LONG_PAGE


def relay(port: int, heads: list[bytes]) -> Callable[[socket.socket], None]:
    """Connect a proxy's client to a port, as CONNECT asks for."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)

    def serve(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, connection), daemon=True)
            back.start()
            pump(connection, upstream)
            back.join(LIMIT_S)

    return serve


def test_tls_goes_through_a_proxy(pem: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """T39: one tunnel serves many requests, and the proxy sees none of them."""
    heads: list[bytes] = []
    tls = (pem["server"], pem["server"])
    with (
        ScriptedApi([Response(body=PAGE)], tls=tls) as api,
        listening(relay(api.port, heads)) as port,
    ):
        monkeypatch.setenv("https_proxy", f"http://user:word@127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        client = connect(api.url, tls=Tls(ca_cert_path=pem["ca"]))
        for _ in range(2):
            assert client.ask(PageRequest(f"{api.url}/logs")).body == PAGE
        assert [request.target for request in api.requests] == ["/logs"] * 2
        assert api.requests[0].headers["host"] == f"127.0.0.1:{api.port}"
        assert "proxy-authorization" not in api.requests[0].headers
        del client
    (head,) = heads
    assert head.startswith(b"CONNECT 127.0.0.1:%d " % api.port)
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in head


def test_a_proxy_that_refuses_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with listening(refuse) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(RetryableError, match=r"no answer from api\.invalid"):
            connect("https://api.invalid/logs").ask(PageRequest("https://api.invalid/logs"))


def test_a_plain_request_is_the_proxys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedApi([Response(body=PAGE)]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:word@"))
        monkeypatch.setenv("no_proxy", "")
        client = connect("http://api.invalid:81/logs")
        assert client.ask(PageRequest("http://api.invalid:81/logs?x=%2B")).body == PAGE
        (request,) = proxy.requests
    assert request.target == "http://api.invalid:81/logs?x=%2B"
    assert request.headers["host"] == "api.invalid:81"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"
