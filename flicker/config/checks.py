"""What keeps a single text from being the name, URL, path ... that it should be.

Each check returns what is wrong, to be read after the path of the key, or
None. Unless it says so, a check quotes nothing of the text: it may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from flicker.timefmt import STRFTIME, TIME_FORMATS, parse_start_time, strftime_problem

if TYPE_CHECKING:
    from urllib.parse import SplitResult

EMPTY = "is empty: give it a value, or remove the key"

ITEM = "{item}"
"""Stands for the item of `foreach`."""

_PLACEHOLDERS = ("{since}", "{until}", ITEM)
_PLACEHOLDER = re.compile(r"\{\w+\}")
_MAX_NAME_CHARS = 200
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HOST_PART = re.compile(r"[0-9A-Za-z._-]+(?::[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding", "content-encoding"})
# Tried in this order, so that the later ones may rely on the earlier.
_URL_FAULTS = (
    (
        re.compile(r"[\s\x00-\x1f\x7f]"),
        (
            "holds white space or a control character: remove it, or write it percent-encoded"
            " (a space is %20)"
        ),
    ),
    (re.compile(r"\\"), "holds a backslash: URLs are written with `/`"),
    (
        re.compile(r"\A(?!https?://)", re.IGNORECASE),
        "must be an absolute URL that begins with https:// or http://",
    ),
    (
        re.compile(r"\A[^/]+//[^/?#]*@"),
        (
            "holds a user name or password before the `@`: remove them,"
            " and give them as `basic` with `username` and `password`"
        ),
    ),
    (
        re.compile("#"),
        "holds a fragment (`#...`), which is never sent: remove it (`#` itself is %23)",
    ),
)


def name_problem(name: str) -> str | None:
    """Check the name of a source, which is printed and kept."""
    if len(name) > _MAX_NAME_CHARS:
        return f"must be at most {_MAX_NAME_CHARS} characters long; this one has {len(name)}"
    if name != name.strip():
        return "begins or ends with white space: remove it"
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in name):
        return "holds a control character or a line break: use printable characters only"
    return None


def param_name_problem(name: str) -> str | None:
    """Check the name of a query parameter."""
    if _CONTROL.search(name) or name != name.strip():
        return (
            "is no name of a query parameter: remove control characters and white space around it"
        )
    return None


def header_name_problem(name: str) -> str | None:
    """Check the name of a header that is not Flicker's own to set."""
    if not _TOKEN.match(name):
        return "is no header name: use letters, digits and hyphens only (RFC 9110, section 5.1)"
    if name.lower() in _FRAMING_HEADERS:
        return "is set by Flicker itself, from the body it sends: remove this header"
    return None


def header_value_problem(value: str) -> str | None:
    """Check the value of a header, as it will stand on its line."""
    if not value:
        return EMPTY
    if _CONTROL.search(value.replace("\t", " ")):
        return (
            "holds a line break or another control character, which a header cannot carry:"
            " remove it"
        )
    if value != value.strip(" \t"):
        return (
            "begins or ends with white space, which is lost on the way: remove it"
            " (is a `${...}` in it empty?)"
        )
    if any(ord(char) > 0xFF for char in value):
        return (
            "holds a character outside Latin-1, which a header cannot carry:"
            " look for typographic quotes or dashes"
        )
    return None


def bearer_problem(token: str) -> str | None:
    """Check a bearer token, which is also the value of a header."""
    problem = header_value_problem(token)
    if problem is None and token.lower().startswith("bearer "):
        return "begins with the word Bearer, which Flicker puts there itself: leave it out"
    return problem


def username_problem(name: str) -> str | None:
    """Check a user name of HTTP Basic authentication."""
    if not name:
        return "is empty: give it a value"
    if ":" in name:
        return "holds a colon, which a user name cannot (RFC 7617, section 2): remove it"
    return password_problem(name)


def password_problem(password: str) -> str | None:
    """Check a password of HTTP Basic authentication, which may be empty."""
    if _CONTROL.search(password):
        return "holds a line break or another control character (RFC 7617, section 2): remove it"
    return None


def url_problem(text: str) -> str | None:
    """Check the URL of an endpoint."""
    for fault, message in _URL_FAULTS:
        if fault.search(text):
            return message
    try:
        return _host_problem(urlsplit(text))
    except ValueError:
        return "is no URL: are the brackets of its IPv6 address right?"


