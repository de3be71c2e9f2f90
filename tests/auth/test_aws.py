"""AWS signatures, recomputed from what came over the wire."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from flicker.auth.shared import Authenticators
from flicker.client import Client
from flicker.demo.servers import Request, Response
from flicker.errors import HumanNeededError, RetryableError
from flicker.request import PageRequest
from flicker.settings import AwsSigV4, Credentials, Endpoint, Secret
from tests.auth.asking import Asker
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from pathlib import Path

KEY_ID, SECRET_KEY, TOKEN = (
    "AKIDEXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "s3ssion/t0ken=",
)
SIGV4 = Credentials(aws_sigv4=AwsSigV4("cloudtrail", "eu-central-1"))


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave nothing of this machine to be found."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def signature_of(request: Request, secret_key: str) -> str:
    """Compute a request's signature as AWS does, from its bytes alone.

    Source: AWS's description of Signature Version 4, "Create a signed AWS API request".
    """
    authorization = request.headers["authorization"]
    fields = dict(
        part.strip().split("=", 1)
        for part in authorization.removeprefix("AWS4-HMAC-SHA256 ").split(",")
    )
    scope = fields["Credential"].partition("/")[2]
    names = fields["SignedHeaders"].split(";")
    path, _, query = request.target.partition("?")
    canonical = "\n".join(
        [
            request.method,
            # Encoded twice, once on the wire: all services but S3.
            quote(path, safe="/~"),
            "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&")))
            if query
            else "",
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", b'{"MaxResults":50,"NextToken":"a+b/c="}'),
        ("/?Action=LookupEvents&Version=2013-11-01&a=1%2F2&b=%20x", None),
        ("/a%20b/c:d?z=1&y=2&flag=", None),
        ("/logs?q=ü x", None),
    ],
)
def test_requests_are_signed_as_they_are_sent(
    monkeypatch: pytest.MonkeyPatch, token: str | None, path: str, body: bytes | None
) -> None:
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    with ScriptedApi([Response(body=[])]) as api:
        endpoint = Endpoint(
            api.url,
            headers=(
                ("X-Amz-Target", Secret("CloudTrail_20131101.LookupEvents")),
                ("Content-Type", Secret("application/x-amz-json-1.1")),
            ),
            credentials=SIGV4,
        )
        client = Client(endpoint, authenticator=Authenticators().of(endpoint))
        client.ask(PageRequest(api.url + path, "GET" if body is None else "POST", body))
        [request] = api.requests
    authorization = request.headers["authorization"]
    assert f"Credential={KEY_ID}/{request.headers['x-amz-date'][:8]}/eu-central-1/cloudtrail/" in (
        authorization
    )
    assert authorization.endswith(f"Signature={signature_of(request, SECRET_KEY)}")
    signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    more = [] if token is None else ["x-amz-security-token"]
    assert signed == ["content-type", "host", "x-amz-date", *more, "x-amz-target"]
    assert request.headers.get("x-amz-security-token") == token


def test_a_profile_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[audit]\naws_access_key_id = AKIDAUDIT\naws_secret_access_key = other-secret-key\n",
        encoding="ascii",
    )
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    credentials = Credentials(aws_sigv4=AwsSigV4("cloudtrail", "us-east-1", "audit"))
    with ScriptedApi([Response(body=[])]) as api:
        asker = Asker(api.url, credentials)
        asker.ask()
        [request] = api.requests
    assert request.headers["authorization"].endswith(signature_of(request, "other-secret-key"))
    assert "Credential=AKIDAUDIT/" in request.headers["authorization"]
    assert asker.client.redact("other-secret-key") == "***"


def test_without_credentials_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with ScriptedApi([Response(body=[])]) as api:
        asker = Asker(api.url, SIGV4)
        with pytest.raises(HumanNeededError, match="Set AWS_ACCESS_KEY_ID"):
            asker.ask()
        # They are looked for again.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        assert asker.ask() == 200


def test_half_of_the_credentials_is_said_to_be_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(HumanNeededError, match="incomplete"):
        Asker("http://127.0.0.1:9/", SIGV4).ask()


def test_a_profile_that_is_not_there_is_said_so() -> None:
    credentials = Credentials(aws_sigv4=AwsSigV4("cloudtrail", "us-east-1", "nowhere"))
    with pytest.raises(HumanNeededError, match=r"aws_sigv4\.profile"):
        Asker("http://127.0.0.1:9/", credentials).ask()


def test_credentials_that_cannot_be_refreshed_are_tried_again(tmp_path: Path) -> None:
    """A program that fails now may have them later."""
    (tmp_path / "config").write_text(
        "[profile p]\ncredential_process = false\nregion = us-east-1\n", encoding="ascii"
    )
    credentials = Credentials(aws_sigv4=AwsSigV4("cloudtrail", "us-east-1", "p"))
    with pytest.raises(RetryableError, match="cannot be loaded or refreshed"):
        Asker("http://127.0.0.1:9/", credentials).ask()
