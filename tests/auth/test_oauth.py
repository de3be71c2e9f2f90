"""Tokens by OAuth 2.0, against a strict token endpoint."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest

from flicker.auth.shared import Authenticators
from flicker.auth.tokens import RECENT_TOKENS, BearerTokens
from flicker.demo.servers import Request, Response
from flicker.errors import HumanNeededError, RequestError, RetryableError
from flicker.log import configure_logging
from flicker.settings import Credentials, OAuth2, Secret
from tests.auth.asking import Asker
from tests.processes import wait_until
from tests.servers.oauth import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 45.0

logger = logging.getLogger("flicker.test")


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture
def api(tokens: TokenServer) -> Iterator[ScriptedApi]:
    with ScriptedApi(guarded_by(tokens)) as server:
        yield server


def guarded_by(tokens: TokenServer) -> Callable[[Request], Response]:
    return lambda request: tokens.refusal(request) or Response(body=[])


def oauth2(tokens: TokenServer, **changes: Any) -> Credentials:
    keys = {"client_id": CLIENT_ID, "client_secret": Secret(CLIENT_SECRET), **changes}
    return Credentials(oauth2=OAuth2(tokens.token_url, **keys))


@pytest.mark.parametrize("auth_style", ["body", "basic"])
@pytest.mark.parametrize("body_format", ["form", "json"])
def test_the_client_proves_itself_as_configured(auth_style: str, body_format: str) -> None:
    """Secrets with a slash, a space and a plus arrive as they are, in all four forms."""
    wanted = {"scope": "logs.read more", "audience": "https://api/", "tenant": "a b"}
    with (
        TokenServer(
            auth_style=auth_style,
            body_format=body_format,
            check=lambda params: None if wanted.items() <= params.items() else "invalid_scope",
        ) as tokens,
        ScriptedApi(guarded_by(tokens)) as api,
    ):
        extra = (("tenant", Secret("a b")),)
        asker = Asker(
            api.url,
            oauth2(
                tokens,
                auth_style=auth_style,
                body_format=body_format,
                scope=wanted["scope"],
                audience=wanted["audience"],
                extra=extra,
            ),
        )
        assert asker.ask() == 200


def test_account_credentials_are_asked_for_with_the_account() -> None:
    """Zoom's grant."""
    with (
        TokenServer(
            "account_credentials",
            auth_style="basic",
            check=lambda params: None if params.get("account_id") == "acc" else "invalid_request",
        ) as tokens,
        ScriptedApi(guarded_by(tokens)) as api,
    ):
        credentials = oauth2(
            tokens,
            grant_type="account_credentials",
            auth_style="basic",
            extra=(("account_id", Secret("acc")),),
        )
        assert Asker(api.url, credentials).ask() == 200


def test_a_token_is_asked_for_once_while_it_lasts(tokens: TokenServer, api: ScriptedApi) -> None:
    asker = Asker(api.url, oauth2(tokens))
    assert [asker.ask() for _ in range(3)] == [200] * 3
    assert len(tokens.requests) == 1


@pytest.mark.parametrize(
    "life",
    [None, 0, -1, "3600", 3600.0, "3600.5", "soon", "", "NaN", [3600], {"s": 1}, True, 10**400],
)
def test_a_token_is_kept_however_its_life_is_told(
    tokens: TokenServer, api: ScriptedApi, life: object
) -> None:
    """T33: no `expires_in`, none worth the name, text, a number with a point: the token is good."""
    tokens.expires_in = life
    asker = Asker(api.url, oauth2(tokens))
    assert [asker.ask() for _ in range(3)] == [200] * 3
    assert len(tokens.requests) == 1


@pytest.mark.parametrize("life", [1, "1", 1.2, "1.2"])
def test_a_token_is_renewed_before_it_expires(
    tokens: TokenServer, api: ScriptedApi, life: object
) -> None:
    tokens.expires_in = life
    asker = Asker(api.url, oauth2(tokens))
    assert wait_until(lambda: asker.ask() == 200 and len(tokens.requests) > 1)


