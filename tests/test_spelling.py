"""Texts found however they are spelt."""

from __future__ import annotations

import html
import json
import time
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.spelling import Spellings

SECRET = 'key/Cf Core77+Z="\\é\U0001f511'


def utf16(text: str) -> str:
    """Escape every character for JSON."""
    units = text.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


ESCAPES = {
    "query": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "json": lambda text: json.dumps(text)[1:-1],
    "php": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "json, all": utf16,
    "JSON, all": lambda text: utf16(text).upper().replace(r"\U", r"\u"),
    "html": html.escape,
    "html, numbers": lambda text: "".join(f"&#{ord(each)};" for each in text),
}


@pytest.mark.parametrize("inner", ESCAPES)
@pytest.mark.parametrize("outer", ESCAPES)
def test_a_text_is_found_escaped_twice(inner: str, outer: str) -> None:
    """T67: a link in a link, or a link in JSON in JSON."""
    once = ESCAPES[inner](SECRET)
    searched = Spellings(["another", SECRET])
    assert searched.hide(f"bad token {once}!") == "bad token ***!"
    assert searched.hide(f"bad token {ESCAPES[outer](once)}!") == "bad token ***!"


@given(
    text=st.text(st.characters(codec="utf-8"), min_size=6),
    escapes=st.lists(st.sampled_from(sorted(ESCAPES)), max_size=3),
)
def test_whatever_text_is_found(text: str, escapes: list[str]) -> None:
    """T67: also one that looks like an escape itself."""
    spelt = text
    for name in escapes:
        spelt = ESCAPES[name](spelt)
    assert Spellings([text]).hide(f"<{spelt}>") == "<***>"


def test_each_character_may_be_spelt_in_its_own_way() -> None:
    """T67."""
    searched = Spellings(["a/b+c=d é"])
    assert searched.hide(r"x a\/b\u002Bc%3dd+%C3%a9 y") == "x *** y"
    assert searched.hide("x %61%252Fb%252bc=d%20é y") == "x *** y"


@pytest.mark.parametrize("name", ["", "a", "ab", "abc", "a%C3"])
@pytest.mark.parametrize("length", [6, 7, 8, 20])
def test_base64_of_a_text_is_hidden_whole(name: str, length: int) -> None:
    """T67: alone, behind a name as HTTP Basic has it, or in the middle of something."""
    text = "s\u00fc\u00ff?>~cret-of-the-client"[:length]
    searched = Spellings([text])
    for whole in (text, f"{name}:{text}", f"{name}:{quote_plus(text)}", f'{{"{name}": "{text}"}}'):
        encoded = b64encode(whole.encode()).decode()
        for spelt in (encoded, urlsafe_b64encode(whole.encode()).decode().rstrip("=")):
            assert searched.hide(f"bad:{spelt}.") == "bad:***."
            assert searched.hide(f"bad:{quote(spelt, safe='')}.") == "bad:***."
            assert searched.hide(f'"{spelt}"'.replace("/", r"\/")) == '"***"'


def test_base64_that_repeats_itself_is_gone_through_once() -> None:
    """T67: a server has no say in how long we search."""
    repeated = b64encode(b"secret-token" * 4000).decode()
    started_s = time.process_time()
    assert Spellings(["secret-token"]).hide(repeated) == "***"
    assert time.process_time() - started_s < 5


def test_other_base64_is_shown() -> None:
    encoded = b64encode(b"user:another-secret").decode()
    assert Spellings(["the-secret"]).hide(encoded) == encoded


def test_nothing_of_texts_that_overlap_is_shown() -> None:
    """T67."""
    searched = Spellings(["abcdefgh", "fghijklm", "bcdefg"])
    assert searched.hide("abcdefghijklm, bcdefg and abcdefgh") == "***, *** and ***"
    assert Spellings(["abcabc"]).hide("abcabcabc") == "***"


@pytest.mark.parametrize(
    "text", ["%zz \\x \\u12 &nope; %", "%ff%C3 \\ud83d\\ud83d &#1; &#9999999;", ""]
)
def test_what_is_no_escape_is_left_alone(text: str) -> None:
    assert Spellings(["secret-token"]).hide(text) == text
    assert Spellings(["secret-token"]).hide(f"{text}secret%2Dtoken{text}") == f"{text}***{text}"


def test_short_texts_are_not_looked_for() -> None:
    assert Spellings(["limit", "100"]).hide("limit 100") == "limit 100"
    # Undone, it is shorter.
    assert Spellings(["%61%62"]).hide("ab, %61%62, %2561%2562") == "ab, ***, ***"
