"""Credentials onto requests, and out of what is kept or shown."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.auth.static import request_headers
from flicker.conceal import Concealer, hide, is_concealed, is_lost, secrets_of
from flicker.settings import Basic, Credentials, Endpoint, JwtBearer, OAuth2, Secret, Signer

SECRET = "s3 cr+t/=tok\u00e9n"


def concealer_of(secret: str, **params: str) -> Concealer:
    endpoint = Endpoint("http://127.0.0.1/", credentials=Credentials(bearer=Secret(secret)))
    return Concealer(endpoint, tuple((name, Secret(text)) for name, text in params.items()))


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        SECRET.replace("+", "%2b"),
    ],
)
def test_no_spelling_of_a_secret_is_kept(spelling: str) -> None:
    """T67: vendors echo the query in their links, encoded in ways of their own."""
    concealer = Concealer(Endpoint("http://127.0.0.1/"), (("token", Secret(SECRET)),))
    url = f"http://127.0.0.1/logs?token={spelling}&after=x"
    kept = concealer.conceal(url)
    assert is_concealed(kept)
    assert spelling not in kept
    assert "s3" not in kept
    assert "%73" not in kept
    restored = concealer.restore(kept)
    assert restored.startswith("http://127.0.0.1/logs?token=")
    assert restored.endswith("&after=x")
    if spelling in {SECRET, quote(SECRET), quote_plus(SECRET), quote(SECRET, safe="")}:
        assert restored == url
    assert (
        concealer.redact(url) == concealer.redact(kept) == "http://127.0.0.1/logs?token=***&after=x"
    )


@pytest.mark.parametrize(
    ("spelling", "restored"),
    [
        (quote(quote(SECRET, safe=""), safe=""), None),
        (quote(quote(SECRET)), None),
        (quote(quote_plus(SECRET)), None),
        (json.dumps(SECRET)[1:-1], None),
        (json.dumps(SECRET)[1:-1].replace("/", r"\/"), None),
        (quote(quote(SECRET, safe=""), safe="").lower(), quote(quote(SECRET, safe=""))),
    ],
)
def test_a_secret_that_is_escaped_twice_is_restored_so(spelling: str, restored: str | None) -> None:
    """T67: an API gives its link inside another link's query."""
    concealer = Concealer(Endpoint("http://127.0.0.1/"), (("token", Secret(SECRET)),))
    kept = concealer.conceal(f"http://127.0.0.1/?to=%2Flogs%3Ftoken%3D{spelling}%26after%3Dx")
    assert "tok" not in kept.replace("token%3D", "").replace("query:token", "")
    expected = f"http://127.0.0.1/?to=%2Flogs%3Ftoken%3D{restored or spelling}%26after%3Dx"
    assert concealer.restore(kept) == expected


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        (Endpoint("http://h/?token=abcdef%2F1"), "abcdef/1"),
        (Endpoint("http://h/", credentials=Credentials(api_key=Secret("abcdef"))), "abcdef"),
        (Endpoint("http://h/", credentials=Credentials(bearer=Secret("abcdef"))), "abcdef"),
        (
            Endpoint("http://h/", credentials=Credentials(header=("X-A", Secret("abcdef")))),
            "abcdef",
        ),
        (Endpoint("http://h/", headers=(("Authorization", Secret("SSWS abcdef")),)), "abcdef"),
        (Endpoint("http://h/", headers=(("X-Auth", Secret('Token token="abcdef"')),)), "abcdef"),
        (Endpoint("http://h/", headers=(("Cookie", Secret("sid=abcdef; a=1")),)), "abcdef"),
        (
            Endpoint("http://h/", headers=(("Authorization", Secret("Basic bWU6YWJjZGVm")),)),
            "abcdef",
        ),
        (Endpoint("http://h/?abcdef1234567890abcdef"), "abcdef1234567890abcdef"),
        (
            Endpoint(
                "http://h/", credentials=Credentials(basic=Basic(Secret("me"), Secret("abcdef")))
            ),
            "abcdef",
        ),
        (
            Endpoint(
                "http://h/", credentials=Credentials(basic=Basic(Secret("me"), Secret("abcdef")))
            ),
            "bWU6YWJjZGVm",
        ),
    ],
)
def test_every_configured_credential_is_concealed(endpoint: Endpoint, shown: str) -> None:
    """T67: of headers, of the endpoint's query and of HTTP Basic in both forms."""
    concealer = Concealer(endpoint)
    assert shown not in concealer.conceal(f"http://h/?x={shown}&y")
    assert concealer.restore(concealer.conceal(f"http://h/?x={shown}")) == f"http://h/?x={shown}"
    assert concealer.redact(f"got {shown}") == "got ***"


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(
            oauth2=OAuth2(
                "http://h/",
                "client",
                client_secret=Secret("in-a-link"),
                refresh_token=Secret("refresh-token"),
            )
        ),
        Credentials(oauth2=OAuth2("http://h/", "client", refresh_token=Secret("in-a-link"))),
        Credentials(oauth2=OAuth2("http://h/", "client", extra=(("x", Secret("in-a-link")),))),
        Credentials(jwt_bearer=JwtBearer("http://h/", Secret("-----\nin-a-link\n-----"), "me")),
        Credentials(
            jwt_bearer=JwtBearer(
                "http://h/", Secret("a-key"), "me", extra=(("x", Secret("in-a-link")),)
            )
        ),
        Credentials(signer=Signer("a:b", (("x", Secret("in-a-link")),))),
    ],
)
def test_what_tokens_are_asked_for_with_comes_back_into_links(credentials: Credentials) -> None:
    """T67: it is the same after a restart, and a link without it is lost."""
    endpoint = Endpoint("http://127.0.0.1/", credentials=credentials)
    kept = Concealer(endpoint).conceal("http://127.0.0.1/blob/in-a-link/1")
    assert "in-a-link" not in kept
    assert not is_lost(kept)
    assert Concealer(endpoint).restore(kept) == "http://127.0.0.1/blob/in-a-link/1"


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_apis_own_origin_is_no_secret(slash: str) -> None:
    """Microsoft has it as the token request's `resource`; another value there is one."""
    extra = (("resource", Secret(f"http://h{slash}")), ("x", Secret("http://other")))
    credentials = Credentials(oauth2=OAuth2("http://login/", "client", extra=extra))
    endpoint = Endpoint("http://h/logs", credentials=credentials)
    assert hide("http://h/logs http://other/", secrets_of(endpoint)) == "http://h/logs ***/"
    link = "http://h/logs?page=2"
    assert Concealer(endpoint).conceal(link) == Concealer(endpoint).redact(link) == link