@pytest.mark.parametrize(("life", "used"), [(3600, 3540), ("3600", 3540), (100, 90), (1, 0.9)])
def test_a_token_is_not_used_in_the_last_of_its_life(
    tokens: TokenServer, api: ScriptedApi, life: object, used: float
) -> None:
    """T33: it must last until the request has arrived; a minute, or the tenth that is less."""
    tokens.expires_in = life
    asker = Asker(api.url, oauth2(tokens))
    started_s = time.monotonic()
    assert asker.ask() == 200
    ended_s = time.monotonic()
    assert isinstance(asker.authenticator, BearerTokens)
    token = asker.authenticator._token
    assert token is not None
    assert started_s + used <= token.good_until_s <= ended_s + used


def test_a_refused_token_is_renewed_and_the_same_request_sent_again(
    tokens: TokenServer, api: ScriptedApi
) -> None:
    """T33."""
    asker = Asker(api.url, oauth2(tokens))
    assert asker.ask("/?after=1") == 200
    tokens.revoke()
    assert asker.ask("/?after=2", b'{"a":1}') == 200
    assert [(sent.method, sent.target, sent.body) for sent in api.requests] == [
        ("GET", "/?after=1", b""),
        ("POST", "/?after=2", b'{"a":1}'),
        ("POST", "/?after=2", b'{"a":1}'),
    ]
    assert len(tokens.requests) == 2


def test_a_token_refused_twice_is_not_renewed_again(tokens: TokenServer) -> None:
    """T33: credentials that are not allowed to, not a token that has expired."""
    with ScriptedApi([Response(401)]) as api:
        assert Asker(api.url, oauth2(tokens)).ask() == 401
        assert len(api.requests) == len(tokens.requests) == 2


def test_sources_with_equal_credentials_share_a_token(
    tokens: TokenServer, api: ScriptedApi
) -> None:
    shared = Authenticators()
    askers = [Asker(api.url, oauth2(tokens), shared=shared) for _ in range(2)]
    other = Asker(api.url, oauth2(tokens, scope="other"), shared=shared)
    assert [asker.ask() for asker in (*askers, other)] == [200] * 3
    assert len(tokens.requests) == 2


def test_many_refused_at_once_ask_for_one_new_token(tokens: TokenServer) -> None:
    """T33: the API holds all of them back until all have come with the old token."""
    count = 6
    shared = Authenticators()
    barrier = threading.Barrier(count)

    def respond(request: Request) -> Response:
        refusal = tokens.refusal(request)
        if refusal is not None:
            barrier.wait(LIMIT_S)
        return refusal or Response(body=[])

    with ScriptedApi(respond) as api:
        askers = [Asker(api.url, oauth2(tokens), shared=shared) for _ in range(count)]
        assert askers[0].ask() == 200
        tokens.revoke()
        with ThreadPoolExecutor(count) as threads:
            assert list(threads.map(lambda asker: asker.ask(), askers)) == [200] * count
    assert len(tokens.requests) == 2


