"""YAML text into plain values, each with its place in the file.

The only importer of yaml. Its own constructors are not used, as they lose the
lines, let a key be given twice, and know nothing of `${...}`; its messages are
not used either, as they quote the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor

from flicker.config.expand import expand
from flicker.config.scalars import WrittenFloat, WrittenInt

if TYPE_CHECKING:
    from collections.abc import Mapping

Keys = tuple[str | int, ...]
"""A place in the file, from the top: `("api_sources", 0, "name")`."""

Finding = tuple[Keys, str]
"""A place, and what is wrong there."""

# The C parser reads a thousand sources in 0.2 s, the Python one in 1.6 s.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR = SafeConstructor()

_MAX_DEPTH = 40
# Values after all anchors are followed: room for ten thousand sources, and
# few enough that a file of anchors upon anchors is refused within seconds.
_MAX_VALUES = 500_000
# Older releases of pydantic look a choice up by its exact type.
_CHOICE_KEYS = frozenset({"type", "pagination_type", "format", "time_filter_format"})
_MERGE_TAG = "tag:yaml.org,2002:merge"
_COLLECTION_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_TAG_MESSAGE = (
    "has a YAML tag (`!...`) that Flicker does not take:"
    " put the value in quotes if it really begins with `!`"
)


class UnreadableError(Exception):
    """The text cannot be read as a mapping in YAML at all; the message says why."""


class Document:
    """A file's values with `${...}` expanded, and what was wrong on the way.

    Args:
        text: YAML.
        environ: Where `${NAME}` is looked up.

    Attributes:
        root: The top-level mapping.
        findings: Problems found while reading.

    Raises:
        UnreadableError: There is nothing to check.
    """

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.findings: list[Finding] = []
        self._environ = environ
        self._lines: dict[Keys, int] = {}
        self._unusable: set[Keys] = set()
        self._values = 0
        self.root: dict[str, Any] = self._mapping(_compose(text), (), 0)

    def is_usable(self, keys: Keys) -> bool:
        """Tell whether a place holds what the user meant.

        What could not be expanded is reported as that alone, not once more as
        text of the wrong kind.
        """
        return not any(keys[:end] in self._unusable for end in range(len(keys) + 1))

    def at(self, keys: Keys) -> object:
        """Return the value at a place, or None."""
        value: Any = self.root
        for key in keys:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def line(self, keys: Keys) -> int:
        """Return the line of a place, or of what it is missing from; 0 for the file."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self._lines:
                return self._lines[keys[:end]]
        return 0

    def _value(self, node: yaml.Node, keys: Keys, depth: int) -> object:
        self._spend(node, depth)
        self._lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            self._refuse(keys, _TAG_MESSAGE)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._value(item, (*keys, index), depth + 1)
                for index, item in enumerate(node.value)
            ]
        return self._scalar(node, keys)

    def _spend(self, node: yaml.Node, depth: int) -> None:
        self._values += 1 + (len(node.value) >> 10)
        if depth > _MAX_DEPTH:
            raise UnreadableError(
                f"is nested more than {_MAX_DEPTH} levels deep: is an anchor inside itself?"
            )
        if self._values > _MAX_VALUES:
            raise UnreadableError(
                f"holds more than {_MAX_VALUES} values once its anchors are followed"
            )

    def _mapping(self, node: yaml.MappingNode, keys: Keys, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, (line, value) in self._pairs(node, keys, depth).items():
            place = (*keys, key)
            self._lines[place] = line
            result[key] = self._value(value, place, depth + 1)
        return result

    def _pairs(
        self, node: yaml.MappingNode, keys: Keys, depth: int
    ) -> dict[str, tuple[int, yaml.Node]]:
        """Return the mapping's own keys and those it merges, with their lines."""
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE_TAG:
                for key, pair in self._merged(value_node, keys, depth).items():
                    merged.setdefault(key, pair)
            elif not isinstance(key_node, yaml.ScalarNode):
                message = f"has a key at line {line} that is not text: write keys as plain words"
                self.findings.append((keys, message))
            elif key_node.value in own:
                first = own[key_node.value][0]
                message = f"is given twice, at lines {first} and {line}: keep one of them"
                self.findings.append(((*keys, key_node.value), message))
            else:
                own[key_node.value] = (line, value_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, keys: Keys, depth: int) -> dict[str, tuple[int, yaml.Node]]:
        self._spend(node, depth)
        if isinstance(node, yaml.MappingNode):
            return self._pairs(node, keys, depth + 1)
        merged: dict[str, tuple[int, yaml.Node]] = {}
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                for key, pair in self._merged(item, keys, depth + 1).items():
                    merged.setdefault(key, pair)
        else:
            line = node.start_mark.line + 1
            message = f"merges something at line {line} that is not a mapping: `<<` takes `*anchor`"
            self.findings.append((keys, message))
        return merged

    def _scalar(self, node: yaml.Node, keys: Keys) -> object:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        # Timestamps stay as they are written: a parameter is sent as such.
        if kind in ("str", "timestamp", "value"):
            return self._text(node.value, keys)
        if kind not in ("null", "bool", "int", "float"):
            self._refuse(keys, _TAG_MESSAGE)
            return None
        try:
            return _constant(kind, node)
        except (ValueError, KeyError, OverflowError):
            self._refuse(keys, "cannot be read as the number or switch that YAML takes it for")
            return None

    def _text(self, written: str, keys: Keys) -> str:
        text, problems = expand(written, self._environ)
        for problem in problems:
            self._refuse(keys, problem)
        return str(text) if keys[-1] in _CHOICE_KEYS else text

    def _refuse(self, keys: Keys, message: str) -> None:
        self.findings.append((keys, message))
        self._unusable.add(keys)


def _constant(kind: str, node: Any) -> object:
    if kind == "null":
        return None
    if kind == "bool":
        return _CONSTRUCTOR.construct_yaml_bool(node)
    if kind == "int":
        whole = WrittenInt(_CONSTRUCTOR.construct_yaml_int(node))
        whole.text = node.value
        return whole
    fraction = WrittenFloat(_CONSTRUCTOR.construct_yaml_float(node))
    fraction.text = node.value
    return fraction


def _compose(text: str) -> yaml.MappingNode:
    """Parse YAML into the node of its top-level mapping.

    Raises:
        UnreadableError: It is none. The message names the place only, as the
            line itself may hold a secret.
    """
    root = None
    problem = None
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        problem = _syntax_problem(text, error.problem_mark)
    except (yaml.YAMLError, UnicodeError):
        problem = "is no YAML: it holds control characters or broken Unicode text"
    # Raised out here so that no exception of yaml's, with the line in it,
    # becomes the context.
    if problem:
        raise UnreadableError(problem)
    if root is None or (isinstance(root, yaml.ScalarNode) and root.value in ("", "~", "null")):
        raise UnreadableError("is empty: it must hold at least the key `api_sources`")
    if not isinstance(root, yaml.MappingNode):
        raise UnreadableError("must be a mapping with the key `api_sources` at its top level")
    return root


def _check_shape(text: str) -> None:
    """Refuse what would overflow the composer, or make it quote the file."""
    depth = documents = 0
    anchors: set[str] = set()
    for event in yaml.parse(text, Loader=_LOADER):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        _check_anchor(event, anchors, line)
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise UnreadableError(
                f"holds a second document (`---`) at line {line}: keep one to a file"
            )
        if depth > _MAX_DEPTH:
            raise UnreadableError(f"is nested more than {_MAX_DEPTH} levels deep at line {line}")


def _check_anchor(event: yaml.Event, anchors: set[str], line: int) -> None:
    anchor: str | None = getattr(event, "anchor", None)
    if anchor is None:
        return
    if isinstance(event, yaml.AliasEvent):
        if anchor not in anchors:
            raise UnreadableError(
                f"has an alias (`*...`) at line {line} without its anchor (`&...`):"
                " put the value in quotes if it really begins with `*`"
            )
    elif anchor in anchors:
        raise UnreadableError(f"defines an anchor (`&...`) a second time at line {line}: rename it")
    else:
        anchors.add(anchor)


def _syntax_problem(text: str, mark: yaml.Mark | None) -> str:
    if mark is None:
        return "is no YAML"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    char = line[mark.column : mark.column + 1]
    hint = (
        "check the indentation, close every quote and bracket, and put values in quotes that hold"
        " `: `, ` #`, or, in `{...}` and `[...]`, a `${...}`"
    )
    if char == "\t":
        hint = "there is a tab: indent with spaces"
    elif char in {"%", "@", "`"}:
        hint = f"a value cannot begin with {char}: put it in quotes"
    return f"is no YAML at line {mark.line + 1}, column {mark.column + 1}: {hint}"
