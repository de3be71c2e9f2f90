"""The file as a whole."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from flicker import config
from flicker.config import document
from flicker.errors import ConfigError
from tests.config.files import one, only, problems, shown

if TYPE_CHECKING:
    from pathlib import Path


def whole(text: str) -> str:
    """Return the message about the file as a whole."""
    path, message = only(text)
    assert path == ""
    assert message.startswith("test.yaml ")
    return message


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "---", "null", "~"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert "is empty" in whole(text)


@pytest.mark.parametrize("text", ["- a", "text", "7"])
def test_the_top_level_is_a_mapping(text: str) -> None:
    assert "must be a mapping" in whole(text)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n  token: hunter2\n  b: c: d", "line 3, column 7"),
        ("a: [hunter2", "is no YAML at line"),
        ("a: 'hunter2", "is no YAML at line"),
        ("token: *hunter2", "alias"),
        ("token: !x!hunter2 y", "is no YAML at line 1"),
        ("a:\n\ttoken: hunter2", "indent with spaces"),
        ("token: @hunter2", "cannot begin with @"),
        ("token: %hunter2", "cannot begin with %"),
        ("token: `hunter2", "cannot begin with `"),
        ("a: &hunter2 1\nb: &hunter2 2", "a second time at line 2"),
        ("a: 1\n---\ntoken: hunter2", "second document"),
        ("token: hunter2\x00", "control characters"),
        ("token: hunter2\ud800", "broken Unicode"),
        ("[" * 100_000, "levels deep"),
        ("a: {x: ${hunter2}}", "is no YAML at line 1"),
    ],
)
def test_broken_yaml_is_reported_by_its_place_alone(
    monkeypatch: pytest.MonkeyPatch, loader: str, text: str, words: str
) -> None:
    """T67: yaml's own message quotes the line, with the secret on it."""
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, loader, yaml.SafeLoader))
    with pytest.raises(ConfigError) as caught:
        config.parse(text, {}, origin="test.yaml")
    assert words in str(caught.value)
    assert "hunter2" not in shown(caught.value)


def test_a_key_given_twice_is_named_with_its_lines() -> None:
    text = "api_sources:\n- name: a\n  endpoint: https://h\n  name: b\n"
    found = problems(text + "destination: {endpoint: https://h}\n")
    assert list(found) == ["api_sources[0].name"]
    assert "at lines 2 and 4" in found["api_sources[0].name"]


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system [hunter2]", "!hunter2 x", "!!int hunter2"]
)
def test_only_plain_values_are_taken(value: str) -> None:
    text = f"api_sources:\n- name: a\n  endpoint: https://h\n  api_key: {value}\n"
    path, message = only(text + "destination: {endpoint: https://h}\n")
    assert path == "api_sources[0].api_key"
    assert "hunter2" not in message


def test_anchors_upon_anchors_are_refused_in_time() -> None:
    levels = ["a0: &a0 [x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    merges = ["b0: &b0 {x: y}"]
    merges += [f"b{n}: &b{n} {{<<: [*b{n - 1}, *b{n - 1}]}}" for n in range(1, 35)]
    for bomb in (levels, merges):
        began_at = time.monotonic()
        assert "values once its anchors are followed" in whole("\n".join(bomb))
        assert time.monotonic() - began_at < 20


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_an_anchor_inside_itself_is_refused(text: str) -> None:
    assert "inside itself" in whole(text)


def test_a_merge_takes_mappings_only() -> None:
    assert "merges something at line 1" in problems("<<: 7")[""]


def test_a_key_is_text() -> None:
    assert "a key at line 1" in problems("? [a, b]\n: c")[""]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    with pytest.raises(ConfigError, match=re.escape(f"{path} does not exist")):
        config.load(path, {})


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, {})


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """T67: the bytes that do not fit are not shown."""
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"token: hunter2\xe9")
    with pytest.raises(ConfigError, match=r"offset 14") as caught:
        config.load(path, {})
    assert "hunter2" not in shown(caught.value)


def test_a_file_too_large_to_be_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        config.load(path, {})


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(one()).encode())
    assert config.load(path, {}).sources[0].name == "a"
