"""Proxies of the environment: what `requests` makes of it, at a fraction of the time."""

from __future__ import annotations

from itertools import product

import pytest
from requests import utils

from flicker.proxies import get_environ_proxies

URLS = (
    "http://api.example/events?x=1",
    "https://api.example/events",
    "https://api.example:8443/",
    "http://127.0.0.1:9999/ingest",
    "https://other.example/",
)
ENVIRONS: tuple[dict[str, str], ...] = (
    {},
    {"HTTP_PROXY": "http://one:1"},
    {"http_proxy": "http://one:1", "HTTPS_PROXY": "http://two:2"},
    {"ALL_PROXY": "socks5h://three:3"},
    {"all_proxy": "socks5h://three:3", "NO_PROXY": "api.example"},
    {"https_proxy": "http://two:2", "no_proxy": "api.example:8443,127.0.0.0/8"},
    {"HTTPS_PROXY": "http://two:2", "no_proxy": "*"},
    {"HTTP_PROXY": "http://one:1", "REQUEST_METHOD": "GET"},
)


@pytest.mark.parametrize(("environ", "url"), list(product(ENVIRONS, URLS)))
def test_proxies_are_those_that_requests_finds(
    environ: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment was before: it is looked at each time."""
    names = {name.lower() for other in ENVIRONS for name in other}
    for name in names | {name.upper() for name in names}:
        monkeypatch.delenv(name, raising=False)
    get_environ_proxies(url)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    expected = utils.get_environ_proxies(url)
    assert get_environ_proxies(url) == expected
    get_environ_proxies(url).clear()
    assert get_environ_proxies(url) == expected
