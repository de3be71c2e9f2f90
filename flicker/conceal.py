"""Credentials out of everything that is kept or shown."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit

from flicker.auth.static import request_headers
from flicker.spelling import MIN_SECRET_CHARS, Spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flicker.settings import Basic, Credentials, Endpoint, Secret

RANDOM_CHARS = 20
"""From this length on, a username with letters and digits is taken for a key."""

_LOST_MARK = "\0" + "0passing" + "\0"
"""Nothing is ever put back in its place."""

_MARKS = re.compile("\0([0-9])([^\0]*)\0")


class Concealer:
    """Takes configured secrets out of URLs before they are kept.

    Vendors echo the request's query in their next links, token and all. What
    is kept has a mark in its place, which is filled in again when the URL is
    used, with the token of that day.

    Args:
        endpoint: Its headers and query values count as secrets.
        params: So do these.
        body: So do the texts of this JSON object.
        passing: Gives secrets of the moment, such as a token. A link that has
            one in it is not to be used again in another process.
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
        query = parse_qsl(urlsplit(endpoint.url).query)
        for name, value in [*query, *((name, value.reveal()) for name, value in params)]:
            # A name may stand for several values, of which none may be kept.
            number = times[name]
            times[name] += 1
            secrets[f"query#{number}:{name}" if number else f"query:{name}"] = value
        secrets |= {f"body:{path}": text for path, text in body_texts(body)}
        for name, value in request_headers(endpoint).items():
            # `Bearer abc`: the token may come back without its scheme.
            secrets[f"header:{name.lower()}"] = value.split()[-1] if value.split() else ""
        credentials = endpoint.credentials
        if credentials.basic is not None:
            secrets |= {f"basic:{part}": text for part, text in basic_secrets(credentials.basic)}
        self._secrets = {
            name: text for name, text in secrets.items() if len(text) >= MIN_SECRET_CHARS
        }
        self._names = list(self._secrets)
        self._any = Spellings(self._secrets.values())
        self._present = Spellings(())

    def conceal(self, text: str) -> str:
        """Put marks in the place of secrets."""
        passing = tuple(self._passing())
        if passing != self._present.texts:
            self._present = Spellings(passing)
        places = [(start, -end, self._names[at]) for start, end, at in self._any.find(text)]
        places += [(start, -end, "") for start, end, _ in self._present.find(text)]
        pieces, kept_to = [], 0
        # The longest first: one secret may be the beginning of another.
        for start, minus_end, name in sorted(places):
            if start >= kept_to:
                mark = self._mark(name, text[start:-minus_end]) if name else _LOST_MARK
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
        return self._any.hide(re.sub("\0[^\0]*\0", "***", text))

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
    is_random = (
        len(username) >= RANDOM_CHARS
        and any(map(str.isalpha, username))
        and any(map(str.isdigit, username))
    )
    is_alone = len(password) < MIN_SECRET_CHARS
    is_key = "@" not in username and (is_alone or is_random)
    return [("password", password), *([("username", username)] if is_key else [])]


def hide(text: str, secrets: Iterable[str]) -> str:
    """Put stars in the place of secrets, in any spelling, for people to read."""
    return Spellings(secrets).hide(text)


def secrets_of(credentials: Credentials) -> Iterator[str]:
    """Give every text of a way to authenticate that nobody may see."""
    if credentials.basic is not None:
        yield from (text for _, text in basic_secrets(credentials.basic))
    secrets = [credentials.bearer, credentials.api_key]
    secrets += [credentials.header[1]] if credentials.header is not None else []
    oauth2, jwt_bearer, signer = credentials.oauth2, credentials.jwt_bearer, credentials.signer
    if oauth2 is not None:
        secrets += [oauth2.client_secret, oauth2.refresh_token]
        secrets += [value for _, value in oauth2.extra]
    if jwt_bearer is not None:
        secrets += [value for _, value in jwt_bearer.extra]
        # A line at a time, as a log might have it.
        yield from jwt_bearer.private_key.reveal().splitlines()[1:-1]
    if signer is not None:
        secrets += [value for _, value in signer.options]
    for token_url in (grant.token_url for grant in (oauth2, jwt_bearer) if grant is not None):
        yield from (value for _, value in parse_qsl(urlsplit(token_url).query))
    yield from (secret.reveal() for secret in secrets if secret is not None)


def is_concealed(text: str) -> bool:
    """Return whether text has marks that stand for secrets."""
    return "\0" in text


def _spellings(secret: str) -> list[str]:
    """Give those that a link has a secret in; marks have their numbers."""
    once = [quote(secret, safe=""), secret, quote(secret), quote_plus(secret)]
    twice = [quote(once[0]), quote(once[2]), quote(once[3])]
    quoted = json.dumps(secret)[1:-1]
    return [*once, *twice, quoted, quoted.replace("/", r"\/")]


_TWICE = 4
