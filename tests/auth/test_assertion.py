"""Assertions signed with a private key, checked with the public one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from flicker.demo.servers import Response
from flicker.errors import HumanNeededError
from flicker.settings import Credentials, JwtBearer, Secret
from tests.auth.asking import Asker
from tests.auth.keys import ec_key, pem_of, rsa_key, write_service_account
from tests.config.files import source
from tests.servers.oauth import TokenServer
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from pathlib import Path

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def asked_with(server: TokenServer, credentials: Credentials) -> dict[str, str]:
    """Have a token asked for and used; give the token request's parameters."""
    with ScriptedApi(lambda request: server.refusal(request) or Response(body=[])) as api:
        assert Asker(api.url, credentials).ask() == 200
    return server.params(server.requests[0])


def claims_of(assertion: str, key: Any, algorithm: str, audience: str) -> dict[str, Any]:
    """Check an assertion as a server would, and give what it claims."""
    claims: dict[str, Any] = jwt.decode(
        assertion,
        key.public_key(),
        algorithms=[algorithm],
        audience=audience,
        options={"require": ["iat", "exp", "iss", "aud", "jti"]},
    )
    assert time.time() - 60 < claims["iat"] < claims["exp"] <= claims["iat"] + 180
    return claims


def test_a_service_account_asks_as_google_has_it(tmp_path: Path) -> None:
    """What the key file says is enough; scope and the user it stands for are claims."""
    with TokenServer(GRANT, proves_itself=False) as server:
        path = write_service_account(tmp_path, token_uri=server.token_url)
        keys = {"key_file": str(path), "scope": "audit.readonly", "subject": "admin@example.com"}
        params = asked_with(server, source(jwt_bearer=keys).endpoint.credentials)
        claims = claims_of(params["assertion"], rsa_key(), "RS256", server.token_url)
    assert set(params) == {"grant_type", "assertion"}
    assert claims["iss"] == "flicker@project.iam.gserviceaccount.com"
    assert claims["sub"] == "admin@example.com"
    assert claims["scope"] == "audit.readonly"
    assert jwt.get_unverified_header(params["assertion"])["kid"] == "key-1"


def test_a_service_account_that_stands_for_nobody_names_nobody(tmp_path: Path) -> None:
    with TokenServer(GRANT, proves_itself=False) as server:
        path = write_service_account(tmp_path, token_uri=server.token_url)
        keys = {"key_file": str(path)}
        params = asked_with(server, source(jwt_bearer=keys).endpoint.credentials)
        claims = claims_of(params["assertion"], rsa_key(), "RS256", server.token_url)
    assert set(claims) == {"iss", "aud", "iat", "exp", "jti"}


def test_a_client_assertion_stands_for_the_clients_secret(tmp_path: Path) -> None:
    """Okta's private_key_jwt; here with an elliptic curve and an audience of its own."""
    key_path = tmp_path / "key.pem"
    key_path.write_text(pem_of(ec_key()), encoding="ascii")
    with TokenServer(proves_itself=False) as server:
        keys = {
            "token_url": server.token_url,
            "style": "client_assertion",
            "client_id": "client-9",
            "private_key_path": str(key_path),
            "algorithm": "ES256",
            "audience": "https://issuer.example",
            "scope": "okta.logs.read",
            "extra": {"resource": "logs"},
        }
        params = asked_with(server, source(jwt_bearer=keys).endpoint.credentials)
    claims = claims_of(params.pop("client_assertion"), ec_key(), "ES256", "https://issuer.example")
    assert params == {
        "grant_type": "client_credentials",
        "client_id": "client-9",
        "client_assertion_type": ASSERTION,
        "scope": "okta.logs.read",
        "resource": "logs",
    }
    assert (claims["iss"], claims["sub"]) == ("client-9", "client-9")


def test_each_token_has_an_assertion_of_its_own() -> None:
    """Servers refuse one that they have seen."""
    with TokenServer(GRANT, proves_itself=False) as server:
        settings = JwtBearer(server.token_url, Secret(pem_of(rsa_key())), "me")
        with ScriptedApi(lambda request: server.refusal(request) or Response(body=[])) as api:
            asker = Asker(api.url, Credentials(jwt_bearer=settings))
            asker.ask()
            server.revoke()
            asker.ask()
        first, second = (server.params(request)["assertion"] for request in server.requests)
    assert first != second


def test_a_key_written_on_one_line_is_a_key() -> None:
    """As variables of containers often have it."""
    pem = pem_of(rsa_key())
    keys = {"token_url": "https://h/t", "issuer": "me", "private_key": "${KEY}"}
    environ = {"KEY": pem.replace("\n", "\\n")}
    found = source(environ, jwt_bearer=keys).endpoint.credentials.jwt_bearer
    assert found is not None
    assert found.private_key == Secret(pem)


def test_no_line_of_the_key_is_told() -> None:
    """T67: not even by a server that echoes it."""
    pem = pem_of(rsa_key())
    settings = JwtBearer("https://h/t", Secret(pem), "me")
    assert pem.splitlines()[1] not in repr(Credentials(jwt_bearer=settings))
    with TokenServer(GRANT, proves_itself=False) as server:
        settings = JwtBearer(server.token_url, Secret(pem), "me")
        server.before_reply = lambda _: Response(400, body={"error": pem.splitlines()[3]})
        asker = Asker("http://127.0.0.1:9/", Credentials(jwt_bearer=settings))
        with pytest.raises(HumanNeededError) as caught:
            asker.ask()
        assert pem.splitlines()[3] not in str(caught.value)
        assert asker.client.redact(pem.splitlines()[3]) == "***"
