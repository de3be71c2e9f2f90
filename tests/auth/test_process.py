"""A whole Flicker whose source asks for tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flicker.demo.servers import Destination, Request, Response
from tests.processes import CURSOR, Home, ids_of, make_events, make_source, wait_until
from tests.servers.listing import ListingApi, Style
from tests.servers.oauth import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

STYLE = Style(paging="cursor", time_param="since")
EVENTS = make_events(100)
REVOKED_AT = 3


def holders(directory: Path, texts: list[str]) -> list[Path]:
    """Give the files that have any of some texts in them."""
    return [
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path.name != "config.yaml"
        and any(text.encode() in path.read_bytes() for text in texts)
    ]


def test_a_token_revoked_in_the_middle_of_a_scan_costs_nothing(home: Home) -> None:
    """T33, T67: every event once; no token in the log or in the registry."""
    with TokenServer() as tokens, Destination() as siem:

        def guard(request: Request) -> Response | None:
            if len(api.requests) == REVOKED_AT:
                tokens.revoke()
            return tokens.refusal(request)

        with ListingApi(EVENTS, STYLE, before_reply=guard) as api:
            oauth2 = {
                "token_url": tokens.token_url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
            }
            home.configure(
                make_source("s", api.endpoint, siem.url, oauth2=oauth2, pagination=CURSOR)
            )
            running = home.start("--log-level", "debug")
            assert siem.wait_for(len(EVENTS), 45)
            # A scan more, so that the registry holds what it ever will.
            asked = len(api.requests)
            assert wait_until(lambda: len(api.requests) > asked + 2)
            assert running.stop() == 0
            assert siem.ids == dict.fromkeys(ids_of(EVENTS), 1)
            third, fourth = api.requests[REVOKED_AT - 1 : REVOKED_AT + 1]
        assert third.target == fourth.target
        assert "cursor=" in third.target
        assert [record.headers["authorization"] for record in (third, fourth)] == [
            f"Bearer {token}" for token in tokens.tokens
        ]
        assert "poll failed" not in running.stderr
        assert home.recovery_dir.is_dir()
        assert holders(home.directory, [*tokens.tokens, CLIENT_SECRET]) == []


def test_a_token_endpoint_that_is_down_is_waited_for_and_named(home: Home) -> None:
    """T33, T67: the neighbour with credentials of its own goes on meanwhile."""
    with (
        TokenServer() as tokens,
        Destination() as siem,
        ListingApi(EVENTS[:20], STYLE, before_reply=tokens.refusal) as api,
        ListingApi(EVENTS[20:], STYLE) as neighbour,
    ):
        tokens.before_reply = lambda _: Response(503, body={"error": CLIENT_SECRET})
        oauth2 = {
            "token_url": tokens.token_url,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }
        home.configure(
            make_source("s", api.endpoint, siem.url, oauth2=oauth2, pagination=CURSOR),
            make_source("n", neighbour.endpoint, siem.url, pagination=CURSOR),
        )
        running = home.start()
        assert siem.wait_for(len(EVENTS) - 20, 45)
        named = f"the token endpoint 127.0.0.1:{tokens.port} gave no token: it answers 503"
        assert wait_until(lambda: named in running.stderr)
        assert api.requests == []
        tokens.before_reply = lambda _: None
        assert siem.wait_for(len(EVENTS), 45)
        assert running.stop() == 0
        assert siem.ids == dict.fromkeys(ids_of(EVENTS), 1)
        assert holders(home.directory, [*tokens.tokens, CLIENT_SECRET]) == []


def test_a_key_file_that_cannot_be_read_is_a_line_of_validate(home: Home) -> None:
    path = home.directory / "nowhere.json"
    home.configure(make_source("s", "http://h/", "http://h/", jwt_bearer={"key_file": str(path)}))
    ended = home.run("validate", "-c", str(home.config_path))
    assert ended.code == 2
    assert f"api_sources[0].jwt_bearer.key_file: names {path}" in ended.stderr


def test_a_link_with_the_token_in_it_is_not_kept(home: Home) -> None:
    """T67: a restart in the middle starts over without the link, and repeats nothing."""
    with TokenServer() as tokens, Destination() as siem:

        def answer(request: Request) -> Response:
            refusal = tokens.refusal(request)
            if refusal is not None:
                return refusal
            if "page=2" in request.target:
                return Response(200, body={"events": EVENTS[50:]}) if is_up else Response(503)
            following = f"/logs?page=2&access_token={tokens.tokens[-1]}"
            return Response(200, body={"events": EVENTS[:50], "next": following})

        is_up = False
        with ScriptedApi(answer) as api:
            oauth2 = {
                "token_url": tokens.token_url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
            }
            pagination = {"pagination_type": "next_url", "next_url_field": "next"}
            home.configure(
                make_source("s", api.url, siem.url, oauth2=oauth2, pagination=pagination)
            )
            running = home.start()
            assert siem.wait_for(50, 45), running.stderr
            asked = len(api.requests)
            assert wait_until(lambda: len(api.requests) > asked + 2)
            assert running.stop() == 0
            assert home.recovery_dir.is_dir()
            assert holders(home.directory, tokens.tokens) == []
            is_up = True
            running = home.start()
            assert siem.wait_for(100, 45), running.stderr
            assert running.stop() == 0
        assert siem.ids == dict.fromkeys(ids_of(EVENTS), 1)
