"""Credentials out of everything that is kept or shown."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

from flicker.auth.static import request_headers
from flicker.spelling import MIN_SECRET_CHARS, Spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flicker.settings import Basic, Endpoint, JwtBearer, OAuth2, Secret, Signer

RANDOM_CHARS = 20
"""From this length on, a username or part of a path with letters and digits is taken for a key."""

_LOST_MARK = "\0" + "0passing" + "\0"
"""Nothing is ever put back in its place."""

_MARKS = re.compile("\0([0-9])([^\0]*)\0")


class Concealer:
    """Takes configured secrets out of URLs before they are kept.

    Vendors echo the request's query in their next links, token and all. What
    is kept has a mark in its place, which is filled in again when the URL is
    used, with the token of that day.

    Args:
        endpoint: Its headers, its query values and what its tokens and
            signatures are made from count as secrets.
        params: So do these.
        body: So do the texts of this JSON object.
        passing: Gives secrets of the moment, such as a token, and none that is
            configured. A link that has one in it is not to be used again in
            another process.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        params: tuple[tuple[str, Secret], ...] = (),
        body: Secret | None = None,
        passing: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._passing = passing
        secrets: dict[str, str] = {}
        times: Counter[str] = Counter()
        query = query_secrets(endpoint.url)
        for name, value in [*query, *((name, value.reveal()) for name, value in params)]:
            # A name may stand for several values, of which none may be kept.
            number = times[name]
            times[name] += 1
            secrets[f"query#{number}:{name}" if number else f"query:{name}"] = value
        secrets |= {f"body:{path}": text for path, text in body_texts(body)}
        for name, value in request_headers(endpoint).items():
            for number, part in enumerate(header_secrets(value)):
                numbered = f"header#{number}" if number else "header"
                secrets[f"{numbered}:{name.lower()}"] = part
        credentials = endpoint.credentials
        if credentials.basic is not None:
            secrets |= {f"basic:{part}": text for part, text in basic_secrets(credentials.basic)}
        secrets |= dict(maker_secrets(endpoint))
        self._secrets = {
            name: text for name, text in secrets.items() if len(text) >= MIN_SECRET_CHARS
        }
        self._names = list(self._secrets)
        self._any = Spellings(self._secrets.values())
        # A path is the same in each link, which would not be one without it.
        self._shown = Spellings([*self._secrets.values(), *path_secrets(endpoint.url)])
        self._present = Spellings(())

    def conceal(self, text: str) -> str:
        """Put marks in the place of secrets."""
        passing = tuple(self._passing())
        if passing != self._present.texts:
            self._present = Spellings(passing)
        lost = len(self._names)
        places = [(start, -end, number) for start, end, number in self._any.find(text)]
        places += [(start, -end, lost) for start, end, _ in self._present.find(text)]
        pieces, kept_to = [], 0
        # The longest first: one secret may be the beginning of another. Of two
        # that are the same, what stands in the query stays in a link.
        for start, minus_end, number in sorted(places):
            if start >= kept_to:
                spelt = text[start:-minus_end]
                mark = _LOST_MARK if number == lost else self._mark(self._names[number], spelt)
                pieces += [text[kept_to:start], mark]
                kept_to = -minus_end
        return "".join(pieces) + text[kept_to:]

    def restore(self, text: str) -> str:
        """Put secrets in the place of marks, spelt as they were.

        Returns:
            The text, with a mark left in it where the configuration has no
            such secret any more.
        """

        def fill(match: re.Match[str]) -> str:
            secret = self._secrets.get(match[2])
            return match[0] if secret is None else _spellings(secret)[int(match[1])]

        return _MARKS.sub(fill, text)

    def redact(self, text: str) -> str:
        """Put stars in the place of secrets, for people to read."""
        return self._shown.hide(re.sub("\0[^\0]*\0", "***", text))

    def _mark(self, name: str, spelt: str) -> str:
        spellings = _spellings(self._secrets[name])
        if spelt in spellings:
            return f"\0{spellings.index(spelt)}{name}\0"
        # In a spelling of another kind; what is escaped twice remains so.
        is_once = unquote_plus(spelt) == unquote_plus(quote(self._secrets[name], safe="+"))
        return f"\0{0 if is_once else _TWICE}{name}\0"


def body_texts(body: Secret | None) -> list[tuple[str, str]]:
    """Give the texts in a JSON object by their dotted paths; each may be a secret."""
    if body is None:
        return []
    found: list[tuple[str, str]] = []

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict):
            for key, member in value.items():
                walk(f"{path}.{key}" if path else key, member)
        elif isinstance(value, list):
            for index, member in enumerate(value):
                walk(f"{path}.{index}", member)
        elif isinstance(value, str):
            found.append((path, value))

    walk("", json.loads(body.reveal()))
    return found


