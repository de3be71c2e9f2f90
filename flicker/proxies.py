"""Which proxies requests go through, as `requests` reads the environment."""

from __future__ import annotations

import os
from functools import lru_cache
from urllib.parse import urlsplit

from requests import utils

_NAMES = tuple(
    name
    for scheme in ("http", "https", "all", "no")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
)
_CGI = "REQUEST_METHOD"
"""Where it is set, the header `Proxy` of a request may have set HTTP_PROXY."""


def get_environ_proxies(url: str) -> dict[str, str]:
    """Give the proxies for a URL by scheme.

    `requests` goes through the whole environment twice for each: a quarter of a
    second for a thousand sources.
    """
    parts = urlsplit(url)
    environ = tuple(map(os.environ.get, (*_NAMES, _CGI)))
    return dict(_read_environ(f"{parts.scheme}://{parts.netloc}", environ))


@lru_cache(maxsize=1024)
def _read_environ(origin: str, environ: tuple[str | None, ...]) -> dict[str, str]:
    del environ
    proxies: dict[str, str] = utils.get_environ_proxies(origin)
    return proxies
