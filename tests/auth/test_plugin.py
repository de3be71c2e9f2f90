"""Signers of one's own, and Duo's."""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import duo_client.client
import pytest

from flicker.demo.servers import Response
from flicker.errors import HumanNeededError
from flicker.settings import Credentials, Secret, Signer
from tests.auth.asking import Asker
from tests.config.files import one, only, source
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REFERENCE = Path(__file__).parent.parent.parent / "docs/configuration.md"
EXAMPLE = re.compile(r"<!-- signer -->\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DUO = {
    "integration_key": "DI0123456789ABCDEFGH",
    "secret_key": "s3cret-key-of-duo",
}


@pytest.fixture
def write_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], str]]:
    """Writes a module that Python finds, and gives the name of its function `sign`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written: list[str] = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        written.append(name)
        return f"{name}:sign"

    yield write
    for name in written:
        sys.modules.pop(name, None)


def signer(name: str, **options: str) -> Credentials:
    return Credentials(
        signer=Signer(name, tuple((key, Secret(text)) for key, text in options.items()))
    )


@pytest.mark.parametrize("digest", ["sha1", "sha512"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mintime": "1714953599", "limit": "1000"},
        {"b": "a~b c/d+e", "a": "ü&=", "c": ""},
        {"users": ["z", "a"], "realname": "First Last"},
    ],
)
def test_duos_signature_is_that_of_duos_own_client(
    digest: str, params: dict[str, str | list[str]]
) -> None:
    query = urlencode(params, doseq=True)
    with ScriptedApi([Response(body={"stat": "OK"})]) as api:
        credentials = signer("flicker.auth.duo:sign", digest=digest, **DUO)
        Asker(api.url, credentials).ask(f"/admin/v1/logs/administrator?{query}")
        [request] = api.requests
    assert request.headers["authorization"] == duo_client.client.sign(
        DUO["integration_key"],
        DUO["secret_key"],
        "GET",
        "127.0.0.1",
        "/admin/v1/logs/administrator",
        request.headers["date"],
        2,
        duo_client.client.normalize_params(params),
        digestmod={"sha1": hashlib.sha1, "sha512": hashlib.sha512}[digest],
    )


def test_the_signer_of_the_reference_signs_what_is_sent(
    write_module: Callable[[str, str], str],
) -> None:
    found = EXAMPLE.search(REFERENCE.read_text(encoding="utf-8"))
    assert found is not None
    name = write_module("signer_of_reference", found[1])
    settings = source(signer=name, signer_options={"key": "a-key"}).endpoint.credentials
    with ScriptedApi([Response(body=[])]) as api:
        Asker(api.url, settings).ask("/logs?q=a b", b"{}")
        [request] = api.requests
    text = f"POST {api.url}/logs?q=a%20b{{}}".encode()
    assert request.headers["x-signature"] == hmac.new(b"a-key", text, hashlib.sha256).hexdigest()


def test_a_signer_sees_the_headers_and_may_replace_them(
    write_module: Callable[[str, str], str],
) -> None:
    name = write_module(
        "signer_of_headers",
        "def sign(request, options):\n    return {'accept': request.headers['Accept'] + ', a/b'}\n",
    )
    with ScriptedApi([Response(body=[])]) as api:
        Asker(api.url, signer(name)).ask()
        assert api.requests[0].headers["accept"] == "application/json, a/b"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError(options['key'])", "fails with KeyError"),
        ("return None", "gave no headers"),
        ("return {'X-A': 1}", "gave no headers"),
        ("return {'X-A': 'a\\r\\nX-B: b'}", "gave no headers"),
        ("return {'X A': 'a'}", "gave no headers"),
    ],
)
def test_a_signer_that_fails_needs_a_human(
    write_module: Callable[[str, str], str], body: str, words: str
) -> None:
    """T67: what it says may hold its key."""
    name = write_module("signer_that_fails", f"def sign(request, options):\n    {body}\n")
    with pytest.raises(HumanNeededError) as caught:
        Asker("http://127.0.0.1:9/", signer(name, key="s3cret-key")).ask()
    assert f"the signer {name} {words}" in str(caught.value)
    assert "s3cret-key" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("duo", "must be `package.module:function`"),
        ("flicker.auth.duo", "must be `package.module:function`"),
        ("no_such_package.x:sign", "does not find: install it"),
        ("flicker.no_such_module:sign", "does not find: install it"),
        ("flicker.auth.duo:sing", "no such function"),
        ("flicker.auth.duo:__name__", "no function"),
        ("signer_broken:sign", "fails when it is loaded (ZeroDivisionError)"),
        ("signer_needy:sign", "imports another one"),
    ],
)
def test_a_signer_is_loaded_with_the_configuration(
    write_module: Callable[[str, str], str], name: str, words: str
) -> None:
    write_module("signer_broken", "1 / 0\n")
    write_module("signer_needy", "import no_such_module_at_all\n")
    path, message = only(one(signer=name))
    assert path == "api_sources[0].signer"
    assert words in message
