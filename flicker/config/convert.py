"""The checked file into `Settings`: spans, instants, secrets, patterns, paths."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from flicker.config.checks import ITEM, compile_pattern, expand_home, fill_url
from flicker.config.models import BasicAuth, BearerAuth, HeaderAuth, RetryEntry, TlsEntry
from flicker.settings import (
    AwsSigV4,
    Basic,
    Credentials,
    Destination,
    Endpoint,
    FetchEach,
    JwtBearer,
    OAuth2,
    Pagination,
    Retry,
    Secret,
    Settings,
    Signer,
    Source,
    Tls,
)
from flicker.timefmt import parse_start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr

    from flicker.config.credentials import AwsSigV4Entry, JwtBearerEntry, OAuth2Entry
    from flicker.config.models import (
        BasicEntry,
        ConfigFile,
        DestinationEntry,
        FetchEntry,
        SourceEntry,
    )
    from flicker.config.pages import AnyPagination

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def to_settings(entry: ConfigFile) -> Settings:
    """Turn a file without problems into what it means."""
    shared = None if entry.destination is None else _destination(entry.destination)
    return Settings(
        sources=tuple(
            _source(source, shared, item)
            for source in entry.api_sources
            for item in source.foreach or (None,)
        ),
        retry=_retry(entry.retry or RetryEntry()),
        dead_letter_path=_optional(entry.dead_letter_path, expand_home),
    )


def _source(entry: SourceEntry, shared: Destination | None, item: str | None) -> Source:
    """Turn an entry into a source.

    Args:
        entry: Checked.
        shared: The file's destination.
        item: The one of `foreach` that `{item}` stands for.
    """
    destination = shared if entry.destination is None else _destination(entry.destination)
    if destination is None:
        message = "a source without a destination has passed the checks"
        raise AssertionError(message)

    def fill(text: str) -> str:
        return text if item is None else text.replace(ITEM, item)

    pages = None if entry.pagination is None else entry.pagination.max_pages
    location = None if entry.pagination is None else entry.pagination.location
    return Source(
        name=entry.name if item is None else f"{entry.name}/{item}",
        endpoint=_endpoint(
            entry,
            Credentials(
                basic=_optional(entry.basic, _basic),
                api_key=_optional(entry.api_key, _secret),
                api_key_header=entry.api_key_header,
                oauth2=_optional(entry.oauth2, lambda oauth2: _oauth2(oauth2, fill)),
                jwt_bearer=_optional(entry.jwt_bearer, _jwt_bearer),
                aws_sigv4=_optional(entry.aws_sigv4, lambda aws: _aws_sigv4(aws, fill)),
                signer=_optional(
                    entry.signer, lambda name: Signer(name, _secrets(entry.signer_options))
                ),
            ),
            fill,
        ),
        destination=destination,
        params=tuple(
            (name, Secret(fill(value.get_secret_value())))
            for name, values in (entry.params or {}).items()
            for value in values
        ),
        method=entry.method,
        body=_optional(entry.body, lambda body: Secret(json.dumps(_filled(body, fill)))),
        location=location or ("body" if entry.method == "POST" else "query"),
        order=entry.order,
        requests_per_second=entry.requests_per_second,
        # Those of one entry have the same credentials, and so the same quota.
        rate_limit_group=_optional(entry.rate_limit_group, fill)
        or (None if item is None else entry.name),
        poll_interval=_span(entry.polling_frequency_ms),
        results_field=entry.results_field or "",
        results_optional=entry.results_optional,
        timestamp_field=entry.timestamp_field,
        message_field=entry.message_field,
        id_field=_optional(entry.id_field, tuple),
        response_format=entry.response_format,
        success_field=entry.success_field,
        error_field=entry.error_field,
        decode_field=entry.decode_field,
        explode_field=entry.explode_field,
        fetch_each=_optional(entry.fetch_each, _fetch_each),
        time_filter_param=entry.time_filter_param,
        time_filter_format=entry.time_filter_format,
        time_filter_template=_optional(entry.time_filter_template, fill),
        time_filter_end_param=entry.time_filter_end_param,
        delay=_span(entry.delay_ms),
        max_window=_optional(entry.max_window_ms, _span),
        max_age=_optional(entry.max_age_ms, _span),
        start_time=_optional(entry.start_time, parse_start_time),
        lookback=_span(entry.lookback_ms),
        pagination=None if entry.pagination is None else _pagination(entry.pagination),
        max_pages=pages if entry.max_pages is None else entry.max_pages,
        max_response_bytes=entry.max_response_bytes,
        buffer_size=entry.buffer_size,
        flush_interval=_span(entry.flush_interval_ms),
        match_on=tuple(map(compile_pattern, entry.match_on or ())),
        exclude_on=tuple(map(compile_pattern, entry.exclude_on or ())),
    )


def _fetch_each(entry: FetchEntry) -> FetchEach:
    return FetchEach(
        url_field=entry.url_field,
        results_field=entry.results_field or "",
        timestamp_field=entry.timestamp_field,
        message_field=entry.message_field,
        id_field=_optional(entry.id_field, tuple),
        success_field=entry.success_field,
        error_field=entry.error_field,
    )


def _filled(value: object, fill: Callable[[str], str]) -> object:
    """Replace `{item}` in all texts of a JSON value."""
    if isinstance(value, dict):
        return {fill(key): _filled(member, fill) for key, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, fill) for member in value]
    return fill(value) if isinstance(value, str) else value


def _destination(entry: DestinationEntry) -> Destination:
    return Destination(
        endpoint=_endpoint(entry, _destination_credentials(entry)),
        format=entry.format,
        compression=entry.compression,
        concurrency=entry.concurrency,
    )


def _destination_credentials(entry: DestinationEntry) -> Credentials:
    """Bring `auth` and its short forms together."""
    auth = entry.auth
    basic = auth if isinstance(auth, BasicAuth) else entry.basic
    bearer = auth.token if isinstance(auth, BearerAuth) else entry.api_key
    return Credentials(
        basic=_optional(basic, _basic),
        bearer=_optional(bearer, _secret),
        header=(auth.name, _secret(auth.value)) if isinstance(auth, HeaderAuth) else None,
    )


def _endpoint(
    entry: SourceEntry | DestinationEntry,
    credentials: Credentials,
    fill: Callable[[str], str] = str,
) -> Endpoint:
    return Endpoint(
        url=fill_url(entry.endpoint.get_secret_value(), fill(ITEM)),
        headers=tuple(
            (name, Secret(fill(value.get_secret_value())))
            for name, value in (entry.headers or {}).items()
        ),
        credentials=credentials,
        tls=_tls(entry.tls or TlsEntry()),
        timeout=_span(entry.timeout_ms),
    )


def _pagination(entry: AnyPagination) -> Pagination:
    return Pagination(
        type=entry.pagination_type,
        **entry.model_dump(exclude={"pagination_type", "max_pages", "location"}),
    )


def _tls(entry: TlsEntry) -> Tls:
    return Tls(
        cert_path=_optional(entry.cert_path, expand_home),
        key_path=_optional(entry.key_path, expand_home),
        ca_cert_path=_optional(entry.ca_cert_path, expand_home),
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


def _oauth2(entry: OAuth2Entry, fill: Callable[[str], str]) -> OAuth2:
    return OAuth2(
        token_url=fill_url(entry.token_url.get_secret_value(), fill(ITEM)),
        client_id=entry.client_id,
        grant_type=entry.grant_type,
        client_secret=_optional(entry.client_secret, _secret),
        refresh_token=_optional(entry.refresh_token, _secret),
        scope=_optional(entry.scope, fill),
        audience=entry.audience,
        extra=_secrets(entry.extra),
        auth_style=entry.auth_style,
        body_format=entry.body_format,
    )


def _jwt_bearer(entry: JwtBearerEntry) -> JwtBearer:
    """Bring the keys of the file and those of a service account's file together."""
    account = entry.account()
    token_url = None if entry.token_url is None else entry.token_url.get_secret_value()
    issuer = entry.issuer or entry.client_id
    return JwtBearer(
        token_url=token_url or account["token_uri"],
        private_key=Secret(entry.pem()),
        issuer=issuer or account["client_email"],
        subject=entry.subject,
        audience=entry.audience,
        scope=entry.scope,
        key_id=entry.key_id or account.get("private_key_id"),
        algorithm=entry.algorithm,
        style=entry.style,
        client_id=entry.client_id,
        extra=_secrets(entry.extra),
    )


def _aws_sigv4(entry: AwsSigV4Entry, fill: Callable[[str], str]) -> AwsSigV4:
    return AwsSigV4(service=entry.service, region=fill(entry.region), profile=entry.profile)


def _secrets(values: Mapping[str, SecretStr] | None) -> tuple[tuple[str, Secret], ...]:
    return tuple((name, _secret(value)) for name, value in (values or {}).items())


def _secret(value: SecretStr) -> Secret:
    return Secret(value.get_secret_value())


def _span(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def _optional(value: _In | None, convert: Callable[[_In], _Out]) -> _Out | None:
    return None if value is None else convert(value)
