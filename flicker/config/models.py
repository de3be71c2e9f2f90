"""The shape of the file: every key, its type, its default, and its description.

The only importer of pydantic, but for those who catch its ValidationError or
name its types. The keys are the specification's, letter for letter; what they
are turned into is told by `convert`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from flicker.config.checks import (
    EMPTY,
    bearer_problem,
    dead_letter_problem,
    file_problem,
    header_name_problem,
    header_value_problem,
    name_problem,
    param_name_problem,
    password_problem,
    pattern_problem,
    start_time_problem,
    template_problem,
    time_format_problem,
    url_problem,
    username_problem,
)
from flicker.config.scalars import Expanded, WrittenFloat, WrittenInt
from flicker.timefmt import STRFTIME, TIME_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable

OWN_PROBLEM = "flicker"
"""The type of the errors that say in `ctx["message"]`, in our own words, what is wrong."""

_MAX_COUNT = 2**31 - 1
_MAX_SPAN_MS = 366 * 24 * 3600 * 1000


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError(OWN_PROBLEM, "{message}", {"message": message})


def _must_pass(check: Callable[[str], str | None]) -> AfterValidator:
    def validate(value: str | SecretStr) -> str | SecretStr:
        problem = check(value if isinstance(value, str) else value.get_secret_value())
        if problem:
            raise _wrong(problem)
        return value

    return AfterValidator(validate)


def _whole(value: object) -> object:
    if not isinstance(value, Expanded):
        return value
    number = value.as_whole()
    if number is None:
        raise _wrong(
            "must be a whole number such as 100, but what the `${...}` stands for is not one"
        )
    return number


def _switch(value: object) -> object:
    if not isinstance(value, Expanded):
        return value
    is_on = value.as_switch()
    if is_on is None:
        raise _wrong("must be true or false, but what the `${...}` stands for is neither")
    return is_on


def _given(value: object) -> object:
    if value is None:
        raise _wrong(EMPTY)
    return value


def _as_written(value: object) -> object:
    return value.text if isinstance(value, (WrittenInt, WrittenFloat)) else value


def _as_param(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else _as_written(value)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_GIVEN = BeforeValidator(_given)
_WHOLE = BeforeValidator(_whole)

_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT), _WHOLE]
_CountOrZero = Annotated[int, Field(ge=0, le=_MAX_COUNT), _WHOLE]
_Milliseconds = Annotated[int, Field(ge=1, le=_MAX_SPAN_MS), _WHOLE]
_MillisecondsOrZero = Annotated[int, Field(ge=0, le=_MAX_SPAN_MS), _WHOLE]
_Bytes = Annotated[int, Field(ge=1, le=2**40), _WHOLE]
_Concurrency = Annotated[int, Field(ge=1, le=64), _WHOLE]
_Switch = Annotated[bool, BeforeValidator(_switch)]
_Text = Annotated[str, Field(min_length=1)]
_ParamName = Annotated[_Text, _must_pass(param_name_problem)]
_HeaderText = Annotated[SecretStr, _must_pass(header_value_problem)]
_HeaderValue = Annotated[
    _HeaderText,
    _GIVEN,
    BeforeValidator(_as_written),
    WithJsonSchema({"type": ["string", "number"]}),
]
_ParamValue = Annotated[
    SecretStr,
    _GIVEN,
    BeforeValidator(_as_param),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
_BearerToken = Annotated[SecretStr, _must_pass(bearer_problem)]
_Url = Annotated[
    SecretStr, _must_pass(url_problem), WithJsonSchema({"type": "string", "minLength": 1})
]
_FilePath = Annotated[_Text, _must_pass(file_problem)]
_Pattern = Annotated[_Text, _must_pass(pattern_problem)]
_Patterns = Annotated[
    list[_Pattern],
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


class Entry(BaseModel):
    """A mapping of the file; a key it does not know is a problem."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class BasicEntry(Entry):
    """User name and password of HTTP Basic authentication."""

    username: Annotated[SecretStr, _must_pass(username_problem)] = Field(
        description="User name; it cannot hold a colon."
    )
    password: Annotated[SecretStr, _must_pass(password_problem)] = Field(
        description="Password; may be empty."
    )


