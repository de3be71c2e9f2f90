"""From a response's bytes to the JSON texts of its entries, whatever the format."""

from __future__ import annotations

import csv
import io
import re
import sys
from typing import TYPE_CHECKING

import msgspec

from flicker.json_text import split_value

if TYPE_CHECKING:
    from collections.abc import Collection

# The default bound of 128 KiB a field is the whole process's; here the size
# of the response bounds it.
csv.field_size_limit(sys.maxsize)


class FormatError(ValueError):
    """The body is not what it should be; the message holds none of it."""


def decode_text(body: bytes, content_type: str) -> bytes:
    """Turn a body into UTF-8 without a byte order mark.

    Args:
        body: The response body, already decompressed.
        content_type: Value of the header of that name, for its charset.

    Returns:
        Valid UTF-8. Bytes that make no sense become U+FFFD: one bad byte in
        a name must not hold up a page.
    """
    if body.isascii():
        # UTF-16 and UTF-32 JSON is full of zero bytes; JSON itself has none.
        return body.decode(_utf_family(body), "replace").encode() if b"\0" in body[:4] else body
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    elif body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        return body.decode(_utf_family(body), "replace").lstrip("\ufeff").encode()
    try:
        body.decode()
    except UnicodeDecodeError:
        charset = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
        if charset and charset[1].lower().replace("_", "-") in (
            "iso-8859-1",
            "latin-1",
            "windows-1252",
            "cp1252",
        ):
            return body.decode("cp1252", "replace").encode()
        return body.decode("utf-8", "replace").encode()
    return body


def _utf_family(body: bytes) -> str:
    """Source: RFC 4627, section 3: the zero bytes tell the encoding."""
    if body[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if body[:3] == b"\0\0\0":
        return "utf-32-be"
    if body[1:4] == b"\0\0\0":
        return "utf-32-le"
    return "utf-16-be" if body[:1] == b"\0" else "utf-16-le"


def ndjson_entries(body: bytes) -> list[bytes]:
    """Read a body with one JSON value a line.

    Args:
        body: UTF-8, as `decode_text` gives it.

    Returns:
        The values in order; blank lines are none.

    Raises:
        FormatError: A line is not one JSON value; the last of a truncated
            body is such.
        RecursionError: A line is nested too deeply.
    """
    entries = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entries.append(split_value(line))
        except msgspec.DecodeError:
            message = f"is no NDJSON: line {number} is not one JSON value"
            raise FormatError(message) from None
    return entries


def csv_entries(body: bytes, known: Collection[str] = ()) -> list[bytes]:
    """Read a body of comma-separated values whose first row names the columns.

    Nothing of a row is dropped: a second column of the same name is called
    `NAME_2`, one without a name `column_N`, and so are fields beyond the last
    column. Where fields are missing, so are their names.

    Args:
        body: UTF-8, as `decode_text` gives it.
        known: Columns, if any, of which there has to be one: a line of text
            is the header of a table without rows.

    Returns:
        A JSON object of texts for each row, in the columns' order.

    Raises:
        FormatError: The body is JSON, has no column that is known, or a quoted
            field never ends.

    Source: RFC 4180.
    """
    if body.lstrip()[:1] in {b"{", b"["}:
        raise FormatError("is JSON, not CSV. Check response_format")
    # Python 3.10 refuses NUL, for which no receiver has a use.
    text = body.decode().replace("\0", "\ufffd")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    entries = []
    try:
        for row in rows:
            if not row:
                continue
            if not columns:
                columns = _column_names(row)
                if known and not set(known) & set(columns):
                    message = f"has none of the columns that are looked for ({', '.join(known)})"
                    raise FormatError(f"{message}: it is no CSV, or check their names")
                continue
            if len(columns) < len(row):
                columns = _column_names([*columns, *[""] * (len(row) - len(columns))])
            entries.append(msgspec.json.encode(dict(zip(columns, row, strict=False))))
    except csv.Error:
        message = f"is no CSV: the row that ends in line {rows.line_num} has a quote astray"
        raise FormatError(message) from None
    return entries


def _column_names(header: list[str]) -> list[str]:
    given_names = set(header)
    # In order, as a set that looks names up.
    names: dict[str, None] = {}
    counts: dict[str, int] = {}
    for number, given in enumerate(header, start=1):
        wanted = name = given or f"column_{number}"
        while name in names or (name != given and name in given_names):
            counts[wanted] = counts.get(wanted, 1) + 1
            name = f"{wanted}_{counts[wanted]}"
        names[name] = None
    return list(names)
