"""`${...}` in values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.settings import Secret
from tests.config.files import PAGE, SECRET, entry, one, only, problems, read, shipping, source

if TYPE_CHECKING:
    from pathlib import Path

# What YAML takes as it stands, with more than its share of the marks that matter.
TEXTS = st.text(st.sampled_from("${}:-A ") | st.characters(exclude_categories=["C", "Z"]))


def token(text: str, environ: dict[str, str] | None = None) -> str:
    """Return what a value becomes."""
    ((_, value),) = source(environ, params={"p": text}).params
    return value.reveal()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${A}", "1"),
        ("x${A}y${B}z", "x1y2z"),
        ("${A:-d}", "1"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:-b {c}", "a:-b {c"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $$ {A} $", "$A $$ {A} $"),
        ("${SELF}", "${A}"),
        ("${NEWLINE}", "1"),
    ],
)
def test_expands_as_a_shell_does(text: str, meant: str) -> None:
    environ = {"A": "1", "B": "2", "EMPTY": "", "SELF": "${A}", "NEWLINE": "1\n"}
    assert token(text, environ) == meant


@given(TEXTS)
def test_an_escaped_text_stays_as_it_is(text: str) -> None:
    assert token(text.replace("${", "$${")) == text


@given(TEXTS)
def test_what_a_variable_holds_is_not_expanded_again(text: str) -> None:
    assert token("${A}", {"A": text}) == text


def test_reads_a_file_without_its_last_newline(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s3cret\r\n")
    assert token(f"Bearer ${{file:{secret}}}") == "Bearer s3cret"


def test_numbers_and_switches_may_come_from_the_environment() -> None:
    text = """
    api_sources:
    - name: a
      endpoint: https://h
      buffer_size: ${SIZE}
      max_pages: "${SIZE}"
      api_key: ${SIZE}
      destination: {endpoint: "https://h", type: "${TYPE}", compression: "${ON}"}
    """
    (only_source,) = read(text, {"SIZE": "12345", "TYPE": "http", "ON": "true"}).sources
    assert only_source.buffer_size == only_source.max_pages == 12345
    assert only_source.endpoint.credentials.api_key == Secret("12345")
    assert only_source.destination.compression is True


def test_kinds_of_pagination_and_auth_may_come_from_the_environment() -> None:
    file = shipping(auth={"type": "${AUTH}", "token": "t"})
    file["api_sources"][0]["pagination"] = {**PAGE, "pagination_type": "${KIND}"}
    (only_source,) = read(file, {"AUTH": "bearer", "KIND": "page"}).sources
    assert only_source.pagination is not None
    assert only_source.pagination.type == "page"
    assert only_source.destination.endpoint.credentials.bearer == Secret("t")


def test_every_unset_variable_is_reported_beside_the_other_problems() -> None:
    found = problems(
        one(
            headers={"Authorization": "${ONE} ${TWO}"},
            buffer_size="${THREE}",
            pagination={**PAGE, "page_size": 0},
            polling_frequncy_ms=1,
        )
    )
    assert set(found) == {
        "api_sources[0].headers.Authorization",
        "api_sources[0].buffer_size",
        "api_sources[0].pagination.page_size",
        "api_sources[0].polling_frequncy_ms",
    }
    assert "ONE" in found["api_sources[0].headers.Authorization"]
    assert "TWO" in found["api_sources[0].headers.Authorization"]
    assert "THREE" in found["api_sources[0].buffer_size"]
    assert "whole number" not in found["api_sources[0].buffer_size"]


def test_what_is_unset_is_compared_with_nothing() -> None:
    file = one(name="${UNSET}-logs")
    file["api_sources"].append(entry(name="${UNSET}-logs"))
    found = problems(file)
    assert list(found) == ["api_sources[0].name", "api_sources[1].name"]
    assert all(message.startswith("needs the environment variable") for message in found.values())


@pytest.mark.parametrize(
    "text",
    ["${", "${}", "${1A}", "${A-b}", "${A:?b}", "${ A }", "${A", "${file:}", "${A:-${B}}"],
)
def test_a_malformed_expansion_is_explained(text: str) -> None:
    path, message = only(one(params={"p": f"hunter2{text}"}), {"A": "1", "B": "2"})
    assert path == "api_sources[0].params.p"
    assert "malformed `${` at character 8" in message
    assert "hunter2" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    path, message = only(one(api_key=f"${{file:{missing}}}"))
    assert path == "api_sources[0].api_key"
    assert str(missing) in message


@pytest.mark.parametrize(
    ("content", "word"), [(b"\xff", "UTF-8"), (b"x" * (2**20 + 1), "too large")]
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    _, message = only(one(api_key=f"${{file:{secret}}}"))
    assert word in message


@pytest.mark.parametrize("name", ["/dev/zero", "relative", "/tmp"])
def test_what_is_no_file_is_not_read(name: str) -> None:
    assert "api_sources[0].api_key" in problems(one(api_key=f"${{file:{name}}}"))


def test_a_number_that_is_none_is_refused_without_showing_it() -> None:
    path, message = only(one(buffer_size="${SIZE}"), {"SIZE": SECRET})
    assert path == "api_sources[0].buffer_size"
    assert "whole number" in message
    assert SECRET not in message


def test_keys_are_not_expanded() -> None:
    ((name, _),) = source({"A": "1"}, params={"${A}": "x"}).params
    assert name == "${A}"


def test_a_variable_that_is_no_unicode_is_refused() -> None:
    _, message = only(one(api_key="${A}"), {"A": "\udcff"})
    assert "UTF-8" in message
