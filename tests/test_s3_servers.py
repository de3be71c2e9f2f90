"""The S3 stores and the relay that other tests rely on keep their own promises."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.processes import LIMIT_S, wait_until
from tests.servers.relay import DROP, HANG, PASS, Answer, S3Relay, error_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.relay import Action, RelayRecord
    from tests.servers.s3 import S3Server, SeaweedServer

pytestmark = pytest.mark.process
pytest_plugins = ("tests.servers.s3",)

RACERS = 8


@pytest.fixture(params=["seaweed", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


@pytest.fixture
def relay(seaweed: SeaweedServer) -> Iterator[S3Relay]:
    with S3Relay(seaweed.endpoint) as relay:
        yield relay


@pytest.fixture
def client(seaweed: SeaweedServer, relay: S3Relay) -> Any:
    return seaweed.client(endpoint_url=relay.endpoint)


def only(method: str, action: Action) -> Callable[[RelayRecord], Action]:
    return lambda record: action if record.method == method else PASS


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_creates_an_object_only_where_there_is_none(server: S3Server) -> None:
    bucket, client = server.new_bucket(), server.client()
    client.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
    again = {"Bucket": bucket, "Key": "k", "Body": b"second", "IfNoneMatch": "*"}
    assert refusal(client.put_object, **again) == (412, "PreconditionFailed")
    assert server.read(bucket, "k") == b"first"


@pytest.mark.parametrize("quote", ['"', ""])
def test_replaces_an_object_only_while_its_etag_is_the_one_given(
    server: S3Server, quote: str
) -> None:
    bucket, client = server.new_bucket(), server.client()
    old = client.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"].strip('"')
    target = {"Bucket": bucket, "Key": "k", "IfMatch": f"{quote}{old}{quote}"}
    client.put_object(**target, Body=b"new")
    assert server.read(bucket, "k") == b"new"
    assert refusal(client.put_object, **target, Body=b"late") == (412, "PreconditionFailed")
    assert server.read(bucket, "k") == b"new"


def test_one_of_many_racing_creators_wins(server: S3Server) -> None:
    bucket, client = server.new_bucket(), server.client()
    barrier = threading.Barrier(RACERS)

    def create(number: int) -> int:
        barrier.wait(LIMIT_S)
        try:
            client.put_object(Bucket=bucket, Key="k", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    with ThreadPoolExecutor(RACERS) as pool:
        statuses = list(pool.map(create, range(RACERS)))
    winners = [number for number, status in enumerate(statuses) if status == 200]
    assert len(winners) == 1
    # A store may call a race that is going on a conflict.
    assert set(statuses) <= {200, 409, 412}
    assert server.read(bucket, "k") == b"%d" % winners[0]


def test_a_wrong_secret_is_refused(seaweed: SeaweedServer) -> None:
    bucket = seaweed.new_bucket()
    client = seaweed.client(aws_secret_access_key="wrong")
    arguments = {"Bucket": bucket, "Key": "k"}
    assert refusal(client.put_object, **arguments, Body=b"x") == (403, "SignatureDoesNotMatch")
    assert refusal(client.get_object, **arguments) == (403, "SignatureDoesNotMatch")


def test_an_answer_says_when_it_was_made_and_when_the_object_was(server: S3Server) -> None:
    bucket = server.new_bucket()
    server.put(bucket, "k", b"x")
    answer = server.client().get_object(Bucket=bucket, Key="k")
    answer["Body"].read()
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["date"].endswith("GMT")
    assert headers["last-modified"].endswith("GMT")


def test_looks_at_objects(server: S3Server) -> None:
    bucket, other = server.new_bucket(), server.new_bucket()
    server.put(bucket, "b/2", b"two")
    server.put(bucket, "a", b"one")
    assert server.keys(bucket) == ["a", "b/2"]
    assert server.read(bucket, "b/2") == b"two"
    assert server.read(bucket, "missing") is None
    server.delete(bucket, "a")
    server.delete(bucket, "a")
    assert server.keys(bucket) == ["b/2"]
    assert server.keys(other) == []


def test_the_relay_passes_signed_requests_on(
    seaweed: SeaweedServer, relay: S3Relay, client: Any
) -> None:
    bucket, body = seaweed.new_bucket(), bytes(range(256)) * 400
    put = client.put_object(Bucket=bucket, Key="a b/ü+", Body=body)
    got = client.get_object(Bucket=bucket, Key="a b/ü+")
    assert got["Body"].read() == body
    assert got["ETag"] == put["ETag"]
    assert seaweed.read(bucket, "a b/ü+") == body
    client.head_object(Bucket=bucket, Key="a b/ü+")
    listed = client.list_objects_v2(Bucket=bucket, Prefix="a b/")
    assert [each["Key"] for each in listed["Contents"]] == ["a b/ü+"]
    assert refusal(client.get_object, Bucket=bucket, Key="missing") == (404, "NoSuchKey")
    client.delete_object(Bucket=bucket, Key="a b/ü+")

    records = relay.records
    assert [record.number for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.method for record in records] == ["PUT", "GET", "HEAD", "GET", "GET", "DELETE"]
    assert [record.status for record in records] == [200, 200, 200, 200, 404, 204]
    assert records[0].path == f"/{bucket}/a%20b/%C3%BC%2B"
    assert records[0].body_length >= len(body)
    assert records[0].header("HOST") == urlsplit(relay.endpoint).netloc
    assert "prefix=a%20b%2F" in records[3].query


def test_the_relay_does_not_vouch_for_a_wrong_secret(
    seaweed: SeaweedServer, relay: S3Relay
) -> None:
    client = seaweed.client(endpoint_url=relay.endpoint, aws_secret_access_key="wrong")
    arguments = {"Bucket": seaweed.new_bucket(), "Key": "k"}
    assert refusal(client.get_object, **arguments) == (403, "SignatureDoesNotMatch")


def test_the_relay_passes_a_chunked_body_on_as_it_came(relay: S3Relay) -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(LIMIT_S)
        relay.upstream = urlsplit(f"http://127.0.0.1:{upstream.getsockname()[1]}")
        sent = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n"

        def answer() -> None:
            connection, _ = upstream.accept()
            with connection:
                connection.settimeout(LIMIT_S)
                data = b""
                while not data.endswith(sent):
                    data += connection.recv(65536)
                seen.append(data)
                connection.sendall(b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer)
        thread.start()
        connection = http.client.HTTPConnection(urlsplit(relay.endpoint).netloc, timeout=LIMIT_S)
        connection.putrequest("PUT", "//k?a=%2f&&b")
        connection.putheader("X-Two", "1")
        connection.putheader("x-two", "2")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(sent)
        response = connection.getresponse()
        assert (response.status, response.reason, response.read()) == (200, "Fine", b"ok")
        assert response.headers.items() == [("X-A", "1"), ("Content-Length", "2")]
        connection.close()
        thread.join(LIMIT_S)
    assert seen[0].startswith(b"PUT //k?a=%2f&&b HTTP/1.1\r\nHost: ")
    assert b"\r\nX-Two: 1\r\nx-two: 2\r\n" in seen[0]
    assert relay.records[0].body == b"abcde"


def test_a_request_that_is_dropped_before_has_not_happened(
    seaweed: SeaweedServer, relay: S3Relay, client: Any
) -> None:
    bucket = seaweed.new_bucket()
    relay.before = only("PUT", DROP)
    with pytest.raises(BotoCoreError):
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert seaweed.read(bucket, "k") is None
    assert [record.status for record in relay.records] == [None]


def test_a_request_that_is_dropped_after_has_happened(
    seaweed: SeaweedServer, relay: S3Relay, client: Any
) -> None:
    bucket = seaweed.new_bucket()
    relay.after = only("PUT", DROP)
    with pytest.raises(BotoCoreError):
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert seaweed.read(bucket, "k") == b"x"
    assert [record.status for record in relay.records] == [200]


@pytest.mark.parametrize("hook", ["before", "after"])
def test_an_answer_of_the_tests_own_reaches_the_client(
    seaweed: SeaweedServer, relay: S3Relay, client: Any, hook: str
) -> None:
    bucket = seaweed.new_bucket()
    own = Answer(503, error_xml("SlowDown", "<wait> & see"), (("Retry-After", "7"),))
    setattr(relay, hook, only("PUT", own))
    with pytest.raises(ClientError, match="<wait> & see") as caught:
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    metadata = caught.value.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == 503
    assert metadata["HTTPHeaders"]["retry-after"] == "7"
    assert "date" not in metadata["HTTPHeaders"]
    assert seaweed.read(bucket, "k") == (None if hook == "before" else b"x")


def test_the_upstreams_answer_can_be_changed(
    seaweed: SeaweedServer, relay: S3Relay, client: Any
) -> None:
    bucket = seaweed.new_bucket()

    def backdate(record: RelayRecord) -> Action:
        headers = [pair for pair in record.upstream.headers if pair[0].lower() != "date"]
        date = ("Date", "Wed, 01 Jan 2020 00:00:00 GMT")
        return replace(record.upstream, headers=(*headers, date))

    relay.after = backdate
    put = client.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert put["ResponseMetadata"]["HTTPHeaders"]["date"] == "Wed, 01 Jan 2020 00:00:00 GMT"


@pytest.mark.parametrize("hook", ["before", "after"])
def test_a_request_that_hangs_goes_on_when_released(
    seaweed: SeaweedServer, relay: S3Relay, client: Any, hook: str
) -> None:
    bucket = seaweed.new_bucket()
    setattr(relay, hook, only("PUT", HANG))
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(client.put_object, Bucket=bucket, Key="k", Body=b"x")
        assert wait_until(lambda: relay.hanging == 1)
        assert not put.done()
        assert seaweed.read(bucket, "k") == (None if hook == "before" else b"x")
        relay.release()
        assert put.result(LIMIT_S)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert seaweed.read(bucket, "k") == b"x"
    assert relay.hanging == 0


def test_nothing_gets_through_while_the_relay_is_away(
    seaweed: SeaweedServer, relay: S3Relay, client: Any
) -> None:
    bucket = seaweed.new_bucket()
    client.put_object(Bucket=bucket, Key="k", Body=b"1")
    relay.before = only("PUT", HANG)
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(client.put_object, Bucket=bucket, Key="k", Body=b"2")
        assert wait_until(lambda: relay.hanging == 1)
        relay.away()
        with pytest.raises(BotoCoreError):
            put.result(LIMIT_S)
    for connected in (client, seaweed.client(endpoint_url=relay.endpoint)):
        with pytest.raises(BotoCoreError):
            connected.get_object(Bucket=bucket, Key="k")
    relay.before = only("PUT", PASS)
    relay.back()
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    assert wait_until(lambda: relay.hanging == 0)
    assert [record.status for record in relay.records] == [200, None, 200]


def test_the_relay_stops_whatever_hangs(seaweed: SeaweedServer) -> None:
    bucket = seaweed.new_bucket()
    seaweed.put(bucket, "k", b"x")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(4) as pool:
        with S3Relay(seaweed.endpoint) as relay:
            client = seaweed.client(endpoint_url=relay.endpoint)
            client.get_object(Bucket=bucket, Key="k")["Body"].read()
            relay.before = only("GET", HANG)
            relay.after = only("HEAD", HANG)
            hung = [
                pool.submit(client.get_object, Bucket=bucket, Key="k"),
                pool.submit(client.head_object, Bucket=bucket, Key="k"),
            ]
            assert wait_until(lambda: relay.hanging == 2)
            relay.upstream = urlsplit(f"http://127.0.0.1:{silent.getsockname()[1]}")
            hung.append(pool.submit(client.delete_object, Bucket=bucket, Key="k"))
            assert wait_until(lambda: len(relay.records) == 4)
            idle = socket.create_connection(urlsplit(relay.endpoint).netloc.split(":"), LIMIT_S)
            started = time.monotonic()
        stopped = time.monotonic()
        idle.close()
        for each in hung:
            with pytest.raises(BotoCoreError):
                each.result(LIMIT_S)
    # Twice its limit, for a busy machine; the client's own limits are much longer.
    assert stopped - started < 5
    assert relay.hanging == 0


def test_what_a_hook_raises_is_raised_at_the_end(seaweed: SeaweedServer) -> None:
    def fail(_: RelayRecord) -> Action:
        raise AssertionError("not this request")

    def list_buckets() -> None:
        with S3Relay(seaweed.endpoint, before=fail) as relay:
            client = seaweed.client(endpoint_url=relay.endpoint)
            with pytest.raises(BotoCoreError):
                client.list_buckets()

    with pytest.raises(AssertionError, match="not this request"):
        list_buckets()


def test_an_environment_leads_to_the_relay(seaweed: SeaweedServer, relay: S3Relay) -> None:
    assert relay.env_of(seaweed) == {**seaweed.env, "AWS_ENDPOINT_URL": relay.endpoint}
    assert seaweed.env["AWS_ENDPOINT_URL"] == seaweed.endpoint


def test_a_checksum_is_sent_only_where_it_is_required_when_told_so(
    seaweed: SeaweedServer, relay: S3Relay
) -> None:
    bucket = seaweed.new_bucket()
    for config in (Config(), Config(request_checksum_calculation="when_required")):
        client = seaweed.client(endpoint_url=relay.endpoint, config=config)
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
    usual, told = relay.records
    assert usual.header("x-amz-checksum-crc32")
    assert not any("checksum" in name.lower() for name, _ in told.headers)
    for record in (usual, told):
        # Over TLS, boto3 sends the usual checksum in a trailer of a body in chunks.
        assert record.header("Content-Encoding") is None
        assert record.body == b"x"
