"""What Flicker was told to do, as plain typed values.

`config` reads these from YAML. Nothing here knows YAML or pydantic, so the
modules that poll and ship depend on meanings, not on a file format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import re
    from pathlib import Path

TimeFormat = str
"""`rfc3339`, `iso8601`, `unix`, `unix_ms`, `date`, or `strftime:` and a pattern."""

SINCE, UNTIL = "{since}", "{until}"
"""Stand for the bounds in `time_filter_template`."""

PaginationType = Literal["offset", "cursor", "page", "link_header", "next_url", "none"]
ResponseFormat = Literal["json", "ndjson", "csv"]
"""How a body holds its events."""

WireFormat = Literal["json", "ndjson"]
GrantType = Literal["client_credentials", "refresh_token", "account_credentials"]
TokenBodyFormat = Literal["form", "json"]


class Secret:
    """Text that must not be shown: its repr and str are stars."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the wire only."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True)
class Basic:
    """A user name and password for HTTP Basic authentication."""

    username: Secret
    password: Secret


@dataclass(frozen=True)
class OAuth2:
    """A token asked for with the client's own credentials.

    Attributes:
        token_url: Absolute URL; may hold secrets, hence no repr.
        client_secret: None for clients that have none, or a certificate.
        refresh_token: For that grant, None for the others.
        extra: Further parameters of the token request.
        auth_style: Whether id and secret stand in the body or in HTTP Basic.
    """

    token_url: str = field(repr=False)
    client_id: str
    grant_type: GrantType = "client_credentials"
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    scope: str | None = None
    audience: str | None = None
    extra: tuple[tuple[str, Secret], ...] = ()
    auth_style: Literal["body", "basic"] = "body"
    body_format: TokenBodyFormat = "form"


@dataclass(frozen=True)
class JwtBearer:
    """A token asked for with an assertion that a private key signs.

    Attributes:
        token_url: Absolute URL; may hold secrets, hence no repr.
        private_key: In PEM, not encrypted.
        audience: Claim of the assertion, by default the token URL.
        style: Whether the assertion is the grant itself, or stands for the
            client's secret in the grant client_credentials.
        client_id: For `client_assertion`.
        extra: Further parameters of the token request.
    """

    token_url: str = field(repr=False)
    private_key: Secret
    issuer: str
    subject: str | None = None
    audience: str | None = None
    scope: str | None = None
    key_id: str | None = None
    algorithm: str = "RS256"
    style: Literal["grant", "client_assertion"] = "grant"
    client_id: str | None = None
    extra: tuple[tuple[str, Secret], ...] = ()


@dataclass(frozen=True)
class AwsSigV4:
    """Signatures with the credentials that AWS tools would find."""

    service: str
    region: str
    profile: str | None = None


@dataclass(frozen=True)
class Signer:
    """A function that gives each request its headers.

    Attributes:
        name: `package.module:function`.
    """

    name: str
    options: tuple[tuple[str, Secret], ...] = ()


@dataclass(frozen=True)
class Credentials:
    """How requests prove who they are; no two are sent in the same header.

    Attributes:
        basic: HTTP Basic.
        bearer: The token of `Authorization: Bearer`.
        header: Name and value of a header of the server's own.
        api_key: Sent in the header `api_key_header`.
        oauth2: At most one of this and the three below is given.
    """

    basic: Basic | None = None
    bearer: Secret | None = None
    header: tuple[str, Secret] | None = None
    api_key: Secret | None = None
    api_key_header: str = "X-API-Key"
    oauth2: OAuth2 | None = None
    jwt_bearer: JwtBearer | None = None
    aws_sigv4: AwsSigV4 | None = None
    signer: Signer | None = None


@dataclass(frozen=True)
class Tls:
    """Certificates for one endpoint; None means the system's defaults."""

    cert_path: Path | None = None
    key_path: Path | None = None
    ca_cert_path: Path | None = None
    accept_invalid_certs: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where to talk to, and as whom.

    Attributes:
        url: Absolute http or https URL; its query string is kept and may hold
            secrets, hence no repr. Never holds user information.
        headers: Extra header lines in the order written.
        timeout: Bound on one whole request, from connecting to the last byte.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, Secret], ...] = ()
    credentials: Credentials = Credentials()
    tls: Tls = Tls()
    timeout: timedelta = timedelta(seconds=30)


@dataclass(frozen=True)
class Pagination:
    """How the following page is asked for.

    Attributes:
        start_page: Number of the first page, for `page`.
        page_size: Sent in `limit_param`, where one is named.
        rel: Relation of the Link header that leads on, for `link_header`.
        next_url_field: Path of the next page's URL in the body, for `next_url`.
        next_url_header: Name of the header that has it instead.
        cursor_only: Whether no other parameter of time and page goes with a
            cursor.
        cursor_from_last: Path, inside an event, of what the last one of a page
            is the next cursor by.
        has_more_field: Path of what says that there is another page.
        stop_on_empty: Whether an empty page ends a scan; None follows what the
            next poll would not go on from, for a while.
        persist_cursor: Whether the next poll goes on from the last token; None
            judges by the listing's order.
    """

    type: PaginationType
    page_size: int = 100
    limit_param: str | None = None
    offset_param: str | None = None
    page_param: str | None = None
    start_page: int = 1
    cursor_param: str | None = None
    next_cursor_field: str | None = None
    rel: str = "next"
    next_url_field: str | None = None
    next_url_header: str | None = None
    cursor_only: bool = False
    cursor_from_last: str | None = None
    has_more_field: str | None = None
    stop_on_empty: bool | None = None
    persist_cursor: bool | None = None

    @property
    def has_tokens(self) -> bool:
        """Whether the API says where its next page is."""
        return self.type in {"cursor", "link_header", "next_url"}

    @property
    def token_field(self) -> str | None:
        """Path of the next page's token in the body, if it has one."""
        return self.next_url_field if self.type == "next_url" else self.next_cursor_field


