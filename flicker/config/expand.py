"""`${...}` in a value: environment variables and secret files."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from flicker.config.checks import reason, unreadable_problem
from flicker.config.scalars import Expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_SECRET_BYTES = 1024 * 1024
_EXPANSION = re.compile(
    r"""
    (?P<escape>\$\$\{)
    | \$\{ (?P<name>[A-Za-z_][A-Za-z0-9_]*) (?: :- (?P<default>(?:(?!\$\{)[^}])*) )? \}
    | \$\{ file: (?P<file>(?:(?!\$\{)[^}])+) \}
    | (?P<malformed>\$\{)
    """,
    re.VERBOSE,
)


class _NothingToPutError(Exception):
    """A `${...}` stands for nothing; the message says why."""


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Expand every `${...}` of a value, once.

    Returns:
        The value, as `Expanded` if anything but `$${` was put in its place,
        and all that is wrong with it. A value that has something wrong with
        it is empty.
    """
    problems: list[str] = []

    def put(match: re.Match[str]) -> str:
        try:
            return _meaning(match, environ)
        except _NothingToPutError as error:
            problems.append(str(error))
            return ""

    result = _EXPANSION.sub(put, text)
    if any(unicodedata.category(char) == "Cs" for char in result if char > "\ud7ff"):
        problems.append("is not valid Unicode text: write it, or its variable, in UTF-8")
    if problems:
        return "", problems
    is_expanded = any(match["escape"] is None for match in _EXPANSION.finditer(text))
    return (Expanded(result) if is_expanded else result), problems


def _meaning(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["escape"]:
        return "${"
    if match["malformed"]:
        raise _NothingToPutError(
            f"has a malformed `${{` at character {match.start() + 1}: write ${{NAME}},"
            " ${NAME:-default} or ${file:/path}, not one inside another;"
            " a literal `${` is written `$${`"
        )
    if match["file"]:
        return _secret_file(match["file"].strip())
    name, default = match["name"], match["default"]
    value = environ.get(name)
    if default is not None:
        value = value or default
    if value is None:
        raise _NothingToPutError(
            f"needs the environment variable {name}, which is not set:"
            f" set it, or give a default as ${{{name}:-default}}"
        )
    return value.rstrip("\r\n")


def _secret_file(name: str) -> str:
    path = Path(name)
    if not path.is_absolute():
        raise _NothingToPutError("names no absolute path in `${file:...}`: begin it with `/`")
    problem = unreadable_problem(path)
    if problem:
        raise _NothingToPutError(problem)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_SECRET_BYTES + 1)
        if len(data) <= _MAX_SECRET_BYTES:
            return data.decode("utf-8").rstrip("\r\n")
        problem = f"names {path}, which is too large for a value"
    except UnicodeDecodeError:
        problem = f"names {path}, which is not UTF-8 text"
    except OSError as error:
        problem = f"names {path}, which cannot be read ({reason(error)})"
    raise _NothingToPutError(problem)
