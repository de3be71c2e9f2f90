"""The YAML file in, `Settings` out, or everything that is wrong with it.

The work is done in three steps, each of which adds to one list of problems:
YAML becomes plain values with `${...}` expanded, the models below check each
value, and `_relations` checks what no single value can be blamed for. Nothing
in a message is taken from a value, since any of them may be a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import unicodedata
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from yaml.constructor import SafeConstructor

from flicker.errors import ConfigError, Problem
from flicker.settings import (
    Basic,
    Credentials,
    Destination,
    Endpoint,
    Pagination,
    Retry,
    Secret,
    Settings,
    Source,
    Tls,
)
from flicker.timefmt import parse_start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_Keys = tuple[str | int, ...]
_Finding = tuple[_Keys, str]
_In = TypeVar("_In")
_Out = TypeVar("_Out")

# The C parser reads a thousand sources in 0.2 s, the Python one in 1.6 s.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_FILE_BYTES = 16 * 1024 * 1024
_MAX_SECRET_BYTES = 1024 * 1024
_MAX_DEPTH = 40
# Values after all anchors are followed: room for ten thousand sources, and
# few enough that a file of anchors upon anchors is refused within seconds.
_MAX_VALUES = 500_000
_MAX_COUNT = 2**31 - 1
_MAX_SPAN_MS = 366 * 24 * 3600 * 1000
_MAX_NAME_CHARS = 200

_EXPANSION = re.compile(
    r"""
    (?P<escape>\$\$\{)
    | \$\{ (?P<name>[A-Za-z_][A-Za-z0-9_]*) (?: :- (?P<default>(?:(?!\$\{)[^}])*) )? \}
    | \$\{ file: (?P<file>(?:(?!\$\{)[^}])+) \}
    | (?P<malformed>\$\{)
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}\Z")
_NAME_LIKE_KEY = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@\[\]-]{0,63}\Z")
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
_TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
_FALSE_WORDS = frozenset({"false", "no", "off", "0"})
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
# Older releases of pydantic look a choice up by its exact type.
_CHOICE_KEYS = frozenset({"type", "pagination_type", "format", "time_filter_format"})
_MERGE_TAG = "tag:yaml.org,2002:merge"
_COLLECTION_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_TAG_MESSAGE = (
    "has a YAML tag (`!...`) that Flicker does not take:"
    " put the value in quotes if it really begins with `!`"
)


class _Expanded(str):
    """Text that came, at least in part, from the environment or a file."""

    __slots__ = ()


class _Int(int):
    """A whole number that remembers how it was written: `007` is not `7`."""

    text: str


class _Float(float):
    """A number with a fraction that remembers how it was written."""

    text: str


class _UnreadableError(Exception):
    """The file cannot be read as YAML at all; the message says why."""


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("flicker", "{message}", {"message": message})


def _whole(value: object) -> object:
    if not isinstance(value, _Expanded):
        return value
    text = value.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        message = "must be a whole number such as 100, but what the `${...}` stands for is not one"
        raise _wrong(message)
    return int(text)


def _truth(value: object) -> object:
    if not isinstance(value, _Expanded):
        return value
    word = value.strip().lower()
    if word not in _TRUE_WORDS | _FALSE_WORDS:
        message = "must be true or false, but what the `${...}` stands for is neither"
        raise _wrong(message)
    return word in _TRUE_WORDS


def _as_written(value: object) -> object:
    return value.text if isinstance(value, (_Int, _Float)) else value


def _as_param(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else _as_written(value)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _given(value: object) -> object:
    if value is None:
        message = "is empty: give it a value, or remove the key"
        raise _wrong(message)
    return value


def _check_name(value: str) -> str:
    if len(value) > _MAX_NAME_CHARS:
        message = f"must be at most {_MAX_NAME_CHARS} characters long; this one has {len(value)}"
        raise _wrong(message)
    if value != value.strip():
        message = "begins or ends with white space: remove it"
        raise _wrong(message)
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in value):
        message = "holds a control character or a line break: use printable characters only"
        raise _wrong(message)
    return value


def _check_param_name(value: str) -> str:
    if _CONTROL.search(value) or value != value.strip():
        message = (
            "is no name of a query parameter: remove control characters and white space around it"
        )
        raise _wrong(message)
    return value


def _check_header_name(value: str) -> str:
    problem = _header_name_problem(value)
    if problem:
        raise _wrong(problem)
    return value


def _header_name_problem(name: str) -> str | None:
    if not _TOKEN.match(name):
        return "is no header name: use letters, digits and hyphens only (RFC 9110, section 5.1)"
    if name.lower() in _FRAMING_HEADERS:
        return "is set by Flicker itself, from the body it sends: remove this header"
    return None


def _check_header_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        message = "is empty: give it a value, or remove the key"
        raise _wrong(message)
    if _CONTROL.search(text.replace("\t", " ")):
        message = (
            "holds a line break or another control character, which a header cannot carry:"
            " remove it"
        )
        raise _wrong(message)
    if text != text.strip(" \t"):
        message = (
            "begins or ends with white space, which is lost on the way: remove it"
            " (is a `${...}` in it empty?)"
        )
        raise _wrong(message)
    if any(ord(char) > 0xFF for char in text):  # noqa: PLR2004 - the end of Latin-1
        message = (
            "holds a character outside Latin-1, which a header cannot carry:"
            " look for typographic quotes or dashes"
        )
        raise _wrong(message)
    return value


def _check_bearer(value: SecretStr) -> SecretStr:
    if value.get_secret_value().lower().startswith("bearer "):
        message = "begins with the word Bearer, which Flicker puts there itself: leave it out"
        raise _wrong(message)
    return value


