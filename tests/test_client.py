"""One request: bounds, bodies, redirects, certificates, and what messages say."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
import tracemalloc
import zlib
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from flicker import connections
from flicker.body import decompress
from flicker.client import Client, Reply, _request_target, raise_for_delivery, raise_for_poll
from flicker.demo.servers import Request, Response
from flicker.errors import (
    ForeignLinkError,
    HumanNeededError,
    RefusedError,
    RequestError,
    RetryableError,
)
from flicker.pagination import resolve_link
from flicker.request import PageRequest
from flicker.settings import Basic, Credentials, Endpoint, Secret, Tls
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 1.0
LATEST_S = 5.0
"""Time limit, sweep and a busy machine; what each test would take otherwise is longer."""

SECRET = "s3cret-t0ken"
PAGE = b'[{"id":1}]'
LONG_PAGE = b"[" + b" " * 400 + b"]"


def connect(
    url: str,
    *,
    timeout_s: float = 10.0,
    limit: int = 1 << 20,
    tls: Tls | None = None,
    credentials: Credentials | None = None,
    headers: dict[str, str] | None = None,
) -> Client:
    endpoint = Endpoint(
        url,
        headers=tuple((name, Secret(value)) for name, value in (headers or {}).items()),
        credentials=credentials or Credentials(),
        tls=tls or Tls(),
        timeout=timedelta(seconds=timeout_s),
    )
    return Client(endpoint, max_response_bytes=limit)


@contextmanager
def dripping_listener(data: bytes, interval_s: float = 0.05) -> Iterator[int]:
    """Accept one connection and send it a byte now and then, whatever it says."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for index in range(len(data)):
                    if over.wait(interval_s):
                        return
                    try:
                        connection.sendall(data[index : index + 1])
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(10.0)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
def test_an_answer_cut_within_its_headers_is_no_empty_page(start: bytes) -> None:
    """T32 T36: an empty page would end the scan and move the watermark past what was not read."""
    with dripping_listener(start, interval_s=0.0) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(RetryableError, match="broke before the answer was complete"):
            connect(url, timeout_s=5.0).ask(PageRequest(url))


# Time


@pytest.mark.parametrize(
    "response",
    [
        Response(body=PAGE, fault="silence"),
        Response(body=PAGE, fault="silence_mid_body"),
        Response(body=LONG_PAGE, fault="drip"),
        Response(body=LONG_PAGE, fault="drip", framing="chunked"),
        Response(body=LONG_PAGE, fault="drip", framing="close"),
        Response(body=PAGE, fault="drip_headers"),
        Response(302, [("Location", "/again")], fault="drip_headers", drip_interval_s=0.005),
    ],
    ids=lambda response: f"{response.fault}-{response.framing}-{response.status}",
)
def test_breaks_off_at_the_time_limit(response: Response) -> None:
    """T32: slow-loris, of the body as of the headers, and a chain of redirects."""
    with ScriptedApi([response]) as api:
        started_at = time.monotonic()
        with pytest.raises(RetryableError, match=r"did not answer within 1 s"):
            connect(api.url, timeout_s=TIMEOUT_S).ask(PageRequest(api.url))
        assert TIMEOUT_S <= time.monotonic() - started_at < LATEST_S


def test_breaks_off_a_tls_handshake_at_the_time_limit() -> None:
    """T32: a handshake that trickles in would hold a thread for ever."""
    hello = b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc" + bytes(400)
    with dripping_listener(hello) as port:
        url = f"https://127.0.0.1:{port}/"
        started_at = time.monotonic()
        with pytest.raises(RetryableError, match="did not answer within"):
            connect(url, timeout_s=TIMEOUT_S).ask(PageRequest(url))
        assert time.monotonic() - started_at < LATEST_S


