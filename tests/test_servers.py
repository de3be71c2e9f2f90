"""The servers that every other test stands on."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import random
import socket
import threading
import time
import zlib
from collections import Counter
from dataclasses import replace
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
import trustme

from flicker.demo.events import make_event
from flicker.demo.servers import (
    BadBodyError,
    Destination,
    EmbeddedServer,
    OktaApi,
    Request,
    RequestRecord,
    Response,
    always,
    decode_records,
    in_turn,
    parse_instant,
)
from tests.servers.listing import ListingApi, Style
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NS = 1_000_000_000
NOON_NS = 1_735_732_800 * NS  # 2025-01-01T12:00:00Z
LIMIT_S = 10.0


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same events in every run


class Clock:
    """Nanoseconds that stand still unless told."""

    def __init__(self, now_ns: int = NOON_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=LIMIT_S)


def post(url: str, body: bytes, **headers: str) -> requests.Response:
    return requests.post(url, data=body, headers=headers, timeout=LIMIT_S)


def record(number: int, source: str = "s", event: bytes = b"{}") -> bytes:
    return b'{"source":"%s","id":"e%d","event":%s}' % (source.encode(), number, event)


def array(*records: bytes) -> bytes:
    return b"[" + b",".join(records) + b"]"


def listen(server: EmbeddedServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


# The recording base


def test_records_requests_exactly_as_sent() -> None:
    with ScriptedApi([Response(body=[])]) as api:
        with listen(api) as connection:
            connection.sendall(
                b"GET //a%2Fb/?x=1&x=%2B2&y=&z HTTP/1.1\r\nHost: h\r\nX-Case: One\r\n"
                b"x-case: two\r\nConnection: close\r\n\r\n"
            )
            read_all(connection)
        (request,) = api.requests
    assert request.method == "GET"
    assert request.target == "//a%2Fb/?x=1&x=%2B2&y=&z"
    assert request.path == "//a%2Fb/"
    assert request.query == [("x", "1"), ("x", "+2"), ("y", ""), ("z", "")]
    assert request.params == {"x": "+2", "y": "", "z": ""}
    assert ("X-Case", "One") in request.header_lines
    assert ("x-case", "two") in request.header_lines
    assert request.headers["x-case"] == "One, two"
    assert request.received_s <= time.monotonic()


def test_keeps_a_connection_alive_over_many_requests() -> None:
    with ScriptedApi([Response(body=[1])]) as api:
        connection = HTTPConnection("127.0.0.1", api.port, timeout=LIMIT_S)
        connection.connect()
        first = connection.sock
        for _ in range(5):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"[1]"
        assert connection.sock is first
        connection.close()
        assert len(api.requests) == 5


def test_reads_a_chunked_request_and_answers_100_continue() -> None:
    with Destination() as destination, listen(destination) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        body = array(record(1))
        connection.sendall(
            b"5;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\nT: t\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
        )
        assert b'{"accepted":1}' in read_all(connection)
        assert destination.requests[0].body == body


@pytest.mark.parametrize(
    "head",
    [b"GARBAGE\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"],
    ids=["request line", "length"],
)
def test_turns_malformed_requests_away_and_lives_on(head: bytes) -> None:
    with ScriptedApi([Response(body=[])]) as api:
        with listen(api) as connection:
            connection.sendall(head)
            assert b"400" in read_all(connection)
        assert get(api.url).status_code == 200
        assert len(api.requests) == 1


def test_does_not_record_a_request_whose_sender_died() -> None:
    with Destination() as destination:
        with listen(destination) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n[")
        post(destination.url, b"[]")
        assert [request.body for request in destination.requests] == [b"[]"]


def test_waits_for_requests_within_a_limit() -> None:
    with ScriptedApi([Response(body=[])]) as api:
        assert not api.wait_for_requests(1, 0.01)
        thread = threading.Thread(target=get, args=(api.url,))
        thread.start()
        assert api.wait_for_requests(1, LIMIT_S)
        thread.join(LIMIT_S)


def test_raises_what_a_hook_raised_at_the_end() -> None:
    def respond(_: Request) -> Response:
        message = "broken test"
        raise KeyError(message)

    api = ScriptedApi(respond)
    with pytest.raises(RuntimeError) as caught, api:
        assert get(api.url).status_code == 500
    assert isinstance(caught.value.__cause__, KeyError)


def test_raises_what_could_not_be_sent_at_the_end() -> None:
    api = ScriptedApi([Response(headers=[("X", "\u20ac")])])
    with pytest.raises(RuntimeError) as caught, api, pytest.raises(requests.ConnectionError):
        get(api.url)
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)


def test_stops_at_once_in_spite_of_idle_and_silent_connections() -> None:
    api = ScriptedApi([Response(fault="silence"), Response(delay_s=60)]).start()
    before = threading.active_count()
    with listen(api) as idle, listen(api) as silent, listen(api) as slow:
        for count, connection in enumerate((silent, slow), 1):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert api.wait_for_requests(count, LIMIT_S)
        started_s = time.monotonic()
        api.stop()
        api.stop()
        assert time.monotonic() - started_s < 1
        assert idle.recv(1) == silent.recv(1) == slow.recv(1) == b""
    assert threading.active_count() <= before
    with pytest.raises(ConnectionRefusedError):
        listen(api)


def test_is_born_again_on_the_same_port() -> None:
    with Destination() as destination:
        post(destination.url, b"[]")
    with Destination(port=destination.port) as again:
        assert again.url == destination.url
        assert post(again.url, b"[]").status_code == 200


def test_can_be_stopped_without_having_been_started() -> None:
    api = ScriptedApi([Response()])
    api.stop()
    with pytest.raises(ConnectionRefusedError):
        listen(api)


def test_counts_the_most_requests_in_flight() -> None:
    with Destination(responses=[Response(fault="silence")] * 3) as destination:
        threads = [
            threading.Thread(target=post, args=(destination.url, array(record(n))))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        assert destination.wait_for_silence(3, LIMIT_S)
        destination.release()
        for thread in threads:
            thread.join(LIMIT_S)
        post(destination.url, b"[]")
        assert destination.peak_in_flight == 3


def test_serves_many_clients_at_once_without_losing_count() -> None:
    with Destination() as destination:

        def send(client: int) -> None:
            with requests.Session() as session:
                for n in range(20):
                    body = array(record(client * 1000 + n, f"s{client}"))
                    assert session.post(destination.url, body, timeout=LIMIT_S).ok

        threads = [threading.Thread(target=send, args=(client,)) for client in range(20)]
        for thread in threads:
            thread.start()
        assert destination.wait_for(400, LIMIT_S)
        for thread in threads:
            thread.join(LIMIT_S)
        assert destination.delivered_count == destination.distinct_count == 400
        assert destination.request_count == len(destination.requests) == 400
        for client in range(20):
            expected = [f"e{client * 1000 + n}" for n in range(20)]
            assert destination.delivered_order(f"s{client}") == expected


# Scripted responses and faults


def test_serves_responses_in_order_and_repeats_the_last() -> None:
    with ScriptedApi([Response(503), Response(body=[1]), Response(body=[2])]) as api:
        answers = [get(api.url) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 200, 200, 200]
    assert [answer.content for answer in answers[1:]] == [b"[1]", b"[2]", b"[2]"]


def test_answers_by_a_callable_that_can_be_replaced() -> None:
    with ScriptedApi(lambda request: Response(body={"path": request.path})) as api:
        assert get(api.url + "/a").json() == {"path": "/a"}
        api.respond = always(418)
        assert get(api.url + "/a").status_code == 418


def test_sends_repeated_header_lines_and_odd_statuses_as_they_are() -> None:
    with ScriptedApi([Response(599, [("Link", "a"), ("link", "b")])]) as api:
        connection = HTTPConnection("127.0.0.1", api.port, timeout=LIMIT_S)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 599
        assert [pair for pair in answer.getheaders() if pair[0].lower() == "link"] == [
            ("Link", "a"),
            ("link", "b"),
        ]
        connection.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_encodes_and_frames_bodies_as_told(encoding: str, framing: str) -> None:
    response = Response(body=["x" * 1000], encoding=encoding, framing=framing)  # type: ignore[arg-type]
    with ScriptedApi([response]) as api:
        answer = get(api.url)
        assert answer.json() == ["x" * 1000]
        assert answer.headers["Content-Encoding"] == encoding.removeprefix("raw-")
        assert ("Content-Length" in answer.headers) == (framing == "length")
        assert get(api.url).json() == ["x" * 1000]


def test_raw_deflate_has_no_zlib_wrapping() -> None:
    assert zlib.decompress(Response(body=b"abc", encoding="raw-deflate").payload, -15) == b"abc"
    assert zlib.decompress(Response(body=b"abc", encoding="deflate").payload) == b"abc"


def test_sends_lies_and_strange_text_untouched() -> None:
    utf16 = "[1]".encode("utf-16")
    page = Response(headers=[("Content-Type", "text/html")], body="<html>é")
    lie = Response(headers=[("Content-Encoding", "gzip")], body=b"[]")
    with ScriptedApi([page, Response(body=utf16), lie]) as api:
        answer = get(api.url)
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.content == "<html>é".encode()
        assert get(api.url).content == utf16
        with pytest.raises(requests.exceptions.ContentDecodingError):
            get(api.url)


@pytest.mark.parametrize("status", [204, 304])
def test_sends_no_body_with_statuses_that_have_none(status: int) -> None:
    with ScriptedApi([Response(status, body=b"never"), Response(body=[])]) as api:
        with requests.Session() as session:
            answer = session.get(api.url, timeout=LIMIT_S)
            assert (answer.status_code, answer.content) == (status, b"")
            assert session.get(api.url, timeout=LIMIT_S).content == b"[]"
        assert requests.head(api.url, timeout=LIMIT_S).headers["Content-Length"] == "2"


def fetch(api: ScriptedApi) -> bytes:
    connection = HTTPConnection("127.0.0.1", api.port, timeout=LIMIT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_resets_before_the_headers() -> None:
    with ScriptedApi([Response(fault="reset_before_headers"), Response(body=[])]) as api:
        with pytest.raises(ConnectionResetError) as caught:
            fetch(api)
        assert not isinstance(caught.value, RemoteDisconnected)
        assert fetch(api) == b"[]"
        assert len(api.requests) == 2


def test_resets_in_the_middle_of_the_body() -> None:
    with ScriptedApi([Response(body=b"x" * 10, fault="reset_mid_body")]) as api:
        with listen(api) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            received: list[bytes] = []
            with pytest.raises(ConnectionResetError):
                received.extend(iter(lambda: connection.recv(100), b""))
        assert b"".join(received).endswith(b"\r\n\r\nxxxxx")


def test_announces_more_than_it_sends() -> None:
    with ScriptedApi([Response(body=b"[1,2]", fault="truncate")]) as api:
        with pytest.raises(IncompleteRead) as caught:
            fetch(api)
        assert caught.value.partial == b"[1,2]"


def test_breaks_a_chunked_body() -> None:
    with ScriptedApi([Response(body=b"[1,2]", fault="bad_chunk")]) as api:
        with pytest.raises(IncompleteRead):
            fetch(api)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            get(api.url)


@pytest.mark.parametrize("fault", ["silence", "silence_mid_body"])
def test_is_silent_until_released(fault: str) -> None:
    response = Response(body=[1, 2], fault=fault)  # type: ignore[arg-type]
    with ScriptedApi([response, response]) as api:
        with pytest.raises((requests.Timeout, requests.ConnectionError)):
            requests.get(api.url, timeout=0.05)
        bodies: list[bytes] = []
        thread = threading.Thread(target=lambda: bodies.append(fetch(api)))
        thread.start()
        # The server cannot tell that the first client is gone, so both are silent.
        assert api.wait_for_silence(2, LIMIT_S)
        assert bodies == []
        api.release()
        thread.join(LIMIT_S)
        assert bodies == [b"[1,2]"]


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_drips_one_byte_at_a_time(fault: str) -> None:
    response = Response(body=[1], fault=fault, drip_interval_s=0.001)  # type: ignore[arg-type]
    with ScriptedApi([response]) as api:
        assert fetch(api) == b"[1]"
    slow = Response(body=[1], fault=fault, drip_interval_s=60)  # type: ignore[arg-type]
    with ScriptedApi([slow]) as api, listen(api) as connection:
        connection.settimeout(0.05)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(TimeoutError):
            read_all(connection)


@pytest.mark.parametrize("fault", ["reset_mid_body", "silence_mid_body", "drip", "bad_chunk"])
def test_refuses_a_fault_that_could_not_happen(fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Response(fault=fault)  # type: ignore[arg-type]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "server", "client")}
    authority.cert_pem.write_to_path(paths["ca"])
    for name, identity in (("server", "127.0.0.1"), ("client", "client@example.com")):
        certificate = authority.issue_cert(identity)
        certificate.private_key_and_cert_chain_pem.write_to_path(paths[name])
    return paths


def test_speaks_tls_and_survives_those_who_do_not(pem: dict[str, str]) -> None:
    with ScriptedApi([Response(body=[1])], tls=(pem["server"], pem["server"])) as api:
        assert api.url.startswith("https://127.0.0.1:")
        with listen(api) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in read_all(connection)
        with pytest.raises(requests.exceptions.SSLError):
            get(api.url)
        assert requests.get(api.url, verify=pem["ca"], timeout=LIMIT_S).json() == [1]
        assert len(api.requests) == 1
        assert api.failed_handshakes == 2


def test_a_client_that_never_shakes_hands_stops_nobody(pem: dict[str, str]) -> None:
    with ScriptedApi([Response(body=[1])], tls=(pem["server"], pem["server"])) as api, listen(api):
        assert requests.get(api.url, verify=pem["ca"], timeout=LIMIT_S).json() == [1]


def test_lets_in_only_clients_with_a_certificate(pem: dict[str, str]) -> None:
    tls = (pem["server"], pem["server"])
    with Destination(tls=tls, client_ca=pem["ca"]) as destination:
        with pytest.raises(requests.ConnectionError):
            requests.post(destination.url, b"[]", verify=pem["ca"], timeout=LIMIT_S)
        answer = requests.post(
            destination.url, b"[]", verify=pem["ca"], cert=pem["client"], timeout=LIMIT_S
        )
        assert answer.status_code == 200
        assert destination.request_count == 1


def test_faults_happen_over_tls_too(pem: dict[str, str]) -> None:
    response = Response(body=b"x" * 100, fault="reset_mid_body")
    # A short read, not a reset: Python's TLS reports one as the end of the stream.
    expected = pytest.raises(requests.RequestException, match="50 bytes read, 50 more expected")
    with ScriptedApi([response], tls=(pem["server"], pem["server"])) as api, expected:
        requests.get(api.url, verify=pem["ca"], timeout=LIMIT_S)


# Events and Okta's API


def test_events_look_like_oktas_and_have_their_size() -> None:
    rng = dice(1)
    events = [make_event(n, NOON_NS + 7_999_999, rng) for n in range(2000)]
    sizes = [
        len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())
        for event in events
    ]
    assert 700 <= min(sizes) <= max(sizes) <= 900
    assert {event["published"] for event in events} == {"2025-01-01T12:00:00.007Z"}
    assert len({event["uuid"] for event in events}) == 2000
    assert len({event["eventType"] for event in events}) > 5
    assert make_event(7, NOON_NS, dice(2)) == make_event(7, NOON_NS, dice(2))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def okta(clock: Clock) -> Iterator[OktaApi]:
    with OktaApi(token="t0ken", rng=dice(3), clock=clock) as api:
        yield api


def ask(api: OktaApi, query: str = "", authorization: str = "SSWS t0ken") -> requests.Response:
    return get(f"{api.url}/api/v1/logs{query}", Authorization=authorization)


def follow(answer: requests.Response) -> requests.Response:
    return get(answer.links["next"]["url"], Authorization="SSWS t0ken")


def some_events(count: int, published_ns: int = NOON_NS) -> list[dict[str, object]]:
    rng = dice(count + published_ns)
    return [make_event(n, published_ns, rng) for n in range(count)]


def uuids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [event["uuid"] for event in answer.json()]


def test_okta_pages_through_a_root_array_by_links_that_never_end(okta: OktaApi) -> None:
    okta.add(some_events(5))
    answer = ask(okta, "?limit=2")
    assert answer.headers["Content-Type"] == "application/json"
    links = [value for name, value in answer.raw.headers.items() if name.lower() == "link"]
    assert len(links) == 2
    assert links[0].endswith('rel="self"')
    assert links[1].endswith('rel="next"')
    seen = uuids(answer)
    for size in (2, 1, 0, 0):
        query = parse_qs(urlsplit(answer.links["next"]["url"]).query)
        assert query.keys() == {"after", "limit"}
        assert query["limit"] == ["2"]
        answer = follow(answer)
        assert len(uuids(answer)) == size
        seen += uuids(answer)
    assert seen == okta.uuids
    okta.add(some_events(1, 0))
    assert uuids(follow(answer)) == okta.uuids[5:]


def test_okta_filters_inclusively_by_the_instant_of_persistence(
    okta: OktaApi, clock: Clock
) -> None:
    okta.add(some_events(2))
    clock.now_ns += NS
    late = some_events(1, NOON_NS - 3600 * NS)
    okta.add(late)
    assert uuids(ask(okta, "?since=2025-01-01T12:00:00Z")) == okta.uuids
    assert uuids(ask(okta, "?since=2025-01-01T13:00:01.000%2B01:00")) == [late[0]["uuid"]]
    assert uuids(ask(okta, "?since=2025-01-01T12:00:01.001Z")) == []
    clock.now_ns += 8 * 24 * 3600 * NS
    assert uuids(ask(okta)) == []


def test_okta_keeps_the_order_of_arrival_when_its_clock_is_set_back(
    okta: OktaApi, clock: Clock
) -> None:
    okta.add(some_events(1))
    clock.now_ns -= 60 * NS
    okta.add(some_events(2))
    assert uuids(ask(okta, "?since=2025-01-01T12:00:00Z")) == okta.uuids


def test_okta_defaults_to_100_and_cuts_at_1000(okta: OktaApi) -> None:
    okta.add(some_events(1005))
    assert len(uuids(ask(okta))) == 100
    assert len(uuids(ask(okta, "?limit=5000"))) == 1000


@pytest.mark.parametrize(
    "query",
    [
        "?since=yesterday",
        "?since=2025-01-01",
        "?since=2025-01-01T12:00:00+00:00",
        "?limit=x",
        "?limit=1&limit=1",
        "?after=garbled",
        "?after=" + "A" * 16,
        "?until=2025-01-01T12:00:00Z",
        "?sortOrder=DESCENDING",
    ],
)
def test_okta_refuses_what_it_does_not_understand(okta: OktaApi, query: str) -> None:
    answer = ask(okta, query)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "E0000001"


def test_okta_refuses_an_after_that_was_tampered_with(okta: OktaApi) -> None:
    query = parse_qs(urlsplit(ask(okta).links["next"]["url"]).query)
    token = base64.b64decode(query["after"][0])
    assert token.endswith(b"0")
    forged = base64.urlsafe_b64encode(token[:-1] + b"1")
    for after in (forged.decode(), base64.b64encode(token[:-1] + b"1").decode()):
        assert ask(okta, f"?{urlencode({'after': after})}").status_code == 400


def test_okta_refuses_since_beside_after(okta: OktaApi) -> None:
    minted = ask(okta).links["next"]["url"]
    answer = get(f"{minted}&since=2025-01-01T12:00:00Z", Authorization="SSWS t0ken")
    assert answer.status_code == 400
    assert "mutually exclusive" in answer.json()["errorSummary"]


@pytest.mark.parametrize("token", ["", "SSWS wrong", "Bearer t0ken", "t0ken"])
def test_okta_turns_wrong_tokens_away(okta: OktaApi, token: str) -> None:
    answer = ask(okta, authorization=token)
    assert answer.status_code == 401
    assert answer.json()["errorCode"] == "E0000011"
    assert answer.json()["errorCauses"] == []
    assert okta.unauthorised_count == 1
    assert get(okta.url + "/api/v1/users").status_code == 404
    assert post(okta.url + "/api/v1/logs", b"").status_code == 405


def test_okta_limits_every_nth_request(okta: OktaApi, clock: Clock) -> None:
    okta.every_nth_429 = 3
    answers = [ask(okta) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 200, 429]
    assert answers[2].json()["errorCode"] == "E0000047"
    assert answers[2].headers["X-Rate-Limit-Remaining"] == "0"
    assert int(answers[2].headers["X-Rate-Limit-Reset"]) == clock.now_ns // NS + 1
    assert answers[2].headers["Date"] == "Wed, 01 Jan 2025 12:00:00 GMT"
    assert answers[1].headers["X-Rate-Limit-Remaining"] == "1198"
    assert okta.limited_count == 2


def test_okta_counts_the_distinct_events_it_served(okta: OktaApi) -> None:
    okta.add(some_events(5))
    for _ in range(2):
        ask(okta, "?limit=3")
    assert okta.served_count == 3
    assert okta.served == set(okta.uuids[:3])


def test_okta_links_to_the_name_the_client_called(okta: OktaApi) -> None:
    answer = get(f"http://localhost:{okta.port}/api/v1/logs", Authorization="SSWS t0ken")
    assert answer.links["next"]["url"].startswith(f"http://localhost:{okta.port}/")


def test_okta_loses_nothing_while_events_arrive(okta: OktaApi) -> None:
    events = some_events(500)

    def fill() -> None:
        for event in events:
            okta.add([event])

    thread = threading.Thread(target=fill)
    thread.start()
    seen: list[str] = []
    answer = ask(okta, "?limit=7")
    deadline_s = time.monotonic() + LIMIT_S
    while len(seen) < 500 and time.monotonic() < deadline_s:
        seen += uuids(answer)
        answer = follow(answer)
    thread.join(LIMIT_S)
    assert seen == [event["uuid"] for event in events]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01T12:00:00Z", NOON_NS),
        ("2025-01-01T12:00:00.000000001Z", NOON_NS + 1),
        ("2025-01-01T11:00:00.5-01:00", NOON_NS + NS // 2),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * NS),
    ],
)
def test_reads_instants_exactly(text: str, expected: int) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "2025-01-01", "2025-13-01T00:00:00Z", "2025-01-01T12:00:00", "2025-01-01 12:00:00Z"],
)
def test_reads_nothing_but_instants(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|month"):
        parse_instant(text)


# The destination


def test_destination_takes_arrays_and_lines_plain_and_gzipped() -> None:
    with Destination() as destination:
        assert post(destination.url, array(record(1), record(2, "t"))).json() == {"accepted": 2}
        body = record(3) + b"\n" + record(4) + b"\n"
        zipped = gzip.compress(body)
        assert post(f"{destination.url}/any/path", zipped, **{"Content-Encoding": "gzip"}).ok
        assert post(destination.url, b"").json() == {"accepted": 0}
        assert destination.ids == Counter(["e1", "e2", "e3", "e4"])
        assert destination.delivered_order("s") == ["e1", "e3", "e4"]
        assert destination.delivered_order("nobody") == []
        last = destination.posts[1]
        assert (last.path, last.body, last.content) == ("/any/path", zipped, body)
        assert [item.id for item in last.records] == ["e3", "e4"]


EXACT = [
    b'{"n": 123456789012345678901234567890,\t"e":1.0e5 , "k":[ ]}',
    b'{"text":"\\u00e9\\ud83d\\ude00\\ud800 \\/","t":"\xc3\xa9\xe2\x80\xa8"}',
    b'{"lone":"\\udc00"}',
    b'"}],{"',
    b"null",
    b"[[],{}]",
]


@pytest.mark.parametrize("separator", [b",", b" ,\r\n\t", b"\n"])
def test_destination_keeps_the_exact_bytes_of_events(separator: bytes) -> None:
    records = [
        b'{"source":"s","id":"%d","timestamp":null,"message":"m\\ud800","event": %s }' % pair
        for pair in enumerate(EXACT)
    ]
    joined = separator.join(records)
    body = joined if separator == b"\n" else b" [ %s ] " % joined
    with Destination() as destination:
        assert post(destination.url, body).ok
        assert destination.raw_events == EXACT
        assert destination.events == [json.loads(event) for event in EXACT]
        assert {item.message for item in destination.delivered} == {"m\ud800"}
        assert {item.timestamp for item in destination.delivered} == {None}


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"{}",
        b"null",
        b"[1]",
        array(record(1)) + b"x",
        array(record(1, event=b"NaN")),
        array(record(1, event=b'{"x":NaN,"y":"\\ud800"}')),
        array(record(1, event=b'"\xff"')),
        array(record(1, event=b'"\\ud800"')) + b"]",
        array(b'{"source":"s","id":1,"event":"\\ud800"}'),
        array(b'{"source":"s","event":"\\ud800"}'),
        array(b'{"source":"s","id":"1"}'),
        b"1 \\ud800",
        b"\xef\xbb\xbf[]",
        "[]".encode("utf-16"),
        b"[" * 100_000,
    ],
)
def test_destination_refuses_bodies_that_are_not_the_wire_format(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        decode_records(body)
    with Destination() as destination:
        assert post(destination.url, body).status_code == 400
        assert destination.delivered_count == 0
        assert len(destination.problems) == 1


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_destination_refuses_bodies_it_cannot_unpack(encoding: str) -> None:
    with Destination() as destination:
        answer = post(destination.url, b"[]", **{"Content-Encoding": encoding})
        assert answer.status_code == 400
        zipped = gzip.compress(b"[]")[:-3]
        assert post(destination.url, zipped, **{"Content-Encoding": "gzip"}).status_code == 400


def test_destination_checks_the_bearer_token_and_the_method() -> None:
    with Destination(token="t") as destination:
        body = array(record(1))
        assert post(destination.url, body).status_code == 401
        assert post(destination.url, body, Authorization="Bearer x").status_code == 401
        assert destination.delivered_count == 0
        assert destination.unauthorised_count == 2
        assert post(destination.url, body, Authorization="Bearer t").ok
        assert get(destination.url).status_code == 405
        assert destination.distinct_count == 1


def test_destination_counts_repeats() -> None:
    with Destination() as destination:
        for numbers in ((1, 2), (2, 3), (2,)):
            post(destination.url, array(*map(record, numbers)))
        assert destination.duplicates == {"e2": 2}
        assert (destination.delivered_count, destination.distinct_count) == (5, 3)


def test_destination_follows_a_script_then_answers_as_usual() -> None:
    script = [Response(503), None, Response(202)]
    with Destination(responses=script) as destination:
        statuses = [post(destination.url, array(record(n))).status_code for n in range(4)]
        assert statuses == [503, 200, 202, 200]
        assert destination.delivered_order("s") == ["e1", "e2", "e3"]


def test_destination_obeys_a_hook_set_while_it_runs() -> None:
    def refuse_poison(request: RequestRecord) -> Response | None:
        is_poisoned = any(b"poison" in item.raw_event for item in request.records)
        return Response(400) if is_poisoned else None

    with Destination() as destination:
        destination.respond = always(503)
        assert post(destination.url, array(record(1))).status_code == 503
        destination.respond = refuse_poison
        assert post(destination.url, array(record(2, event=b'"poison"'))).status_code == 400
        assert post(destination.url, array(record(3))).status_code == 200
        destination.respond = None
        assert post(destination.url, array(record(2, event=b'"poison"'))).status_code == 200
        assert destination.delivered_order("s") == ["e3", "e2"]


@pytest.mark.parametrize(("status", "taken"), [(200, ["e1"]), (503, [])])
def test_destination_can_take_a_post_and_break_the_connection(
    status: int, taken: list[str]
) -> None:
    with Destination() as destination:
        destination.respond = always(Response(status, fault="reset_before_headers"))
        with pytest.raises(requests.ConnectionError):
            post(destination.url, array(record(1)))
        assert destination.delivered_order("s") == taken
        assert len(destination.requests) == 1


def test_destination_waits_for_counts_and_conditions() -> None:
    with Destination(delay_s=0.001) as destination:
        assert not destination.wait_for(1, 0.01)

        def send() -> None:
            for n in (1, 1, 2):
                post(destination.url, array(record(n)))

        thread = threading.Thread(target=send)
        thread.start()
        assert destination.wait_for(2, LIMIT_S)
        assert destination.wait_for(lambda: destination.delivered_count == 3, LIMIT_S)
        thread.join(LIMIT_S)


def test_destination_can_count_without_keeping() -> None:
    with Destination(keep=False) as destination:
        post(destination.url, array(record(1)))
        post(destination.url, array(record(1)))
        assert destination.duplicates == {"e1": 1}
        assert destination.request_count == 2
        assert destination.requests == []
        assert destination.delivered == []


def test_destination_takes_up_the_count_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "delivered.jsonl"
    events = [b'{\n "a":\r\n 1}', b'"\\ud800"']
    with Destination(persist=path) as destination:
        post(destination.url, array(record(1, event=events[0]), record(2, "t", events[1])))
        destination.respond = always(503)
        post(destination.url, array(record(3)))
    with path.open("ab") as file:
        file.write(b'{"source":"torn')
    with Destination(persist=path) as destination:
        assert destination.ids == Counter(["e1", "e2"])
        assert destination.delivered_order("t") == ["e2"]
        assert destination.events == [{"a": 1}, "\ud800"]
        post(destination.url, array(record(2, "t")))
        assert destination.duplicates == {"e2": 1}
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["e1", "e2", "e2"]


def test_hooks_in_turn_are_safe_among_threads() -> None:
    hook = in_turn([Response(200 + n) for n in range(100)], last=Response(500))
    request = Request("GET", "/", (), b"", 0.0)
    statuses: list[int] = []

    def take() -> None:
        for _ in range(30):
            response = hook(request)
            assert response is not None
            statuses.append(response.status)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert Counter(statuses) == Counter([*range(200, 300), *[500] * 20])


# The listing API


def listed(count: int, step_s: int = 1) -> list[dict[str, object]]:
    return [
        {"id": n, "timestamp": f"2025-01-01T12:{n * step_s // 60:02}:{n * step_s % 60:02}Z"}
        for n in range(count)
    ]


def page_ids(answer: requests.Response, path: str = "events") -> list[int]:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for name in path.split(".") if path else ():
        found = found[name]
    return [event["id"] for event in found]


def read_by_cursor(api: ListingApi, page_size: int, **filters: str) -> list[int]:
    found: list[int] = []
    params = dict(filters)
    for _ in range(100):
        params["limit"] = str(page_size)
        answer = requests.get(api.endpoint, params, timeout=LIMIT_S)
        found += page_ids(answer)
        cursor = answer.json()["pagination"]["next_cursor"]
        if cursor is None:
            return found
        params = {"cursor": cursor}
    pytest.fail("the cursors did not end")


def test_listing_pages_by_offset() -> None:
    with ListingApi(listed(5), Style(paging="offset")) as api:
        url = api.endpoint
        assert page_ids(get(f"{url}?limit=2&offset=0")) == [0, 1]
        assert page_ids(get(f"{url}?limit=2&offset=4")) == [4]
        assert page_ids(get(f"{url}?limit=2&offset=6")) == []
        assert page_ids(get(url)) == [0, 1, 2, 3, 4]
        api.add([{"id": 5, "timestamp": "2025-01-01T12:00:05Z"}])
        assert page_ids(get(f"{url}?offset=5")) == [5]
        assert api.requests[0].params == {"limit": "2", "offset": "0"}


@pytest.mark.parametrize("first_page", [0, 1])
def test_listing_pages_by_number(first_page: int) -> None:
    style = Style(
        paging="page",
        results_field="data.logs",
        limit_param="per_page",
        page_param="p",
        first_page=first_page,
    )
    with ListingApi(listed(5), style) as api:
        pages = [
            page_ids(get(f"{api.endpoint}?per_page=2&p={first_page + n}"), "data.logs")
            for n in range(4)
        ]
        assert pages == [[0, 1], [2, 3], [4], []]
        assert get(f"{api.endpoint}?p={first_page - 1}").status_code in {400, 404}


def test_listing_lists_newest_first_by_instant() -> None:
    events: list[dict[str, object]] = [
        {"id": 1, "timestamp": "2025-01-01T12:00:00.5Z"},
        {"id": 2, "timestamp": "2025-01-01T14:00:01+02:00"},
        {"id": 3, "timestamp": "2025-01-01T12:00:00Z"},
        {"id": 4},
    ]
    style = Style(paging="offset", order="desc", results_field="", time_param="since")
    with ListingApi(events, style) as api:
        assert page_ids(get(api.endpoint), "") == [2, 1, 3, 4]
        assert page_ids(get(f"{api.endpoint}?limit=2&offset=1"), "") == [1, 3]
        since = "since=2025-01-01T12:00:00.5Z"
        assert page_ids(get(f"{api.endpoint}?{since}"), "") == [2, 1]
        assert page_ids(get(f"{api.endpoint}?{since}&offset=1"), "") == [1]
        assert page_ids(get(f"{api.endpoint}?{since}&offset=2"), "") == []


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("rfc3339", ["2025-01-01T12:00:03Z", "2025-01-01T13:00:03.000%2B01:00"], ["1735732803"]),
        (
            "iso8601",
            ["2025-01-01T12:00:03.000Z"],
            ["2025-01-01T12:00:03Z", "2025-01-01T13:00:03.000%2B01:00", "nonsense"],
        ),
        ("unix", ["1735732803"], ["1735732803.5", "2025-01-01T12:00:03Z", ""]),
    ],
)
def test_listing_filters_by_an_inclusive_bound_in_its_format_only(
    form: str, good: list[str], bad: list[str]
) -> None:
    style = Style(paging="offset", time_param="after", time_format=form)  # type: ignore[arg-type]
    with ListingApi(listed(5), style) as api:
        for text in good:
            assert page_ids(get(f"{api.endpoint}?after={text}")) == [3, 4]
        for text in bad:
            assert get(f"{api.endpoint}?after={text}").status_code == 400


def test_listing_reads_epoch_numbers() -> None:
    events: list[dict[str, object]] = [
        {"id": 1, "at": {"t": 1735732800}},
        {"id": 2, "at": {"t": 1735732801000}},
    ]
    style = Style(paging="offset", timestamp_field="at.t", time_param="since", time_format="unix")
    with ListingApi(events, style) as api:
        assert page_ids(get(f"{api.endpoint}?since=1735732801")) == [2]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_listing_pages_by_cursors_that_do_not_shift(order: str) -> None:
    style = Style(paging="cursor", order=order, time_param="since")  # type: ignore[arg-type]
    added: list[dict[str, object]] = [
        {"id": 100, "timestamp": "2025-01-01T11:59:00Z"},
        {"id": 101, "timestamp": "2025-01-01T12:30:00Z"},
    ]

    def add_once(request: Request) -> None:
        if "cursor" in request.params and added:
            api.add([added.pop()])

    with ListingApi(listed(9), style, before_reply=add_once) as api:
        found = read_by_cursor(api, 2, since="2025-01-01T12:00:02Z")
    expected = [2, 3, 4, 5, 6, 7, 8]
    assert found == ([*expected, 101] if order == "asc" else expected[::-1])


def test_listing_ends_with_a_null_cursor_and_refuses_garbled_ones() -> None:
    with ListingApi(listed(4), Style(paging="cursor")) as api:
        answer = get(f"{api.endpoint}?limit=4")
        assert answer.json()["pagination"] == {"next_cursor": None}
        assert read_by_cursor(api, 2) == [0, 1, 2, 3]
        assert get(f"{api.endpoint}?cursor=garbled").status_code == 400
        assert get(f"{api.endpoint}?cursor=W10=").status_code == 400
    with ListingApi([], Style(paging="cursor")) as api:
        assert read_by_cursor(api, 2) == []


def test_listing_hands_out_cursors_for_ever_when_told() -> None:
    style = Style(paging="cursor", never_ends=True, time_param="since")
    with ListingApi([], style) as api:
        url = f"{api.endpoint}?since=2025-01-01T12:00:01Z"
        for expected in ([], [], [1, 2], []):
            answer = get(url)
            assert page_ids(answer) == expected
            cursor = answer.json()["pagination"]["next_cursor"]
            url = f"{api.endpoint}?{urlencode({'cursor': cursor})}"
            if len(api.requests) == 2:
                api.add(listed(3))


def test_listing_pages_by_links_that_carry_the_other_parameters() -> None:
    style = Style(paging="link", results_field="", time_param="since", time_format="unix")
    with ListingApi(listed(5), style) as api:
        answer = get(f"{api.endpoint}?limit=2&since=1735732801&tag=a%20b")
        found = page_ids(answer, "")
        assert answer.links["self"]["url"].startswith(api.endpoint)
        while "next" in answer.links:
            answer = get(answer.links["next"]["url"])
            assert api.requests[-1].params.items() >= {"limit": "2", "tag": "a b"}.items()
            found += page_ids(answer, "")
        assert found == [1, 2, 3, 4]


@pytest.mark.parametrize("paging", ["page", "offset", "cursor", "link"])
def test_listing_can_ignore_paging(paging: str) -> None:
    style = Style(paging=paging, ignores_paging=True)  # type: ignore[arg-type]
    with ListingApi(listed(5), style) as api:
        url: str = f"{api.endpoint}?limit=2"
        for n in range(1, 4):
            answer = get(url)
            assert page_ids(answer) == [0, 1]
            url = f"{api.endpoint}?limit=2&page={n}&offset={2 * n}"
            if paging == "cursor":
                cursor = answer.json()["pagination"]["next_cursor"]
                url = f"{api.endpoint}?limit=2&cursor={cursor}"
            elif paging == "link":
                url = answer.links["next"]["url"]


def test_listing_caps_page_sizes_silently() -> None:
    with ListingApi(listed(9), Style(paging="page", max_limit=4, default_limit=3)) as api:
        assert page_ids(get(f"{api.endpoint}?limit=100&page=2")) == [4, 5, 6, 7]
        assert page_ids(get(api.endpoint)) == [0, 1, 2]


def test_listing_answers_404_beyond_the_last_page_when_told() -> None:
    with ListingApi([], Style(paging="page", beyond="404")) as api:
        assert page_ids(get(f"{api.endpoint}?page=1&limit=2")) == []
        assert get(f"{api.endpoint}?page=2&limit=2").status_code == 404
        api.add(listed(4))
        assert page_ids(get(f"{api.endpoint}?page=2&limit=2")) == [2, 3]
        answer = get(f"{api.endpoint}?page=3&limit=2")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Invalid page."})


def test_listing_serves_the_bytes_it_was_given() -> None:
    raw = b'{"id": 1.0,\t"timestamp":"2025-01-01T12:00:00Z", "n":123456789012345678901234567890}'
    for style in (Style(paging="offset", results_field="a.b"), Style(paging="cursor")):
        with ListingApi([raw], style) as api:
            assert raw in get(api.endpoint).content
            assert api.raw_events == [raw]


def test_listing_turns_strangers_and_nonsense_away() -> None:
    style = Style(paging="offset", required_headers={"x-api-key": "k"})
    with ListingApi([], style) as api:
        headers = {"X-API-Key": "k"}
        assert get(api.endpoint).status_code == 401
        assert get(api.endpoint, **headers).status_code == 200
        assert get(f"{api.url}/other", **headers).status_code == 404
        assert requests.post(api.endpoint, headers=headers, timeout=LIMIT_S).status_code == 405
        for query in ("limit=x", "offset=-1", "limit=1&limit=1"):
            assert get(f"{api.endpoint}?{query}", **headers).status_code == 400


def test_listing_lets_a_hook_answer_first() -> None:
    with ListingApi(listed(1), Style(paging="offset"), before_reply=always(503)) as api:
        assert get(api.endpoint).status_code == 503
        api.before_reply = in_turn([Response(429), None])
        assert get(api.endpoint).status_code == 429
        assert page_ids(get(api.endpoint)) == [0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"never_ends": True, "paging": "page"}, "never_ends"),
        ({"never_ends": True, "order": "desc"}, "never_ends"),
        ({"results_field": ""}, "root array"),
    ],
)
def test_listing_refuses_styles_that_contradict_themselves(
    changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(Style(paging="cursor"), **changes)  # type: ignore[arg-type]
