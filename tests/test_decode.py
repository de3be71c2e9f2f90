"""From bytes to a page of events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.decode import DecodeOptions, PageDecoder, UnreadablePageError
from tests.outgoing import id_of, message_of

NOON_NS = 1_735_732_800_000_000_000


def decode(body: bytes, content_type: str = "", **fields: Any) -> Any:
    return PageDecoder(DecodeOptions(**fields)).decode(body, content_type)


def raws(body: bytes, content_type: str = "", **fields: Any) -> list[bytes]:
    return [event.raw for event in decode(body, content_type, **fields).events]


@pytest.mark.parametrize(
    ("first", "second", "distinct"),
    [
        ('{"n":1}', '{"n":2}', True),
        ('{"id":null,"n":1}', '{"id":null,"n":2}', True),
        ('{"id":"","n":1}', '{"id":"","n":2}', True),
        ('{"id":0,"n":1}', '{"id":0,"n":2}', True),
        ('{"id":"0","n":1}', '{"id":"0","n":2}', True),
        ('{"id":false,"n":1}', '{"id":false,"n":2}', True),
        ('{"id":{"a":1},"n":1}', '{"id":{"a":1},"n":2}', True),
        (r'{"id":"\ud800"}', r'{"id":"\ud801"}', True),
        ('{"id":9007199254740992}', '{"id":9007199254740993}', True),
        ('{"id":7,"n":1}', '{"id":"7","n":2}', False),
        ('{"id":"é"}', r'{"id":"\u00e9"}', False),
        ('{"n":1}', '{"n":1}', True),
        ('{"id":"a"}', '{"id":"a"}', False),
    ],
)
def test_an_identity_is_the_id_or_else_the_event(first: str, second: str, distinct: bool) -> None:
    """T05 T06 T07 T08 placeholders are no ids, and equal events without one are two."""
    events = decode(f"[{first},{second}]".encode(), id_field="id").events
    assert (events[0].identity != events[1].identity) == distinct
    assert {len(event.identity) for event in events} == {16}


def identities(body: bytes, *, within: bytes | None = None, **fields: Any) -> list[bytes]:
    page = PageDecoder(DecodeOptions(**fields)).decode(body, within=within)
    for event in page.events:
        assert len(event.identity) == 16
    return [event.identity for event in page.events]


def test_a_repeat_without_an_id_is_known_by_how_often_it_came_in_the_page() -> None:
    """T08 so that the page read again, and any other page, has the same events."""
    one, two, three = identities(b'[{"n":1},{"n":1},{"n":1}]')
    assert len({one, two, three}) == 3
    assert identities(b'[{"n":2},{"n":1},{"n":2},{"n":1}]')[1::2] == [one, two]
    assert identities(b'[{"n":1}]') == [one]


def test_an_identity_stays_what_it_was() -> None:
    """Registries hold them: another one for the same event ships it again."""
    body = b'[{"id":"a|b"},{"id":null},{"id":null}]'
    found = [identity.hex() for identity in identities(body, id_field="id")]
    assert found == [
        "ad269eb99872eed2e8cb694a21bb84ec",
        "04d3d4226984f0cd87951167576babd7",
        "f798bad987e699c16b388cac4fb66af6",
    ]


@pytest.mark.parametrize(
    ("first", "second", "distinct"),
    [
        ('{"id":"a","v":1,"n":1}', '{"id":"a","v":1,"n":2}', False),
        ('{"id":"a","v":1}', '{"id":"a","v":2}', True),
        ('{"id":"a|1","v":"b"}', '{"id":"a","v":"1|b"}', True),
        ('{"id":"a\\\\","v":"|b"}', '{"id":"a","v":"\\\\||b"}', True),
        ('{"id":"a","n":1}', '{"id":"a","n":2}', True),
        ('{"id":"a","v":"","n":1}', '{"id":"a","v":"","n":2}', True),
        ('{"id":"a","v":null,"n":1}', '{"id":"a","v":null,"n":2}', True),
    ],
)
def test_several_fields_may_be_the_id_together(first: str, second: str, distinct: bool) -> None:
    """T06 what changed under its id is another event; without one part, the bytes count."""
    events = decode(f"[{first},{second}]".encode(), id_field=["id", "v"]).events
    assert (events[0].identity != events[1].identity) == distinct
    assert (id_of(events[0]) != id_of(events[1])) == distinct


def test_an_id_of_several_fields_is_readable_and_of_one_is_that_one() -> None:
    body = b'[{"id":"a","v":7}]'
    assert id_of(decode(body, id_field=["id", "v"]).events[0]) == "a|7"
    assert decode(body, id_field=["id"]).events == decode(body, id_field="id").events


def test_rows_of_a_fetched_document_are_known_within_its_record() -> None:
    """T08 equal rows are events of their own, and the same ones when fetched again."""
    body = b'[{"n":1},{"n":1},{"id":"a"}]'
    first = identities(body, within=b"a" * 16, id_field="id")
    assert len(set(first)) == 3
    assert identities(body, within=b"a" * 16, id_field="id") == first
    assert identities(b'[{"n":0},{"n":1},{"n":1}]', within=b"a" * 16)[1:] == first[:2]
    other = identities(body, within=b"b" * 16, id_field="id")
    assert not {*first[:2]} & {*other[:2]}
    assert first[2] == other[2]


@pytest.mark.parametrize(
    ("token", "cursor"),
    [
        ('"abc"', "abc"),
        ("30401068764886351", "30401068764886351"),
        ("1725646291", "1725646291"),
        ("1.725646291e+09", "1.725646291e+09"),
        (r'"a\u002bb\/c"', "a+b/c"),
        ('"0"', "0"),
        ("0", None),
        ('""', None),
        ('"  "', None),
        ("null", None),
        ("false", None),
        ("true", None),
    ],
)
def test_a_cursor_is_exact_text_or_the_end(token: str, cursor: str | None) -> None:
    """T17 T20 every digit is kept, and every mark of the end is one."""
    body = f'{{"events":[],"page":{{"next":{token}}}}}'.encode()
    page = decode(body, results_field="events", next_cursor_field="page.next")
    assert (page.cursor, page.has_cursor_field) == (cursor, True)


@pytest.mark.parametrize(
    ("token", "cursor"),
    [
        ('["1532951895000","af0b"]', "1532951895000,af0b"),
        ("[30401068764886351]", "30401068764886351"),
        ("[]", None),
    ],
)
def test_a_cursor_in_parts_is_joined_by_commas(token: str, cursor: str | None) -> None:
    """T21 as Duo hands it out, and takes it back."""
    body = f'{{"events":[],"next":{token}}}'.encode()
    page = decode(body, results_field="events", next_cursor_field="next")
    assert (page.cursor, page.has_cursor_field) == (cursor, True)


@pytest.mark.parametrize("token", ['[["af0b"]]', '{"a":1}', '["a",null]'])
def test_a_cursor_that_is_no_text_is_said(token: str) -> None:
    """T21 with the key's name, and without the cursor."""
    body = f'{{"events":[],"next":{token}}}'.encode()
    with pytest.raises(UnreadablePageError, match='at "next"') as caught:
        decode(body, results_field="events", next_cursor_field="next")
    assert "af0b" not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "has_more"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ("0", False),
        ('"false"', False),
        ('""', False),
        ("1", True),
        ('"https://a/b"', True),
    ],
)
def test_reads_whether_there_is_more(token: str, has_more: bool) -> None:
    """T27 whatever a vendor writes for no."""
    body = f'{{"events":[],"meta":{{"more":{token}}}}}'.encode()
    page = decode(body, results_field="events", has_more_field="meta.more")
    assert page.has_more is has_more
    assert decode(body, results_field="events", has_more_field="more").has_more is None