def test_an_answer_in_time_leaves_the_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    new_conn = connections.Watched._new_conn

    def count(self: connections.Watched) -> socket.socket:
        opened.append(1)
        return new_conn(self)

    monkeypatch.setattr(connections.Watched, "_new_conn", count)
    answers = [
        Response(body=PAGE),
        Response(body=PAGE, encoding="gzip", framing="chunked"),
        Response(503, body="<html>" + "x" * 10_000),
        Response(302, [("Location", "/")], body="moved"),
        Response(204),
        Response(body=PAGE),
    ]
    with ScriptedApi(answers) as api:
        client = connect(api.url)
        statuses = [client.ask(PageRequest(api.url)).status for _ in answers[:-1]]
    assert statuses == [200, 200, 503, 204, 200]
    assert len(opened) == 1


# Bodies


@pytest.mark.parametrize(
    "response",
    [
        Response(body=PAGE),
        Response(body=PAGE, framing="chunked"),
        Response(body=PAGE, framing="close"),
        Response(body=PAGE, encoding="gzip"),
        Response(body=PAGE, encoding="gzip", framing="chunked"),
        Response(body=PAGE, encoding="deflate"),
        Response(body=PAGE, encoding="raw-deflate"),
        Response(headers=[("Content-Encoding", "gzip")], body=PAGE),
        Response(headers=[("Content-Encoding", "deflate")], body=PAGE),
        Response(headers=[("Content-Encoding", "br")], body=PAGE),
        Response(body=gzip.compress(PAGE)),
        Response(body=gzip.compress(PAGE), encoding="gzip"),
        Response(headers=[("Content-Encoding", "deflate, gzip")], body=zlib.compress(PAGE)),
        Response(body=gzip.compress(PAGE[:4]) + gzip.compress(PAGE[4:]) + bytes(8)),
    ],
)
def test_decodes_what_the_bytes_are_whatever_the_header_says(response: Response) -> None:
    """T35: gzip, both kinds of deflate, and Content-Encoding that lies."""
    with ScriptedApi([response]) as api:
        assert connect(api.url).ask(PageRequest(api.url)).body == PAGE


@pytest.mark.parametrize("leading", [b"\n", b" \t"])
def test_white_space_before_json_is_no_deflate(leading: bytes) -> None:
    """T35: a Content-Encoding that lies."""
    assert decompress(leading + PAGE, "deflate", 100) == leading + PAGE


@pytest.mark.parametrize("limit_off", [0, 1])
@pytest.mark.parametrize(
    "response",
    [
        Response(body=LONG_PAGE),
        Response(body=LONG_PAGE, framing="chunked"),
        Response(body=LONG_PAGE, framing="close"),
        Response(body=LONG_PAGE, encoding="gzip"),
        Response(body=LONG_PAGE, encoding="deflate"),
        Response(body=LONG_PAGE, encoding="raw-deflate"),
    ],
    ids=lambda response: f"{response.encoding}-{response.framing}",
)
def test_bounds_the_size_of_a_body(response: Response, limit_off: int) -> None:
    """T35, T37: before and after decompression; exactly the bound still fits."""
    with ScriptedApi([response, Response(body=PAGE)]) as api:
        client = connect(api.url, limit=len(LONG_PAGE) - limit_off)
        if limit_off:
            with pytest.raises(RetryableError, match=r"larger than 401 bytes.*max_response_bytes"):
                client.ask(PageRequest(api.url))
        else:
            assert client.ask(PageRequest(api.url)).body == LONG_PAGE
        assert client.ask(PageRequest(api.url)).body == PAGE


