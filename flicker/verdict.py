"""Whether a body with status 200 says that the request failed all the same."""

from __future__ import annotations

from typing import NamedTuple

from flicker.json_text import string_text, walk_path

_AFFIRMATIVE = frozenset(
    {"ok", "success", "succeeded", "successful", "true", "yes", "complete", "completed"}
)
_NOTHING = frozenset({b"null", b"false", b'""', b"[]", b"{}"})
_EXPLANATIONS = ("error", "errors", "message", "messages", "stat")
_EXCERPT_CHARS = 64 * 1024
"""More than is shown: secrets are taken out first, and no search finds half of one."""


class Failure(NamedTuple):
    """What a body says of itself.

    Attributes:
        message: Which key says so; holds no value of the body.
        excerpt: The vendor's own words, on one line, which may quote anything; to
            be cut short when secrets are out of it.
    """

    message: str
    excerpt: str


def find_failure(
    body: bytes, *, success_field: str | None, error_field: str | None
) -> Failure | None:
    """Look where a vendor tells success and failure.

    Args:
        body: A whole JSON value.
        success_field: Path of what has to be affirmative, or None. A list has
            no such path, so that an array of errors is never one of events.
        error_field: Path of what has to be empty or absent, or None.

    Returns:
        None where the body says of no failure.

    Raises:
        msgspec.DecodeError: The body is no JSON.
        RecursionError: The body is nested too deeply.
    """
    if error_field is not None:
        token = walk_path(body, error_field)
        if token is not None and not _is_nothing(token.strip()):
            return Failure(
                f'reports a failure at error_field "{error_field}". Nothing of it is shipped, and '
                "it is asked for again; if it goes on, check the request and its credentials' "
                "rights",
                _excerpt(token),
            )
    if success_field is not None:
        token = walk_path(body, success_field)
        if token is None or not _is_affirmative(token.strip()):
            what = "has nothing" if token is None else "reports no success"
            return Failure(
                f'{what} at success_field "{success_field}". Nothing of it is shipped, and it is '
                "asked for again; if it goes on, check the request and its credentials' rights",
                _explanation(body),
            )
    return None


def _is_affirmative(token: bytes) -> bool:
    text = string_text(token)
    if text is not None:
        return text.strip().lower() in _AFFIRMATIVE
    return token == b"true" or (_is_number(token) and float(token) != 0)


def _is_nothing(token: bytes) -> bool:
    if _is_number(token):
        return float(token) == 0
    return b"".join(token.split()) in _NOTHING


def _is_number(token: bytes) -> bool:
    return token[:1] in b"-0123456789"


def _explanation(body: bytes) -> str:
    for key in _EXPLANATIONS:
        token = walk_path(body, key)
        if token is not None and not _is_nothing(token.strip()):
            return _excerpt(token)
    return ""


def _excerpt(token: bytes) -> str:
    token = token.strip()
    text = (string_text(token) or token.decode())[:_EXCERPT_CHARS]
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