@dataclass(frozen=True)
class Destination:
    """Where a source's events go."""

    endpoint: Endpoint
    format: WireFormat = "json"
    compression: bool = False
    concurrency: int = 4


@dataclass(frozen=True)
class Retry:
    """How often and how patiently failures are tried again.

    Attributes:
        max_retries: Attempts after the first; None means for ever.
        max_queue_size: Batches a destination may owe before its source pauses.
    """

    max_retries: int | None = None
    initial_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(seconds=60)
    max_queue_size: int = 100


@dataclass(frozen=True)
class FetchEach:
    """How to get what the entries of a listing only point at.

    Attributes:
        url_field: Path of the URL inside an entry.
        results_field: The other paths are those of what is fetched.
    """

    url_field: str
    results_field: str = ""
    timestamp_field: str | None = None
    message_field: str | None = None
    id_field: tuple[str, ...] | None = None
    success_field: str | None = None
    error_field: str | None = None


@dataclass(frozen=True)
class Source:
    """One API to poll.

    Attributes:
        params: Static query parameters, added to those of the endpoint's URL.
        body: JSON object to send with POST, as text.
        location: Where the parameters for time and page go.
        results_optional: Whether an object without the list means no events.
        order: How the API lists, as far as it is known beforehand.
        requests_per_second: Of all sources of the group together.
        rate_limit_group: Shares that, and pauses; None for a source of its own.
        start_time: Where a source without a position begins: nanoseconds since
            1970 (UTC) for an instant, a timedelta for so long before now.
        time_filter_template: What `time_filter_param` is sent, with `{since}` in
            the place of the instant and `{until}` in that of the upper bound.
        time_filter_end_param: Parameter of the upper bound.
        delay: The upper bound is this much before now.
        max_window: Longest span that one scan asks for.
        max_age: No scan asks for anything older.
        success_field: Path of what says that a request succeeded.
        error_field: Path of what says that it failed.
        decode_field: Path of text that holds the event as JSON.
        explode_field: Path of a list whose elements are events of their own.
        response_format: Of the page, or of what `fetch_each` fetches.
        lookback: Each scan asks from this much before the watermark.
        max_pages: Pages of one poll; the next poll goes on where it ended.
    """

    name: str
    endpoint: Endpoint
    destination: Destination
    params: tuple[tuple[str, Secret], ...] = ()
    method: Literal["GET", "POST"] = "GET"
    body: Secret | None = None
    location: Literal["query", "body"] = "query"
    order: Literal["asc", "desc"] | None = None
    requests_per_second: float | None = None
    rate_limit_group: str | None = None
    poll_interval: timedelta = timedelta(seconds=30)
    results_field: str = ""
    results_optional: bool = False
    timestamp_field: str | None = None
    message_field: str | None = None
    id_field: tuple[str, ...] | None = None
    response_format: ResponseFormat = "json"
    success_field: str | None = None
    error_field: str | None = None
    decode_field: str | None = None
    explode_field: str | None = None
    fetch_each: FetchEach | None = None
    time_filter_param: str | None = None
    time_filter_format: TimeFormat = "rfc3339"
    time_filter_template: str | None = None
    time_filter_end_param: str | None = None
    delay: timedelta = timedelta(0)
    max_window: timedelta | None = None
    max_age: timedelta | None = None
    start_time: int | timedelta | None = None
    lookback: timedelta = timedelta(0)
    pagination: Pagination | None = None
    max_pages: int | None = None
    max_response_bytes: int = 64 * 1024 * 1024
    buffer_size: int = 100
    flush_interval: timedelta = timedelta(seconds=30)
    match_on: tuple[re.Pattern[str], ...] = ()
    exclude_on: tuple[re.Pattern[str], ...] = ()

    @property
    def listing_format(self) -> ResponseFormat:
        """Form of what the endpoint answers; a list of what is to be fetched is JSON."""
        return self.response_format if self.fetch_each is None else "json"

    @property
    def has_upper_bound(self) -> bool:
        """Whether requests say up to when they ask."""
        return self.time_filter_end_param is not None or UNTIL in (self.time_filter_template or "")


@dataclass(frozen=True)
class Settings:
    """A whole configuration file.

    Attributes:
        dead_letter_path: None means the default place, which depends on where
            the registry is.
    """

    sources: tuple[Source, ...]
    retry: Retry = Retry()
    dead_letter_path: Path | None = None