@contextmanager
def flooding_listener(piece: bytes, count: int) -> Iterator[int]:
    """Accept one connection and answer with so many pieces, as far as they are taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)

        def flood() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                for _ in range(count):
                    connection.sendall(piece)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10.0)
        assert not thread.is_alive()


def test_a_huge_page_takes_no_more_memory_than_its_bound() -> None:
    """T37: 100 MB of a page that does not say how long it is."""
    with flooding_listener(b" " * (1 << 20), 100) as port:
        url = f"http://127.0.0.1:{port}/"
        tracemalloc.start()
        try:
            with pytest.raises(RetryableError, match="larger than 1048576 bytes"):
                connect(url).ask(PageRequest(url))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 10 << 20


def test_a_zip_bomb_stays_packed() -> None:
    """T35: 200 MB in 200 KB, and a million of empty pieces."""
    bomb = gzip.compress(bytes(1 << 20)) * 200
    with pytest.raises(RetryableError, match="larger than 65536 bytes"):
        decompress(bomb, "gzip", 65536)
    crumbs = gzip.compress(b"") * 1_000_000
    started_at = time.monotonic()
    with pytest.raises(RetryableError, match="pieces"):
        decompress(crumbs, "gzip", 65536)
    assert time.monotonic() - started_at < LATEST_S


def test_joins_the_pieces_of_a_blocked_gzip() -> None:
    """T35: bgzip and others write a member for each block."""
    plain = [bytes([number % 251]) * 70_000 for number in range(40)]
    packed = b"".join(map(gzip.compress, plain))
    assert decompress(packed, "gzip", 1 << 22) == b"".join(plain)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (Response(body=LONG_PAGE, fault="truncate"), "broke before the answer was complete"),
        (Response(body=LONG_PAGE, fault="bad_chunk"), "broke before the answer was complete"),
        (Response(body=LONG_PAGE, fault="reset_before_headers"), "broke|reset"),
        (Response(body=LONG_PAGE, fault="reset_mid_body"), "broke|reset"),
        (Response(headers=[("Content-Encoding", "br")], body=b"\x0b\x02\x80"), "compressed as br"),
        (Response(headers=[("Content-Encoding", "zstd")], body=b"\x28\xb5"), "compressed as zstd"),
        (Response(body=gzip.compress(LONG_PAGE)[:-9]), "compressed, but cut short"),
        (Response(body=b"\x1f\x8b garbage"), "compressed, but broken"),
        (Response(headers=[("Content-Encoding", "deflate")], body=b"\xff\xff"), "but broken"),
        (Response(headers=[("Content-Length", "many")], body=PAGE), None),
        (Response(headers=[("X-A", "1\r\nno colon")], body=PAGE, framing="close"), None),
        (Response(headers=[(f"X-{n}", "") for n in range(200)], body=PAGE), "no answer|broke"),
    ],
)
def test_a_broken_answer_is_asked_for_again_and_not_quoted(
    response: Response, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """T32, T35, T41, T67: retryable, without query string, header value or body."""
    caplog.set_level(logging.DEBUG)
    with ScriptedApi([response]) as api:
        url = f"{api.url}/logs?token={SECRET}"
        client = connect(url, headers={"X-Auth": SECRET})
        if said is None:
            client.ask(PageRequest(url))
        else:
            with pytest.raises(RetryableError, match=said) as caught:
                client.ask(PageRequest(url))
            assert SECRET not in str(caught.value)
            error = caught.value
            assert error.__cause__ is None
            assert error.__context__ is None or error.__suppress_context__
    assert SECRET not in caplog.text


def test_nobody_listening_is_worth_another_try() -> None:
    """T32, T67: the message says host and reason, no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/logs?token={SECRET}"
    with pytest.raises(RetryableError) as caught:
        connect(url).ask(PageRequest(url))
    assert str(caught.value) == f"no answer from 127.0.0.1:{port} (Connection refused)"


@pytest.mark.parametrize(
    "response",
    [
        Response(204),
        Response(200),
        Response(200, framing="chunked"),
        Response(200, framing="close"),
        Response(200, [("Content-Encoding", "gzip")]),
        Response(200, encoding="gzip"),
    ],
)
def test_an_empty_answer_is_an_empty_body(response: Response) -> None:
    """T36: 204, no length and length zero."""
    with ScriptedApi([response]) as api:
        reply = connect(api.url).ask(PageRequest(api.url))
    assert reply.body == b""
    raise_for_poll(reply)


