"""Findings in words and at paths that the user knows.

pydantic's own messages speak of models, and print values; these speak of the
file. Nothing in them is taken from a value, since any of them may be a secret.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args

from flicker.config.checks import EMPTY
from flicker.config.credentials import AwsSigV4Entry, JwtBearerEntry, OAuth2Entry
from flicker.config.fields import OWN_PROBLEM, Entry
from flicker.config.models import (
    BasicAuth,
    BasicEntry,
    BearerAuth,
    ConfigFile,
    DestinationEntry,
    FetchEntry,
    HeaderAuth,
    RetryEntry,
    SourceEntry,
    TlsEntry,
)
from flicker.config.pages import PAGINATIONS
from flicker.errors import Problem

if TYPE_CHECKING:
    from flicker.config.document import Document, Finding, Keys

_TOP = ""
_SECTIONS: dict[str, tuple[type[Entry], ...]] = {
    "api_sources": (SourceEntry,),
    "pagination": PAGINATIONS,
    "destination": (DestinationEntry,),
    "auth": (BearerAuth, BasicAuth, HeaderAuth),
    "basic": (BasicEntry,),
    "oauth2": (OAuth2Entry,),
    "jwt_bearer": (JwtBearerEntry,),
    "aws_sigv4": (AwsSigV4Entry,),
    "tls": (TlsEntry,),
    "fetch_each": (FetchEntry,),
    "retry": (RetryEntry,),
    _TOP: (ConfigFile,),
}
_SECTION_NAMES = {"api_sources": "an entry of `api_sources`", _TOP: "the top level"}
_TAGS = {"pagination": "pagination_type", "auth": "type"}
_KINDS: dict[str, dict[str, type[Entry]]] = {
    section: {
        get_args(model.model_fields[tag].annotation)[0]: model for model in _SECTIONS[section]
    }
    for section, tag in _TAGS.items()
}
_KNOWN_KEYS = frozenset(
    key for models in _SECTIONS.values() for model in models for key in model.model_fields
)
_ELSEWHERE = {
    "initial_lookback_ms": "Where a source begins is told by `start_time`, as in `start_time: 24h`,"
    " or, where the vendor lets nobody ask for more, by `max_age_ms`"
}
"""What to write for keys whose nearest name means something else."""

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}\Z")
_NAME_LIKE_KEY = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@\[\]-]{0,63}\Z")

_LIMIT_MESSAGES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least one entry",
}
_MAPPING = "a mapping (indented lines of `key: value`)"
_EXPECTED = {
    "int_type": "a whole number such as 100",
    "float_type": "a number such as 0.5",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list (each entry begins with `- `)",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
}
_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "text"),
    (list, "a list"),
    (dict, "a mapping"),
)


def to_problems(findings: list[Finding], document: Document) -> list[Problem]:
    """Put findings in the order of the file, each once."""
    ordered = sorted(dict.fromkeys(findings), key=lambda finding: document.line(finding[0]))
    return [Problem(_path(keys, document), message) for keys, message in ordered]


def _path(keys: Keys, document: Document) -> str:
    path = ""
    for end, key in enumerate(keys, 1):
        if isinstance(key, int):
            path += f"[{key}]"
        elif _is_shown(keys[:end], document):
            path += f".{key}"
        else:
            path += f".<key at line {document.line(keys[:end])}>"
    return path.removeprefix(".")


def _is_shown(keys: Keys, document: Document) -> bool:
    # `{api_key:hunter2}` without the space is one key to YAML, so a key that
    # does not look like one is not repeated.
    key = str(keys[-1])
    if key in _KNOWN_KEYS or _PLAIN_KEY.match(key):
        return True
    is_free = len(keys) > 1 and keys[-2] in ("headers", "params", "extra", "signer_options")
    return is_free and bool(_NAME_LIKE_KEY.match(key)) and document.at(keys) is not None


def explain(detail: dict[str, Any], document: Document) -> Finding:
    """Say in Flicker's words, at the user's path, what pydantic found.

    Args:
        detail: One of the errors that a ValidationError of `ConfigFile` lists.
        document: What was validated.
    """
    keys = _user_keys(detail["loc"], document)
    kind: str = detail["type"]
    context: dict[str, Any] = detail.get("ctx") or {}
    if kind == OWN_PROBLEM:
        return keys, context["message"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        section = str(keys[-1])
        place = (*keys, _TAGS[section])
        return place, _choice_message(document.at(place), tuple(_KINDS[section]))
    if kind == "literal_error":
        choices = tuple(re.findall(r"'([^']*)'", context["expected"]))
        return keys, _choice_message(document.at(keys), choices)
    if kind == "extra_forbidden":
        return keys, _unknown_key_message(keys, document)
    if kind == "missing":
        fields = {
            name: field
            for model in _models_at(keys[:-1], document)
            for name, field in model.model_fields.items()
        }
        return keys, f"is required and missing. {fields[str(keys[-1])].description}"
    return keys, _plain_message(kind, context, document.at(keys))


def _user_keys(location: tuple[str | int, ...], document: Document) -> Keys:
    """Leave out of pydantic's location what the user did not type."""
    keys: list[str | int] = []
    previous: object = None
    for key in location:
        is_kind = previous in _KINDS and key in _KINDS[str(previous)]
        is_lone_item = isinstance(key, int) and not isinstance(document.at(tuple(keys)), list)
        if not is_kind and not is_lone_item:
            keys.append(key)
        previous = key
    return tuple(keys)