class TlsEntry(Entry):
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


class _PaginationEntry(Entry):
    limit_param: _ParamName | None = Field(
        default=None,
        description="Query parameter that carries `page_size`; without it none is sent.",
    )
    page_size: _Count = Field(default=100, description="Events to ask for in one page.")
    max_pages: _Count | None = Field(
        default=None, description="Pages of one poll; the next poll goes on where it ended."
    )


class _TokenEntry(_PaginationEntry):
    has_more_field: _Text | None = Field(
        default=None,
        description="Dotted path of what says whether there is another page; without it, the"
        " token alone tells.",
    )
    stop_on_empty: _Switch | None = Field(
        default=None,
        description="Whether an empty page ends a poll, though it leads on; by default it does,"
        " but for listings that are newest first.",
    )
    persist_cursor: _Switch | None = Field(
        default=None,
        description="Whether the next poll goes on from the last token instead of the time"
        " filter; by default where there is one and the listing is not newest first.",
    )


class OffsetPagination(_PaginationEntry):
    """Pages asked for by the number of events to skip."""

    pagination_type: Literal["offset"] = Field(description="Kind of pagination.")
    offset_param: _ParamName = Field(
        description="Query parameter that carries the number of events to skip."
    )


class CursorPagination(_TokenEntry):
    """Pages asked for by a token that the page before handed out."""

    pagination_type: Literal["cursor"] = Field(description="Kind of pagination.")
    cursor_param: _ParamName = Field(description="Query parameter that carries the cursor.")
    next_cursor_field: _Text | None = Field(
        default=None,
        description="Dotted path of the next cursor in the response, or, for a root array,"
        " the relation of the Link header to follow. Required without `cursor_from_last`.",
    )
    cursor_from_last: _Text | None = Field(
        default=None,
        description="Dotted path, inside an event, of what the last event of a page is the"
        " next cursor by.",
    )

    @model_validator(mode="after")
    def _has_one_cursor(self) -> CursorPagination:
        if (self.next_cursor_field is None) == (self.cursor_from_last is None):
            raise _wrong(
                "needs either `next_cursor_field`, where the response has the next cursor, or"
                " `cursor_from_last`, where the last event has it"
            )
        return self


class LinkHeaderPagination(_TokenEntry):
    """Pages that a Link header leads to."""

    pagination_type: Literal["link_header"] = Field(description="Kind of pagination.")
    rel: _Text = Field(default="next", description="Relation of the link to follow.")


class NextUrlPagination(_TokenEntry):
    """Pages whose URL the page before has."""

    pagination_type: Literal["next_url"] = Field(description="Kind of pagination.")
    next_url_field: _Text | None = Field(
        default=None,
        description="Dotted path of the next page's URL in the response, absolute or relative.",
    )
    next_url_header: Annotated[_Text, _must_pass(header_name_problem)] | None = Field(
        default=None, description="Name of the response header that has it instead."
    )

    @model_validator(mode="after")
    def _has_one_url(self) -> NextUrlPagination:
        if (self.next_url_field is None) == (self.next_url_header is None):
            raise _wrong("needs either `next_url_field` or `next_url_header`")
        return self


class NoPagination(_PaginationEntry):
    """One request has it all."""

    pagination_type: Literal["none"] = Field(description="Kind of pagination.")


class PagePagination(_PaginationEntry):
    """Pages asked for by number."""

    pagination_type: Literal["page"] = Field(description="Kind of pagination.")
    page_param: _ParamName = Field(description="Query parameter that carries the page number.")
    start_page: _CountOrZero = Field(default=1, description="Number of the first page.")


