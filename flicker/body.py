"""Bodies of answers: unpacked within a bound."""

from __future__ import annotations

import re
import zlib

from flicker.errors import RetryableError

MAX_MEMBERS = 10_000
"""Pieces that a gzip stream may be put together from."""

INFLATE_BYTES = 64 * 1024
"""Compressed bytes unpacked at a time."""


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """Undo a Content-Encoding within a bound.

    What the bytes are counts, not what the header says: proxies decompress
    and leave the header, servers compress twice. JSON starts with none of
    gzip's bytes.

    Args:
        data: As received.
        encoding: Value of the header.
        limit: Bytes that the result may have.

    Raises:
        RetryableError: Larger than the bound, broken, or a form we cannot
            undo.
    """
    for _ in range(2):
        if data[:2] == b"\x1f\x8b":
            data = _inflate(data, 31, limit)
    named = encoding.lower()
    if "deflate" in named and data.lstrip()[:1] not in (b"{", b"[", b""):
        # RFC 9110 means zlib's wrapping; some servers send the bare stream.
        is_wrapped = (
            data[0] & 0x0F == 8 and (data[0] << 8 | data[1 if len(data) > 1 else 0]) % 31 == 0
        )
        data = _inflate(data, 15 if is_wrapped else -15, limit)
    unknown = set(re.split(r"[\s,]+", named)) - {"", "gzip", "x-gzip", "deflate", "identity"}
    if unknown and data.lstrip()[:1] not in (b"{", b"[", b""):
        message = (
            f"is compressed as {', '.join(sorted(unknown))}, though only gzip and deflate were "
            "offered"
        )
        raise RetryableError(message)
    return data


def _inflate(data: bytes, window_bits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = at = members = 0
    while at < len(data) and members < MAX_MEMBERS:
        stream = zlib.decompressobj(window_bits)
        try:
            while at < len(data) and not stream.eof:
                piece = data[at : at + INFLATE_BYTES]
                part = stream.decompress(piece, limit + 1 - size)
                # Piece by piece, since zlib copies all that is left behind a member.
                at += len(piece) - len(stream.unused_data)
                size += len(part)
                parts.append(part)
                if size > limit:
                    raise too_large(limit)
        except zlib.error:
            if members:
                # Padding behind the last member.
                break
            message = "is compressed, but broken"
            raise RetryableError(message) from None
        if not stream.eof:
            message = "is compressed, but cut short"
            raise RetryableError(message)
        members += 1
    if members == MAX_MEMBERS:
        message = f"is compressed in more than {MAX_MEMBERS} pieces"
        raise RetryableError(message)
    return b"".join(parts)


def too_large(limit: int) -> RetryableError:
    """Say of a body that it is larger than a bound in bytes."""
    return RetryableError(
        f"is larger than {limit} bytes. Ask for smaller pages with page_size, or raise "
        "max_response_bytes"
    )
