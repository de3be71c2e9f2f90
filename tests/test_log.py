"""Log lines for people and for machines, without secrets in either."""

from __future__ import annotations

import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from flicker.log import conceal_secrets, conceal_tokens, configure_logging
from flicker.settings import (
    Basic,
    Credentials,
    Destination,
    Endpoint,
    JwtBearer,
    OAuth2,
    Secret,
    Settings,
    Signer,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("flicker.test")


def test_text_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    logger.info("page read", extra={"source": "okta", "page": 3, "reason": 'a "b" c'})
    logger.debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.partition("Z ")[2] == 'info    okta: page read page=3 reason="a \\"b\\" c"'


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug", "json")
    try:
        raise KeyError
    except KeyError:
        logger.exception("failed\nbadly", extra={"source": "é\n", "path": object})
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["source"], entry["message"]) == ("error", "é\n", "failed\nbadly")
    assert "KeyError" in entry["exception"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_logged_by_accident_is_concealed(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """T67: the net under all that is careful not to log secrets."""
    texts = {
        "header": 'SSWS quo"te-in-header',
        "param": "in-a-param",
        "password": "the-password",
        "token": "the-token",
        "key": "the-api-key",
    }
    secret = {name: Secret(text) for name, text in texts.items()}
    endpoint = Endpoint(
        "http://127.0.0.1/",
        headers=(("Authorization", secret["header"]),),
        credentials=Credentials(api_key=secret["key"]),
    )
    siem = Endpoint(
        "http://127.0.0.1/?sig=in-the-query-string",
        credentials=Credentials(basic=Basic(Secret("user"), secret["password"])),
    )
    other = Endpoint("http://127.0.0.1/", credentials=Credentials(bearer=secret["token"]))
    settings = Settings(
        (
            Source("a", endpoint, Destination(siem), params=(("p", secret["param"]),)),
            Source("b", endpoint, Destination(other)),
        )
    )
    configure_logging("debug", form)
    conceal_secrets(settings)
    for text in texts.values():
        logger.info("got %s", text, extra={"reason": f"<{text.split()[-1]}>"})
    logger.info("asked %s", siem.url)
    said = capsys.readouterr().err
    assert "***" in said
    for text in [*texts.values(), 'quo"te-in-header', "in-the-query-string"]:
        assert text not in said
        assert json.dumps(text)[1:-1] not in said


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("hasty_threads")
def test_tokens_obtained_at_once_are_all_concealed(capsys: pytest.CaptureFixture[str]) -> None:
    """T67: sources ask for theirs on threads of their own."""
    configure_logging("info", "text")
    conceal_secrets(Settings(()))
    owners = [Owner() for _ in range(8)]
    started = threading.Barrier(len(owners))

    def obtain(number: int, turn: int) -> None:
        started.wait(30)
        conceal_tokens(owners[number], [f"token-{number}-{turn}-{each}" for each in range(50)])

    with ThreadPoolExecutor(len(owners)) as pool:
        for turn in range(100):
            list(pool.map(obtain, range(len(owners)), [turn] * len(owners)))
            logger.info("got", extra={f"t{n}": f"token-{n}-{turn}-49" for n in range(len(owners))})
    assert "token" not in capsys.readouterr().err


class Owner:
    """Of tokens."""


def test_the_net_knows_other_spellings_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    """T67: as a server may have escaped what it quotes."""
    secret = Secret("key/Core+Z=")
    endpoint = Endpoint("http://127.0.0.1/")
    siem = Endpoint(
        "http://h/in/0123456789abcdef-path?0123456789abcdef-query",
        headers=(("Cookie", Secret("sid=a-session; a=1")),),
        credentials=Credentials(header=("X-Auth", Secret("Token token=in-a-header"))),
    )
    source = Source("s", endpoint, Destination(siem), params=(("p", secret),))
    configure_logging("debug", "text")
    conceal_secrets(Settings((source,)))
    conceal_tokens(Owner(), ["tok/en+1"])
    logger.info("got %s", r"key%2FCore%2BZ%3D, key\/Core\u002bZ=, tok%2Fen%2B1")
    assert capsys.readouterr().err.endswith("got ***, ***, ***\n")
    for text in ["0123456789abcdef-path", "0123456789abcdef-query", "a-session", "in-a-header"]:
        logger.info("got %s", f"<{text}>")
        assert capsys.readouterr().err.endswith("got <***>\n")


def test_what_tokens_and_signatures_are_made_from_is_concealed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """T67: and each present token, in the place of the one before it."""
    ways = [
        Credentials(
            oauth2=OAuth2(
                "http://h/?sig=in-the-token-url",
                "client",
                client_secret=Secret("client-secret"),
                refresh_token=Secret("refresh-token"),
                extra=(("x", Secret("an-extra")),),
            )
        ),
        Credentials(
            jwt_bearer=JwtBearer("http://h/", Secret("-----BEGIN\nline-of-key\n-----END"), "me")
        ),
        Credentials(signer=Signer("a:b", (("key", Secret("signer-key")),))),
    ]
    siem = Destination(Endpoint("http://127.0.0.1/"))
    sources = [Source("s", Endpoint("http://h/", credentials=way), siem) for way in ways]
    configure_logging("debug", "text")
    conceal_secrets(Settings(tuple(sources)))
    secrets = ["in-the-token-url", "client-secret", "refresh-token", "an-extra", "line-of-key"]
    for text in [*secrets, "signer-key"]:
        logger.info("got %s", text)
    one, other = Owner(), Owner()
    conceal_tokens(one, ["first-token"])
    logger.info("got %s", "first-token")
    conceal_tokens(one, ["second-token"])
    conceal_tokens(other, ["second-token", "others-token"])
    conceal_tokens(one, ["a"])
    for text in ("second-token", "others-token", "client-secret"):
        logger.info("got %s", text)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("got ")[2] for line in lines] == ["***"] * 10
    for text in ("first-token", "after"):
        logger.info("got %s", text)
        assert capsys.readouterr().err.endswith(f"got {text}\n")