@pytest.mark.parametrize(
    "response",
    [
        Response(429, [("Retry-After", "7")], body=LONG_PAGE, fault="truncate"),
        Response(429, [("Retry-After", "7")], body=LONG_PAGE, fault="bad_chunk"),
        Response(429, [("Retry-After", "7")], body=LONG_PAGE, fault="silence_mid_body"),
        Response(429, [("Retry-After", "7")], body=LONG_PAGE * 1000),
        Response(429, [("Retry-After", "7"), ("Content-Encoding", "br")], body=b"\x0b\x02\x80"),
    ],
)
def test_a_refusal_counts_even_if_its_body_breaks(response: Response) -> None:
    """T29, T35: the wait asked for must not be lost with the text."""
    with ScriptedApi([response]) as api:
        reply = connect(api.url, timeout_s=TIMEOUT_S, limit=100).ask(PageRequest(api.url))
    with pytest.raises(RetryableError, match="answers 429") as caught:
        raise_for_poll(reply)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "response",
    [
        Response(200, body=LONG_PAGE, fault="truncate"),
        Response(200, body=LONG_PAGE, fault="bad_chunk"),
        Response(200, body=LONG_PAGE, fault="silence_mid_body"),
        Response(200, body=LONG_PAGE, fault="drip"),
        Response(200, body=b"x" * 2_000_000),
        Response(202, [("Content-Encoding", "br")], body=b"\x0b\x02\x80"),
    ],
)
def test_a_receipt_counts_even_if_its_body_breaks(response: Response) -> None:
    """T62: else the same batch would be sent for ever, and be repeated each time."""
    with ScriptedApi([response]) as api:
        reply = connect(api.url, timeout_s=TIMEOUT_S).post(PAGE, {"X-Key": "1"})
        assert api.requests[0].body == PAGE
        assert api.requests[0].headers["x-key"] == "1"
    raise_for_delivery(reply, "")


# Origins


def test_follows_redirects_within_the_origin() -> None:
    """T34: relative and absolute, with our headers, the target verbatim."""
    with ScriptedApi([Response()]) as api:
        targets = ["b/c?x=%2B|", f"{api.url}/d", "//{}/e".format(api.url.partition("//")[2])]
        hops = iter(
            [
                Response(status, [("Location", targets[at])])
                for at, status in enumerate((301, 307, 308))
            ]
        )
        api.respond = lambda _: next(hops, Response(body=PAGE))
        url = f"{api.url}/a"
        reply = connect(url, credentials=Credentials(api_key=Secret(SECRET))).ask(PageRequest(url))
        assert reply.body == PAGE
        assert [request.target for request in api.requests] == ["/a", "/b/c?x=%2B|", "/d", "/e"]
        assert {request.headers["x-api-key"] for request in api.requests} == {SECRET}


@pytest.mark.parametrize("as_redirect", [True, False])
@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1:{other}/",
        "//127.0.0.1:{other}/",
        "http://localhost:{own}/",
        "https://127.0.0.1:{own}/",
        "http://user:pw@127.0.0.1:{own}/",
        "http://127.0.0.1:{own}@127.0.0.1:{other}/",
        "http://127.0.0.1:{other}\\@127.0.0.1:{own}/",
        "http://127.0.0.1:{own}\\.localhost:{other}/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "file:///etc/passwd",
    ],
)
def test_nothing_goes_off_the_origin(where: str, as_redirect: bool) -> None:
    """T24, T34: no header of ours, no request at all, arrives anywhere else."""
    with ScriptedApi([Response(body=PAGE)]) as other, ScriptedApi([Response()]) as api:
        target = where.format(other=other.port, own=api.port)
        api.respond = lambda _: Response(302, [("Location", target)])
        client = connect(
            f"{api.url}/logs",
            headers={"X-Auth": SECRET},
            credentials=Credentials(bearer=Secret(SECRET)),
        )
        with pytest.raises(ForeignLinkError, match="off the configured origin") as caught:
            client.ask(PageRequest(f"{api.url}/logs" if as_redirect else target))
        assert "pw" not in str(caught.value)
        assert len(api.requests) == int(as_redirect)
        assert other.requests == []


def test_gives_up_on_redirects_that_go_round() -> None:
    """T34: a loop ends, with a message for a human."""
    with ScriptedApi([Response(302, [("Location", "/login")])]) as api:
        with pytest.raises(HumanNeededError, match="redirects more than 5 times"):
            connect(api.url).ask(PageRequest(api.url))
        assert len(api.requests) == 6


