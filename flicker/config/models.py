"""The shape of the file: every key, its type, its default, and its description.

The keys are the specification's, letter for letter; what they are turned into
is told by `convert`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema

from flicker.config.checks import (
    dead_letter_problem,
    header_name_problem,
    name_problem,
    password_problem,
    start_time_problem,
    template_problem,
    time_format_problem,
    username_problem,
)
from flicker.config.credentials import (
    AwsSigV4Entry,
    JwtBearerEntry,
    OAuth2Entry,
    Options,
    SignerName,
)
from flicker.config.fields import (
    GIVEN,
    BearerToken,
    Bytes,
    Concurrency,
    Count,
    CountOrZero,
    Entry,
    FilePath,
    Headers,
    HeaderText,
    Item,
    Milliseconds,
    MillisecondsOrZero,
    ParamName,
    ParamValues,
    Paths,
    Patterns,
    Rate,
    Switch,
    Text,
    Url,
    as_written,
    must_pass,
)
from flicker.config.pages import PaginationByType
from flicker.timefmt import STRFTIME, TIME_FORMATS


class BasicEntry(Entry):
    """User name and password of HTTP Basic authentication."""

    username: Annotated[SecretStr, must_pass(username_problem)] = Field(
        description="User name; it cannot hold a colon."
    )
    password: Annotated[SecretStr, must_pass(password_problem)] = Field(
        description="Password; may be empty."
    )


class TlsEntry(Entry):
    """Certificates for one https endpoint."""

    cert_path: FilePath | None = Field(
        default=None, description="PEM file of the client certificate that Flicker shows."
    )
    key_path: FilePath | None = Field(
        default=None, description="PEM file of its key, unless it stands in `cert_path` too."
    )
    ca_cert_path: FilePath | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's."
    )
    accept_invalid_certs: Switch = Field(
        default=False, description="Trust any certificate; for tests only."
    )


class BearerAuth(Entry):
    """Sends `Authorization: Bearer TOKEN`."""

    type: Literal["bearer"] = Field(description="Kind of authentication.")
    token: BearerToken = Field(description="The token, without the word Bearer.")


class BasicAuth(BasicEntry):
    """Sends `Authorization: Basic ...`."""

    type: Literal["basic"] = Field(description="Kind of authentication.")


class HeaderAuth(Entry):
    """Sends a header of the server's own."""

    type: Literal["header"] = Field(description="Kind of authentication.")
    name: Annotated[Text, must_pass(header_name_problem)] = Field(description="Name of the header.")
    value: HeaderText = Field(description="Value of the header.")


_AnyAuth = Annotated[BearerAuth | BasicAuth | HeaderAuth, Field(discriminator="type")]


class DestinationEntry(Entry):
    """Where events are sent."""

    type: Literal["http"] = Field(default="http", description="Kind of destination.")
    endpoint: Url = Field(description="Absolute URL that takes the POST requests.")
    headers: Headers | None = Field(default=None, description="Extra headers of every request.")
    auth: Annotated[_AnyAuth | None, GIVEN] = Field(
        default=None, description="Credentials: bearer, basic or header."
    )
    api_key: Annotated[BearerToken | None, GIVEN] = Field(
        default=None, description="Short for `auth` of type bearer."
    )
    basic: Annotated[BasicEntry | None, GIVEN] = Field(
        default=None, description="Short for `auth` of type basic."
    )
    require_auth: Switch = Field(
        default=False, description="Refuse a configuration that has no credentials here."
    )
    compression: Switch = Field(default=False, description="Send bodies compressed with gzip.")
    format: Literal["json", "ndjson"] = Field(
        default="json", description="One JSON array for each batch, or one JSON object a line."
    )
    concurrency: Concurrency = Field(default=4, description="Requests in flight at the same time.")
    tls: TlsEntry | None = Field(
        default=None, description="Certificates, where the endpoint is https."
    )
    timeout_ms: Milliseconds = Field(default=30000, description="Bound on one whole request.")


