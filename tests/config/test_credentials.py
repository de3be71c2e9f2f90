"""A source's credentials: what they are read as, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flicker import config
from flicker.auth.static import request_headers
from flicker.settings import AwsSigV4, Credentials, JwtBearer, OAuth2, Secret, Signer
from tests.auth.keys import TOKEN_URI, ec_key, pem_of, rsa_key, write_service_account
from tests.config.files import one, only, problems, source

if TYPE_CHECKING:
    from pathlib import Path

OAUTH2 = {"token_url": "https://h/t", "client_id": "c", "client_secret": "hunter2"}
REFRESH = {"token_url": "https://h/t", "client_id": "c", "grant_type": "refresh_token"}
JWT = {"token_url": "https://h/t", "issuer": "me"}
SIGV4 = {"service": "cloudtrail", "region": "eu-central-1"}
DUO = "flicker.auth.duo:sign"


def credentials(**keys: object) -> Credentials:
    return source(**keys).endpoint.credentials


def test_an_api_key_goes_in_the_header_named() -> None:
    endpoint = source(api_key="k", api_key_header="X-Own").endpoint
    assert request_headers(endpoint) == {"X-Own": "k"}


def test_oauth2_is_read() -> None:
    found = credentials(
        oauth2={
            **OAUTH2,
            "scope": "a b",
            "audience": "x",
            "extra": {"account": 7},
            "auth_style": "basic",
            "body_format": "json",
        }
    )
    assert found.oauth2 == OAuth2(
        "https://h/t",
        "c",
        client_secret=Secret("hunter2"),
        scope="a b",
        audience="x",
        extra=(("account", Secret("7")),),
        auth_style="basic",
        body_format="json",
    )
    assert "hunter2" not in repr(found)


def test_a_certificate_may_stand_for_the_clients_secret(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("certificate", encoding="ascii")
    keys = {"token_url": "https://h/t", "client_id": "c"}
    found = credentials(oauth2=keys, tls={"cert_path": str(tmp_path / "cert.pem")})
    assert found.oauth2 == OAuth2("https://h/t", "c")


def test_a_service_accounts_file_is_read_and_what_is_written_beside_it_wins(
    tmp_path: Path,
) -> None:
    path = write_service_account(tmp_path)
    found = credentials(jwt_bearer={"key_file": str(path)}).jwt_bearer
    assert found == JwtBearer(
        TOKEN_URI,
        Secret(pem_of(rsa_key())),
        "flicker@project.iam.gserviceaccount.com",
        key_id="key-1",
    )
    changed = {"key_file": str(path), **JWT, "key_id": "k"}
    assert credentials(jwt_bearer=changed).jwt_bearer == JwtBearer(
        "https://h/t", Secret(pem_of(rsa_key())), "me", key_id="k"
    )


def test_aws_and_signers_are_read() -> None:
    assert credentials(aws_sigv4=SIGV4).aws_sigv4 == AwsSigV4("cloudtrail", "eu-central-1")
    found = credentials(signer=DUO, signer_options={"secret_key": "hunter2"})
    assert found.signer == Signer(DUO, (("secret_key", Secret("hunter2")),))
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"api_key_header": "X-A"}, "api_key_header", "does nothing without `api_key`"),
        ({"api_key": "k", "api_key_header": "X A"}, "api_key_header", "no header name"),
        (
            {"api_key": "k", "api_key_header": "X-A", "headers": {"x-a": "b"}},
            "headers.x-a",
            "`api_key` sends too",
        ),
        ({"signer_options": {"a": "b"}}, "signer_options", "does nothing without `signer`"),
        ({"oauth2": OAUTH2, "signer": DUO}, "signer", "`oauth2` authenticates already"),
        ({"oauth2": OAUTH2, "aws_sigv4": SIGV4}, "", "`oauth2` and `aws_sigv4`"),
        (
            {"oauth2": OAUTH2, "basic": {"username": "u", "password": "p"}},
            "",
            "`basic` and `oauth2`",
        ),
        (
            {"aws_sigv4": SIGV4, "headers": {"Authorization": "x"}},
            "headers.Authorization",
            "`aws_sigv4` sends too",
        ),
        ({"oauth2": {**OAUTH2, "token_url": "h/t"}}, "oauth2.token_url", "absolute URL"),
        ({"oauth2": {**OAUTH2, "grant_type": "x"}}, "oauth2.grant_type", "must be `client_cred"),
        ({"oauth2": {**OAUTH2, "scopes": "x"}}, "oauth2.scopes", "`scope`"),
        (
            {"oauth2": {"token_url": "https://h/t", "client_id": "c"}},
            "oauth2.client_secret",
            "required and missing",
        ),
        ({"oauth2": REFRESH}, "oauth2", "no `refresh_token`"),
        ({"oauth2": {**OAUTH2, "refresh_token": "hunter2"}}, "oauth2", "does not use"),
        ({"oauth2": {**OAUTH2, "grant_type": "account_credentials"}}, "oauth2", "`account_id`"),
        (
            {"oauth2": {**REFRESH, "refresh_token": "r", "auth_style": "basic"}},
            "oauth2",
            "no `client_secret`",
        ),
        ({"oauth2": {**OAUTH2, "extra": {"scope": "x"}}}, "oauth2", "a key of its own"),
        ({"jwt_bearer": JWT}, "jwt_bearer", "one of `private_key`"),
        ({"jwt_bearer": {**JWT, "private_key": "hunter2"}}, "jwt_bearer.private_key", "no private"),
        (
            {"jwt_bearer": {**JWT, "private_key": "-----BEGIN PRIVATE KEY-----hunter2"}},
            "jwt_bearer.private_key",
            "can be read",
        ),
        ({"aws_sigv4": {"service": "x"}}, "aws_sigv4.region", "required and missing"),
    ],
)
def test_what_is_wrong_is_told_at_its_path(keys: dict[str, Any], path: str, words: str) -> None:
    found_path, message = only(one(**keys))
    assert found_path == f"api_sources[0].{path}".removesuffix(".")
    assert words in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_url": None}, "needs `token_url`"),
        ({"issuer": None}, "needs `issuer`"),
        ({"algorithm": "ES256"}, "ES256 does not sign with"),
        ({"style": "client_assertion"}, "no `client_id`"),
        ({"client_id": "c"}, "which only the style client_assertion uses"),
        ({"key_file": True}, "needs one of"),
        ({"extra": {"assertion": "x"}}, "a key of its own"),
    ],
)
def test_an_assertion_needs_all_its_parts(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if "key_file" in changes:
        changes = {"key_file": str(write_service_account(tmp_path))}
    keys = {**JWT, "private_key": pem_of(rsa_key()), **changes}
    path, message = only(one(jwt_bearer={k: v for k, v in keys.items() if v is not None}))
    assert path == "api_sources[0].jwt_bearer"
    assert words in message
    assert "PRIVATE" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hunter2", "is no private key in PEM"),
        (pem_of(rsa_key()).replace("A", "!", 9), "can be read"),
        (pem_of(ec_key(), b"passphrase"), "passphrase"),
        (b"\xff\xfe", "is no text"),
        (None, "which is not a file"),
    ],
)
def test_a_file_with_a_key_is_checked(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found_path, message = only(one(jwt_bearer={**JWT, "private_key_path": str(path)}))
    assert found_path == "api_sources[0].jwt_bearer.private_key_path"
    assert words in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"private_key": None}, "has no private_key"),
        ({"private_key": "hunter2"}, "has a private_key that is no private key"),
        ({"client_email": 1}, "has no client_email"),
        ({"token_uri": "nowhere"}, "token_uri that is no URL"),
    ],
)
def test_a_service_accounts_file_is_checked(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = write_service_account(tmp_path, **changes)
    found_path, message = only(one(jwt_bearer={"key_file": str(path)}))
    assert found_path == "api_sources[0].jwt_bearer.key_file"
    assert words in message
    assert "hunter2" not in message


@pytest.mark.parametrize("content", ["no JSON", "[" * 100_000, "[1]"])
def test_a_service_accounts_file_is_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(content, encoding="ascii")
    _, message = only(one(jwt_bearer={"key_file": str(path)}))
    assert "that Google made" in message


def test_problems_of_credentials_are_told_together() -> None:
    file = one(oauth2={"client_id": 1}, jwt_bearer={"keyfile": "x"}, aws_sigv4={"region": ""})
    assert {
        "api_sources[0].oauth2.token_url",
        "api_sources[0].oauth2.client_id",
        "api_sources[0].oauth2.client_secret",
        "api_sources[0].jwt_bearer.keyfile",
        "api_sources[0].aws_sigv4.service",
        "api_sources[0].aws_sigv4.region",
        "api_sources[0]",
    } == set(problems(file))


def test_the_schema_names_the_grants() -> None:
    grants = config.json_schema()["$defs"]["OAuth2Entry"]["properties"]["grant_type"]
    assert "account_credentials" in str(grants)
