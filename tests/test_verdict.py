"""Bodies that say that the request failed, with status 200."""

from __future__ import annotations

from typing import Any

import pytest

from flicker.decode import DecodeOptions, ErrorBodyError, Page, PageDecoder, UnreadablePageError

CLOUDFLARE = (
    b'{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":[]}'
)
CROWDSTRIKE = b'{"meta":{},"resources":[{"id":"a"}],"errors":[{"code":500,"message":"try later"}]}'
SALESFORCE = b'[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]'


def decode(body: bytes, **fields: Any) -> Page:
    return PageDecoder(DecodeOptions(**fields)).decode(body)


@pytest.mark.parametrize(
    ("body", "fields", "excerpt"),
    [
        (CLOUDFLARE, {"success_field": "success"}, "Authentication error"),
        (CLOUDFLARE, {"error_field": "errors"}, "Authentication error"),
        (CROWDSTRIKE, {"error_field": "errors", "results_field": "resources"}, "try later"),
        (b'{"ok":false,"error":"missing_scope"}', {"success_field": "ok"}, "missing_scope"),
        (
            b'{"stat":"FAIL","code":40002,"message":"Invalid parameters"}',
            {"success_field": "stat"},
            "Invalid parameters",
        ),
        (b'{"stat":"FAIL","message":null}', {"success_field": "stat"}, "FAIL"),
        (SALESFORCE, {"success_field": "done"}, ""),
        (b'{"events":[]}', {"success_field": "meta.ok"}, ""),
    ],
)
def test_a_body_that_says_it_failed_is_no_page(
    body: bytes, fields: dict[str, Any], excerpt: str
) -> None:
    """T40 with the vendor's words apart, since they may quote a secret."""
    with pytest.raises(ErrorBodyError) as caught:
        decode(body, **fields)
    assert excerpt in caught.value.excerpt
    path = fields.get("success_field") or fields["error_field"]
    assert f'"{path}"' in str(caught.value)
    assert not excerpt or excerpt not in repr(caught.value)


def test_an_array_of_errors_is_no_list_of_events() -> None:
    """T40 as Salesforce sends it, where the events are in an object."""
    with pytest.raises(UnreadablePageError, match="Check results_field") as caught:
        decode(SALESFORCE, results_field="records")
    assert "Session expired" not in str(caught.value)


AFFIRMATIVE = [
    "true",
    "1",
    "0.5",
    '"ok"',
    '"OK"',
    '"Success"',
    '"succeeded"',
    '"COMPLETED"',
    '"yes"',
]
NEGATIVE = ["false", "0", "0.0", '"fail"', '"FAIL"', '""', "null", "[]", "{}", '"0"', '["ok"]']


@pytest.mark.parametrize("value", AFFIRMATIVE)
def test_success_is_told_in_many_words(value: str) -> None:
    """T40 and then the body is a page."""
    body = f'{{"meta":{{"stat": {value} }},"events":[{{"n":1}}]}}'.encode()
    assert decode(body, success_field="meta.stat", results_field="events").entries == 1


@pytest.mark.parametrize("value", NEGATIVE)
def test_whatever_is_no_success_is_a_failure(value: str) -> None:
    """T40 before anything is looked for in the body."""
    with pytest.raises(ErrorBodyError):
        decode(f'{{"stat":{value}}}'.encode(), success_field="stat", results_field="events")


@pytest.mark.parametrize("value", ["null", "false", '""', "0", "-0.0", "[]", "[ ]", "{}", "{\n}"])
def test_an_empty_error_is_none(value: str) -> None:
    """T40 most vendors send the key always."""
    body = f'{{"errors":{value},"events":[{{"n":1}}]}}'.encode()
    fields = {"error_field": "errors", "results_field": "events"}
    assert decode(body, **fields).entries == 1
    assert decode(b'{"events":[]}', **fields).entries == 0


@pytest.mark.parametrize("value", ["true", "1", '"no"', "[null]", '{"a":1}', "[[]]"])
def test_any_other_error_is_one(value: str) -> None:
    """T40 beside events too."""
    body = f'{{"errors":{value},"events":[{{"n":1}}]}}'.encode()
    with pytest.raises(ErrorBodyError):
        decode(body, error_field="errors", results_field="events")


def test_an_excerpt_is_bounded_and_on_one_line() -> None:
    """T40 T46 whatever the vendor writes, it is one line of a log."""
    body = rb'{"error":"first\nsecond\u001b[31m\u2028' + b"x" * 90_000 + b'"}'
    with pytest.raises(ErrorBodyError) as caught:
        decode(body, error_field="error")
    assert caught.value.excerpt.startswith("first second [31m xxx")
    assert len(caught.value.excerpt) <= 65_536


@pytest.mark.parametrize("body", [b'{"ok":true', b'{"ok":' + b"[" * 100_000, b"<html>"])
def test_what_cannot_be_read_says_nothing_of_success(body: bytes) -> None:
    """T37 T41 and is the unreadable page that it is without these fields."""
    with pytest.raises(UnreadablePageError) as caught:
        decode(body, success_field="ok", error_field="error")
    assert not isinstance(caught.value, ErrorBodyError)