def _check_username(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        message = "is empty: give it a value"
        raise _wrong(message)
    if ":" in text:
        message = "holds a colon, which a user name cannot (RFC 7617, section 2): remove it"
        raise _wrong(message)
    return _check_password(value)


def _check_password(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        message = "holds a line break or another control character (RFC 7617, section 2): remove it"
        raise _wrong(message)
    return value


def _check_url(value: SecretStr) -> SecretStr:
    problem = _url_problem(value.get_secret_value())
    if problem:
        raise _wrong(problem)
    return value


def _url_problem(text: str) -> str | None:
    """Say what keeps a text from being an endpoint, without quoting it."""
    for fault, message in _URL_FAULTS:
        if fault.search(text):
            return message
    try:
        return _host_problem(urlsplit(text))
    except ValueError:
        return "is no URL: are the brackets of its IPv6 address right?"


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


def _check_file(value: str) -> str:
    problem = _file_problem(Path(value).expanduser())
    if problem:
        raise _wrong(problem)
    return value


def _file_problem(path: Path) -> str | None:
    if "\n" in str(path) or "-----BEGIN" in str(path):
        return "must be the path of a file, not what stands in the file"
    try:
        if not path.is_file():
            return f"names {path}, which is not a file: give the path of a readable file"
        with path.open("rb"):
            return None
    except (OSError, ValueError) as error:
        return f"names {path}, which cannot be read ({_reason(error)})"


def _check_dead_letter_path(value: str) -> str:
    path = Path(value).expanduser()
    try:
        is_directory = path.is_dir()
    except ValueError:
        message = "is no path of a file: remove the control characters"
        raise _wrong(message) from None
    if is_directory:
        message = f"names {path}, which is a directory: give the path of a file"
        raise _wrong(message)
    return value


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _check_start_time(value: str) -> str:
    try:
        parse_start_time(value)
    except ValueError as error:
        message = str(error)
    else:
        return value
    raise _wrong(message)


def _check_regex(value: str) -> str:
    try:
        _compile(value)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        message = (
            f"is no regular expression: {error.msg}{where} (Python's syntax;"
            " in double quotes YAML needs each backslash twice)"
        )
    except (OverflowError, RecursionError):
        message = "is no regular expression that can be run: it is too large"
    else:
        return value
    raise _wrong(message)


def _compile(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(pattern)


_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT), BeforeValidator(_whole)]
_CountOrZero = Annotated[int, Field(ge=0, le=_MAX_COUNT), BeforeValidator(_whole)]
_Milliseconds = Annotated[int, Field(ge=1, le=_MAX_SPAN_MS), BeforeValidator(_whole)]
_MillisecondsOrZero = Annotated[int, Field(ge=0, le=_MAX_SPAN_MS), BeforeValidator(_whole)]
_Bytes = Annotated[int, Field(ge=1, le=2**40), BeforeValidator(_whole)]
_Concurrency = Annotated[int, Field(ge=1, le=64), BeforeValidator(_whole)]
_Switch = Annotated[bool, BeforeValidator(_truth)]
_Text = Annotated[str, Field(min_length=1)]
_ParamName = Annotated[str, Field(min_length=1), AfterValidator(_check_param_name)]
_HeaderText = Annotated[SecretStr, AfterValidator(_check_header_value)]
_HeaderValue = Annotated[
    SecretStr,
    BeforeValidator(_given),
    BeforeValidator(_as_written),
    AfterValidator(_check_header_value),
    WithJsonSchema({"type": ["string", "number"]}),
]
_ParamValue = Annotated[
    SecretStr,
    BeforeValidator(_given),
    BeforeValidator(_as_param),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
_BearerToken = Annotated[_HeaderText, AfterValidator(_check_bearer)]
_Url = Annotated[
    SecretStr, AfterValidator(_check_url), WithJsonSchema({"type": "string", "minLength": 1})
]
_FilePath = Annotated[str, Field(min_length=1), AfterValidator(_check_file)]
_Patterns = Annotated[
    list[Annotated[str, Field(min_length=1), AfterValidator(_check_regex)]],
    BeforeValidator(_as_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class BasicEntry(_Entry):
    """User name and password of HTTP Basic authentication."""

    username: Annotated[SecretStr, AfterValidator(_check_username)] = Field(
        description="User name; it cannot hold a colon."
    )
    password: Annotated[SecretStr, AfterValidator(_check_password)] = Field(
        description="Password; may be empty."
    )


class TlsEntry(_Entry):
    """Certificates for one https endpoint."""

    cert_path: _FilePath | None = Field(
        default=None, description="PEM file of the client certificate that Flicker shows."
    )
    key_path: _FilePath | None = Field(
        default=None, description="PEM file of its key, unless it stands in `cert_path` too."
    )
    ca_cert_path: _FilePath | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's."
    )
    accept_invalid_certs: _Switch = Field(
        default=False, description="Trust any certificate; for tests only."
    )


class _PaginationEntry(_Entry):
    limit_param: _ParamName | None = Field(
        default=None,
        description="Query parameter that carries `page_size`; without it none is sent.",
    )
    page_size: _Count = Field(default=100, description="Events to ask for in one page.")
    max_pages: _Count | None = Field(
        default=None, description="Pages of one poll; the next poll goes on where it ended."
    )


class OffsetPagination(_PaginationEntry):
    """Pages asked for by the number of events to skip."""

    pagination_type: Literal["offset"] = Field(description="Kind of pagination.")
    offset_param: _ParamName = Field(
        description="Query parameter that carries the number of events to skip."
    )


class CursorPagination(_PaginationEntry):
    """Pages asked for by a token that the page before handed out."""

    pagination_type: Literal["cursor"] = Field(description="Kind of pagination.")
    cursor_param: _ParamName = Field(description="Query parameter that carries the cursor.")
    next_cursor_field: _Text = Field(
        description="Dotted path of the next cursor in the response, or, for a root array,"
        " the relation of the Link header to follow."
    )


class PagePagination(_PaginationEntry):
    """Pages asked for by number."""

    pagination_type: Literal["page"] = Field(description="Kind of pagination.")
    page_param: _ParamName = Field(description="Query parameter that carries the page number.")
    start_page: _CountOrZero = Field(default=1, description="Number of the first page.")


class BearerAuth(_Entry):
    """Sends `Authorization: Bearer TOKEN`."""

    type: Literal["bearer"] = Field(description="Kind of authentication.")
    token: _BearerToken = Field(description="The token, without the word Bearer.")


class BasicAuth(BasicEntry):
    """Sends `Authorization: Basic ...`."""

    type: Literal["basic"] = Field(description="Kind of authentication.")


class HeaderAuth(_Entry):
    """Sends a header of the server's own."""

    type: Literal["header"] = Field(description="Kind of authentication.")
    name: Annotated[str, Field(min_length=1), AfterValidator(_check_header_name)] = Field(
        description="Name of the header."
    )
    value: _HeaderText = Field(description="Value of the header.")


_Headers = dict[str, _HeaderValue]
_AnyAuth = Annotated[BearerAuth | BasicAuth | HeaderAuth, Field(discriminator="type")]
_AnyPagination = Annotated[
    OffsetPagination | CursorPagination | PagePagination, Field(discriminator="pagination_type")
]


class DestinationEntry(_Entry):
    """Where events are sent."""

    type: Literal["http"] = Field(default="http", description="Kind of destination.")
    endpoint: _Url = Field(description="Absolute URL that takes the POST requests.")
    headers: _Headers | None = Field(default=None, description="Extra headers of every request.")
    auth: Annotated[_AnyAuth | None, BeforeValidator(_given)] = Field(
        default=None, description="Credentials: bearer, basic or header."
    )
    api_key: Annotated[_BearerToken | None, BeforeValidator(_given)] = Field(
        default=None, description="Short for `auth` of type bearer."
    )
    basic: Annotated[BasicEntry | None, BeforeValidator(_given)] = Field(
        default=None, description="Short for `auth` of type basic."
    )
    require_auth: _Switch = Field(
        default=False, description="Refuse a configuration that has no credentials here."
    )
    compression: _Switch = Field(default=False, description="Send bodies compressed with gzip.")
    format: Literal["json", "ndjson"] = Field(
        default="json", description="One JSON array for each batch, or one JSON object a line."
    )
    concurrency: _Concurrency = Field(default=4, description="Requests in flight at the same time.")
    tls: TlsEntry | None = Field(
        default=None, description="Certificates, where the endpoint is https."
    )
    timeout_ms: _Milliseconds = Field(default=30000, description="Bound on one whole request.")


class SourceEntry(_Entry):
    """One API to poll."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_check_name)] = Field(
        description="Name of the source, unique in the file; its position is kept under it."
    )
    endpoint: _Url = Field(description="Absolute URL to poll; its query string is kept.")
    headers: _Headers | None = Field(default=None, description="Extra headers of every request.")
    basic: Annotated[BasicEntry | None, BeforeValidator(_given)] = Field(
        default=None, description="Credentials of HTTP Basic authentication."
    )
    api_key: Annotated[_HeaderText | None, BeforeValidator(_given)] = Field(
        default=None, description="Sent as the header X-API-Key."
    )
    params: dict[str, _ParamValue] | None = Field(
        default=None, description="Query parameters of every request."
    )
    polling_frequency_ms: _Milliseconds = Field(
        default=30000, description="Milliseconds from one poll to the next."
    )
    results_field: str | None = Field(
        default="",
        description="Dotted path of the list of events; empty where the response is the list.",
    )
    timestamp_field: _Text | None = Field(
        default=None, description="Dotted path of an event's timestamp, inside the event."
    )
    message_field: _Text | None = Field(
        default=None, description="Dotted path of an event's message, inside the event."
    )
    id_field: _Text | None = Field(
        default=None,
        description="Dotted path of an event's identity; without it, a digest of the event.",
    )
    time_filter_param: _ParamName | None = Field(
        default=None, description="Query parameter that asks for events since an instant."
    )
    time_filter_format: Literal["rfc3339", "iso8601", "unix"] = Field(
        default="rfc3339",
        description="How the instant is written: 2025-01-01T12:00:00Z, with milliseconds"
        " always, or in seconds since 1970.",
    )
    start_time: (
        Annotated[
            str,
            BeforeValidator(_as_written),
            AfterValidator(_check_start_time),
        ]
        | None
    ) = Field(
        default=None,
        description="Where a source without a position begins: an instant, or a span before"
        " now such as 24h.",
    )
    lookback_ms: _MillisecondsOrZero = Field(
        default=0,
        description="Each poll asks again for so much of the past, for events that come late.",
    )
    max_pages: _Count | None = Field(
        default=None, description="Pages of one poll; the next poll goes on where it ended."
    )
    max_response_bytes: _Bytes = Field(
        default=64 * 1024 * 1024, description="Largest response to read, once decompressed."
    )
    timeout_ms: _Milliseconds = Field(default=30000, description="Bound on one whole request.")
    tls: TlsEntry | None = Field(
        default=None, description="Certificates, where the endpoint is https."
    )
    pagination: _AnyPagination | None = Field(
        default=None, description="How to ask for the next page; without it a poll is one request."
    )
    buffer_size: _Count = Field(default=100, description="Ship after so many events.")
    flush_interval_ms: _Milliseconds = Field(
        default=30000, description="Ship so long after the first buffered event at the latest."
    )
    match_on: _Patterns | None = Field(
        default=None, description="Regular expressions; ship only events that one of them finds."
    )
    exclude_on: _Patterns | None = Field(
        default=None, description="Regular expressions; drop events that one of them finds."
    )
    destination: DestinationEntry | None = Field(
        default=None,
        description="Where this source's events go, if not to the file's `destination`.",
    )


class RetryEntry(_Entry):
    """How failures are tried again."""

    max_retries: _CountOrZero | None = Field(
        default=None, description="Attempts after the first; without it Flicker never gives up."
    )
    initial_delay_ms: _Milliseconds = Field(
        default=1000, description="Wait before the second attempt; it doubles from there."
    )
    max_delay_ms: _Milliseconds = Field(default=60000, description="Longest wait between attempts.")
    max_queue_size: _Count = Field(
        default=100, description="Batches that may wait for a destination before its source pauses."
    )


class ConfigFile(_Entry):
    """Flicker's configuration: the APIs to poll and where their events go."""

    api_sources: Annotated[list[SourceEntry], Field(min_length=1)] = Field(
        description="The APIs to poll, one entry each."
    )
    destination: DestinationEntry | None = Field(
        default=None,
        description="Where the events of sources without a destination of their own go.",
    )
    retry: RetryEntry | None = Field(default=None, description="How failures are tried again.")
    dead_letter_path: (
        Annotated[str, Field(min_length=1), AfterValidator(_check_dead_letter_path)] | None
    ) = Field(default=None, description="File for events that a destination refuses for good.")


_PAGINATIONS: dict[str, type[_Entry]] = {
    "offset": OffsetPagination,
    "cursor": CursorPagination,
    "page": PagePagination,
}
_AUTHS: dict[str, type[_Entry]] = {
    "bearer": BearerAuth,
    "basic": BasicAuth,
    "header": HeaderAuth,
}
_UNIONS = {"pagination": ("pagination_type", _PAGINATIONS), "auth": ("type", _AUTHS)}
_HOMES: dict[str, tuple[type[_Entry], ...]] = {
    "an entry of `api_sources`": (SourceEntry,),
    "`pagination`": tuple(_PAGINATIONS.values()),
    "`destination`": (DestinationEntry,),
    "`auth`": tuple(_AUTHS.values()),
    "`basic`": (BasicEntry,),
    "`tls`": (TlsEntry,),
    "`retry`": (RetryEntry,),
    "the top level": (ConfigFile,),
}
_LIMIT_MESSAGES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least one entry",
}
_MAPPING = "a mapping (indented lines of `key: value`)"
_EXPECTED = {
    "int_type": "a whole number such as 100",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list (each entry begins with `- `)",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
}
_KNOWN_KEYS = frozenset(
    key for models in _HOMES.values() for model in models for key in model.model_fields
)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file.

    Args:
        path: YAML in UTF-8.
        environ: Where `${NAME}` is looked up.

    Raises:
        ConfigError: With every problem of the file, not only the first.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        message = f"{path} does not exist: give the path of a YAML file"
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read ({_reason(error)}): give the path of a readable YAML file"
    else:
        if len(data) > _MAX_FILE_BYTES:
            message = (
                f"{path} is larger than {_MAX_FILE_BYTES // 2**20} MiB: is it a configuration?"
            )
        else:
            try:
                return parse(data.decode("utf-8-sig"), environ, origin=str(path))
            except UnicodeDecodeError as error:
                message = (
                    f"{path} is not UTF-8 (the byte at offset {error.start} is not):"
                    " save it in that encoding"
                )
    # Raised out here so that the error carries no context: the exceptions
    # above hold pieces of the file.
    raise ConfigError([Problem("", message)])


def parse(text: str, environ: Mapping[str, str], *, origin: str) -> Settings:
    """Read a configuration from text.

    Args:
        text: YAML.
        environ: Where `${NAME}` is looked up.
        origin: What to call the text in messages, such as a file's name.

    Raises:
        ConfigError: With every problem of the text, not only the first.
    """
    document = _Document(environ)
    settings = None
    try:
        document.read(text)
    except _UnreadableError as error:
        problems = [Problem("", f"{origin} {error}")]
    else:
        settings, problems = _check(document)
    # Neither here nor in what is called above does an exception of pydantic or
    # yaml become a context: they hold the values.
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def json_schema() -> dict[str, Any]:
    """Describe the file to editors, as JSON Schema (draft 2020-12).

    Numbers and switches may also be text that holds `${`, as they may in the
    file itself.
    """
    schema = ConfigFile.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, key in model["properties"].items():
            key.setdefault("title", name.replace("_", " ").title())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **{key: _allow_expansions(value) for key, value in schema.items()},
        "title": "Flicker configuration",
    }


def _allow_expansions(schema: object) -> object:
    if isinstance(schema, list):
        return [_allow_expansions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _allow_expansions(value) for key, value in schema.items()}
    if result.get("type") not in ("integer", "boolean") and "enum" not in result:
        return result
    about = {key: result.pop(key) for key in ("title", "description", "default") if key in result}
    return {**about, "anyOf": [result, {"type": "string", "pattern": r"\$\{"}]}


def _check(document: _Document) -> tuple[Settings | None, list[Problem]]:
    findings = list(document.findings)
    entry = None
    try:
        entry = ConfigFile.model_validate(document.root)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        explained = [_explain(dict(detail), document) for detail in details]
        findings += [finding for finding in explained if document.is_usable(finding[0])]
    findings += _relations(document.root)
    problems = document.problems(findings)
    return (None if entry is None or problems else _settings(entry)), problems


class _Document:
    """A file's values with `${...}` expanded, and what was wrong on the way.

    Attributes:
        root: The top-level mapping.
        findings: Problems found while reading.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.root: dict[str, Any] = {}
        self.findings: list[_Finding] = []
        self._environ = environ
        self._lines: dict[_Keys, int] = {}
        self._unusable: set[_Keys] = set()
        self._values = 0

    def read(self, text: str) -> None:
        """Fill the document.

        Raises:
            _UnreadableError: There is nothing to check.
        """
        root = _compose(text)
        if root is None or (isinstance(root, yaml.ScalarNode) and root.value in ("", "~", "null")):
            message = "is empty: it must hold at least the key `api_sources`"
            raise _UnreadableError(message)
        if not isinstance(root, yaml.MappingNode):
            message = "must be a mapping with the key `api_sources` at its top level"
            raise _UnreadableError(message)
        self.root = self._mapping(root, (), 0)

    def problems(self, findings: list[_Finding]) -> list[Problem]:
        """Put findings in the order of the file, each once."""
        ordered = sorted(dict.fromkeys(findings), key=lambda finding: self._line(finding[0]))
        return [Problem(self._path(keys), message) for keys, message in ordered]

    def is_usable(self, keys: _Keys) -> bool:
        """Tell whether a place holds what the user meant.

        What could not be expanded is reported as that alone, not once more as
        text of the wrong kind.
        """
        return not any(keys[:end] in self._unusable for end in range(len(keys) + 1))

    def at(self, keys: _Keys) -> object:
        """Return the value at a place, or None."""
        value: Any = self.root
        for key in keys:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def _line(self, keys: _Keys) -> int:
        for end in range(len(keys), 0, -1):
            if keys[:end] in self._lines:
                return self._lines[keys[:end]]
        return 0

    def _path(self, keys: _Keys) -> str:
        path = ""
        for end, key in enumerate(keys, 1):
            if isinstance(key, int):
                path += f"[{key}]"
            elif self._shows(keys[:end]):
                path += f".{key}"
            else:
                path += f".<key at line {self._line(keys[:end])}>"
        return path.removeprefix(".")

    def _shows(self, keys: _Keys) -> bool:
        # `{api_key:hunter2}` without the space is one key to YAML, so a key
        # that does not look like one is not repeated.
        key = str(keys[-1])
        if key in _KNOWN_KEYS or _PLAIN_KEY.match(key):
            return True
        free = len(keys) > 1 and keys[-2] in ("headers", "params")
        return free and bool(_NAME_LIKE_KEY.match(key)) and self.at(keys) is not None

    def _value(self, node: yaml.Node, keys: _Keys, depth: int) -> object:
        self._spend(node, depth)
        self._lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            self._refuse(keys, _TAG_MESSAGE)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._value(item, (*keys, index), depth + 1)
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, keys)
        return None

    def _spend(self, node: yaml.Node, depth: int) -> None:
        self._values += 1 + (len(node.value) >> 10)
        if depth > _MAX_DEPTH:
            message = f"is nested more than {_MAX_DEPTH} levels deep: is an anchor inside itself?"
            raise _UnreadableError(message)
        if self._values > _MAX_VALUES:
            message = f"holds more than {_MAX_VALUES} values once its anchors are followed"
            raise _UnreadableError(message)

    def _mapping(self, node: yaml.MappingNode, keys: _Keys, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, (line, value) in self._pairs(node, keys, depth).items():
            place = (*keys, key)
            self._lines[place] = line
            result[key] = self._value(value, place, depth + 1)
        return result

    def _pairs(
        self, node: yaml.MappingNode, keys: _Keys, depth: int
    ) -> dict[str, tuple[int, yaml.Node]]:
        """Return the mapping's own keys and those it merges, with their lines."""
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE_TAG:
                for key, pair in self._merged(value_node, keys, depth).items():
                    merged.setdefault(key, pair)
            elif not isinstance(key_node, yaml.ScalarNode):
                message = f"has a key at line {line} that is not text: write keys as plain words"
                self.findings.append((keys, message))
            elif key_node.value in own:
                first = own[key_node.value][0]
                message = f"is given twice, at lines {first} and {line}: keep one of them"
                self.findings.append(((*keys, key_node.value), message))
            else:
                own[key_node.value] = (line, value_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, keys: _Keys, depth: int) -> dict[str, tuple[int, yaml.Node]]:
        self._spend(node, depth)
        if isinstance(node, yaml.MappingNode):
            return self._pairs(node, keys, depth + 1)
        merged: dict[str, tuple[int, yaml.Node]] = {}
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                for key, pair in self._merged(item, keys, depth + 1).items():
                    merged.setdefault(key, pair)
        else:
            line = node.start_mark.line + 1
            message = f"merges something at line {line} that is not a mapping: `<<` takes `*anchor`"
            self.findings.append((keys, message))
        return merged

    def _scalar(self, node: yaml.ScalarNode, keys: _Keys) -> object:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        # Timestamps stay as they are written: a parameter is sent as such.
        if kind in ("str", "timestamp", "value"):
            return self._expand(node.value, keys)
        if kind not in ("null", "bool", "int", "float"):
            self._refuse(keys, _TAG_MESSAGE)
            return None
        try:
            return _constant(kind, node)
        except (ValueError, KeyError, OverflowError):
            self._refuse(keys, "cannot be read as the number or switch that YAML takes it for")
            return None

    def _refuse(self, keys: _Keys, message: str) -> None:
        self.findings.append((keys, message))
        self._unusable.add(keys)

    def _expand(self, text: str, keys: _Keys) -> str:
        """Expand every `${...}` of a value, once."""
        result = _EXPANSION.sub(lambda match: self._expansion(match, keys), text)
        is_expanded = any(match["escape"] is None for match in _EXPANSION.finditer(text))
        if is_expanded and keys[-1] not in _CHOICE_KEYS:
            result = _Expanded(result)
        if any(unicodedata.category(char) == "Cs" for char in result if char > "\ud7ff"):
            self._refuse(keys, "is not valid Unicode text: write it, or its variable, in UTF-8")
            return ""
        return result

    def _expansion(self, match: re.Match[str], keys: _Keys) -> str:
        if match["escape"]:
            return "${"
        if match["malformed"]:
            self._refuse(
                keys,
                f"has a malformed `${{` at character {match.start() + 1}: write ${{NAME}},"
                " ${NAME:-default} or ${file:/path}, not one inside another;"
                " a literal `${` is written `$${`",
            )
            return ""
        if match["file"]:
            return self._secret_file(match["file"].strip(), keys)
        value = self._environ.get(match["name"])
        if match["default"] is not None:
            value = value or match["default"]
        if value is None:
            name = match["name"]
            self._refuse(
                keys,
                f"needs the environment variable {name}, which is not set:"
                f" set it, or give a default as ${{{name}:-default}}",
            )
            return ""
        return value.rstrip("\r\n")

    def _secret_file(self, name: str, keys: _Keys) -> str:
        path = Path(name)
        if not path.is_absolute():
            self._refuse(keys, "names no absolute path in `${file:...}`: begin it with `/`")
            return ""
        problem = _file_problem(path)
        if problem is None:
            try:
                with path.open("rb") as stream:
                    data = stream.read(_MAX_SECRET_BYTES + 1)
                if len(data) <= _MAX_SECRET_BYTES:
                    return data.decode("utf-8").rstrip("\r\n")
                problem = f"names {path}, which is too large for a value"
            except UnicodeDecodeError:
                problem = f"names {path}, which is not UTF-8 text"
            except OSError as error:
                problem = f"names {path}, which cannot be read ({_reason(error)})"
        self._refuse(keys, problem)
        return ""


def _constant(kind: str, node: yaml.ScalarNode) -> object:
    constructor = SafeConstructor()
    if kind == "null":
        return None
    if kind == "bool":
        return constructor.construct_yaml_bool(node)
    if kind == "int":
        whole = _Int(constructor.construct_yaml_int(node))
        whole.text = node.value
        return whole
    fraction = _Float(constructor.construct_yaml_float(node))
    fraction.text = node.value
    return fraction


def _compose(text: str) -> yaml.Node | None:
    """Parse YAML into its nodes.

    Raises:
        _UnreadableError: It is no YAML. Its message names the place only, as
            the line itself may hold a secret.
    """
    try:
        _check_shape(text)
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        message = _syntax_message(text, error.problem_mark)
    except (yaml.YAMLError, UnicodeError):
        message = "is no YAML: it holds control characters or broken Unicode text"
    else:
        return root
    raise _UnreadableError(message)


def _check_shape(text: str) -> None:
    """Refuse what would overflow the composer, or make it quote the file."""
    depth = documents = 0
    anchors: set[str] = set()
    for event in yaml.parse(text, Loader=_LOADER):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        _check_anchor(event, anchors, line)
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            message = f"holds a second document (`---`) at line {line}: keep one to a file"
            raise _UnreadableError(message)
        if depth > _MAX_DEPTH:
            message = f"is nested more than {_MAX_DEPTH} levels deep at line {line}"
            raise _UnreadableError(message)


def _check_anchor(event: yaml.Event, anchors: set[str], line: int) -> None:
    anchor: str | None = getattr(event, "anchor", None)
    if anchor is None:
        return
    if isinstance(event, yaml.AliasEvent):
        if anchor not in anchors:
            message = (
                f"has an alias (`*...`) at line {line} without its anchor (`&...`):"
                " put the value in quotes if it really begins with `*`"
            )
            raise _UnreadableError(message)
        return
    if anchor in anchors:
        message = f"defines an anchor (`&...`) a second time at line {line}: rename it"
        raise _UnreadableError(message)
    anchors.add(anchor)


def _syntax_message(text: str, mark: yaml.Mark | None) -> str:
    if mark is None:
        return "is no YAML"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    char = line[mark.column : mark.column + 1]
    hint = (
        "check the indentation, close every quote and bracket, and put values in quotes that hold"
        " `: `, ` #`, or, in `{...}` and `[...]`, a `${...}`"
    )
    if char == "\t":
        hint = "there is a tab: indent with spaces"
    elif char in {"%", "@", "`"}:
        hint = f"a value cannot begin with {char}: put it in quotes"
    return f"is no YAML at line {mark.line + 1}, column {mark.column + 1}: {hint}"


def _explain(detail: dict[str, Any], document: _Document) -> _Finding:
    """Say in Flicker's words, at the user's path, what pydantic found."""
    keys = _user_keys(detail["loc"], document)
    kind: str = detail["type"]
    context: dict[str, Any] = detail.get("ctx") or {}
    if kind == "flicker":
        return keys, context["message"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, models = _UNIONS[str(keys[-1])]
        return (*keys, tag), _choice_message(document.at((*keys, tag)), tuple(models))
    if kind == "literal_error":
        choices = tuple(re.findall(r"'([^']*)'", context["expected"]))
        return keys, _choice_message(document.at(keys), choices)
    if kind == "extra_forbidden":
        return keys, _unknown_key_message(keys, document)
    if kind == "missing":
        fields = {
            name: field
            for model in _models_at(keys[:-1], document)
            for name, field in model.model_fields.items()
        }
        return keys, f"is required and missing. {fields[str(keys[-1])].description}"
    return keys, _plain_message(kind, context, document.at(keys))


def _plain_message(kind: str, context: dict[str, Any], value: object) -> str:
    if value is None or kind == "string_too_short":
        return "is empty: give it a value, or remove the key"
    if kind in _LIMIT_MESSAGES:
        return _LIMIT_MESSAGES[kind].format_map(context)
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"is not valid here ({kind.replace('_', ' ')})"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f"must be text, but YAML reads {_kind(value)} here: put the value in quotes"
    if isinstance(value, str) and kind in ("int_type", "bool_type"):
        return f"must be {expected}, not text: write it so, without quotes"
    return f"must be {expected}, not {_kind(value)}"


def _kind(value: object) -> str:
    names: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number with a fraction"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "nothing")


def _choice_message(value: object, choices: tuple[str, ...]) -> str:
    names = " or ".join(f"`{choice}`" for choice in choices)
    problem = "is required and missing" if value is None else "is none of those Flicker knows"
    near = difflib.get_close_matches(value.lower(), choices, 1) if isinstance(value, str) else []
    hint = f" Did you mean `{near[0]}`?" if near and len(choices) > 1 else ""
    return f"{problem}: it must be {names}.{hint}"


def _unknown_key_message(keys: _Keys, document: _Document) -> str:
    key = str(keys[-1])
    here = _models_at(keys[:-1], document)
    allowed = sorted({name for model in here for name in model.model_fields})
    if here[0] in _PAGINATIONS.values() or here[0] in _AUTHS.values():
        tag, models = _UNIONS[str(keys[-2])]
        kinds = [f"`{name}`" for name, model in models.items() if key in model.model_fields]
        if kinds:
            return f"belongs to {tag} {' or '.join(kinds)}, not to the one given here"
    homes = [
        home
        for home, models in _HOMES.items()
        if any(key in model.model_fields and model not in here for model in models)
    ]
    if homes:
        return (
            f"is not known here; it belongs in {' or '.join(homes)}:"
            " move it there, or check the indentation"
        )
    near = difflib.get_close_matches(key.lower().replace("-", "_"), allowed, 1)
    if near:
        return f"is not a key Flicker knows. Did you mean `{near[0]}`?"
    return f"is not a key Flicker knows. Known here: {', '.join(allowed)}"


def _models_at(keys: _Keys, document: _Document) -> tuple[type[_Entry], ...]:
    names = [key for key in keys if isinstance(key, str)]
    if not names:
        return (ConfigFile,)
    last = names[-1]
    if last in _UNIONS:
        tag, models = _UNIONS[last]
        given = document.at((*keys, tag))
        return (models[given],) if given in models else tuple(models.values())
    homes: dict[str, type[_Entry]] = {
        "api_sources": SourceEntry,
        "destination": DestinationEntry,
        "retry": RetryEntry,
        "basic": BasicEntry,
        "tls": TlsEntry,
    }
    return (homes[last],)


def _user_keys(location: tuple[str | int, ...], document: _Document) -> _Keys:
    """Leave out of pydantic's location what the user did not type."""
    keys: list[str | int] = []
    previous: object = None
    for key in location:
        is_union_tag = previous in _UNIONS and key in _UNIONS[str(previous)][1]
        is_lone_item = isinstance(key, int) and not isinstance(document.at(tuple(keys)), list)
        if not is_union_tag and not is_lone_item:
            keys.append(key)
        previous = key
    return tuple(keys)


def _relations(root: dict[str, Any]) -> list[_Finding]:
    """Check values against each other.

    Works on what was read, not on the models, so that a wrong value elsewhere
    hides none of these problems. Values of the wrong kind are left to the
    models.
    """
    findings: list[_Finding] = []
    names: dict[str, int] = {}
    sources = root.get("api_sources")
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict):
            keys = ("api_sources", index)
            findings += _source_relations(source, keys)
            if "destination" not in source and root.get("destination") is None:
                message = (
                    "is required and missing. Give this source a `destination`,"
                    " or the file one for all its sources."
                )
                findings.append(((*keys, "destination"), message))
            name = _text(source, "name")
            if name and names.setdefault(name, index) != index:
                message = (
                    f"is also the name of api_sources[{names[name]}]: each source needs its own,"
                    " because its position is kept under it"
                )
                findings.append(((*keys, "name"), message))
    findings += _destination_relations(_map(root, "destination"), ("destination",))
    findings += _retry_relations(_map(root, "retry"))
    return findings


def _source_relations(source: dict[str, Any], keys: _Keys) -> Iterator[_Finding]:
    pagination = _map(source, "pagination")
    yield from _header_relations(source, keys, _source_credentials(source))
    yield from _tls_relations(source, keys)
    yield from _param_relations(source, pagination, keys)
    yield from _destination_relations(_map(source, "destination"), (*keys, "destination"))
    if source.get("destination", source) is None:
        message = "is empty: give it a value, or remove the key"
        yield (*keys, "destination"), message
    if _has(source, "max_pages") and _has(pagination, "max_pages"):
        message = "is also given in the source itself: keep one of them"
        yield (*keys, "pagination", "max_pages"), message
    if _has(source, "start_time") and not (
        _has(source, "time_filter_param") or _has(source, "timestamp_field")
    ):
        message = (
            "has nothing to be compared with: add `time_filter_param`, so that the API is asked"
            " from there, or `timestamp_field`, so that earlier events are left out"
        )
        yield (*keys, "start_time"), message


def _source_credentials(source: dict[str, Any]) -> dict[str, str]:
    sent_as = {"basic": "authorization", "api_key": "x-api-key"}
    return {key: header for key, header in sent_as.items() if _has(source, key)}


def _destination_relations(destination: dict[str, Any], keys: _Keys) -> Iterator[_Finding]:
    credentials = {key: "authorization" for key in ("api_key", "basic") if _has(destination, key)}
    if _has(destination, "auth"):
        auth = _map(destination, "auth")
        own_header = _text(auth, "name").lower() if auth.get("type") == "header" else ""
        credentials = {"auth": own_header or "authorization", **credentials}
    yield from _header_relations(destination, keys, credentials)
    yield from _tls_relations(destination, keys)
    headers = {name.lower() for name in _map(destination, "headers")}
    if (
        _is_on(destination.get("require_auth"))
        and not credentials
        and "authorization" not in headers
        and not _has(_map(destination, "tls"), "cert_path")
    ):
        message = (
            "is true, but there are no credentials: add `auth`, `api_key`, `basic`,"
            " an Authorization header or a client certificate"
        )
        yield (*keys, "require_auth"), message


def _header_relations(
    entry: dict[str, Any], keys: _Keys, credentials: dict[str, str]
) -> Iterator[_Finding]:
    if len(credentials) > 1:
        names = " and ".join(f"`{name}`" for name in credentials)
        message = f"has more than one way of authentication, {names}: keep one of them"
        yield keys, message
    seen: set[str] = set()
    for name in _map(entry, "headers"):
        place = (*keys, "headers", name)
        problem = _header_name_problem(name)
        if problem:
            yield place, problem
        rival = next((key for key, sent in credentials.items() if sent == name.lower()), None)
        if rival:
            yield place, f"is the header that `{rival}` sends too: keep one of them"
        if name.lower() in seen:
            yield place, "is given twice, as header names are the same in any case: keep one"
        seen.add(name.lower())


def _tls_relations(entry: dict[str, Any], keys: _Keys) -> Iterator[_Finding]:
    tls = _map(entry, "tls")
    if _has(tls, "key_path") and not _has(tls, "cert_path"):
        message = "is a key without its certificate: add `cert_path`"
        yield (*keys, "tls", "key_path"), message
    if tls and _text(entry, "endpoint").lower().startswith("http://"):
        message = (
            "does nothing for an endpoint that begins with http://: use https://, or remove it"
        )
        yield (*keys, "tls"), message


def _param_relations(
    source: dict[str, Any], pagination: dict[str, Any], keys: _Keys
) -> Iterator[_Finding]:
    """Find parameters that would be sent twice."""
    roles: dict[str, str] = {}
    for place in (
        "time_filter_param",
        "pagination.limit_param",
        "pagination.offset_param",
        "pagination.page_param",
        "pagination.cursor_param",
    ):
        section, _, key = place.rpartition(".")
        name = _text(pagination if section else source, key)
        if name and roles.setdefault(name, place) != place:
            message = f"names the same parameter as `{roles[name]}`: it would be sent twice"
            yield (*keys, *place.split(".")), message
    for name in _map(source, "params"):
        if name in roles:
            message = (
                f"would be sent twice, since `{roles[name]}` names the same parameter:"
                " remove one of them"
            )
            yield (*keys, "params", name), message
    for name in _query_names(_text(source, "endpoint")):
        if name in roles:
            message = (
                f"holds in its query string the parameter that `{roles[name]}` names,"
                " which would be sent twice: remove one of them"
            )
            yield (*keys, "endpoint"), message


def _query_names(url: str) -> list[str]:
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return []
    return list(dict.fromkeys(name for name, _ in pairs))


def _retry_relations(retry: dict[str, Any]) -> Iterator[_Finding]:
    initial = _number(retry, "initial_delay_ms", 1000)
    longest = _number(retry, "max_delay_ms", 60000)
    if initial is not None and longest is not None and longest < initial:
        message = f"is {longest}, less than `initial_delay_ms` ({initial}): raise it"
        yield ("retry", "max_delay_ms"), message


def _map(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _has(entry: dict[str, Any], key: str) -> bool:
    return entry.get(key) is not None


def _number(entry: dict[str, Any], key: str, default: int) -> int | None:
    value = entry.get(key, default)
    try:
        value = _whole(value)
    except PydanticCustomError:
        return None
    return int(value) if isinstance(value, int) else None


def _is_on(value: object) -> bool:
    try:
        return _truth(value) is True
    except PydanticCustomError:
        return False


def _settings(entry: ConfigFile) -> Settings:
    shared = None if entry.destination is None else _destination(entry.destination)
    return Settings(
        sources=tuple(_source(source, shared) for source in entry.api_sources),
        retry=_retry(entry.retry or RetryEntry()),
        dead_letter_path=_optional(entry.dead_letter_path, _path),
    )


def _source(entry: SourceEntry, shared: Destination | None) -> Source:
    destination = shared if entry.destination is None else _destination(entry.destination)
    if destination is None:
        message = "a source without a destination has passed the checks"
        raise AssertionError(message)
    pages = None if entry.pagination is None else entry.pagination.max_pages
    return Source(
        name=entry.name,
        endpoint=_endpoint(
            entry,
            Credentials(
                basic=_optional(entry.basic, _basic),
                api_key=_optional(entry.api_key, _secret),
            ),
        ),
        destination=destination,
        params=_secrets(entry.params),
        poll_interval=_span(entry.polling_frequency_ms),
        results_field=entry.results_field or "",
        timestamp_field=entry.timestamp_field,
        message_field=entry.message_field,
        id_field=entry.id_field,
        time_filter_param=entry.time_filter_param,
        time_filter_format=entry.time_filter_format,
        start_time=_optional(entry.start_time, parse_start_time),
        lookback=_span(entry.lookback_ms),
        pagination=None if entry.pagination is None else _pagination(entry.pagination),
        max_pages=pages if entry.max_pages is None else entry.max_pages,
        max_response_bytes=entry.max_response_bytes,
        buffer_size=entry.buffer_size,
        flush_interval=_span(entry.flush_interval_ms),
        match_on=tuple(map(_compile, entry.match_on or ())),
        exclude_on=tuple(map(_compile, entry.exclude_on or ())),
    )


def _destination(entry: DestinationEntry) -> Destination:
    return Destination(
        endpoint=_endpoint(entry, _destination_credentials(entry)),
        format=entry.format,
        compression=entry.compression,
        concurrency=entry.concurrency,
    )


def _destination_credentials(entry: DestinationEntry) -> Credentials:
    auth = entry.auth
    if isinstance(auth, HeaderAuth):
        return Credentials(header=(auth.name, _secret(auth.value)))
    if isinstance(auth, BasicAuth):
        return Credentials(basic=_basic(auth))
    bearer = auth.token if isinstance(auth, BearerAuth) else entry.api_key
    return Credentials(basic=_optional(entry.basic, _basic), bearer=_optional(bearer, _secret))


def _endpoint(entry: SourceEntry | DestinationEntry, credentials: Credentials) -> Endpoint:
    return Endpoint(
        url=entry.endpoint.get_secret_value(),
        headers=_secrets(entry.headers),
        credentials=credentials,
        tls=_tls(entry.tls or TlsEntry()),
        timeout=_span(entry.timeout_ms),
    )


def _pagination(entry: OffsetPagination | CursorPagination | PagePagination) -> Pagination:
    return Pagination(
        type=entry.pagination_type, **entry.model_dump(exclude={"pagination_type", "max_pages"})
    )


def _tls(entry: TlsEntry) -> Tls:
    return Tls(
        cert_path=_optional(entry.cert_path, _path),
        key_path=_optional(entry.key_path, _path),
        ca_cert_path=_optional(entry.ca_cert_path, _path),
        accept_invalid_certs=entry.accept_invalid_certs,
    )


def _retry(entry: RetryEntry) -> Retry:
    return Retry(
        max_retries=entry.max_retries,
        initial_delay=_span(entry.initial_delay_ms),
        max_delay=_span(entry.max_delay_ms),
        max_queue_size=entry.max_queue_size,
    )


def _basic(entry: BasicEntry) -> Basic:
    return Basic(username=_secret(entry.username), password=_secret(entry.password))


def _secrets(values: Mapping[str, SecretStr] | None) -> tuple[tuple[str, Secret], ...]:
    return tuple((name, _secret(value)) for name, value in (values or {}).items())


def _secret(value: SecretStr) -> Secret:
    return Secret(value.get_secret_value())


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _span(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def _optional(value: _In | None, convert: Callable[[_In], _Out]) -> _Out | None:
    return None if value is None else convert(value)