class BearerAuth(Entry):
    """Sends `Authorization: Bearer TOKEN`."""

    type: Literal["bearer"] = Field(description="Kind of authentication.")
    token: _BearerToken = Field(description="The token, without the word Bearer.")


class BasicAuth(BasicEntry):
    """Sends `Authorization: Basic ...`."""

    type: Literal["basic"] = Field(description="Kind of authentication.")


class HeaderAuth(Entry):
    """Sends a header of the server's own."""

    type: Literal["header"] = Field(description="Kind of authentication.")
    name: Annotated[_Text, _must_pass(header_name_problem)] = Field(
        description="Name of the header."
    )
    value: _HeaderText = Field(description="Value of the header.")


_Headers = dict[str, _HeaderValue]
_AnyAuth = Annotated[BearerAuth | BasicAuth | HeaderAuth, Field(discriminator="type")]
AnyPagination = (
    OffsetPagination
    | CursorPagination
    | PagePagination
    | LinkHeaderPagination
    | NextUrlPagination
    | NoPagination
)
PAGINATIONS = get_args(AnyPagination)
_AnyPagination = Annotated[AnyPagination, Field(discriminator="pagination_type")]


class DestinationEntry(Entry):
    """Where events are sent."""

    type: Literal["http"] = Field(default="http", description="Kind of destination.")
    endpoint: _Url = Field(description="Absolute URL that takes the POST requests.")
    headers: _Headers | None = Field(default=None, description="Extra headers of every request.")
    auth: Annotated[_AnyAuth | None, _GIVEN] = Field(
        default=None, description="Credentials: bearer, basic or header."
    )
    api_key: Annotated[_BearerToken | None, _GIVEN] = Field(
        default=None, description="Short for `auth` of type bearer."
    )
    basic: Annotated[BasicEntry | None, _GIVEN] = Field(
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


class SourceEntry(Entry):
    """One API to poll."""

    name: Annotated[_Text, _must_pass(name_problem)] = Field(
        description="Name of the source, unique in the file; its position is kept under it."
    )
    endpoint: _Url = Field(description="Absolute URL to poll; its query string is kept.")
    headers: _Headers | None = Field(default=None, description="Extra headers of every request.")
    basic: Annotated[BasicEntry | None, _GIVEN] = Field(
        default=None, description="Credentials of HTTP Basic authentication."
    )
    api_key: Annotated[_HeaderText | None, _GIVEN] = Field(
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
    time_filter_format: Annotated[
        _Text,
        _must_pass(time_format_problem),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": list(TIME_FORMATS)},
                    {"type": "string", "pattern": f"^{STRFTIME}"},
                    {"type": "string", "pattern": r"\$\{"},
                ]
            }
        ),
    ] = Field(
        default="rfc3339",
        description="How the instant is written: rfc3339, iso8601, unix, unix_ms, date, or"
        " strftime: and a pattern.",
    )
    time_filter_template: Annotated[_Text, _must_pass(template_problem)] | None = Field(
        default=None,
        description="What the time filter is sent, with {since} in the place of the instant.",
    )
    start_time: (
        Annotated[
            str,
            BeforeValidator(_as_written),
            _must_pass(start_time_problem),
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
    destination: Annotated[DestinationEntry | None, _GIVEN] = Field(
        default=None,
        description="Where this source's events go, if not to the file's `destination`.",
    )


class RetryEntry(Entry):
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


class ConfigFile(Entry):
    """Flicker's configuration: the APIs to poll and where their events go."""

    api_sources: Annotated[list[SourceEntry], Field(min_length=1)] = Field(
        description="The APIs to poll, one entry each."
    )
    destination: DestinationEntry | None = Field(
        default=None,
        description="Where the events of sources without a destination of their own go.",
    )
    retry: RetryEntry | None = Field(default=None, description="How failures are tried again.")
    dead_letter_path: Annotated[_Text, _must_pass(dead_letter_problem)] | None = Field(
        default=None, description="File for events that a destination refuses for good."
    )
