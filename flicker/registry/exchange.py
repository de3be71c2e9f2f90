"""A whole registry as one JSON document, to move or to keep."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.position import seed_state
from flicker.registry.location import S3Location, split_path
from flicker.registry.partitions import POLL_STEP, check_partitions
from flicker.registry.report import has_partitions, missing, read_manifest
from flicker.registry.shapes import check_states
from flicker.registry.states import STEPS, read_settled
from flicker.registry.view import VERSION, dump_document, read_view, settled_part
from flicker.timefmt import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.registry.states import States

FETCHES = 3
"""Tries to fetch a generation while an instance goes on to newer ones."""

_BYTES = "$bytes"


def export_registry(location: Path | S3Location) -> bytes:
    """Give a registry as one document, also while it is in use.

    Returns:
        JSON: `version` and `api_sources` as the readable view, and `states`
        by source and step, with bytes as `{"$bytes": BASE64}`.

    Raises:
        RegistryError: There is none, or it cannot be read.
    """
    if isinstance(location, S3Location):
        view, states = _read_remote(location)
    else:
        directory, view_path = split_path(location)
        is_new = not has_partitions(directory)
        view = read_view(view_path, is_new=is_new)
        if is_new and not view:
            raise missing(location)
        states = {} if is_new else read_settled(directory)
    states = states or _seeds(view)
    nested: dict[str, dict[str, Any]] = {}
    for (step, name), state in sorted(states.items()):
        nested.setdefault(name, {})[step.rpartition(".")[2]] = _encode(state)
    document = {"version": VERSION, "api_sources": view, "states": nested}
    return dump_document(document)


def _read_remote(location: S3Location) -> tuple[dict[str, dict[str, Any]], States]:
    from flicker.registry.mirror import fetch  # noqa: PLC0415 - it loads boto3

    store, manifest, _ = read_manifest(location)
    for number in range(1, FETCHES + 1):
        if manifest.generation is None:
            break
        with TemporaryDirectory(prefix="flicker-") as made:
            try:
                fetch(store, location, manifest, Path(made))
            except RegistryError:
                # The instance that runs may have deleted it meanwhile.
                before = manifest.generation
                _, manifest, _ = read_manifest(location)
                if manifest.generation == before or number == FETCHES:
                    raise
                continue
            check_partitions(Path(made))
            return manifest.api_sources, read_settled(Path(made))
    return manifest.api_sources, {}


def parse_export(data: bytes) -> States:
    """Read what `export_registry` gave, or a readable view, the Rust Flicker's too.

    Raises:
        RegistryError: It is neither.
    """
    try:
        document = json.loads(data)
        version, view = document["version"], document["api_sources"]
        if version != VERSION:
            message = (
                f"the file is a registry of version {version!r}, and this Flicker reads version "
                f"{VERSION}. Export it with the Flicker that wrote it"
            )
            raise RegistryError(message)
        # Escapes of half a character are JSON, and can be stored nowhere.
        json.dumps(document, ensure_ascii=False).encode()
        states: States = _seeds(view)
        for name, seen in view.items():
            stamp = seen.get("last_timestamp")
            if stamp is not None and parse_timestamp(str(stamp)) is None:
                message = f"{name}: the file has a last_timestamp that is no instant. Correct it"
                raise RegistryError(message)
        if "states" in document:
            states = {
                (STEPS[step], name): _decode(state)
                for name, steps in document["states"].items()
                for step, state in steps.items()
            }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = (
            f"the file is no registry ({type(error).__name__}). Give what `flicker registry "
            'export` wrote, or a JSON document {"version": 1, "api_sources": {...}}'
        )
        raise RegistryError(message) from None
    check_states(Path("in the file"), states)
    return states


def _seeds(view: Mapping[str, Mapping[str, Any]]) -> States:
    return {(POLL_STEP, name): seed_state(settled_part(seen)) for name, seen in view.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _encode(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(member) for member in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            return base64.b64decode(value[_BYTES], validate=True)
        return {key: _decode(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_decode(member) for member in value]
    return value