def _plain_message(kind: str, context: dict[str, Any], value: object) -> str:
    if value is None or kind == "string_too_short":
        return EMPTY
    if kind in _LIMIT_MESSAGES:
        return _LIMIT_MESSAGES[kind].format_map(context)
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"is not valid here ({kind.replace('_', ' ')})"
    found = next((name for type_, name in _TYPE_NAMES if isinstance(value, type_)), "nothing")
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f"must be text, but YAML reads {found} here: put the value in quotes"
    if isinstance(value, str) and kind in ("int_type", "bool_type"):
        return f"must be {expected}, not text: write it so, without quotes"
    return f"must be {expected}, not {found}"


def _choice_message(value: object, choices: tuple[str, ...]) -> str:
    names = " or ".join(f"`{choice}`" for choice in choices)
    problem = "is required and missing" if value is None else "is none of those Flicker knows"
    near = difflib.get_close_matches(value.lower(), choices, 1) if isinstance(value, str) else []
    hint = f" Did you mean `{near[0]}`?" if near and len(choices) > 1 else ""
    return f"{problem}: it must be {names}.{hint}"


def _unknown_key_message(keys: Keys, document: Document) -> str:
    key = str(keys[-1])
    section = _section(keys[:-1])
    if section in _KINDS:
        kinds = [
            f"`{kind}`" for kind, model in _KINDS[section].items() if key in model.model_fields
        ]
        if kinds:
            tag = _TAGS[section]
            return f"belongs to {tag} {' or '.join(kinds)}, not to the one given here"
    homes = [
        _SECTION_NAMES.get(home, f"`{home}`")
        for home, models in _SECTIONS.items()
        if any(key in model.model_fields for model in models)
    ]
    if homes:
        return (
            f"is not known here; it belongs in {' or '.join(homes)}:"
            " move it there, or check the indentation"
        )
    if section == "api_sources" and key in _ELSEWHERE:
        return f"is not a key Flicker knows. {_ELSEWHERE[key]}"
    here = _models_at(keys[:-1], document)
    allowed = sorted({name for model in here for name in model.model_fields})
    near = difflib.get_close_matches(key.lower().replace("-", "_"), allowed, 1)
    if near:
        return f"is not a key Flicker knows. Did you mean `{near[0]}`?"
    return f"is not a key Flicker knows. Known here: {', '.join(allowed)}"


def _models_at(keys: Keys, document: Document) -> tuple[type[Entry], ...]:
    """Return the models of a mapping: several, where its kind is not known."""
    section = _section(keys)
    if section in _KINDS:
        kind = document.at((*keys, _TAGS[section]))
        if isinstance(kind, str) and kind in _KINDS[section]:
            return (_KINDS[section][kind],)
    return _SECTIONS[section]


def _section(keys: Keys) -> str:
    return next((key for key in reversed(keys) if isinstance(key, str)), _TOP)
