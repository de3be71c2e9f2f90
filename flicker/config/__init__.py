"""The YAML file in, `Settings` out, or everything that is wrong with it.

The work is done in three steps, each of which adds to one list of problems:
`document` turns YAML into plain values with `${...}` expanded, `models` check
each value, and `relations` check what no single value can be blamed for.
Nothing in a message is taken from a value, since any of them may be a secret;
only paths of files are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from flicker.config.checks import reason
from flicker.config.convert import to_settings
from flicker.config.document import Document, UnreadableError
from flicker.config.messages import explain, to_problems
from flicker.config.models import ConfigFile
from flicker.config.relations import check_relations
from flicker.config.schema import json_schema
from flicker.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flicker.config.document import Finding
    from flicker.settings import Settings

__all__ = ["json_schema", "load", "parse"]

_MAX_FILE_BYTES = 16 * 1024 * 1024


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file.

    Args:
        path: YAML in UTF-8.
        environ: Where `${NAME}` is looked up.

    Raises:
        ConfigError: With every problem of the file, not only the first.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        message = f"{path} does not exist: give the path of a YAML file"
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read ({reason(error)}): give the path of a readable YAML file"
    else:
        if len(data) > _MAX_FILE_BYTES:
            message = (
                f"{path} is larger than {_MAX_FILE_BYTES // 2**20} MiB: is it a configuration?"
            )
        else:
            try:
                return parse(data.decode("utf-8-sig"), environ, origin=str(path))
            except UnicodeDecodeError as error:
                message = (
                    f"{path} is not UTF-8 (the byte at offset {error.start} is not):"
                    " save it in that encoding"
                )
    # Raised out here so that the error carries no context: the exceptions
    # above hold pieces of the file.
    raise ConfigError([Problem("", message)])


def parse(text: str, environ: Mapping[str, str], *, origin: str) -> Settings:
    """Read a configuration from text.

    Args:
        text: YAML.
        environ: Where `${NAME}` is looked up.
        origin: What to call the text in messages, such as a file's name.

    Raises:
        ConfigError: With every problem of the text, not only the first.
    """
    document = None
    wrong: list[Problem] = []
    try:
        document = Document(text, environ)
    except UnreadableError as error:
        wrong = [Problem("", f"{origin} {error}")]
    entry = None
    if document is not None:
        entry, findings = _validate(document)
        wrong = to_problems(
            [*document.findings, *findings, *check_relations(document.root)], document
        )
    # Raised out here: an exception of pydantic's or yaml's that became the
    # context would bring the values along.
    if entry is None or wrong:
        raise ConfigError(wrong)
    return to_settings(entry)


def _validate(document: Document) -> tuple[ConfigFile | None, list[Finding]]:
    try:
        return ConfigFile.model_validate(document.root), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    findings = [explain(dict(detail), document) for detail in details]
    return None, [finding for finding in findings if document.is_usable(finding[0])]