def test_a_post_follows_no_redirect() -> None:
    """T34, T62: the destination's answer is for a human."""
    with ScriptedApi([Response(307, [("Location", "/elsewhere")])]) as api:
        reply = connect(api.url).post(PAGE, {})
        assert len(api.requests) == 1
    with pytest.raises(HumanNeededError, match="answers 307"):
        raise_for_delivery(reply, "")


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/logs?after=a%2Bb%3D%3D&x=%7c|", None),
        ("/logs?after=a+b==&q=%e2%82%AC", None),
        ('/logs?a[]=1&b={x}^`"<>\\', None),
        ("/l%6Fgs/../x?after=%", None),
        ("/logs;v=1?x=1&x=2&&=", None),
        ("//logs?x", None),
        ("/logs?x=a b#fragment", "/logs?x=a%20b"),
        ("/logs?x=\u20ac", "/logs?x=%E2%82%AC"),
        ("?page=2", "/?page=2"),
    ],
)
def test_sends_links_as_the_vendor_wrote_them(link: str, target: str | None) -> None:
    """T19: neither decoded nor encoded again, but for what no request line bears."""
    with ScriptedApi([Response(body=PAGE)]) as api:
        connect(api.url).ask(PageRequest(api.url + link))
        assert api.requests[0].target == (target or link)


@given(st.text("/?#;=&%.:@[]{}\\|\"<>^`~!$'()*+,-_ax0\u20ac \t", max_size=9))
def test_a_link_is_sent_as_it_would_be_if_it_were_resolved(rest: str) -> None:
    """T19: the short way and the long one."""
    base, link = "http://h.example:81/a/b?c=d", f"http://h.example:81/{rest}"
    try:
        resolved = resolve_link(base, link)
    except ForeignLinkError:
        resolved = ""
    client = connect(base)
    if resolved:
        assert client._locate(link) == (resolved, _request_target(resolved))


def test_reads_links_that_are_not_ascii() -> None:
    """T19: a Link header in UTF-8."""
    line = '</logs?after=\u20ac>; rel="next"'.encode().decode("latin-1")
    with ScriptedApi([Response(headers=[("Link", line)], body=PAGE)]) as api:
        client = connect(api.url)
        client.ask(PageRequest(client.ask(PageRequest(api.url)).links["next"]))
        assert api.requests[1].target == "/logs?after=%E2%82%AC"


