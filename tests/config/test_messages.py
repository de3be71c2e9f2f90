"""No message, repr or traceback shows a value."""

from __future__ import annotations

from typing import Any

import pytest

from flicker.errors import ConfigError
from tests.config.files import FULL, SECRET, one, places, problems, put, read, shown


@pytest.mark.parametrize("place", places(FULL), ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize(
    "wrong",
    [SECRET, [SECRET], {"x": SECRET}, {SECRET: None}, f" {SECRET}\n", f"${{x-{SECRET}}}"],
    ids=["text", "list", "mapping", "key", "spaces", "expansion"],
)
def test_a_value_in_the_wrong_place_is_never_shown(
    place: tuple[str | int, ...], wrong: object
) -> None:
    """T67: whatever stands wherever it should not."""
    with pytest.raises(ConfigError) as caught:
        read(put(FULL, place, wrong))
    assert SECRET not in shown(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("place", places(FULL), ids=lambda place: ".".join(map(str, place)))
def test_a_mistyped_key_does_not_show_its_value(place: tuple[str | int, ...]) -> None:
    """T67: pydantic's own message for an unknown key prints the value."""
    with pytest.raises(ConfigError) as caught:
        read(put(FULL, (*place[:-1], "api_kye") if isinstance(place[-1], str) else place, SECRET))
    assert SECRET not in shown(caught.value)


def test_a_forgotten_space_does_not_make_a_secret_a_key_to_show() -> None:
    """T67: `{api_key:hunter2}` is one key to YAML."""
    text = """
    api_sources:
    - {name: a, endpoint: "https://h", api_key:hunter2, headers: {X-Key:hunter2, hunter2}}
    destination: {endpoint: "https://h"}
    """
    found = problems(text)
    assert "api_sources[0].<key at line 3>" in found
    assert "hunter2" not in str(found)


def test_settings_do_not_show_secrets() -> None:
    """T67: in a log line or a debugger."""
    keys: dict[str, Any] = {
        "endpoint": f"https://h/?token={SECRET.replace(' ', '+')}",
        "headers": {"X-A": SECRET},
        "params": {"p": SECRET},
        "api_key": SECRET,
    }
    keys["destination"] = {
        "endpoint": "https://h",
        "auth": {"type": "basic", "username": "u", "password": SECRET},
    }
    assert "hunter2" not in repr(read(one(**keys)))