@pytest.mark.parametrize(
    ("username", "password", "is_key"),
    [
        ("tskey-api", "", True),
        ("freshkey", "X", True),
        ("an-api-key-with-20-chars", "a-password", True),
        ("admin", "", False),
        ("me@example.com/token", "a-password", False),
        ("me@example.com", "", False),
        ("flicker-service", "a-password", False),
        ("flicker-service-account", "a-password", False),
    ],
)
def test_a_username_is_concealed_where_it_is_the_key(
    username: str, password: str, *, is_key: bool
) -> None:
    """T67: names of people and services are left to be read."""
    credentials = Credentials(basic=Basic(Secret(username), Secret(password)))
    endpoint = Endpoint("http://h/", credentials=credentials)
    concealer = Concealer(endpoint)
    assert concealer.redact(f"no user {username}") == f"no user {'***' if is_key else username}"
    assert (hide(username, secrets_of(endpoint)) == "***") == is_key
    kept = concealer.conceal(f"http://h/?user={username}")
    assert is_concealed(kept) == is_key
    assert concealer.restore(kept) == f"http://h/?user={username}"


def test_a_kept_link_gets_the_secret_of_that_day() -> None:
    """T67: tokens are rotated between two runs."""
    kept = concealer_of("old-secret").conceal("http://h/?t=old-secret&p=2")
    assert concealer_of("new/secret").restore(kept) == "http://h/?t=new%2Fsecret&p=2"