def test_the_last_event_may_hold_the_next_cursor() -> None:
    body = b'{"events":[{"id":"a"},{"id":30401068764886351}]}'
    page = decode(body, results_field="events", cursor_from_last="id")
    assert page.cursor == "30401068764886351"
    body = b'{"events":[{"id":"a"},null,null]}'
    assert decode(body, results_field="events", cursor_from_last="id").cursor == "a"
    # The last that has one: what stands behind it comes once more.
    body = b'{"events":[{"id":"a"},{"id":"b"},{"id":null},{"x":1},"text"]}'
    assert decode(body, results_field="events", cursor_from_last="id").cursor == "b"
    assert decode(b'{"events":[]}', results_field="events", cursor_from_last="id").cursor is None


@pytest.mark.parametrize("body", [b'{"events":[]}', b"[]"])
def test_a_missing_cursor_leaves_the_link_header_to_be_asked(body: bytes) -> None:
    """T17 a root array has no fields at all."""
    field = "events" if body.startswith(b"{") else ""
    page = decode(body, results_field=field, next_cursor_field="next")
    assert (page.cursor, page.has_cursor_field) == (None, False)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a":1},{"a":',
        b'[{"a":1}][{"a":2}]',
        b'[{"a":1}] trailing',
        b'{"a":1}\n{"a":2}\n',
        b'callback([{"a":1}])',
        b"<html><body>Sign in</body></html>",
        b"hello",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[nan]",
        b'["\\ud800", {]',
    ],
)
@pytest.mark.parametrize("results_field", ["", "events"])
def test_what_is_no_page_is_an_error_and_never_an_empty_page(
    body: bytes, results_field: str
) -> None:
    """T38 T41 truncated, doubled, lines, JSONP, HTML, nested without end."""
    with pytest.raises(UnreadablePageError) as caught:
        decode(body, "text/html; charset=utf-8", results_field=results_field)
    assert ("HTML" in str(caught.value)) == body.startswith(b"<")
    assert "Sign in" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"  \n", b"[]", b"null"])
