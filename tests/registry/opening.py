"""Opening a store as a process with a given environment would."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flicker.registry.location import S3Location
from flicker.registry.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

KEY = "path/registry.json"
PREFIX = f"{KEY}.d/"


def use_environment(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> None:
    """Replace all that boto3 looks at in the environment."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def open_store(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], bucket: str) -> S3Store:
    """Open a store in an environment."""
    use_environment(monkeypatch, env)
    return S3Store(S3Location(bucket, KEY))