def test_of_two_uses_of_a_secret_a_link_has_that_in_the_query() -> None:
    """T67: each may be rotated on its own."""
    kept = concealer_of("old-secret", t="old-secret").conceal("http://h/?t=old-secret")
    assert concealer_of("newer-secret", t="in-query").restore(kept) == "http://h/?t=in-query"


def test_a_secret_that_is_gone_leaves_its_mark() -> None:
    """T67: so that the link can be known as useless."""
    kept = concealer_of("old-secret").conceal("http://h/?t=old-secret")
    assert is_concealed(Concealer(Endpoint("http://h/")).restore(kept))


@given(
    secrets=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), max_size=4
    ),
    pick=st.lists(st.integers(0, 6), max_size=6),
)
def test_restoring_undoes_concealing(secrets: list[str], pick: list[int]) -> None:
    """T67: also where one secret is part of another, or of a mark's name."""
    params = {f"param{at}": text for at, text in enumerate([*secrets, "header", "param0"])}
    concealer = concealer_of("query:param0", **params)
    words = [*params.values(), "query", "authorization"]
    text = "&".join(quote(words[at % len(words)], safe="") for at in pick)
    kept = concealer.conceal(text)
    assert concealer.restore(kept) == text
    assert not is_concealed(concealer.redact(kept))


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    """T67: the longer one is looked for first."""
    concealer = concealer_of("abcdef-and-more", short="abcdef", mid="abcdef-and")
    assert "more" not in concealer.conceal("http://h/?t=abcdef-and-more")
    assert concealer.redact("t=abcdef-and-more&s=abcdef") == "t=***&s=***"


def test_keys_in_a_path_are_redacted_and_remain_in_links() -> None:
    """T67: some collectors take their token there; a link without its path would be none."""
    url = "http://h/receiver/v1/ab%2Fcdef1234567890abcdef/logs?pretty"
    concealer = Concealer(Endpoint(url))
    assert concealer.redact("POST /receiver/v1/ab/cdef1234567890abcdef/logs?pretty") == (
        "POST /receiver/v1/***/logs?pretty"
    )
    assert concealer.redact(url) == "http://h/receiver/v1/***/logs?pretty"
    assert concealer.conceal(url) == url


def test_short_values_are_no_secrets() -> None:
    concealer = concealer_of("secret-token", limit="100")
    assert concealer.conceal("http://h/?limit=100") == "http://h/?limit=100"


def test_credentials_take_the_place_of_headers() -> None:
    endpoint = Endpoint(
        "http://h/",
        headers=(("X-Own", Secret("1")), ("Authorization", Secret("none"))),
        credentials=Credentials(bearer=Secret("t")),
    )
    assert request_headers(endpoint) == {"X-Own": "1", "Authorization": "Bearer t"}


def test_every_value_that_is_asked_with_is_concealed() -> None:
    """T67: of a repeated parameter each one, and texts of the body however deep."""
    body = Secret('{"a": {"b.c": ["in-a-list", {"d": "in-an-object"}]}, "n": 1234567}')
    params = tuple(("key", Secret(value)) for value in ("the-first", "the-second"))
    concealer = Concealer(Endpoint("http://h/?key=the-third"), params, body)
    url = "http://h/?in-a-list&in-an-object&the-first&the-second&the-third&1234567"
    kept = concealer.conceal(url)
    assert concealer.redact(url) == "http://h/?***&***&***&***&***&1234567"
    assert "the-" not in kept
    assert "in-a" not in kept
    assert concealer.restore(kept) == url