def test_an_empty_answer_is_an_empty_page(body: bytes) -> None:
    """T36 as with 204."""
    assert decode(body).events == []


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b'{"data":{},"meta":1}', "found keys: data, meta"),
        (b'{"meta":1}', "found keys: meta"),
        (b'{"data":{"events":{"a":1}}}', "found keys: data"),
        (b'{"data":{"events":"secret-value"}}', "found keys: data"),
        (b'[{"a":1}]', 'results_field: ""'),
    ],
)
def test_a_list_that_is_not_there_is_said(body: bytes, hint: str) -> None:
    """T42 loud, with the keys that are there and no values."""
    with pytest.raises(UnreadablePageError, match="Check results_field") as caught:
        decode(body, results_field="data.events")
    assert hint in str(caught.value)
    assert "secret-value" not in str(caught.value)


def test_null_for_the_list_is_no_events() -> None:
    """T42 some vendors write null where nothing is."""
    assert decode(b'{"events":null}', results_field="events").entries == 0


def test_entries_that_are_no_objects_are_shipped_and_null_is_counted() -> None:
    """T43 strings, numbers and lists are events, null is none."""
    page = decode(b'[null, "a",1.50,[2], {"b":1} ,null]', timestamp_field="ts", id_field="id")
    assert [event.raw for event in page.events] == [b'"a"', b"1.50", b"[2]", b'{"b":1}']
    assert (page.entries, page.skipped) == (6, 2)


@pytest.mark.parametrize("fields", [{}, {"explode_field": "n"}])
def test_the_last_entry_is_known_as_it_is_where_a_page_begins_with_it(
    fields: dict[str, Any],
) -> None:
    """T08 by that the next poll tells whether an offset still leads to it."""
    page = decode(b'[{"n":[1,2]},{"n":[1,2]}]', **fields)
    assert page.last_entry == decode(b'[{"n":[1,2]}]', **fields).events[0].identity
    assert decode(b'[{"n":[1,2]},null]', **fields).last_entry is None
    assert decode(b"[]", **fields).last_entry is None


@pytest.mark.parametrize(
    ("event", "shipped"),
    [
        (b'{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN"}', b'{"a":null,"b":[null,null],"c":"NaN"}'),
        (b'{"a":1e400,"b":-0.0,"c":1E+2}', None),
        (b'{"a":123456789012345678901234567890,"b":0.10}', None),
        (b'{"a":1,"a":2}', None),
        (b'{ "b" : 1,\n\t"a":2 }', None),
        (rb'{"a":"\ud83d"}', None),
        (rb'{"a":"\u0000\u2028"}', None),
        ('{"a":"\u2028 \U0001f600 \u202e"}'.encode(), None),
        (b'{\n"a":"x\ny\x00z"}', b'{\n"a":"x\\u000ay\\u0000z"}'),
        (b'{"a":"caf\xe9"}', '{"a":"caf\ufffd"}'.encode()),
    ],
)
def test_an_event_is_the_vendors_own_bytes(event: bytes, shipped: bytes | None) -> None:
    """T44 T45 T46 changed only where it would be no JSON, and its neighbours not at all."""
    neighbour = b'{"n":9007199254740993}'
    for body, field in (
        (b"[" + neighbour + b"," + event + b"]", ""),
        (b'{"x":{"events": [' + neighbour + b" ," + event + b"\n]}}", "x.events"),
    ):
        found = raws(body, results_field=field, timestamp_field="ts", message_field="a")
        assert found == [neighbour, shipped or event]
        for raw in found:
            json.loads(raw.decode(), parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ['[{"a":"é"}]', '[{"a":"e"}]', '[{"a":"日本😀"}]'])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
