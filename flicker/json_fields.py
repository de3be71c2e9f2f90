"""Field paths compiled into decoders that skip over everything else.

One pass of msgspec over a text gives all the values that its source asks for,
as the bytes they stand in. What a compiled decoder cannot tell, as where a
number picks from a list, is walked to step by step.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flicker.json_text import UNREADABLE, present, walk_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Text = bytes | msgspec.Raw
"""A JSON text, which may be a view of a larger one: nobody has to copy it then."""

_Token = Text | None
Column = list[_Token]
"""Of each text, in order, the value at one path; None where there is nothing."""

CACHED = 256
"""Sets of paths whose decoders are shared: types take room, and sources are alike."""

_UNFIT = (msgspec.ValidationError, *UNREADABLE)
_UNSET: Any = msgspec.UNSET
_NULL = msgspec.Raw(b"null")


class Skeleton(NamedTuple):
    """What a body has at the compiled paths.

    Attributes:
        items: Those of the list, views of the body unless one of them is `null`.
        tokens: As many as there are paths; None where there is nothing.
    """

    items: Sequence[Text]
    tokens: list[bytes | None]


def compile_fields(paths: list[str]) -> Callable[[bytes], list[bytes | None]]:
    """Compile dotted paths into one pass over an object.

    Returns:
        A function from a text to the JSON text at each path, in order, None
        where there is nothing or `null`.
    """
    fields = _fields_of(tuple(paths))

    def walk(text: bytes) -> list[bytes | None]:
        return [present(walk_path(text, path)) for path in paths]

    if fields is None:
        return walk
    decoder, getters = fields

    def extract(text: bytes) -> list[bytes | None]:
        try:
            skeleton = decoder.decode(text)
        except _UNFIT:
            return walk(text)
        return [present(getter.pick(skeleton, text)) for getter in getters]

    return extract


def compile_columns(paths: list[str]) -> Callable[[Sequence[Text]], list[Column] | None]:
    """Compile dotted paths into one pass over many objects.

    Returns:
        A function from texts to a column for each path, `null` as it stands;
        None where the texts have to be looked at one by one.
    """
    fields = _fields_of(tuple(paths))
    if fields is None:
        return lambda _: None
    decode, getters = fields[0].decode, fields[1]

    def extract(texts: Sequence[Text]) -> list[Column] | None:
        try:
            skeletons = list(map(decode, texts))
        except _UNFIT:
            return None
        return [getter.column(skeletons, texts) for getter in getters]

    return extract


@lru_cache(maxsize=CACHED)
def _fields_of(paths: tuple[str, ...]) -> tuple[Any, list[_Getter]] | None:
    """Give a decoder of objects and what finds each path in what it gives."""
    tree = _tree_of(paths)
    if tree is None or not paths:
        return None
    decoder = msgspec.json.Decoder(_struct_of(tree))
    return decoder, [_Getter(tree, path) for path in paths]


def compile_body(list_path: str, paths: list[str]) -> Callable[[bytes], Skeleton | None]:
    """Compile the path of a list and those of single values into one pass over a body.

    Returns:
        A function from a body to what it has there; None where it has to be
        walked, as where there is no list at the path.
    """
    return _compile_body(list_path, tuple(paths))


@lru_cache(maxsize=CACHED)
def _compile_body(list_path: str, paths: tuple[str, ...]) -> Callable[[bytes], Skeleton | None]:
    if not list_path:
        root = msgspec.json.Decoder(list[msgspec.Raw])

        def split(body: bytes) -> Skeleton | None:
            try:
                # A list has no fields.
                return Skeleton(_items_of(root.decode(body)), [None for _ in paths])
            except _UNFIT:
                return None

        return split
    unique = list(dict.fromkeys(paths))
    tree = _tree_of([*unique, list_path]) if list_path not in unique else None
    if tree is None:
        return lambda _: None
    decoder = msgspec.json.Decoder(_struct_of(tree, list_at=len(unique)))
    items_getter = _Getter(tree, list_path)
    getters = [_Getter(tree, path) for path in paths]

    def extract(body: bytes) -> Skeleton | None:
        try:
            skeleton = decoder.decode(body)
        except _UNFIT:
            return None
        items = items_getter.pick_compiled(skeleton)
        if items is None:
            return None
        tokens = [getter.pick(skeleton, body) for getter in getters]
        return Skeleton(
            _items_of(items), [None if token is None else bytes(token) for token in tokens]
        )

    return extract


def _items_of(items: list[msgspec.Raw]) -> Sequence[Text]:
    # A view equals no bytes, and `null` is looked for.
    return list(map(bytes, items)) if _NULL in items else items


class _Getter:
    """Finds the value of one path in skeletons.

    The ways are the path as one literal key, and as keys in keys.
    """

    def __init__(self, tree: dict[str, Any], path: str) -> None:
        self._path = path
        segments = path.split(".")
        self._ways = [_names(tree, way) for way in ([path], segments)[: min(2, len(segments))]]
        # Of a.b.c the key "a.b" may be present too, which no way here leads to.
        self._may_walk = len(segments) > 2

    def pick(self, skeleton: Any, text: Text) -> _Token:
        token = self.pick_compiled(skeleton)
        return walk_path(bytes(text), self._path) if token is None and self._may_walk else token

    def pick_compiled(self, skeleton: Any) -> Any:
        for way in self._ways:
            token = skeleton
            for name in way:
                token = getattr(token, name, None)
            if token is not None and token is not _UNSET:
                return token
        return None

    def column(self, skeletons: list[Any], texts: Sequence[Text]) -> Column:
        literal, *nested = self._ways
        column = list(map(attrgetter(literal[0]), skeletons))
        unset = column.count(_UNSET)
        if not unset:
            return column
        if not nested:
            return [None if token is _UNSET else token for token in column]
        if unset == len(column) and not self._may_walk:
            for name in nested[0]:
                skeletons = [getattr(below, name, None) for below in skeletons]
            return [None if token is _UNSET else token for token in skeletons]
        return list(map(self.pick, skeletons, texts))


def _tree_of(paths: Sequence[str]) -> dict[str, Any] | None:
    """Give keys in keys, at their ends the number of a path; None where a Struct cannot tell."""
    tree: dict[str, Any] = {}
    fits = all(_add_to_tree(tree, path, number) for number, path in enumerate(paths))
    return tree if fits else None


def _add_to_tree(tree: dict[str, Any], path: str, number: int) -> bool:
    segments = path.split(".")
    if any(segment.isdigit() for segment in segments):
        return False
    for way in ([path], segments):
        node = tree
        for segment in way[:-1]:
            node = node.setdefault(segment, {})
            if not isinstance(node, dict):
                return False
        leaf = node.setdefault(way[-1], number)
        if isinstance(leaf, dict):
            return False
    return True


def _field_names(tree: dict[str, Any]) -> dict[str, str]:
    return {key: f"f{number}" for number, key in enumerate(tree)}


def _struct_of(tree: dict[str, Any], list_at: int | None = None) -> type[msgspec.Struct]:
    """Make the type that a text is decoded to.

    Args:
        tree: What there is.
        list_at: Number of the path whose value has to be a list.
    """
    names = _field_names(tree)
    fields: list[tuple[str, Any, Any]] = []
    for key, below in tree.items():
        if isinstance(below, dict):
            fields.append((names[key], _struct_of(below, list_at) | None, None))
        else:
            leaf = list[msgspec.Raw] if below == list_at else msgspec.Raw
            fields.append((names[key], leaf, msgspec.UNSET))
    rename = {name: key for key, name in names.items()}
    return msgspec.defstruct("Skeleton", fields, rename=rename, gc=False)


def _names(tree: dict[str, Any], way: list[str]) -> list[str]:
    names = []
    node = tree
    for segment in way:
        names.append(_field_names(node)[segment])
        node = node[segment]
    return names