def fill_url(url: str, item: str) -> str:
    """Put the item of `foreach` into a URL, percent-encoded but for slashes and colons."""
    return url.replace(ITEM, quote(item, safe="/:{}"))


def filled_url_problem(url: str, item: str) -> str | None:
    """Check what an item of `foreach` makes of a URL that is right without it."""
    if ITEM not in url:
        return None
    host = url.partition("//")[2].partition("/")[0]
    if ITEM in host.partition("?")[0] and not _HOST_PART.fullmatch(item):
        return (
            "has no valid host name: an item in the place of a host holds letters, digits, hyphens"
            " and dots only"
        )
    return url_problem(fill_url(url, item))


def _host_problem(parts: SplitResult) -> str | None:
    if parts.netloc.endswith(":"):
        return "ends its host in a colon: add the port, or remove the colon"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "has no valid port: it must be a number from 1 to 65535"
    host = parts.hostname or ""
    if not host:
        return "names no host: write it as https://host/path"
    try:
        if parts.netloc.startswith("["):
            ipaddress.IPv6Address(host.partition("%")[0])
        else:
            host.removesuffix(".").encode("idna")
    except ValueError:
        return "has no valid host name: look for an empty part, as in `a..b`"
    return None


def time_format_problem(text: str) -> str | None:
    """Check how instants are written."""
    if text in TIME_FORMATS:
        return None
    if text.startswith(STRFTIME):
        return strftime_problem(text[len(STRFTIME) :])
    near = get_close_matches(text.lower(), TIME_FORMATS, 1)
    hint = f". Did you mean `{near[0]}`?" if near else ""
    return f"must be one of {', '.join(TIME_FORMATS)}, or `{STRFTIME}` and a pattern{hint}"


def template_problem(text: str) -> str | None:
    """Check what a time filter is sent."""
    unknown = next((name for name in _PLACEHOLDER.findall(text) if name not in _PLACEHOLDERS), None)
    if unknown is not None:
        near = get_close_matches(unknown, _PLACEHOLDERS, 1)
        hint = f". Did you mean `{near[0]}`?" if near else ""
        return f"has a placeholder that is none of {', '.join(_PLACEHOLDERS)}{hint}"
    if "{since}" not in text:
        return "has no `{since}`, and so does not tell from when on"
    return None


def start_time_problem(text: str) -> str | None:
    """Check an instant or a span before now."""
    try:
        parse_start_time(text)
    except ValueError as error:
        return str(error)
    return None


def pattern_problem(pattern: str) -> str | None:
    """Check a regular expression."""
    try:
        compile_pattern(pattern)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        return (
            f"is no regular expression: {error.msg}{where} (Python's syntax;"
            " in double quotes YAML needs each backslash twice)"
        )
    except (OverflowError, RecursionError):
        return "is no regular expression that can be run: it is too large"
    return None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression without the warnings meant for its author's editor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(pattern)


def dead_letter_problem(text: str) -> str | None:
    """Check the path of a file to write; the message names it."""
    if _CONTROL.search(text):
        return "is no path of a file: remove the control characters"
    try:
        path = expand_home(text)
        if path.is_dir():
            return f"names {path}, which is a directory: give the path of a file"
    except RuntimeError:
        return _unknown_home(text)
    except OSError as error:
        return f"names {path}, which cannot be written ({reason(error)})"
    return None


def file_problem(text: str) -> str | None:
    """Check the path of a file to read; the message names it."""
    try:
        return unreadable_problem(expand_home(text))
    except RuntimeError:
        return _unknown_home(text)


def unreadable_problem(path: Path) -> str | None:
    """Check a file to read; the message names it."""
    if _CONTROL.search(str(path)) or "-----BEGIN" in str(path):
        return "must be the path of a file, not what stands in the file"
    try:
        if not path.is_file():
            return f"names {path}, which is not a file: give the path of a readable file"
        with path.open("rb"):
            return None
    except (OSError, ValueError) as error:
        return f"names {path}, which cannot be read ({reason(error)})"


def _unknown_home(text: str) -> str:
    user = text.partition("/")[0]
    return f"begins with {user}, a home directory that this machine does not know: write it in full"


def expand_home(text: str) -> Path:
    """Read a path that may begin with `~`.

    Raises:
        RuntimeError: There is no such home directory.
    """
    return Path(text).expanduser()


def reason(error: OSError | ValueError) -> str:
    """Say why a file cannot be read, without its content."""
    return getattr(error, "strerror", None) or type(error).__name__