def test_every_encoding_of_json_is_read(text: str, encoding: str) -> None:
    """T41 T46 with and without a byte order mark, whatever the header says."""
    assert raws(text.encode(encoding), "application/json; charset=latin1") == [text[1:-1].encode()]


def test_the_charset_counts_where_the_bytes_are_no_utf8() -> None:
    """T46 and broken zero bytes are an error of the page, not of ours."""
    body = '[{"a":"é"}]'.encode("cp1252")
    assert raws(body, "application/json; charset=ISO-8859-1") == ['{"a":"é"}'.encode()]
    with pytest.raises(UnreadablePageError):
        decode(b"[\0[\0\0")


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("@timestamp", '{"@timestamp":TS}'),
        ("@odata.ts", '{"@odata.ts":TS}'),
        ("project.archived", '{"project.archived":TS}'),
        ("project.archived", '{"project":{"archived":TS}}'),
        ("a b.c", '{"a b":{"c":TS}}'),
        ("a.b.c", '{"a.b":{"c":TS}}'),
        ("a.b.c", '{"a":{"b.c":TS}}'),
        ("a.b.c", '{"a.b":{"d":0},"a":{"b":{"c":TS}}}'),
        ("a.b", '{"a.b":TS,"a":{"b":1}}'),
        ("times.1", '{"times":[0,TS]}'),
        ("a..b", '{"a":{"":{"b":TS}}}'),
        ("ts", '{"ts":0,"ts":TS}'),
    ],
)
def test_a_path_finds_keys_of_any_kind(path: str, event: str) -> None:
    """T47 the literal key first, then nested ones; the last of two equal keys."""
    body = f"[{event}]".replace("TS", '"2025-01-01T12:00:00Z"').encode()
    assert decode(body, timestamp_field=path).events[0].timestamp_ns == NOON_NS


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, b"null"),
        ("null", b"null"),
        (r'"say \"hi\""', rb'"say \"hi\""'),
        (r'"\ud83d"', rb'"\ud83d"'),
        ('{"a":"b"}', rb'"{\"a\":\"b\"}"'),
        ("[1]", b'"[1]"'),
        ("1.50", b'"1.50"'),
        ("true", b'"true"'),
    ],
)
def test_a_message_is_a_string_or_null(value: str | None, message: bytes) -> None:
    """T48 anything else goes as its own text."""
    event = "{}" if value is None else f'{{"m":{{"t":{value}}}}}'
    assert message_of(decode(f"[{event}]".encode(), message_field="m.t").events[0]) == message


@pytest.mark.parametrize(
    "token", ['"0001-01-01T00:00:00Z"', '"soon"', "null", "0", "-1", "{}", "[]", "true", '""']
)
def test_an_unreadable_timestamp_is_none(token: str) -> None:
    """T51 the event is there all the same."""
    page = decode(f'[{{"ts":{token}}}]'.encode(), timestamp_field="ts")
    assert [event.timestamp_ns for event in page.events] == [None]


@given(st.lists(st.dictionaries(st.text(max_size=3), st.floats() | st.text(), max_size=3)))
def test_whatever_python_writes_is_read(events: list[dict[str, Any]]) -> None:
    """T43 T44 T46 any text and any number, NaN included, one event for each entry."""
    page = decode(json.dumps(events).encode())
    assert page.entries == len(page.events) == len(events)
    for event in page.events:
        json.loads(event.raw, parse_constant=pytest.fail)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_the_pages_own_error(body: bytes) -> None:
    """T41 T46 a page that cannot be read is retried; anything else is a fault of ours."""
    for field in ("", "a"):
        with contextlib.suppress(UnreadablePageError):
            page = decode(body, results_field=field, next_cursor_field="a", id_field="id")
            assert page.entries >= len(page.events)