class CountingLock:
    """A lock that knows how many came for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._comers = itertools.count(1)
        self.comers = 0

    def acquire(self, timeout: float) -> bool:
        self.comers = next(self._comers)
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def test_who_waits_for_a_token_shares_the_failure(tokens: TokenServer, api: ScriptedApi) -> None:
    """A token endpoint that is down costs one time limit, not one for each source."""
    count = 4
    shared = Authenticators()
    askers = [Asker(api.url, oauth2(tokens), shared=shared) for _ in range(count)]
    lock = CountingLock()
    askers[0].authenticator._asking = lock  # type: ignore[union-attr]
    tokens.before_reply = lambda _: Response(503, fault="silence")

    def fail(asker: Asker) -> str:
        with pytest.raises(RetryableError) as caught:
            asker.ask()
        return str(caught.value)

    with ThreadPoolExecutor(count) as threads:
        results = [threads.submit(fail, asker) for asker in askers]
        assert wait_until(lambda: lock.comers == count)
        assert tokens.wait_for_silence(1, LIMIT_S)
        tokens.release()
        messages = {result.result(LIMIT_S) for result in results}
    assert len(messages) == 1
    assert "503" in messages.pop()
    assert len(tokens.requests) == 1


def test_a_refresh_token_that_is_replaced_is_used_from_then_on_and_concealed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """T67: in the log as in what servers say."""
    configure_logging("info", "text")
    good = ["first-refresh-token"]

    def check(params: dict[str, str]) -> str | None:
        return None if params.get("refresh_token") == good[-1] else "invalid_grant"

    with (
        TokenServer("refresh_token", check=check) as tokens,
        ScriptedApi(guarded_by(tokens)) as api,
    ):
        asker = Asker(
            api.url, oauth2(tokens, grant_type="refresh_token", refresh_token=Secret(good[0]))
        )
        tokens.more = {"refresh_token": "second-refresh-token"}
        assert asker.ask() == 200
        good.append("second-refresh-token")
        logger.info("got %s", good[-1])
        assert capsys.readouterr().err.endswith("got ***\n")
        assert asker.client.redact(f"got {good[-1]} for {good[0]}") == "got *** for ***"
        tokens.revoke()
        tokens.more = {}
        assert asker.ask() == 200
        tokens.revoke()
        assert asker.ask() == 200
        assert len(tokens.requests) == 3
        # Refused, it gives way to the configured one.
        good.append("first-refresh-token")
        tokens.revoke()
        with pytest.raises(HumanNeededError, match="invalid_grant"):
            asker.ask()
        assert asker.ask() == 200


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (Response(503), RetryableError, "answers 503"),
        (Response(429, [("Retry-After", "7")]), RetryableError, "answers 429"),
        (Response(401, body={"error": "invalid_client"}), HumanNeededError, "invalid_client"),
        (Response(200, body={"error": "invalid_grant"}), HumanNeededError, "invalid_grant"),
        (Response(403, body={"error": "access_denied"}), HumanNeededError, "access_denied"),
        (Response(400, body={"error": "temporarily_unavailable"}), RetryableError, "temporarily"),
        (Response(400, body={"error": {"code": 1}}), HumanNeededError, "answers 400"),
        (Response(400, body={"error": "custom_code"}), HumanNeededError, "custom_code"),
        (Response(200, body={"error": "custom_code"}), RetryableError, "custom_code"),
        (Response(200, body={}), RetryableError, "no access_token"),
        (Response(200, body=[1]), RetryableError, "no access_token"),
        (Response(200, body="<html>"), RetryableError, "no access_token"),
        (Response(200, body={"access_token": None}), RetryableError, "no access_token"),
        (Response(200, body={"access_token": "a\r\nX: b"}), RetryableError, "no access_token"),
        (Response(200, body={"access_token": "a"}, fault="truncate"), RetryableError, "no access"),
        (Response(302, [("Location", "/elsewhere")]), HumanNeededError, "token_url"),
        (Response(404), HumanNeededError, "token_url"),
        (Response(fault="silence"), RetryableError, "did not answer within"),
        (Response(fault="reset_before_headers"), RetryableError, ""),
    ],
)
def test_failures_of_the_token_endpoint_are_told_apart(
    tokens: TokenServer,
    api: ScriptedApi,
    response: Response,
    kind: type[RequestError],
    words: str,
) -> None:
    """T33: and none of them has a status, which would be taken for the API's."""
    tokens.before_reply = lambda _: response
    asker = Asker(api.url, oauth2(tokens), timeout_s=3.0)
    with pytest.raises(RequestError) as caught:
        asker.ask()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(f"the token endpoint 127.0.0.1:{tokens.port} gave no token: ")
    assert words in message
    assert caught.value.status is None
    assert api.requests == []
    assert len(tokens.requests) == 1
    is_limit = response.status == 429
    assert getattr(caught.value, "retry_after_s", None) == (7.0 if is_limit else None)
    # What passes, passes.
    tokens.before_reply = lambda _: None
    assert asker.ask() == 200


