"""From entries to events: all fields of a page at once, or one event after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.events import EventReader, Readings
from flicker.timefmt import format_rfc3339, parse_timestamp

scalars = st.sampled_from(
    [
        "a",
        "b",
        "",
        "0",
        0,
        7,
        -1.5,
        None,
        "é",
        'quo"te',
        "back\\slash",
        "line\nbreak",
        '"\n"',
        "2025-01-01T12:00:00Z",
        "2025-01-01T12:00:00.120Z",
        "2025-01-01",
        1735732800,
        [1],
        {"a": "b"},
    ]
)
entries = st.lists(
    st.dictionaries(st.sampled_from(["id", "at", "text", "other"]), scalars), max_size=5
)


def reader(id_field: str | list[str] | None = "id") -> EventReader:
    return EventReader(timestamp_field="at", message_field="text", id_field=id_field)


@given(entries, st.sampled_from(["id", ["id", "other"], None]), st.booleans())
def test_a_page_reads_as_its_events_read_one_by_one(
    page: list[dict[str, Any]], id_field: str | list[str] | None, is_ascii: bool
) -> None:
    """T05 T20 T45 whatever stands beside them."""
    raws = [json.dumps(entry, ensure_ascii=is_ascii).encode() for entry in page]
    alone = [reading for raw in raws for reading in reader(id_field).read([raw])[0].rows()]
    # No object, so that the page is not read column by column.
    slowly, _ = reader(id_field).read([*raws, b"1"])
    assert reader(id_field).read(raws) == (Readings.of(alone), 0)
    assert slowly.rows()[:-1] == alone


@pytest.mark.parametrize(
    "token", ["[1]", '["a"]', '["a",\n"b"]', '{"a":\n"b"}', '"a\\"b"', "null", "12", '"\\n"']
)
def test_what_is_no_plain_string_is_told_from_it(token: str) -> None:
    """T20 T45 the columns of a page are cut at line breaks, which stand elsewhere too."""
    raws = [
        b'{"id":%b,"text":%b,"at":%b,"n":%d}' % (value, value, value, number)
        for number, value in enumerate([b'"x"', token.encode(), b'"y"'])
    ]
    for start, stop in [(0, 3), (1, 2), (0, 2), (1, 3)]:
        part = raws[start:stop]
        alone = [reading for raw in part for reading in reader().read([raw])[0].rows()]
        assert reader().read(part)[0].rows() == alone
    first, _, last = reader().read(raws)[0].rows()
    assert (first.id, first.message, last.id, last.message) == (b'"x"', b'"x"', b'"y"', b'"y"')


@given(
    st.lists(
        st.sampled_from(
            [
                "2025-01-01T12:00:00Z",
                "2025-01-01T12:00:59.999Z",
                "2025-01-01 12:00:00Z",
                "2025-01-01t12:00:00Z",
                "2025-01-01T23:59:60Z",
                "2025-01-01T12:00:61Z",
                "2025-01-01T12:00:00.0001Z",
                "2025-01-01T12:00:00+02:00",
                "x",
                "",
                "17",
                "2025-01-01",
                "1969-12-31T23:59:59Z",
                "2025-02-30T12:00:00Z",
                "2025-01-01T12:00:00.12Z",
            ]
        )
    )
)
def test_timestamps_read_together_as_they_read_alone(texts: list[str]) -> None:
    """T40 also when their seconds are known by now."""
    entries = [json.dumps({"at": text}).encode() for text in texts]
    alone = [row for raw in [*entries, b"1"] for row in reader(None).read([raw])[0].rows()]
    for _ in range(2):
        together = reader(None).read(entries)[0].rows()
        assert together == alone[:-1]
    instants = [parse_timestamp(text) for text in texts]
    assert [row.timestamp_ns for row in together] == instants
    assert [row.timestamp for row in together] == [
        b"null" if at is None else b'"%b"' % format_rfc3339(at).encode() for at in instants
    ]