class FetchEntry(Entry):
    """How to get what the entries of a listing only point at."""

    url_field: Text = Field(
        description="Dotted path, inside an entry, of the URL to get, absolute or relative."
    )
    results_field: str | None = Field(
        default="",
        description="Dotted path of the list of events in what is fetched; empty where it is the"
        " list.",
    )
    timestamp_field: Text | None = Field(
        default=None, description="Dotted path of an event's timestamp, inside the event."
    )
    message_field: Text | None = Field(
        default=None, description="Dotted path of an event's message, inside the event."
    )
    id_field: Paths | None = Field(
        default=None,
        description="Dotted path of an event's identity; without it, its place in what was"
        " fetched.",
    )
    success_field: Text | None = Field(
        default=None,
        description="Dotted path, in what is fetched, of what says that the request succeeded.",
    )
    error_field: Text | None = Field(
        default=None,
        description="Dotted path, in what is fetched, of what says that it failed.",
    )


class SourceEntry(Entry):
    """One API to poll."""

    name: Annotated[Text, must_pass(name_problem)] = Field(
        description="Name of the source, unique in the file; its position is kept under it."
    )
    endpoint: Url = Field(description="Absolute URL to poll; its query string is kept.")
    headers: Headers | None = Field(default=None, description="Extra headers of every request.")
    basic: Annotated[BasicEntry | None, GIVEN] = Field(
        default=None, description="Credentials of HTTP Basic authentication."
    )
    api_key: Annotated[HeaderText | None, GIVEN] = Field(
        default=None, description="Sent in the header `api_key_header`."
    )
    api_key_header: Annotated[Text, must_pass(header_name_problem)] = Field(
        default="X-API-Key", description="Header that `api_key` is sent in."
    )
    oauth2: Annotated[OAuth2Entry | None, GIVEN] = Field(
        default=None, description="A bearer token by OAuth 2.0."
    )
    jwt_bearer: Annotated[JwtBearerEntry | None, GIVEN] = Field(
        default=None, description="A bearer token for an assertion that a private key signs."
    )
    aws_sigv4: Annotated[AwsSigV4Entry | None, GIVEN] = Field(
        default=None, description="AWS signatures, version 4."
    )
    signer: SignerName | None = Field(
        default=None, description="Function that signs requests, as package.module:function."
    )
    signer_options: Options | None = Field(
        default=None, description="What the signer is given beside the request."
    )
    params: dict[str, ParamValues] | None = Field(
        default=None,
        description="Query parameters of every request; a list is sent one by one under the same"
        " name.",
    )
    method: Literal["GET", "POST"] = Field(default="GET", description="How to ask.")
    body: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        description="JSON object to send with POST; what asks for time and page is put into it.",
    )
    foreach: Annotated[list[Item], Field(min_length=1)] | None = Field(
        default=None,
        description="Makes one source of each item, named NAME/ITEM, with {item} replaced wherever"
        " it stands.",
    )
    requests_per_second: Rate | None = Field(
        default=None, description="Ask no more often than this."
    )
    rate_limit_group: Text | None = Field(
        default=None,
        description="Sources of one group share their `requests_per_second` and their pauses.",
    )
    polling_frequency_ms: Milliseconds = Field(
        default=30000, description="Milliseconds from one poll to the next."
    )
    results_field: str | None = Field(
        default="",
        description="Dotted path of the list of events; empty where the response is the list.",
    )
    results_optional: Switch = Field(
        default=False,
        description="Whether the API leaves that list out where there are no events. Otherwise an"
        " answer without it is a failure.",
    )
    response_format: Literal["json", "ndjson", "csv"] = Field(
        default="json",
        description="Form of the response, or of what `fetch_each` fetches: a JSON document, one"
        " JSON value a line, or CSV whose first line names the columns.",
    )
    success_field: Text | None = Field(
        default=None,
        description="Dotted path of what says that the request succeeded: true, or a word such as"
        " OK. Anything else is a failure.",
    )
    error_field: Text | None = Field(
        default=None,
        description="Dotted path of what says that it failed, with whatever status; empty or"
        " missing where it did not.",
    )
    decode_field: Text | None = Field(
        default=None,
        description="Dotted path, inside an entry, of text that holds the event as JSON.",
    )
    explode_field: Text | None = Field(
        default=None,
        description="Dotted path, inside an entry, of a list: each element makes an event of its"
        " own, the entry with that element in place of the list.",
    )
    fetch_each: FetchEntry | None = Field(
        default=None,
        description="Where the entries only point at the events, how to get them.",
    )
    order: Literal["asc", "desc"] | None = Field(
        default=None,
        description="Whether the API lists its oldest events first or its newest; without it, the"
        " first pages tell, and what they tell counts more.",
    )
    timestamp_field: Text | None = Field(
        default=None, description="Dotted path of an event's timestamp, inside the event."
    )
    message_field: Text | None = Field(
        default=None, description="Dotted path of an event's message, inside the event."
    )
    id_field: Paths | None = Field(
        default=None,
        description="Dotted path of an event's identity, or several that make it together; without"
        " it, a digest of the event.",
    )
    time_filter_param: ParamName | None = Field(
        default=None, description="Query parameter that asks for events since an instant."
    )
    time_filter_format: Annotated[
        Text,
        must_pass(time_format_problem),
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
    time_filter_template: Annotated[Text, must_pass(template_problem)] | None = Field(
        default=None,
        description="What the time filter is sent, with {since} in the place of the instant, and"
        " {until} in that of the upper bound.",
    )
    time_filter_end_param: ParamName | None = Field(
        default=None,
        description="Parameter that asks for events up to an instant: now less `delay_ms`, or"
        " less where `max_window_ms` says so. May be the same as `time_filter_param`.",
    )
    delay_ms: MillisecondsOrZero = Field(
        default=0,
        description="How long the vendor takes until all events of an instant are there; what is"
        " younger is not asked for yet.",
    )
    max_window_ms: Milliseconds | None = Field(
        default=None,
        description="Longest span to ask for at once; longer ones are cut into windows.",
    )
    max_age_ms: Milliseconds | None = Field(
        default=None,
        description="How far back the vendor lets us ask; also where a source without position and"
        " `start_time` begins.",
    )
    start_time: (
        Annotated[
            str,
            BeforeValidator(as_written),
            must_pass(start_time_problem),
        ]
        | None
    ) = Field(
        default=None,
        description="Where a source without a position begins: an instant, or a span before"
        " now such as 24h.",
    )
    lookback_ms: MillisecondsOrZero = Field(
        default=0,
        description="Each poll asks again for so much of the past, for events that come late.",
    )
    max_pages: Count | None = Field(
        default=None, description="Pages of one poll; the next poll goes on where it ended."
    )
    max_response_bytes: Bytes = Field(
        default=64 * 1024 * 1024, description="Largest response to read, once decompressed."
    )
    timeout_ms: Milliseconds = Field(default=30000, description="Bound on one whole request.")
    tls: TlsEntry | None = Field(
        default=None, description="Certificates, where the endpoint is https."
    )
    pagination: PaginationByType | None = Field(
        default=None, description="How to ask for the next page; without it a poll is one request."
    )
    buffer_size: Count = Field(default=100, description="Ship after so many events.")
    flush_interval_ms: Milliseconds = Field(
        default=30000, description="Ship so long after the first buffered event at the latest."
    )
    match_on: Patterns | None = Field(
        default=None, description="Regular expressions; ship only events that one of them finds."
    )
    exclude_on: Patterns | None = Field(
        default=None, description="Regular expressions; drop events that one of them finds."
    )
    destination: Annotated[DestinationEntry | None, GIVEN] = Field(
        default=None,
        description="Where this source's events go, if not to the file's `destination`.",
    )


class RetryEntry(Entry):
    """How failures are tried again."""

    max_retries: CountOrZero | None = Field(
        default=None, description="Attempts after the first; without it Flicker never gives up."
    )
    initial_delay_ms: Milliseconds = Field(
        default=1000, description="Wait before the second attempt; it doubles from there."
    )
    max_delay_ms: Milliseconds = Field(default=60000, description="Longest wait between attempts.")
    max_queue_size: Count = Field(
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
    dead_letter_path: Annotated[Text, must_pass(dead_letter_problem)] | None = Field(
        default=None, description="File for events that a destination refuses for good."
    )
