"""Where a registry is: a path on this machine, or an object in S3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flicker.errors import ConfigError, Problem

LINEAGE_NAME = "generation.json"
"""File that says of which generation the partitions beside it are the continuation."""

DEFAULT_PATH = Path(".flicker-registry.json")

_S3 = "s3://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")


@dataclass(frozen=True)
class S3Location:
    """An object in S3, such as `s3://bucket/path/registry.json`."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{_S3}{self.bucket}/{self.key}"


def parse_location(text: str | None) -> Path | S3Location:
    """Read what `--registry-file` says.

    Args:
        text: A path or `s3://BUCKET/KEY`; None for the default.

    Returns:
        An absolute path, or the object.

    Raises:
        ConfigError: It is neither.
    """
    if text is None:
        return DEFAULT_PATH.absolute()
    if text.startswith(_S3):
        bucket, _, key = text[len(_S3) :].partition("/")
        if not bucket or not key or key.endswith("/"):
            raise _problem(f"{text} names no object; give s3://BUCKET/PATH/registry.json")
        return S3Location(bucket, key)
    scheme = _SCHEME.match(text)
    if scheme is not None:
        raise _problem(f"{scheme[0]} is not supported; give a path or s3://BUCKET/KEY")
    path = Path(text).absolute()
    if path.is_dir():
        raise _problem(f"{path} is a directory; give the path of a file")
    return path


def split_path(path: Path) -> tuple[Path, Path | None]:
    """Give a local registry's recovery directory, and its readable view.

    Args:
        path: Of the view; or the directory itself, as Bytewax is given it, to
            which there is no view.
    """
    return (path, None) if path.is_dir() else (Path(f"{path}.d"), path)


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem("", f"--registry-file: {message}")])
