"""Right files become the right settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flicker.auth.static import request_headers
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
)
from tests.config.files import CURSOR, PAGE, entry, one, read, shipping, source


def test_defaults() -> None:
    settings = read(one())
    assert settings == Settings(
        sources=(
            Source(
                name="a",
                endpoint=Endpoint(url="https://api.example.com/logs"),
                destination=Destination(endpoint=Endpoint(url="https://siem.example")),
            ),
        )
    )
    assert settings.retry == Retry()


def test_every_number_and_switch_arrives() -> None:
    settings = read(
        {
            "api_sources": [
                entry(
                    polling_frequency_ms=1,
                    time_filter_param="since",
                    lookback_ms=2,
                    max_pages=3,
                    max_response_bytes=4,
                    timeout_ms=5,
                    buffer_size=6,
                    flush_interval_ms=7,
                    pagination={**PAGE, "page_size": 8, "start_page": 0},
                    destination={
                        "endpoint": "http://siem.example",
                        "compression": True,
                        "format": "ndjson",
                        "concurrency": 9,
                        "timeout_ms": 10,
                    },
                )
            ],
            "retry": {
                "max_retries": 0,
                "initial_delay_ms": 11,
                "max_delay_ms": 12,
                "max_queue_size": 13,
            },
            "dead_letter_path": "dead.jsonl",
        }
    )
    (only_source,) = settings.sources
    assert only_source.poll_interval == timedelta(milliseconds=1)
    assert only_source.lookback == timedelta(milliseconds=2)
    assert only_source.max_pages == 3
    assert only_source.max_response_bytes == 4
    assert only_source.endpoint.timeout == timedelta(milliseconds=5)
    assert only_source.buffer_size == 6
    assert only_source.flush_interval == timedelta(milliseconds=7)
    assert only_source.pagination == Pagination(
        type="page", page_size=8, limit_param="per_page", page_param="page", start_page=0
    )
    assert only_source.destination == Destination(
        endpoint=Endpoint(url="http://siem.example", timeout=timedelta(milliseconds=10)),
        format="ndjson",
        compression=True,
        concurrency=9,
    )
    assert settings.retry == Retry(
        max_retries=0,
        initial_delay=timedelta(milliseconds=11),
        max_delay=timedelta(milliseconds=12),
        max_queue_size=13,
    )
    assert settings.dead_letter_path == Path("dead.jsonl")


def test_a_source_prefers_its_own_destination() -> None:
    file = shipping()
    file["destination"] = {"endpoint": "https://other.example"}
    file["api_sources"].append(entry(name="b"))
    first, second = read(file).sources
    assert first.destination.endpoint.url == "https://siem.example"
    assert second.destination.endpoint.url == "https://other.example"


def test_max_pages_may_stand_inside_pagination() -> None:
    assert source(pagination={**CURSOR, "max_pages": 4}).max_pages == 4


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_results_field_is_the_root_array(value: str | None) -> None:
    assert source(results_field=value).results_field == ""


def test_no_limit_parameter_is_needed() -> None:
    pagination = source(pagination={"pagination_type": "page", "page_param": "page"}).pagination
    assert pagination == Pagination(type="page", page_param="page")


@pytest.mark.parametrize(
    ("keys", "credentials"),
    [
        ({"api_key": "k"}, Credentials(bearer=Secret("k"))),
        (
            {"basic": {"username": "u", "password": ""}},
            Credentials(basic=Basic(Secret("u"), Secret(""))),
        ),
        ({"auth": {"type": "bearer", "token": "t"}}, Credentials(bearer=Secret("t"))),
        (
            {"auth": {"type": "basic", "username": "u", "password": "p"}},
            Credentials(basic=Basic(Secret("u"), Secret("p"))),
        ),
        (
            {"auth": {"type": "header", "name": "X-Key", "value": "v"}},
            Credentials(header=("X-Key", Secret("v"))),
        ),
    ],
)
def test_credentials_of_a_destination(keys: dict[str, Any], credentials: Credentials) -> None:
    (only_source,) = read(shipping(require_auth=True, **keys)).sources
    assert only_source.destination.endpoint.credentials == credentials


def test_credentials_of_a_source() -> None:
    assert source(api_key="k").endpoint.credentials == Credentials(api_key=Secret("k"))
    basic = Basic(Secret("u"), Secret("p"))
    keys = {"username": "u", "password": "p"}
    assert source(basic=keys).endpoint.credentials == Credentials(basic=basic)


def test_a_source_may_send_a_password_and_a_key() -> None:
    endpoint = source(
        basic={"username": "u", "password": "p"}, api_key="k", headers={"Accept": "x"}
    ).endpoint
    assert request_headers(endpoint) == {
        "Accept": "x",
        "Authorization": "Basic dTpw",
        "X-API-Key": "k",
    }


@pytest.mark.parametrize(
    ("short", "sent"),
    [
        ({"api_key": "k"}, "Bearer k"),
        ({"basic": {"username": "u", "password": "p"}}, "Basic dTpw"),
    ],
)
def test_a_destination_may_send_a_header_of_its_own_beside_authorization(
    short: dict[str, Any], sent: str
) -> None:
    auth = {"type": "header", "name": "X-Key", "value": "v"}
    (only_source,) = read(shipping(auth=auth, **short)).sources
    assert request_headers(only_source.destination.endpoint) == {
        "Authorization": sent,
        "X-Key": "v",
    }


def test_an_authorization_header_satisfies_require_auth() -> None:
    assert read(shipping(require_auth=True, headers={"authorization": "Splunk x"}))


def test_numbers_in_headers_and_params_are_sent_as_they_are_written() -> None:
    text = """
    api_sources:
    - name: a
      endpoint: https://api.example.com
      headers: {X-Tenant-ID: 0123, X-Version: 1.10}
      params: {on: 0x10, ratio: 2.50, day: 2025-01-01, all: true, none: no, text: ""}
    destination: {endpoint: https://siem.example}
    """
    (only_source,) = read(text).sources
    headers = {name: value.reveal() for name, value in only_source.endpoint.headers}
    assert headers == {"X-Tenant-ID": "0123", "X-Version": "1.10"}
    params = {name: value.reveal() for name, value in only_source.params}
    assert params == {
        "on": "0x10",
        "ratio": "2.50",
        "day": "2025-01-01",
        "all": "true",
        "none": "false",
        "text": "",
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("24h", timedelta(hours=24)),
        ("2025-01-01T00:00:00Z", 1_735_689_600_000_000_000),
        ('"2025-01-01T00:00:00Z"', 1_735_689_600_000_000_000),
        ("2025-01-01", 1_735_689_600_000_000_000),
        ("2025-01-01 00:00:00", 1_735_689_600_000_000_000),
    ],
)
def test_start_time_needs_no_quotes(written: str, meant: int | timedelta) -> None:
    text = f"""
    api_sources:
    - {{name: a, endpoint: "https://h", timestamp_field: t, start_time: {written}}}
    destination: {{endpoint: "https://siem.example"}}
    """
    assert read(text).sources[0].start_time == meant


def test_a_single_pattern_needs_no_list() -> None:
    only_source = source(match_on=r"user\.login", exclude_on=["a", "b"])
    assert [pattern.pattern for pattern in only_source.match_on] == [r"user\.login"]
    assert [pattern.pattern for pattern in only_source.exclude_on] == ["a", "b"]


def test_the_endpoint_keeps_its_query_string() -> None:
    url = "https://h.example:8443/x;y?filter=a%2Bb&empty=&z"
    assert source(endpoint=url).endpoint.url == url


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "bücher.example", "my_host"])
def test_hosts_of_every_kind_are_taken(host: str) -> None:
    assert source(endpoint=f"http://{host}:80/").endpoint.url == f"http://{host}:80/"


def test_anchors_and_merge_keys_spare_repetition() -> None:
    text = """
    api_sources:
    - &first
      name: a
      endpoint: https://h
      headers: &headers {X-A: "1"}
    - <<: *first
      name: b
    - <<: [{name: c}, *first]
      headers: {<<: *headers, X-B: "2"}
    destination: {endpoint: https://siem.example}
    """
    settings = read(text)
    assert [item.name for item in settings.sources] == ["a", "b", "c"]
    assert [len(item.endpoint.headers) for item in settings.sources] == [1, 1, 2]


def test_certificates_are_paths(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("x", encoding="ascii")
    tls = source(tls={"cert_path": str(pem), "key_path": str(pem)}).endpoint.tls
    assert (tls.cert_path, tls.key_path, tls.ca_cert_path) == (pem, pem, None)
