"""The file's JSON Schema, for editors."""

from __future__ import annotations

from typing import Any

from flicker.config.models import ConfigFile


def json_schema() -> dict[str, Any]:
    """Describe the file to editors, as JSON Schema (draft 2020-12).

    Numbers and switches may also be text that holds `${`, as they may in the
    file itself.
    """
    schema = ConfigFile.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, key in model["properties"].items():
            key.setdefault("title", name.replace("_", " ").title())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **{key: _allow_expansions(value) for key, value in schema.items()},
        "title": "Flicker configuration",
    }


def _allow_expansions(schema: object) -> object:
    if isinstance(schema, list):
        return [_allow_expansions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _allow_expansions(value) for key, value in schema.items()}
    if result.get("type") not in ("integer", "number", "boolean") and "enum" not in result:
        return result
    about = {key: result.pop(key) for key in ("title", "description", "default") if key in result}
    return {**about, "anyOf": [result, {"type": "string", "pattern": r"\$\{"}]}
