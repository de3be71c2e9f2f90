"""Bodies that are lines or tables."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.decode import DecodeOptions, PageDecoder, UnreadablePageError
from tests.outgoing import id_of, message_of

NOON_NS = 1_735_732_800_000_000_000


def raws(body: bytes, response_format: Literal["ndjson", "csv"], **fields: Any) -> list[bytes]:
    page = PageDecoder(DecodeOptions(response_format=response_format, **fields)).decode(body)
    return [event.raw for event in page.events]


def rows(body: bytes) -> list[dict[str, str]]:
    return [json.loads(raw) for raw in raws(body, "csv")]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_each_line_is_an_event(ending: bytes) -> None:
    """T41 T45 T46 its bytes as they are, and blank lines are none."""
    lines = [b'{"n":9007199254740993, "s":"\\ud800"}', '{"t":"\u2028é"}'.encode(), b'"a"', b"[1]"]
    for separator in (b"\n", b"\r\n", b"\n\n"):
        for mark in (b"", b"\xef\xbb\xbf"):
            assert raws(mark + separator.join(lines) + ending, "ndjson") == lines


def test_a_line_of_null_is_counted_and_no_event() -> None:
    """T43 as in a list."""
    page = PageDecoder(DecodeOptions(response_format="ndjson")).decode(b'null\n{"a":1}\n')
    assert (page.entries, page.skipped, len(page.events)) == (2, 1, 1)


@pytest.mark.parametrize(
    "line", [b'{"a":1', b'{"a":"b', b"{} {}", b"1,2", b"]", b"no", b'{"a":1}}', b"[" * 100_000]
)
def test_one_broken_line_makes_the_page_unreadable(line: bytes) -> None:
    """T37 T41 a truncated download is asked for again, and nothing of it is shipped."""
    for body in (b'{"n":1}\n' + line, line + b'\n{"n":1}'):
        with pytest.raises(UnreadablePageError) as caught:
            raws(body, "ndjson")
        assert '"a"' not in str(caught.value)


def test_the_line_that_is_broken_is_named() -> None:
    """T41 by its number alone."""
    with pytest.raises(UnreadablePageError, match="line 3 is not one JSON value"):
        raws(b'{"n":1}\n\n{"n":', "ndjson")


def test_a_table_becomes_objects_of_text() -> None:
    """T41 T45 T46 in the columns' order, and no number is read as one."""
    body = b'\xef\xbb\xbfID,Name,N\r\n1,"a ""b"", c\r\nd",9007199254740993\r\n2,\xc3\xa9,1.50\r\n'
    assert raws(body, "csv") == [
        rb'{"ID":"1","Name":"a \"b\", c\r\nd","N":"9007199254740993"}',
        '{"ID":"2","Name":"é","N":"1.50"}'.encode(),
    ]


def test_columns_are_fields() -> None:
    """T47 a column's name may hold a dot."""
    decoder = PageDecoder(
        DecodeOptions(
            response_format="csv", timestamp_field="at.utc", message_field="m", id_field=["a", "b"]
        )
    )
    (event,) = decoder.decode(b"a,b,m,at.utc\n1,2,hello,2025-01-01T12:00:00Z\n").events
    assert (id_of(event), event.timestamp_ns, message_of(event)) == ("1|2", NOON_NS, b'"hello"')


def test_nothing_of_an_uneven_table_is_dropped() -> None:
    """T44 columns of one name, of none, and rows of any length."""
    assert rows(b"a,a,,a_2\n1,2,3,4,5,6\n7\n8,9\n") == [
        {"a": "1", "a_3": "2", "column_3": "3", "a_2": "4", "column_5": "5", "column_6": "6"},
        {"a": "7"},
        {"a": "8", "a_3": "9"},
    ]


def test_a_field_may_be_huge() -> None:
    """T37 Python's own bound is 128 KiB."""
    assert rows(b"a,b\n" + b"x" * 1_000_000 + b',"' + b"y" * 1_000_000 + b'"\n') == [
        {"a": "x" * 1_000_000, "b": "y" * 1_000_000}
    ]


@pytest.mark.parametrize("body", [b'a,b\n1,"2', b'a,b\n"1"x,2\n3,4', b'a,"b\n1,2\n'])
def test_a_quote_without_its_end_makes_the_page_unreadable(body: bytes) -> None:
    """T41 as a truncated table has it."""
    with pytest.raises(UnreadablePageError, match="no CSV"):
        raws(body, "csv")


@pytest.mark.parametrize(
    "body", [b'{"error":"a,b"}', b'\n[{"message":"a,b"}]', b"\n <html>\na,b\n1,2"]
)
def test_a_table_that_is_something_else_is_an_error(body: bytes) -> None:
    """T38 T40 not a table with odd columns."""
    with pytest.raises(UnreadablePageError, match=r"JSON|HTML"):
        raws(body, "csv")


@pytest.mark.parametrize("body", [b"Internal error, try later\n", b"oops", b"ID,At\n1,2\n"])
def test_csv_without_a_column_of_the_events_is_no_page(body: bytes) -> None:
    """T43: a line of text looks like the header of a table without rows."""
    assert raws(body, "csv") is not None
    with pytest.raises(UnreadablePageError, match=r"columns .*\(at, id\)"):
        raws(body, "csv", timestamp_field="at", id_field="id")


def test_csv_may_lack_some_of_the_columns() -> None:
    """T43: a vendor's reports do not all have the same."""
    assert raws(b"id,n\n1,2\n", "csv", timestamp_field="at", id_field="id") == [
        b'{"id":"1","n":"2"}'
    ]
    assert raws(b"id,n\n", "csv", timestamp_field="at", id_field="id") == []


@pytest.mark.parametrize("response_format", ["ndjson", "csv"])
def test_an_empty_body_is_a_page_without_events(response_format: Literal["ndjson", "csv"]) -> None:
    """T36 where no list has to be there."""
    decoder = PageDecoder(DecodeOptions(response_format=response_format))
    assert decoder.allows_empty_body
    assert decoder.decode(b" \r\n").events == []
    assert not PageDecoder(DecodeOptions()).allows_empty_body


def test_a_table_of_a_header_alone_is_empty() -> None:
    """T36 T41 and NUL is no reason to stay at a page for ever."""
    assert rows(b"a,b\r\n") == []
    assert rows(b"a,b\r1,2\r") == [{"a": "1", "b": "2"}]
    assert rows(b"aaaa,b\n1\0,2\n") == [{"aaaa": "1\ufffd", "b": "2"}]


def test_what_a_document_says_is_looked_for_in_json_only() -> None:
    """T17 lines have neither cursors nor lists, but a last event."""
    fields: dict[str, Any] = {"results_field": "a", "has_more_field": "b", "error_field": "c"}
    decoder = PageDecoder(DecodeOptions(response_format="ndjson", cursor_from_last="b", **fields))
    page = decoder.decode(b'{"a":1,"b":2,"c":3}')
    assert (page.entries, page.has_more, page.cursor) == (1, None, "2")
    page = PageDecoder(DecodeOptions(response_format="ndjson", next_cursor_field="b")).decode(
        b'{"b":2}'
    )
    assert (page.has_cursor_field, page.cursor) == (False, None)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_whatever_is_written_as_a_table_is_read(table: list[tuple[str, str]]) -> None:
    """T46 any text, with quotes and line breaks of any kind."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("first", "second"), *table])
    expected = [{"first": first, "second": second} for first, second in table]
    assert rows(out.getvalue().encode()) == expected