@pytest.mark.parametrize("error", [CLIENT_SECRET, "not-an-extra-secret", "no code,\nbut a text"])
def test_nothing_of_the_servers_own_is_told_but_codes(
    tokens: TokenServer, api: ScriptedApi, error: str
) -> None:
    """T67: servers echo what they refuse."""
    body = {"error": error, "error_description": CLIENT_SECRET}
    tokens.before_reply = lambda _: Response(400, body=body)
    extra = (("account", Secret("an-extra-secret")),)
    with pytest.raises(HumanNeededError) as caught:
        Asker(api.url, oauth2(tokens, extra=extra)).ask()
    assert CLIENT_SECRET not in str(caught.value)
    assert "an-extra-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "answers 400 with the error" in str(caught.value)


@pytest.mark.parametrize("secret", ["kis+secret/of=client", "kisSecretOfClient7"])
def test_codes_that_have_the_clients_secret_in_base64_are_not_told(
    tokens: TokenServer, api: ScriptedApi, secret: str
) -> None:
    """T67: as it stands in HTTP Basic, or alone."""
    for text in (f"wdc:{quote_plus(secret)}", secret):
        encoded = b64encode(text.encode()).decode().rstrip("=")
        body = {"error": f"bad:{encoded}"}
        tokens.before_reply = lambda _, body=body: Response(400, body=body)  # type: ignore[misc]
        credentials = oauth2(tokens, client_secret=Secret(secret), auth_style="basic")
        with pytest.raises(HumanNeededError, match=r"the error bad:\*\*\*\. Check"):
            Asker(api.url, credentials).ask()


def test_the_time_a_token_takes_is_not_the_apis(tokens: TokenServer, api: ScriptedApi) -> None:
    tokens.before_reply = lambda _: Response(body={"access_token": "slow-token"}, delay_s=1.5)
    api.respond = lambda _: Response(body=[], delay_s=1.5)
    assert Asker(api.url, oauth2(tokens), timeout_s=2.5).ask() == 200


def test_present_tokens_are_taken_out_of_what_servers_say(
    tokens: TokenServer, api: ScriptedApi
) -> None:
    """T67."""
    asker = Asker(api.url, oauth2(tokens))
    assert asker.ask() == 200
    said = f"no {tokens.tokens[0]} and no s3cret%2Fof+client%2B1, please"
    assert asker.client.redact(said) == "no *** and no ***, please"


def test_the_log_conceals_the_last_few_tokens_and_forgets_the_others(
    tokens: TokenServer, api: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """T67: whether they were refused or grew old; what is looked for must not grow for ever."""
    configure_logging("info", "text")
    asker = Asker(api.url, oauth2(tokens))
    for _ in range(RECENT_TOKENS):
        tokens.revoke()
        assert asker.ask() == 200
    tokens.expires_in = 0.001
    tokens.revoke()
    for _ in range(RECENT_TOKENS):
        assert asker.ask() == 200
    capsys.readouterr()
    for token in tokens.tokens:
        logger.info("got %s", token)
    shown = [line.partition("got ")[2] for line in capsys.readouterr().err.splitlines()]
    assert shown == [*tokens.tokens[:-RECENT_TOKENS], *["***"] * RECENT_TOKENS]
    assert len(shown) > RECENT_TOKENS


def test_no_token_follows_a_redirect_off_the_origin(tokens: TokenServer) -> None:
    """T34."""
    with ScriptedApi([Response(body=[])]) as other:
        away = Response(302, [("Location", f"{other.url}/")])
        with ScriptedApi([away]) as api, pytest.raises(HumanNeededError, match="off the config"):
            Asker(api.url, oauth2(tokens)).ask()
        assert other.requests == []
