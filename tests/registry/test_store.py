"""What an S3 store answers, and what is said about it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import trustme

from flicker.registry import store as store_module
from flicker.registry.store import (
    ConflictError,
    S3Store,
    StoreAwayError,
    StoreError,
    UnconditionalStoreError,
    honours_conditions,
    patiently,
)
from tests.processes import LIMIT_S, wait_until
from tests.registry.opening import KEY, PREFIX, open_store
from tests.servers.relay import DROP, HANG, PASS, Action, Answer, RelayRecord, S3Relay, error_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from flicker.errors import RegistryError
    from tests.servers.s3 import MotoServer, SeaweedServer

pytest_plugins = ("tests.servers.s3",)

SECRET = "flicker/test+secret"
PASSWORD = "pass-of-the-endpoint"
PROBE = f"{PREFIX}probe-0123456789abcdef"
NOT_S3 = "does not answer as S3 does (status 404). Check AWS_ENDPOINT_URL"
STEPS: dict[str, Callable[[S3Store], object]] = {
    "s3:GetObject": lambda store: store.get(KEY),
    "s3:PutObject": lambda store: store.put(KEY, b"x", if_absent=True),
    "s3:DeleteObject": lambda store: store.delete(KEY),
    "s3:ListBucket": lambda store: store.list_keys(PREFIX),
}


@pytest.fixture
def relay(moto: MotoServer) -> Iterator[S3Relay]:
    with S3Relay(moto.endpoint) as relay:
        yield relay


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay) -> S3Store:
    """A store behind the relay, which lets everybody in."""
    assert moto.env["AWS_SECRET_ACCESS_KEY"] == SECRET
    return open_store(monkeypatch, relay.env_of(moto), moto.new_bucket())


def refused(status: int, code: str, *headers: tuple[str, str], more: str = "") -> Answer:
    body = error_xml(code, f"nobody repeats {SECRET}").replace(
        b"</Error>", f"{more}</Error>".encode()
    )
    return Answer(status, body, (("Content-Type", "application/xml"), *headers))


def said(
    kind: type[RegistryError], do: Callable[[], object], *parts: str, bucket: str = "s3://"
) -> str:
    """Have something fail, and give the one line that it says."""
    with pytest.raises(kind) as caught:
        do()
    text = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in text
    assert "\r" not in text
    assert text.startswith("the registry s3://")
    assert bucket in text
    assert f"/{KEY}" in text
    assert SECRET not in text
    assert PASSWORD not in text
    # Nor what raised it, for whoever logs the chain.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    for part in parts:
        assert part in text
    return text


def test_reads_writes_lists_and_deletes(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    bucket = seaweed.new_bucket()
    store = open_store(monkeypatch, seaweed.env, bucket)
    assert store.get(KEY) is None
    assert store.download(KEY, tmp_path / "copy") is None
    etag = store.put(KEY, b"one")
    found = store.get(KEY)
    assert found is not None
    assert (found.data, found.etag) == (b"one", etag)
    assert '"' not in etag
    assert abs(found.read_at - time.time()) < LIMIT_S
    big = tmp_path / "big"
    big.write_bytes(b"0123456789abcdef" * 200_000)
    store.put(f"{PREFIX}a b+c/é", big)
    digest = store.download(f"{PREFIX}a b+c/é", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == big.read_bytes()
    assert digest == store_module.sha256(big.read_bytes()).hexdigest()
    assert store.list_keys(PREFIX) == [f"{PREFIX}a b+c/é"]
    store.delete(KEY)
    store.delete(KEY)
    assert seaweed.keys(bucket) == [f"{PREFIX}a b+c/é"]


def test_lists_more_than_a_page(relay: S3Relay, store: S3Store) -> None:
    def before(record: RelayRecord) -> Action:
        page = "b" if "continuation-token=more" in record.query else "a"
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>"
        return Answer(
            200,
            f"<ListBucketResult>{more if page == 'a' else ''}<Contents><Key>{PREFIX}{page}</Key>"
            "</Contents></ListBucketResult>".encode(),
        )

    relay.before = before
    assert store.list_keys(PREFIX) == [f"{PREFIX}a", f"{PREFIX}b"]


@pytest.mark.parametrize("server", ["seaweed", "moto"])
def test_a_conditional_write_replaces_nothing_else(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str
) -> None:
    s3 = request.getfixturevalue(server)
    bucket = s3.new_bucket()
    store = open_store(monkeypatch, s3.env, bucket)
    first = store.put(KEY, b"1", if_absent=True)
    with pytest.raises(ConflictError):
        store.put(KEY, b"2", if_absent=True)
    second = store.put(KEY, b"3", if_match=first)
    with pytest.raises(ConflictError):
        store.put(KEY, b"4", if_match=first)
    assert s3.read(bucket, KEY) == b"3"
    store.delete(KEY)
    with pytest.raises(ConflictError):
        store.put(KEY, b"5", if_match=second)
    assert s3.keys(bucket) == []


@pytest.mark.parametrize("server", ["seaweed", "moto"])
def test_a_store_that_honours_conditions_is_recognised(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str
) -> None:
    s3 = request.getfixturevalue(server)
    bucket = s3.new_bucket()
    store = open_store(monkeypatch, s3.env, bucket)
    assert honours_conditions(store, PROBE)
    assert s3.keys(bucket) == []


@pytest.mark.parametrize(
    "ignored", [("If-None-Match",), ("If-Match",), ("If-Match", "If-None-Match")]
)
def test_a_store_that_ignores_conditions_is_recognised(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, ignored: tuple[str, ...]
) -> None:
    bucket = moto.new_bucket()
    with ignoring_relay(moto, ignored) as relay:
        store = open_store(monkeypatch, relay.env_of(moto), bucket)
        assert not honours_conditions(store, PROBE)
        assert moto.keys(bucket) == []


def ignoring_relay(moto: MotoServer, ignored: tuple[str, ...]) -> S3Relay:
    """Make a relay that writes whatever the condition says, as some stores do."""

    def before(record: RelayRecord) -> Action:
        if record.method == "PUT" and any(record.header(name) for name in ignored):
            with closing(moto.client()) as client:
                bucket, _, key = record.path.lstrip("/").partition("/")
                answer = client.put_object(Bucket=bucket, Key=key, Body=record.body)
            return Answer(200, b"", (("ETag", answer["ETag"]),))
        return PASS

    return S3Relay(moto.endpoint, before=before)


def test_a_store_that_refuses_conditions_is_recognised(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda record: (
        refused(501, "NotImplemented") if record.header("If-None-Match") else PASS
    )
    said(
        UnconditionalStoreError,
        lambda: store.put(KEY, b"1", if_absent=True),
        "refuses conditional writes",
    )
    assert not honours_conditions(store, PROBE)
    assert all(record.method in {"PUT", "DELETE"} for record in relay.records)


def test_a_probe_that_cannot_be_deleted_changes_no_verdict(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda record: (
        refused(403, "AccessDenied") if record.method == "DELETE" else PASS
    )
    assert honours_conditions(store, PROBE)
    relay.before = lambda record: DROP if record.method == "DELETE" else PASS
    assert honours_conditions(store, f"{PROBE}0")


def test_a_probe_tells_of_the_first_trouble(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(403, "AccessDenied")
    said(StoreError, lambda: honours_conditions(store, PROBE), "no permission for s3:PutObject")


@pytest.mark.parametrize(
    ("server", "action"), [("seaweed", "s3:GetObject"), *(("moto", action) for action in STEPS)]
)
def test_says_that_there_is_no_bucket(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str, action: str
) -> None:
    s3 = request.getfixturevalue(server)
    store = open_store(monkeypatch, s3.env, "no-such-bucket")
    said(
        StoreError,
        lambda: STEPS[action](store),
        f"there is no bucket 'no-such-bucket' at {s3.endpoint}. Create it",
    )


@pytest.mark.parametrize("action", STEPS)
def test_says_which_permission_is_missing(relay: S3Relay, store: S3Store, action: str) -> None:
    relay.before = lambda _: refused(403, "AccessDenied")
    text = said(StoreError, lambda: STEPS[action](store), f"no permission for {action} (Acc")
    assert ("Without s3:ListBucket" in text) == (action == "s3:GetObject")


@pytest.mark.parametrize("action", STEPS)
def test_says_that_the_secret_is_wrong(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer, action: str
) -> None:
    bucket = seaweed.new_bucket()
    for changes, code in (
        ({"AWS_SECRET_ACCESS_KEY": f"{SECRET}-wrong"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "InvalidAccessKeyId"),
    ):
        store = open_store(monkeypatch, {**seaweed.env, **changes}, bucket)
        said(
            StoreError,
            lambda store=store: STEPS[action](store),  # type: ignore[misc]
            f"refuses the AWS credentials ({code}). Check AWS_ACCESS_KEY_ID and AWS_SECRET",
        )


def test_says_that_there_are_no_credentials(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer
) -> None:
    env = {name: text for name, text in moto.env.items() if "_KEY" not in name}
    store = open_store(monkeypatch, env, "bucket")
    said(StoreError, lambda: store.get(KEY), "no AWS credentials were found. Set AWS_ACCESS")
    half = {**env, "AWS_ACCESS_KEY_ID": "AKIAHALF"}
    said(
        StoreError,
        lambda: open_store(monkeypatch, half, "bucket").get(KEY),
        "no AWS credentials were found",
    )


def test_says_that_there_is_no_such_profile_and_takes_an_empty_one_for_none(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer
) -> None:
    env = {**moto.env, "AWS_PROFILE": "nobodys"}
    said(StoreError, lambda: open_store(monkeypatch, env, "bucket"), "AWS_PROFILE")
    # Empty, as Compose files make it, is none.
    bucket = moto.new_bucket()
    store = open_store(monkeypatch, {**moto.env, "AWS_PROFILE": ""}, bucket)
    assert store.get("registry.json") is None


def test_a_profile_brings_credentials(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    path = tmp_path / "credentials"
    path.write_text(
        f"[audit]\naws_access_key_id={seaweed.env['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key={SECRET}\n"
    )
    env = {name: text for name, text in seaweed.env.items() if "_KEY" not in name}
    env |= {"AWS_PROFILE": "audit", "AWS_SHARED_CREDENTIALS_FILE": str(path)}
    assert open_store(monkeypatch, env, seaweed.new_bucket()).get(KEY) is None


def test_says_that_a_credentials_file_is_damaged(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    path.write_text(f"aws_secret_access_key = {SECRET}\n[half")
    env = {**moto.env, "AWS_CONFIG_FILE": str(path)}
    said(
        StoreError,
        lambda: open_store(monkeypatch, env, "bucket").get(KEY),
        "could not be loaded (ConfigParseError)",
    )


def test_says_that_a_role_may_not_be_assumed(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    env = {name: text for name, text in moto.env.items() if "_KEY" not in name}
    env |= {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/flicker",
        "AWS_ENDPOINT_URL_STS": relay.endpoint,
    }
    store = open_store(monkeypatch, env, "bucket")
    relay.before = lambda _: Answer(
        403,
        b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender'
        b"</Type><Code>AccessDenied</Code><Message>Not authorized</Message></Error>"
        b"</ErrorResponse>",
    )
    said(
        StoreError,
        lambda: store.get(KEY),
        "could not be loaded (AssumeRoleWithWebIdentity: AccessDenied). Check the role",
    )


def without_keys(env: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in env.items() if "_KEY" not in name}


class Program:
    """A program that credentials come from."""

    def __init__(self, path: Path, env: Mapping[str, str]) -> None:
        self.path = path / "get-credentials"
        config = path / "config"
        config.write_text(f"[default]\ncredential_process = {self.path} {SECRET}\n")
        self.env = {**without_keys(env), "AWS_CONFIG_FILE": str(config)}

    def prints(self, text: str) -> None:
        self.path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        self.path.chmod(0o700)

    def gives(self, **facts: object) -> None:
        keys = {"AccessKeyId": "AKIAPROGRAM", "SecretAccessKey": SECRET, "SessionToken": SECRET}
        self.prints(json.dumps({"Version": 1, **keys, **facts}))


@pytest.fixture
def program(tmp_path: Path, moto: MotoServer) -> Program:
    return Program(tmp_path, moto.env)


def soon(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, timezone.utc).isoformat()


OUTPUTS = [
    (SECRET, "JSONDecodeError"),
    ("", "JSONDecodeError"),
    (f'["{SECRET}"]', "AttributeError"),
    ('{"Version": 1}', "CredentialRetrievalError"),
]


@pytest.mark.parametrize(("output", "kind"), OUTPUTS)
def test_says_that_a_program_gave_no_credentials(
    monkeypatch: pytest.MonkeyPatch, program: Program, output: str, kind: str
) -> None:
    program.prints(output)
    said(
        StoreError,
        lambda: open_store(monkeypatch, program.env, "bucket"),
        f"the AWS credentials could not be loaded ({kind}). Check the profile",
    )


def test_says_that_a_program_for_credentials_is_not_there(
    monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    said(
        StoreError,
        lambda: open_store(monkeypatch, program.env, "bucket"),
        f"could not be loaded (FileNotFoundError: {program.path}). Check the profile",
    )


@pytest.mark.parametrize("action", STEPS)
def test_credentials_that_cannot_be_renewed_are_told_of_and_recover(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, program: Program, action: str
) -> None:
    """Days after the start, on whatever thread it happens."""
    # So near to their end they are renewed at every request.
    program.gives(Expiration=soon(60.0))
    store = open_store(monkeypatch, program.env, moto.new_bucket())
    STEPS[action](store)
    store.delete(KEY)
    for output, kind in OUTPUTS:
        program.prints(output)
        said(StoreError, lambda: STEPS[action](store), f"could not be loaded ({kind}). Check the")
    program.gives(Expiration=soon(-60.0))
    said(StoreError, lambda: STEPS[action](store), "could not be loaded (RuntimeError)")
    program.gives(Expiration="soon")
    said(StoreError, lambda: STEPS[action](store), "could not be loaded (ParserError)")
    program.path.unlink()
    said(StoreError, lambda: STEPS[action](store), f"(FileNotFoundError: {program.path})")
    program.gives(Expiration=soon(3600.0))
    STEPS[action](store)


def role_env(moto: MotoServer, token: Path, sts: str) -> dict[str, str]:
    return {
        **without_keys(moto.env),
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/flicker",
        "AWS_ENDPOINT_URL_STS": sts,
    }


def test_says_that_the_token_of_a_role_is_not_there(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    store = open_store(monkeypatch, role_env(moto, token, moto.endpoint), "bucket")
    for step in STEPS.values():
        said(
            StoreError,
            lambda step=step: step(store),  # type: ignore[misc]
            f"could not be loaded (FileNotFoundError: {token}). Check the profile, the role",
        )


def test_says_that_whoever_gives_credentials_is_away(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, tmp_path: Path
) -> None:
    """Of the role's server, not of the store's: that one is well."""
    token = tmp_path / "token"
    token.write_text(SECRET)
    store = open_store(monkeypatch, role_env(moto, token, relay.endpoint), moto.new_bucket())
    relay.before = lambda _: refused(503, "ServiceUnavailable")
    text = said(
        StoreAwayError,
        lambda: store.get(KEY),
        "could not be loaded now (AssumeRoleWithWebIdentity: ",
        "status 503). Try again later",
    )
    assert moto.endpoint not in text
    relay.before = lambda _: PASS
    relay.away()
    said(
        StoreAwayError,
        lambda: store.get(KEY),
        f"credentials could not be loaded, since {relay.endpoint} cannot be reached (",
        "Check the network and the role",
    )
    relay.back()
    assert store.get(KEY) is None


def test_a_file_that_cannot_be_written_is_no_trouble_of_the_stores(
    store: S3Store, tmp_path: Path
) -> None:
    store.put(KEY, b"1")
    (tmp_path / "copy").mkdir()
    with pytest.raises(IsADirectoryError):
        store.download(KEY, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        store.put(KEY, tmp_path / "none")


def test_says_that_credentials_have_expired(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(400, "ExpiredToken")
    said(StoreError, lambda: store.get(KEY), "have expired (ExpiredToken). Renew them")


def test_says_that_the_clock_is_wrong_and_by_how_much(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(
        403, "RequestTimeTooSkewed", ("Date", formatdate(time.time() - 7200, usegmt=True))
    )
    text = said(StoreError, lambda: store.get(KEY), "this machine's clock is wrong (+", "NTP")
    ahead_s = int(text.partition("(+")[2].partition(" s")[0])
    assert 7200 <= ahead_s < 7200 + LIMIT_S
    relay.before = lambda _: refused(403, "RequestTimeTooSkewed")
    said(StoreError, lambda: store.get(KEY), "clock is wrong. Set it")


@pytest.mark.parametrize(
    ("answer", "region"),
    [
        (refused(301, "PermanentRedirect"), " to its own"),
        (refused(301, "PermanentRedirect", ("x-amz-bucket-region", "eu-west-1")), "=eu-west-1"),
        (
            refused(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
            "=eu-west-1",
        ),
        (refused(400, "IllegalLocationConstraintException"), " to its own"),
    ],
)
def test_says_that_the_bucket_is_elsewhere(
    relay: S3Relay, store: S3Store, answer: Answer, region: str
) -> None:
    # botocore asks by HEAD where it is, and goes there if it is told.
    relay.before = lambda record: PASS if record.method == "HEAD" else answer
    for step in STEPS.values():
        said(
            StoreError,
            lambda step=step: step(store),  # type: ignore[misc]
            f"is in another region. Set AWS_REGION{region}",
        )


def test_says_that_the_endpoint_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}"
        env = {**moto.env, "AWS_ENDPOINT_URL": f"http://user:{PASSWORD}@{place}"}
        store = open_store(monkeypatch, env, "bucket")
        for step in STEPS.values():
            text = said(
                StoreAwayError,
                lambda step=step: step(store),  # type: ignore[misc]
                f"http://{place} cannot be reached (EndpointConnectionError). Check AWS_ENDPOINT",
            )
            assert "user" not in text


def test_a_silent_endpoint_is_away(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay
) -> None:
    monkeypatch.setattr(store_module, "READ_TIMEOUT_S", 0.2)
    store = open_store(monkeypatch, relay.env_of(moto), moto.new_bucket())
    relay.before = lambda _: HANG
    for step in STEPS.values():
        said(StoreAwayError, lambda step=step: step(store), "(ReadTimeoutError)")  # type: ignore[misc]
    # One try each: whoever asked knows how often.
    assert len(relay.records) == len(STEPS)


def test_an_answer_that_breaks_off_is_away(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, tmp_path: Path
) -> None:
    monkeypatch.setattr(store_module, "READ_TIMEOUT_S", 0.2)
    bucket = moto.new_bucket()
    moto.put(bucket, KEY, b"0123456789")
    store = open_store(monkeypatch, relay.env_of(moto), bucket)
    relay.after = lambda _: Answer(200, b"01234", (("ETag", '"e"'), ("Content-Length", "10")))
    said(StoreAwayError, lambda: store.get(KEY))
    said(StoreAwayError, lambda: store.download(KEY, tmp_path / "copy"))
    relay.after = lambda _: DROP
    said(StoreAwayError, lambda: store.get(KEY), "(ConnectionClosedError)")


@pytest.mark.parametrize(
    "answer",
    [
        refused(503, "SlowDown"),
        refused(500, "InternalError"),
        refused(400, "RequestTimeout"),
        Answer(429),
        Answer(
            502, b"<html><body>Bad <br> Gateway</body></html>", (("Content-Type", "text/html"),)
        ),
    ],
)
def test_a_busy_store_is_away(relay: S3Relay, store: S3Store, answer: Answer) -> None:
    relay.before = lambda _: answer
    for step in STEPS.values():
        said(
            StoreAwayError,
            lambda step=step: step(store),  # type: ignore[misc]
            f"cannot answer now ({relay_code(answer)}, status {answer.status}). Try again",
        )
    assert len(relay.records) == len(STEPS)


def relay_code(answer: Answer) -> str:
    if b"<Code>" not in answer.body:
        return str(answer.status)
    return answer.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


@pytest.mark.parametrize("body", [b"<html><body>Log in <br> here</body></html>", b""])
def test_a_page_in_place_of_an_answer_is_no_object(
    relay: S3Relay, store: S3Store, tmp_path: Path, body: bytes
) -> None:
    """A portal, or AWS_ENDPOINT_URL that names a web server: status 200, and nothing of S3."""
    relay.before = lambda _: Answer(200, body, (("Content-Type", "text/html"),))
    said(StoreAwayError, lambda: store.get(KEY), "does not answer as S3 does. Check AWS_ENDPOINT")
    said(StoreAwayError, lambda: store.download(KEY, tmp_path / "copy"), "does not answer as S3")
    said(StoreAwayError, lambda: store.put(KEY, b"1"), relay.endpoint)
    if body:
        said(StoreAwayError, lambda: store.list_keys(PREFIX), relay.endpoint)


def test_what_is_no_xml_is_no_list(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: Answer(200, b"<ListBucketResult><Con")
    said(StoreAwayError, lambda: store.list_keys(PREFIX), relay.endpoint)


@pytest.mark.parametrize("status", [301, 302, 308])
def test_a_redirect_to_another_address_is_told(relay: S3Relay, store: S3Store, status: int) -> None:
    """A proxy, such as one that wants https."""
    relay.before = lambda _: Answer(
        status,
        b"<html><br></html>",
        (("Content-Type", "text/html"), ("Location", "https://s3.test/")),
    )
    for step in STEPS.values():
        said(
            StoreError,
            lambda step=step: step(store),  # type: ignore[misc]
            f"{relay.endpoint} redirects elsewhere. Correct AWS_ENDPOINT_URL",
        )


@pytest.mark.parametrize("body", [b"", b"<html><body>Not <br> found</body></html>"])
def test_a_page_not_found_is_no_missing_registry(
    relay: S3Relay, store: S3Store, tmp_path: Path, body: bytes
) -> None:
    """Starting from nothing would ship everything again."""
    relay.before = lambda _: Answer(404, body, (("Content-Type", "text/html"),))
    said(StoreError, lambda: store.get(KEY), f"{relay.endpoint} {NOT_S3}")
    said(StoreError, lambda: store.download(KEY, tmp_path / "copy"), f"{relay.endpoint} {NOT_S3}")
    said(StoreError, lambda: store.put(KEY, b"", if_match="e"), f"{relay.endpoint} {NOT_S3}")


def test_a_code_is_said_on_one_line(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(418, f"Tea\npot: {'x' * 1000}")
    text = said(StoreError, lambda: store.get(KEY), "refuses s3:GetObject (Teapotxxx", "status 418")
    assert len(text) < 400


@pytest.mark.parametrize("bucket", ["buck et", "a", "Ünder"])
def test_says_that_the_bucket_has_no_name(
    monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer, bucket: str
) -> None:
    store = open_store(monkeypatch, seaweed.env, bucket)
    said(
        StoreError,
        lambda: store.put(KEY, b"1"),
        f"{bucket!r} cannot be the name of a bucket" if bucket != "a" else "'a'",
        bucket=bucket,
    )


def test_says_what_a_store_calls_a_wrong_name(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(400, "InvalidBucketName")
    said(StoreError, lambda: store.get(KEY), "cannot be the name of a bucket. Correct --registry")


@pytest.mark.parametrize(
    "changes",
    [
        {"AWS_ENDPOINT_URL": "localhost:9000"},
        {"AWS_ENDPOINT_URL": f"http://user:{PASSWORD}@"},
        {"AWS_ENDPOINT_URL": "http://[::1"},
        {"AWS_ENDPOINT_URL": f"http://user:{PASSWORD}@127.0.0.1:99999"},
        {"AWS_REGION": "eu west/1"},
    ],
)
def test_says_that_an_address_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, changes: dict[str, str]
) -> None:
    said(
        StoreError,
        lambda: open_store(monkeypatch, {**moto.env, **changes}, "bucket").get(KEY),
        "AWS_ENDPOINT_URL or AWS_REGION cannot be read. Correct it",
    )


class _Tls(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        body = error_xml("NoSuchKey", "none")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def test_says_that_a_certificate_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Tls))
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        stack.callback(thread.join, LIMIT_S)
        stack.callback(server.shutdown)
        place = f"127.0.0.1:{server.server_address[1]}"
        env = {**moto.env, "AWS_ENDPOINT_URL": f"https://{place}"}
        store = open_store(monkeypatch, env, "bucket")
        said(
            StoreAwayError,
            lambda: store.get(KEY),
            f"https://{place} has a certificate that is not trusted here",
            "AWS_CA_BUNDLE",
        )
        env["AWS_CA_BUNDLE"] = str(tmp_path / "ca.pem")
        assert open_store(monkeypatch, env, "bucket").get(KEY) is None


def test_says_that_an_endpoint_speaks_no_tls(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer
) -> None:
    endpoint = moto.endpoint.replace("http://", "https://")
    store = open_store(monkeypatch, {**moto.env, "AWS_ENDPOINT_URL": endpoint}, "bucket")
    said(StoreAwayError, lambda: store.get(KEY), f"{endpoint} does not speak TLS as it should")


def test_region_and_path_style_are_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay
) -> None:
    env = {**relay.env_of(moto), "AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "us-west-2"}
    relay.before = lambda _: refused(404, "NoSuchKey")
    open_store(monkeypatch, env, "bucket").get(KEY)
    del env["AWS_REGION"]
    open_store(monkeypatch, env, "bucket").get(KEY)
    by_path, other = relay.records
    assert by_path.path == f"/bucket/{KEY}"
    assert by_path.header("Host") == relay.endpoint.partition("//")[2]
    assert "/eu-west-3/s3/" in (by_path.header("Authorization") or "")
    assert "/us-west-2/s3/" in (other.header("Authorization") or "")


def test_path_style_is_stronger_than_the_configuration_file(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, relay: S3Relay, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    # Any name is this machine's.
    monkeypatch.setattr(socket, "getaddrinfo", _as_here(socket.getaddrinfo))
    port = relay.endpoint.rpartition(":")[2]
    env = {
        **relay.env_of(moto),
        "AWS_ENDPOINT_URL": f"http://s3.test:{port}",
        "AWS_CONFIG_FILE": str(config),
    }
    del env["AWS_S3_FORCE_PATH_STYLE"]
    relay.before = lambda _: refused(404, "NoSuchKey")
    open_store(monkeypatch, env, "bucket").get(KEY)
    env["AWS_S3_FORCE_PATH_STYLE"] = "True"
    open_store(monkeypatch, env, "bucket").get(KEY)
    in_host, in_path = relay.records
    assert (in_host.path, in_host.header("Host")) == (f"/{KEY}", f"bucket.s3.test:{port}")
    assert (in_path.path, in_path.header("Host")) == (f"/bucket/{KEY}", f"s3.test:{port}")


@pytest.mark.parametrize("text", ["maybe", "2", "true false"])
def test_a_path_style_that_is_neither_is_refused(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, text: str
) -> None:
    env = {**moto.env, "AWS_S3_FORCE_PATH_STYLE": text}
    with pytest.raises(StoreError) as caught:
        open_store(monkeypatch, env, "bucket")
    said_of = f"AWS_S3_FORCE_PATH_STYLE must be true or false, not {text!r}"
    assert str(caught.value) == said_of


@pytest.mark.parametrize("text", ["", "0", "False", " no "])
def test_no_path_style_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer, text: str
) -> None:
    env = {**moto.env, "AWS_S3_FORCE_PATH_STYLE": text}
    # An address of numbers has the bucket in the path whatever is said.
    assert open_store(monkeypatch, env, moto.new_bucket()).get(KEY) is None


def _as_here(look_up: Callable[..., object]) -> Callable[..., object]:
    return lambda _, *more, **options: look_up("127.0.0.1", *more, **options)


def test_the_clock_is_the_stores(relay: S3Relay, store: S3Store) -> None:
    """Leases are compared between machines whose own clocks may be years off."""
    assert abs(store.now - time.time()) < LIMIT_S
    far_s = 3 * 365 * 86_400
    relay.after = lambda record: dated(record, time.time() + far_s)
    assert store.get(KEY) is None
    assert abs(store.now - time.time() - far_s) < LIMIT_S
    store.put(KEY, b"1")
    found = store.get(KEY)
    assert found is not None
    assert abs(found.read_at - time.time() - far_s) < LIMIT_S


def test_the_stores_clock_goes_on_when_the_own_one_is_set(
    monkeypatch: pytest.MonkeyPatch, store: S3Store
) -> None:
    store.put(KEY, b"1")
    real_s = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert abs(store.now - real_s) < LIMIT_S


def test_the_stores_clock_may_be_set_back(
    monkeypatch: pytest.MonkeyPatch, relay: S3Relay, store: S3Store
) -> None:
    relay.after = lambda record: dated(record, time.time() + 1_000)
    store.put(KEY, b"1")
    relay.after = lambda record: dated(record, time.time())
    store.put(KEY, b"2")
    assert store.now - time.time() > 900
    monkeypatch.setattr(store_module, "OFFSET_S", 0.0)
    store.put(KEY, b"3")
    assert abs(store.now - time.time()) < LIMIT_S


def dated(record: RelayRecord, at_s: float) -> Answer:
    upstream = record.upstream
    assert upstream is not None
    headers = [pair for pair in upstream.headers if pair[0].lower() != "date"]
    date = ("Date", formatdate(at_s, usegmt=True))
    return Answer(upstream.status, upstream.body, (*headers, date), upstream.reason)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2025 99:99:99 GMT"])
def test_an_unreadable_date_is_none(relay: S3Relay, store: S3Store, date: str) -> None:
    relay.before = lambda _: Answer(200, b"1", (("ETag", '"e"'), ("Date", date)))
    found = store.get(KEY)
    assert found is not None
    assert abs(found.read_at - time.time()) < LIMIT_S


def test_asks_again_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PAUSES_S", (0.0, 0.0))
    asked: list[int] = []

    def away(times: int) -> str:
        asked.append(1)
        if len(asked) <= times:
            raise StoreAwayError("away")
        return "there"

    assert patiently(lambda: away(2)) == "there"
    asked.clear()
    with pytest.raises(StoreAwayError):
        patiently(lambda: away(3))
    assert len(asked) == 3


def test_what_a_store_refuses_is_not_asked_again(relay: S3Relay, store: S3Store) -> None:
    relay.before = lambda _: refused(403, "AccessDenied")
    with pytest.raises(StoreError):
        patiently(lambda: store.get(KEY))
    assert len(relay.records) == 1


def test_bears_several_threads(monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer) -> None:
    bucket = seaweed.new_bucket()
    store = open_store(monkeypatch, seaweed.env, bucket)
    start = threading.Barrier(4)
    won: list[int] = []

    def put(number: int) -> None:
        start.wait(LIMIT_S)
        try:
            store.put(KEY, b"%d" % number, if_absent=True)
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert wait_until(lambda: len(won) == 1)
    assert seaweed.read(bucket, KEY) == b"%d" % won[0]