def basic_secrets(basic: Basic) -> list[tuple[str, str]]:
    """Give the password, and the username where that is the key, by their names.

    Some vendors (Stripe, Tailscale) have an API key in the place of the name.
    """
    username, password = basic.username.reveal(), basic.password.reveal()
    is_alone = len(password) < MIN_SECRET_CHARS
    is_key = "@" not in username and (is_alone or _is_random(username))
    return [("password", password), *([("username", username)] if is_key else [])]


def query_secrets(url: str) -> list[tuple[str, str]]:
    """Give what a URL asks with, by its names; a key may stand there without a name."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    pairs = [(name, value) if value else ("", name) for name, value in pairs]
    return [(name, value) for name, value in pairs if name or _is_random(value)]


def path_secrets(url: str) -> list[str]:
    """Give the parts of a URL's path that look like keys: some collectors take theirs there."""
    return [part for part in map(unquote, urlsplit(url).path.split("/")) if _is_random(part)]


def header_secrets(value: str) -> list[str]:
    """Give what of a header's value may come back without the rest.

    The token without its scheme comes first, then the values of
    `Token token="abc"` or a cookie, and the password of HTTP Basic.
    """
    words = value.split()
    if not words:
        return []
    parts = [words[-1], *re.findall(r"""=["']?([^\s"',;=]+)""", value)]
    if words[0].lower() == "basic":
        with suppress(ValueError):
            parts.append(b64decode(words[-1]).decode().partition(":")[2])
    return parts


def _is_random(text: str) -> bool:
    return len(text) >= RANDOM_CHARS and any(map(str.isalpha, text)) and any(map(str.isdigit, text))


def hide(text: str, secrets: Iterable[str]) -> str:
    """Put stars in the place of secrets, in any spelling, for people to read."""
    return Spellings(secrets).hide(text)


def oauth2_secrets(oauth2: OAuth2) -> list[tuple[str, str]]:
    """Give what tokens are asked for with, by its names."""
    given = [("client_secret", oauth2.client_secret), ("refresh_token", oauth2.refresh_token)]
    named = [(f"oauth2:{name}", secret.reveal()) for name, secret in given if secret is not None]
    return named + [(f"oauth2.extra:{name}", value.reveal()) for name, value in oauth2.extra]


def jwt_bearer_secrets(jwt_bearer: JwtBearer) -> list[tuple[str, str]]:
    """Give the key a line at a time, as a log might have it, and the rest, by their names."""
    lines = jwt_bearer.private_key.reveal().splitlines()[1:-1]
    named = [(f"jwt_bearer:key#{number}", line) for number, line in enumerate(lines)]
    return named + [
        (f"jwt_bearer.extra:{name}", value.reveal()) for name, value in jwt_bearer.extra
    ]


def signer_secrets(signer: Signer) -> list[tuple[str, str]]:
    """Give a signer's options, any of which may be a key, by their names."""
    return [(f"signer:{name}", value.reveal()) for name, value in signer.options]


def maker_secrets(endpoint: Endpoint) -> list[tuple[str, str]]:
    """Give what an endpoint's tokens and signatures are made from, by its names.

    Not what the endpoint's address shows: Microsoft has the API's origin as
    a parameter of the token request.
    """
    credentials = endpoint.credentials
    named: list[tuple[str, str]] = []
    if credentials.oauth2 is not None:
        named += oauth2_secrets(credentials.oauth2)
    if credentials.jwt_bearer is not None:
        named += jwt_bearer_secrets(credentials.jwt_bearer)
    if credentials.signer is not None:
        named += signer_secrets(credentials.signer)
    parts = urlsplit(endpoint.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    return [(name, text) for name, text in named if text not in {origin, f"{origin}/"}]


def secrets_of(endpoint: Endpoint) -> Iterator[str]:
    """Give every text of an endpoint's way to authenticate that nobody may see."""
    credentials = endpoint.credentials
    if credentials.basic is not None:
        yield from (text for _, text in basic_secrets(credentials.basic))
    secrets = [credentials.bearer, credentials.api_key]
    if credentials.header is not None:
        yield from header_secrets(credentials.header[1].reveal())
        secrets.append(credentials.header[1])
    yield from (text for _, text in maker_secrets(endpoint))
    for grant in (credentials.oauth2, credentials.jwt_bearer):
        if grant is not None:
            yield from (value for _, value in query_secrets(grant.token_url))
            yield from path_secrets(grant.token_url)
    yield from (secret.reveal() for secret in secrets if secret is not None)


def is_concealed(text: str) -> bool:
    """Return whether text has marks that stand for secrets."""
    return "\0" in text


def is_lost(text: str) -> bool:
    """Return whether text had a secret of the moment in it."""
    return _LOST_MARK in text


def _spellings(secret: str) -> list[str]:
    """Give those that a link has a secret in; marks have their numbers."""
    once = [quote(secret, safe=""), secret, quote(secret), quote_plus(secret)]
    twice = [quote(once[0]), quote(once[2]), quote(once[3])]
    quoted = json.dumps(secret)[1:-1]
    return [*once, *twice, quoted, quoted.replace("/", r"\/")]


_TWICE = 4