def test_a_proxy_is_used_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """T32: behind a proxy too, the whole request is bounded."""
    with ScriptedApi([Response(body=LONG_PAGE), Response(body=LONG_PAGE, fault="drip")]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        client = connect("http://api.invalid/logs", timeout_s=TIMEOUT_S)
        assert client.ask(PageRequest("http://api.invalid/logs?x=%2B")).body == LONG_PAGE
        assert proxy.requests[0].target == "http://api.invalid/logs?x=%2B"
        started_at = time.monotonic()
        with pytest.raises(RetryableError, match="did not answer within"):
            client.ask(PageRequest("http://api.invalid/logs"))
        assert time.monotonic() - started_at < LATEST_S


# Credentials and certificates


@pytest.mark.parametrize(
    ("credentials", "name", "value"),
    [
        (Credentials(), "authorization", None),
        (Credentials(bearer=Secret("t")), "authorization", "Bearer t"),
        (Credentials(api_key=Secret("k")), "x-api-key", "k"),
        (Credentials(header=("X-Own", Secret("o"))), "x-own", "o"),
        (
            Credentials(basic=Basic(Secret("user"), Secret("p:\u00e4"))),
            "authorization",
            "Basic dXNlcjpwOsOk",
        ),
    ],
)
def test_sends_credentials_and_nobody_elses(
    credentials: Credentials,
    name: str,
    value: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T34: .netrc is not ours to read."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login n password n\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with ScriptedApi([Response(body=PAGE)]) as api:
        connect(api.url, credentials=credentials).ask(PageRequest(api.url))
        (request,) = api.requests
    assert request.headers.get(name) == value
    assert ("authorization" in request.headers) is (name == "authorization" and value is not None)
    assert request.headers["user-agent"].startswith("flicker/")


def test_headers_of_the_configuration_replace_ours() -> None:
    with ScriptedApi([Response(body=PAGE)]) as api:
        connect(api.url, headers={"accept": "application/vnd.x+json"}).ask(PageRequest(api.url))
        (request,) = api.requests
    assert request.headers["accept"] == "application/vnd.x+json"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    paths = {name: directory / f"{name}.pem" for name in ("ca", "other_ca", "server", "client")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    trustme.CA().cert_pem.write_to_path(str(paths["other_ca"]))
    for name, identity in (("server", "127.0.0.1"), ("client", "client@example.com")):
        certificate = authority.issue_cert(identity)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(paths[name]))
    key_only = directory / "client_key.pem"
    certificate.private_key_pem.write_to_path(str(key_only))
    return paths | {"client_key": key_only}


def test_trusts_the_certificates_it_was_told_to(pem: dict[str, Path]) -> None:
    """T39: an unknown authority is a matter for a human, who is told the key to set."""
    with ScriptedApi([Response(body=PAGE)], tls=(pem["server"], pem["server"])) as api:
        for tls in (Tls(), Tls(ca_cert_path=pem["other_ca"])):
            with pytest.raises(HumanNeededError, match=r"not trusted .*tls.ca_cert_path"):
                connect(api.url, tls=tls).ask(PageRequest(api.url))
        for tls in (Tls(ca_cert_path=pem["ca"]), Tls(accept_invalid_certs=True)):
            assert connect(api.url, tls=tls).ask(PageRequest(api.url)).body == PAGE
        assert len(api.requests) == 2
        wrong_name = f"https://localhost:{api.port}/"
        with pytest.raises(HumanNeededError, match="not trusted"):
            connect(wrong_name, tls=Tls(ca_cert_path=pem["ca"])).ask(PageRequest(wrong_name))


def test_shows_its_own_certificate(pem: dict[str, Path]) -> None:
    tls = (pem["server"], pem["server"])
    with ScriptedApi([Response(body=PAGE)], tls=tls, client_ca=pem["ca"]) as api:
        with pytest.raises(RequestError):
            connect(api.url, tls=Tls(ca_cert_path=pem["ca"])).ask(PageRequest(api.url))
        assert api.requests == []
        for own in (
            Tls(pem["client"], None, pem["ca"]),
            Tls(pem["client"], pem["client_key"], pem["ca"]),
        ):
            assert connect(api.url, tls=own).ask(PageRequest(api.url)).body == PAGE


def test_says_so_when_a_certificate_file_is_gone(pem: dict[str, Path]) -> None:
    with ScriptedApi([Response(body=PAGE)], tls=(pem["server"], pem["server"])) as api:
        for tls in (
            Tls(ca_cert_path=Path("gone.pem")),
            Tls(cert_path=Path("gone.pem"), ca_cert_path=pem["ca"]),
        ):
            with pytest.raises(HumanNeededError, match="Check cert_path, key_path, ca_cert_path"):
                connect(api.url, tls=tls).ask(PageRequest(api.url))


def test_bounds_the_time_of_tls_too(pem: dict[str, Path]) -> None:
    """T32: the sweep reaches a socket behind its encryption."""
    response = Response(body=LONG_PAGE, fault="drip")
    with ScriptedApi([response], tls=(pem["server"], pem["server"])) as api:
        client = connect(api.url, timeout_s=TIMEOUT_S, tls=Tls(ca_cert_path=pem["ca"]))
        started_at = time.monotonic()
        with pytest.raises(RetryableError, match="did not answer within"):
            client.ask(PageRequest(api.url))
        assert time.monotonic() - started_at < LATEST_S


# What statuses mean


SERVER_AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


def in_seconds(seconds: float) -> str:
    return str(int(SERVER_AT.timestamp() + seconds))


def dated(seconds: float) -> str:
    return format_datetime(SERVER_AT + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait_s"),
    [
        (200, {}, None, None),
        (204, {}, None, None),
        (429, {}, RetryableError, None),
        (429, {"retry-after": "2"}, RetryableError, 2),
        (429, {"retry-after": "1.5"}, RetryableError, 1.5),
        (429, {"retry-after": "0"}, RetryableError, 0),
        (429, {"retry-after": "-3"}, RetryableError, 0),
        (429, {"retry-after": "soon"}, RetryableError, None),
        (429, {"retry-after": "86400"}, RetryableError, 3600),
        (429, {"retry-after": dated(30)}, RetryableError, 30),
        (429, {"retry-after": dated(-530)}, RetryableError, 0),
        (429, {"x-rate-limit-reset": in_seconds(40)}, RetryableError, 40),
        (429, {"x-ratelimit-reset": in_seconds(-40)}, RetryableError, 1),
        (429, {"ratelimit-reset": "20", "ratelimit-remaining": "0"}, RetryableError, 20),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, RetryableError, 9),
        (403, {"retry-after": "5"}, RetryableError, 5),
        (403, {"x-ratelimit-remaining": "10", "x-ratelimit-reset": "9"}, HumanNeededError, None),
        (403, {}, HumanNeededError, None),
        (401, {}, HumanNeededError, None),
        (404, {}, HumanNeededError, None),
        (304, {}, HumanNeededError, None),
        (400, {}, RefusedError, None),
        (422, {}, RefusedError, None),
        (408, {}, RetryableError, None),
        (500, {}, RetryableError, None),
        (503, {"retry-after": "4"}, RetryableError, 4),
        (503, {"x-ratelimit-reset": in_seconds(3500)}, RetryableError, None),
        (502, {"x-rate-limit-reset": in_seconds(3500)}, RetryableError, None),
        (503, {"x-ratelimit-reset": "50", "x-ratelimit-remaining": "0"}, RetryableError, 50),
    ],
)
def test_tells_what_a_status_means_for_a_poll(
    status: int, headers: dict[str, str], error: type[RequestError] | None, wait_s: float | None
) -> None:
    """T29, T30, T31, T32: what to do next, and when; a reset far away holds up no 5xx."""
    # A server's clock is its own: years ahead of ours.
    reply = Reply(status, {"date": dated(0), **headers}, {}, b"")
    if error is None:
        raise_for_poll(reply)
        return
    with pytest.raises(error) as caught:
        raise_for_poll(reply)
    assert caught.value.status == status
    asked_s = getattr(caught.value, "retry_after_s", None)
    assert asked_s == wait_s


def test_a_reply_shows_neither_body_nor_links() -> None:
    """T67: its repr may end up in a log."""
    reply = Reply(200, {}, {"next": SECRET}, SECRET.encode())
    assert SECRET not in repr(reply)


def test_takes_secrets_out_of_what_a_server_says() -> None:
    """T67: servers quote the request in their refusals."""
    client = connect("http://127.0.0.1/", credentials=Credentials(bearer=Secret(SECRET)))
    assert client.redact(f"bad token {SECRET}!") == "bad token ***!"


def test_requests_run_side_by_side() -> None:
    """T32: a request that is broken off takes no other with it."""
    with ScriptedApi([Response(body=PAGE)]) as healthy, ScriptedApi([Response()]) as hanging:
        hanging.respond = silent
        failed: list[Exception] = []

        def hang() -> None:
            try:
                connect(hanging.url, timeout_s=TIMEOUT_S).ask(PageRequest(hanging.url))
            except RetryableError as error:
                failed.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        client = connect(healthy.url)
        deadline = time.monotonic() + LATEST_S
        answers = 0
        while thread.is_alive() and time.monotonic() < deadline:
            assert client.ask(PageRequest(healthy.url)).body == PAGE
            answers += 1
        thread.join(10.0)
        assert len(failed) == 1
        assert answers > 1


def silent(_: Request) -> Response:
    return Response(body=PAGE, fault="silence")
