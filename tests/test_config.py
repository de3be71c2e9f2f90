"""The YAML file: what it means, and everything that can be wrong with it."""

from __future__ import annotations

import json
import re
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flicker import config
from flicker.errors import ConfigError
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

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
ENVIRON = {
    "OKTA_TOKEN": "okta-token",
    "GITHUB_TOKEN": "github-token",
    "VENDOR_API_KEY": "vendor-key",
    "SIEM_TOKEN": "siem-token",
}
SECRET = "hunter2 sesame"
# What YAML takes as it stands, with more than its share of the marks that matter.
TEXTS = st.text(st.sampled_from("${}:-A ") | st.characters(exclude_categories=["C", "Z"]))
CURSOR = {
    "pagination_type": "cursor",
    "limit_param": "limit",
    "cursor_param": "cursor",
    "next_cursor_field": "next",
}
OFFSET = {"pagination_type": "offset", "limit_param": "limit", "offset_param": "skip"}
PAGE = {"pagination_type": "page", "limit_param": "per_page", "page_param": "page"}


def entry(**keys: object) -> dict[str, Any]:
    """Return a source with the least that one needs."""
    return {"name": "a", "endpoint": "https://api.example.com/logs", **keys}


def one(**keys: object) -> dict[str, Any]:
    """Return a file of one source, which has these keys too."""
    return {"api_sources": [entry(**keys)], "destination": {"endpoint": "https://siem.example"}}


def shipping(**keys: object) -> dict[str, Any]:
    """Return a file whose source has a destination with these keys too."""
    return one(destination={"endpoint": "https://siem.example", **keys})


def read(file: object, environ: dict[str, str] | None = None) -> Settings:
    """Parse a file given as text, or as values: JSON is YAML."""
    text = file if isinstance(file, str) else json.dumps(file, ensure_ascii=False)
    return config.parse(text, environ or {}, origin="test.yaml")


def source(environ: dict[str, str] | None = None, **keys: object) -> Source:
    """Return what a source with these keys is read as."""
    return read(one(**keys), environ).sources[0]


def problems(file: object, environ: dict[str, str] | None = None) -> dict[str, str]:
    """Return the messages of a file that must be refused, by path."""
    with pytest.raises(ConfigError) as caught:
        read(file, environ)
    found: dict[str, str] = {}
    for problem in caught.value.problems:
        found[problem.path] = "; ".join(filter(None, [found.get(problem.path), problem.message]))
    return found


def only(file: object, environ: dict[str, str] | None = None) -> tuple[str, str]:
    """Return path and message of a file's single problem."""
    found = problems(file, environ)
    assert len(found) == 1, found
    return next(iter(found.items()))


def shown(error: BaseException) -> str:
    """Return all that a user or a log may ever see of an error."""
    chain = [error, error.__cause__, error.__context__]
    return "\n".join([*traceback.format_exception(error), *map(repr, chain), *map(str, chain)])


class TestReadyConfigurations:
    """Every file in `configs/`."""

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_loads(self, path: Path) -> None:
        assert len(config.load(path, ENVIRON).sources) == 1

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_holds_no_literal_credential(self, path: Path) -> None:
        found = []
        with pytest.raises(ConfigError) as caught:
            config.load(path, {})
        for problem in caught.value.problems:
            found += re.findall(r"variable (\w+),", problem.message)
        assert found
        assert set(found) <= set(ENVIRON)

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_fits_the_schema_for_editors(self, path: Path) -> None:
        jsonschema.Draft202012Validator(config.json_schema()).validate(
            yaml.safe_load(path.read_text(encoding="utf-8"))
        )

    def test_names_of_the_files(self) -> None:
        assert {path.stem for path in CONFIGS} >= {"custom-vendor", "github", "okta", "overview"}

    def test_custom_vendor_is_read_key_by_key(self) -> None:
        path = next(path for path in CONFIGS if path.stem == "custom-vendor")
        assert config.load(path, ENVIRON) == Settings(
            sources=(
                Source(
                    name="vendor-audit-api",
                    endpoint=Endpoint(
                        url="https://api.vendor.com/v1/audit/events",
                        credentials=Credentials(api_key=Secret("vendor-key")),
                    ),
                    destination=Destination(
                        endpoint=Endpoint(
                            url="https://your-siem.com/ingest",
                            credentials=Credentials(bearer=Secret("siem-token")),
                        )
                    ),
                    poll_interval=timedelta(seconds=30),
                    results_field="data.events",
                    timestamp_field="event_time",
                    message_field="description",
                    time_filter_param="from_time",
                    time_filter_format="rfc3339",
                    pagination=Pagination(
                        type="offset", page_size=50, limit_param="limit", offset_param="skip"
                    ),
                    buffer_size=25,
                    flush_interval=timedelta(seconds=15),
                ),
            )
        )

    def test_okta_follows_a_cursor_of_the_root_array(self) -> None:
        path = next(path for path in CONFIGS if path.stem == "okta")
        okta = config.load(path, ENVIRON).sources[0]
        assert okta.endpoint.headers == (("Authorization", Secret("SSWS okta-token")),)
        assert okta.results_field == ""
        assert okta.pagination == Pagination(
            type="cursor", page_size=100, cursor_param="after", next_cursor_field="next"
        )


class TestMeaning:
    """Right files become the right settings."""

    def test_defaults(self) -> None:
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

    def test_every_number_and_switch_arrives(self) -> None:
        settings = read(
            {
                "api_sources": [
                    entry(
                        polling_frequency_ms=1,
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

    def test_a_source_prefers_its_own_destination(self) -> None:
        file = shipping()
        file["destination"] = {"endpoint": "https://other.example"}
        file["api_sources"].append(entry(name="b"))
        first, second = read(file).sources
        assert first.destination.endpoint.url == "https://siem.example"
        assert second.destination.endpoint.url == "https://other.example"

    def test_max_pages_may_stand_inside_pagination(self) -> None:
        assert source(pagination={**CURSOR, "max_pages": 4}).max_pages == 4

    @pytest.mark.parametrize("value", ["", None])
    def test_an_empty_results_field_is_the_root_array(self, value: str | None) -> None:
        assert source(results_field=value).results_field == ""

    def test_no_limit_parameter_is_needed(self) -> None:
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
    def test_credentials_of_a_destination(
        self, keys: dict[str, Any], credentials: Credentials
    ) -> None:
        (only_source,) = read(shipping(require_auth=True, **keys)).sources
        assert only_source.destination.endpoint.credentials == credentials

    def test_credentials_of_a_source(self) -> None:
        assert source(api_key="k").endpoint.credentials == Credentials(api_key=Secret("k"))
        basic = Basic(Secret("u"), Secret("p"))
        keys = {"username": "u", "password": "p"}
        assert source(basic=keys).endpoint.credentials == Credentials(basic=basic)

    def test_an_authorization_header_satisfies_require_auth(self) -> None:
        assert read(shipping(require_auth=True, headers={"authorization": "Splunk x"}))

    def test_numbers_in_headers_and_params_are_sent_as_they_are_written(self) -> None:
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
    def test_start_time_needs_no_quotes(self, written: str, meant: int | timedelta) -> None:
        text = f"""
        api_sources:
        - {{name: a, endpoint: "https://h", timestamp_field: t, start_time: {written}}}
        destination: {{endpoint: "https://siem.example"}}
        """
        assert read(text).sources[0].start_time == meant

    def test_a_single_pattern_needs_no_list(self) -> None:
        only_source = source(match_on=r"user\.login", exclude_on=["a", "b"])
        assert [pattern.pattern for pattern in only_source.match_on] == [r"user\.login"]
        assert [pattern.pattern for pattern in only_source.exclude_on] == ["a", "b"]

    def test_the_endpoint_keeps_its_query_string(self) -> None:
        url = "https://h.example:8443/x;y?filter=a%2Bb&empty=&z"
        assert source(endpoint=url).endpoint.url == url

    @pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "bücher.example", "my_host"])
    def test_hosts_of_every_kind_are_taken(self, host: str) -> None:
        assert source(endpoint=f"http://{host}:80/").endpoint.url == f"http://{host}:80/"

    def test_anchors_and_merge_keys_spare_repetition(self) -> None:
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

    def test_certificates_are_paths(self, tmp_path: Path) -> None:
        pem = tmp_path / "cert.pem"
        pem.write_text("x", encoding="ascii")
        tls = source(tls={"cert_path": str(pem), "key_path": str(pem)}).endpoint.tls
        assert (tls.cert_path, tls.key_path, tls.ca_cert_path) == (pem, pem, None)


class TestExpansion:
    """`${...}` in values."""

    def token(self, text: str, environ: dict[str, str] | None = None) -> str:
        """Return what a value becomes."""
        ((_, value),) = source(environ, params={"p": text}).params
        return value.reveal()

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("${A}", "1"),
            ("x${A}y${B}z", "x1y2z"),
            ("${A:-d}", "1"),
            ("${UNSET:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:-b {c}", "a:-b {c"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("$A $$ {A} $", "$A $$ {A} $"),
            ("${SELF}", "${A}"),
            ("${NEWLINE}", "1"),
        ],
    )
    def test_expands_as_a_shell_does(self, text: str, meant: str) -> None:
        environ = {"A": "1", "B": "2", "EMPTY": "", "SELF": "${A}", "NEWLINE": "1\n"}
        assert self.token(text, environ) == meant

    @given(TEXTS)
    def test_an_escaped_text_stays_as_it_is(self, text: str) -> None:
        assert self.token(text.replace("${", "$${")) == text

    @given(TEXTS)
    def test_what_a_variable_holds_is_not_expanded_again(self, text: str) -> None:
        assert self.token("${A}", {"A": text}) == text

    def test_reads_a_file_without_its_last_newline(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"s3cret\r\n")
        assert self.token(f"Bearer ${{file:{secret}}}") == "Bearer s3cret"

    def test_numbers_and_switches_may_come_from_the_environment(self) -> None:
        text = """
        api_sources:
        - name: a
          endpoint: https://h
          buffer_size: ${SIZE}
          max_pages: "${SIZE}"
          api_key: ${SIZE}
          destination: {endpoint: "https://h", type: "${TYPE}", compression: "${ON}"}
        """
        (only_source,) = read(text, {"SIZE": "12345", "TYPE": "http", "ON": "true"}).sources
        assert only_source.buffer_size == only_source.max_pages == 12345
        assert only_source.endpoint.credentials.api_key == Secret("12345")
        assert only_source.destination.compression is True

    def test_kinds_of_pagination_and_auth_may_come_from_the_environment(self) -> None:
        file = shipping(auth={"type": "${AUTH}", "token": "t"})
        file["api_sources"][0]["pagination"] = {**PAGE, "pagination_type": "${KIND}"}
        (only_source,) = read(file, {"AUTH": "bearer", "KIND": "page"}).sources
        assert only_source.pagination is not None
        assert only_source.pagination.type == "page"
        assert only_source.destination.endpoint.credentials.bearer == Secret("t")

    def test_every_unset_variable_is_reported_beside_the_other_problems(self) -> None:
        found = problems(
            one(
                headers={"Authorization": "${ONE} ${TWO}"},
                buffer_size="${THREE}",
                pagination={**PAGE, "page_size": 0},
                polling_frequncy_ms=1,
            )
        )
        assert set(found) == {
            "api_sources[0].headers.Authorization",
            "api_sources[0].buffer_size",
            "api_sources[0].pagination.page_size",
            "api_sources[0].polling_frequncy_ms",
        }
        assert "ONE" in found["api_sources[0].headers.Authorization"]
        assert "TWO" in found["api_sources[0].headers.Authorization"]
        assert "THREE" in found["api_sources[0].buffer_size"]
        assert "whole number" not in found["api_sources[0].buffer_size"]

    @pytest.mark.parametrize(
        "text",
        ["${", "${}", "${1A}", "${A-b}", "${A:?b}", "${ A }", "${A", "${file:}", "${A:-${B}}"],
    )
    def test_a_malformed_expansion_is_explained(self, text: str) -> None:
        path, message = only(one(params={"p": f"hunter2{text}"}), {"A": "1", "B": "2"})
        assert path == "api_sources[0].params.p"
        assert "malformed `${` at character 8" in message
        assert "hunter2" not in message

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing"
        path, message = only(one(api_key=f"${{file:{missing}}}"))
        assert path == "api_sources[0].api_key"
        assert str(missing) in message

    @pytest.mark.parametrize(
        ("content", "word"), [(b"\xff", "UTF-8"), (b"x" * (2**20 + 1), "too large")]
    )
    def test_a_file_that_is_no_text_is_refused(
        self, tmp_path: Path, content: bytes, word: str
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(content)
        _, message = only(one(api_key=f"${{file:{secret}}}"))
        assert word in message

    @pytest.mark.parametrize("name", ["/dev/zero", "relative", "/tmp"])
    def test_what_is_no_file_is_not_read(self, name: str) -> None:
        assert "api_sources[0].api_key" in problems(one(api_key=f"${{file:{name}}}"))

    def test_a_number_that_is_none_is_refused_without_showing_it(self) -> None:
        path, message = only(one(buffer_size="${SIZE}"), {"SIZE": SECRET})
        assert path == "api_sources[0].buffer_size"
        assert "whole number" in message
        assert SECRET not in message

    def test_keys_are_not_expanded(self) -> None:
        ((name, _),) = source({"A": "1"}, params={"${A}": "x"}).params
        assert name == "${A}"

    def test_a_variable_that_is_no_unicode_is_refused(self) -> None:
        _, message = only(one(api_key="${A}"), {"A": "\udcff"})
        assert "UTF-8" in message


class TestWrongValues:
    """One wrong value, one problem, at the path the user typed."""

    @pytest.mark.parametrize(
        ("keys", "path", "words"),
        [
            ({"name": ""}, "name", "is empty"),
            ({"name": 7}, "name", "put the value in quotes"),
            ({"name": "a\nb"}, "name", "control character"),
            ({"name": " a"}, "name", "white space"),
            ({"name": "a" * 201}, "name", "at most 200"),
            ({"polling_frequency_ms": 0}, "polling_frequency_ms", "at least 1"),
            ({"polling_frequency_ms": "30000"}, "polling_frequency_ms", "without quotes"),
            ({"polling_frequency_ms": 1.5}, "polling_frequency_ms", "whole number"),
            ({"polling_frequency_ms": 10**30}, "polling_frequency_ms", "at most"),
            ({"buffer_size": True}, "buffer_size", "not true or false"),
            ({"buffer_size": None}, "buffer_size", "is empty"),
            ({"flush_interval_ms": 0}, "flush_interval_ms", "at least 1"),
            ({"timeout_ms": 0}, "timeout_ms", "at least 1"),
            ({"lookback_ms": -1}, "lookback_ms", "at least 0"),
            ({"max_pages": 0}, "max_pages", "at least 1"),
            ({"timestamp_field": ""}, "timestamp_field", "is empty"),
            ({"time_filter_format": "rfc3393"}, "time_filter_format", "Did you mean `rfc3339`?"),
            ({"time_filter_param": " since"}, "time_filter_param", "white space"),
            ({"match_on": ["ok", "a("]}, "match_on[1]", "unterminated subpattern at position 1"),
            ({"exclude_on": "["}, "exclude_on", "unterminated character set at position 0"),
            ({"exclude_on": ""}, "exclude_on", "is empty"),
            ({"match_on": "a{99999999999999999999}"}, "match_on", "too large"),
            ({"api_key": ""}, "api_key", "is empty"),
            ({"api_key": None}, "api_key", "is empty"),
            ({"basic": None}, "basic", "is empty"),
            ({"api_key": "a\nb"}, "api_key", "control character"),
            ({"api_key": "a "}, "api_key", "white space"),
            ({"api_key": "a\u2014b"}, "api_key", "Latin-1"),
            ({"basic": {"username": "u"}}, "basic.password", "is required and missing"),
            ({"basic": {"username": "u:v", "password": ""}}, "basic.username", "colon"),
            ({"basic": {"username": "", "password": ""}}, "basic.username", "empty"),
            ({"basic": {"username": "u", "password": "\n"}}, "basic.password", "line break"),
            ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers.X-A", "control character"),
            ({"headers": {"X-A": None}}, "headers.X-A", "is empty"),
            ({"headers": {"X-A": ["a"]}}, "headers.X-A", "must be text, not a list"),
            ({"headers": {"X-A": True}}, "headers.X-A", "put the value in quotes"),
            ({"headers": {"X:A": "a"}}, "headers.<key at line 1>", "no header name"),
            ({"headers": {"Content-Length": 1}}, "headers.Content-Length", "Flicker itself"),
            ({"headers": ["X-A"]}, "headers", "must be a mapping"),
            ({"params": {"p": {}}}, "params.p", "must be text, not a mapping"),
            ({"params": {"p": None}}, "params.p", "is empty"),
            ({"pagination": "cursor"}, "pagination", "must be a mapping"),
            ({"pagination": {}}, "pagination.pagination_type", "is required and missing"),
            (
                {"pagination": {"pagination_type": "ofset"}},
                "pagination.pagination_type",
                "Did you mean `offset`?",
            ),
            ({"pagination": {**PAGE, "page_size": True}}, "pagination.page_size", "whole number"),
            ({"pagination": {**PAGE, "start_page": -1}}, "pagination.start_page", "at least 0"),
            (
                {"pagination": {**CURSOR, "next_cursor_field": ""}},
                "pagination.next_cursor_field",
                "is empty",
            ),
            (
                {"pagination": {"pagination_type": "offset"}},
                "pagination.offset_param",
                "is required and missing",
            ),
            (
                {"pagination": {**OFFSET, "cursor_param": "c"}},
                "pagination.cursor_param",
                "belongs to pagination_type `cursor`",
            ),
            ({"start_time": "soon", "timestamp_field": "t"}, "start_time", "24h"),
            ({"start_time": 1735689600, "timestamp_field": "t"}, "start_time", "instant"),
            ({"polling_frequncy_ms": 1}, "polling_frequncy_ms", "`polling_frequency_ms`"),
            ({"page_size": 1}, "page_size", "belongs in `pagination`"),
            ({"retry": {}}, "retry", "belongs in the top level"),
            ({"zzz": 1}, "zzz", "Known here: api_key, basic"),
            ({"tls": {"ca_cert_path": "/missing.pem"}}, "tls.ca_cert_path", "/missing.pem"),
            ({"tls": {"ca_cert_path": "-----BEGIN X"}}, "tls.ca_cert_path", "not what stands"),
            ({"destination": None}, "destination", "is empty"),
            ({"destination": {}}, "destination.endpoint", "is required and missing"),
            ({"destination": "https://siem.example"}, "destination", "must be a mapping"),
        ],
    )
    def test_in_a_source(self, keys: dict[str, Any], path: str, words: str) -> None:
        found_path, message = only(one(**keys))
        assert found_path == f"api_sources[0].{path}"
        assert words in message

    @pytest.mark.parametrize(
        ("keys", "path", "words"),
        [
            ({"type": "https"}, "type", "must be `http`"),
            ({"format": "xml"}, "format", "`json` or `ndjson`"),
            ({"compression": "gzip"}, "compression", "true or false"),
            ({"concurrency": 0}, "concurrency", "at least 1"),
            ({"concurrency": 65}, "concurrency", "at most 64"),
            ({"auth": None}, "auth", "is empty"),
            ({"auth": {"type": "baerer"}}, "auth.type", "Did you mean `bearer`?"),
            ({"auth": {"token": "t"}}, "auth.type", "is required and missing"),
            ({"auth": {"type": "bearer"}}, "auth.token", "is required and missing"),
            (
                {"auth": {"type": "bearer", "token": "t", "username": "u"}},
                "auth.username",
                "belongs to type `basic`",
            ),
            ({"auth": {"type": "bearer", "token": "Bearer t"}}, "auth.token", "leave it out"),
            ({"auth": {"type": "bearer", "token": 123}}, "auth.token", "in quotes"),
            ({"auth": {"type": "header", "name": "a b", "value": "v"}}, "auth.name", "header name"),
            ({"token": "t"}, "token", "belongs in `auth`"),
            ({"require_auth": True}, "require_auth", "no credentials"),
        ],
    )
    def test_in_a_destination(self, keys: dict[str, Any], path: str, words: str) -> None:
        found_path, message = only(shipping(**keys))
        assert found_path == f"api_sources[0].destination.{path}"
        assert words in message

    @pytest.mark.parametrize(
        ("endpoint", "words"),
        [
            ("", "absolute URL"),
            ("api.example.com/logs", "absolute URL"),
            ("ftp://h/", "absolute URL"),
            ("https:///logs", "names no host"),
            ("https://:80/", "names no host"),
            ("https://u:hunter2@h/", "as `basic`"),
            ("https://hunter2@h/", "as `basic`"),
            ("https://h/#x", "fragment"),
            ("https://h:0/", "port"),
            ("https://h:65536/", "port"),
            ("https://h:port/", "port"),
            ("https://h:/", "colon"),
            ("https://h/a b", "white space"),
            ("https://h/\n", "white space"),
            ("https://h\x00/", "control character"),
            ("https://h\\@other/", "backslash"),
            ("https://[::1/", "no URL"),
            ("https://[x::1]/", ""),
            ("https://a..b/", "host name"),
        ],
    )
    def test_endpoints(self, endpoint: str, words: str) -> None:
        path, message = only(one(endpoint=endpoint))
        assert path == "api_sources[0].endpoint"
        assert words in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        ("retry", "path", "words"),
        [
            ({"max_retries": -1}, "retry.max_retries", "at least 0"),
            ({"initial_delay_ms": 0}, "retry.initial_delay_ms", "at least 1"),
            ({"initial_delay_ms": 60001}, "retry.max_delay_ms", "less than `initial_delay_ms`"),
            ({"max_queue_size": 0}, "retry.max_queue_size", "at least 1"),
            ({"max_retires": 1}, "retry.max_retires", "`max_retries`"),
        ],
    )
    def test_in_retry(self, retry: dict[str, Any], path: str, words: str) -> None:
        found_path, message = only({**one(), "retry": retry})
        assert found_path == path
        assert words in message

    def test_a_dead_letter_path_is_no_directory(self, tmp_path: Path) -> None:
        path, message = only({**one(), "dead_letter_path": str(tmp_path)})
        assert path == "dead_letter_path"
        assert "directory" in message

    @pytest.mark.parametrize("sources", [[], {}, None, "x"])
    def test_there_is_a_list_of_sources(self, sources: object) -> None:
        path, _ = only({**one(), "api_sources": sources})
        assert path == "api_sources"

    def test_a_key_of_a_source_at_the_top_level_is_sent_home(self) -> None:
        path, message = only({**one(), "polling_frequency_ms": 1})
        assert path == "polling_frequency_ms"
        assert "an entry of `api_sources`" in message

    def test_all_problems_are_found_at_once_in_the_order_of_the_file(self) -> None:
        file = """
        api_sources:
        - name: a
          endpoint: nowhere
          pagination: {pagination_type: page, page_param: p, page_size: 0}
          start_time: 1h
        - name: a
          endpoint: https://h
          api_key: ${UNSET}
          api_key: x
        retry: {initial_delay_ms: 5, max_delay_ms: 4}
        destination: {endpoint: https://siem.example, api_key: x, basic: {}}
        """
        assert list(problems(file)) == [
            "api_sources[0].endpoint",
            "api_sources[0].pagination.page_size",
            "api_sources[0].start_time",
            "api_sources[1].name",
            "api_sources[1].api_key",
            "retry.max_delay_ms",
            "destination.basic.username",
            "destination.basic.password",
            "destination",
        ]


class TestRelations:
    """Values that are wrong only together."""

    def test_two_sources_of_one_name_are_refused(self) -> None:
        """T66: positions are kept by name."""
        file = one()
        file["api_sources"].append(entry(endpoint="https://other.example"))
        path, message = only(file)
        assert path == "api_sources[1].name"
        assert "api_sources[0]" in message

    def test_two_names_for_one_endpoint_are_two_sources(self) -> None:
        """T66: what is polled twice under two names has two positions."""
        file = one()
        file["api_sources"].append(entry(name="b"))
        assert [item.name for item in read(file).sources] == ["a", "b"]

    def test_a_source_needs_a_destination(self) -> None:
        path, message = only({"api_sources": [entry()]})
        assert path == "api_sources[0].destination"
        assert "is required and missing" in message

    @pytest.mark.parametrize(
        ("keys", "path"),
        [
            (
                {"basic": {"username": "u", "password": "p"}, "headers": {"authorization": "x"}},
                "headers.authorization",
            ),
            ({"api_key": "k", "headers": {"x-api-key": "x"}}, "headers.x-api-key"),
            ({"headers": {"X-A": "a", "x-a": "b"}}, "headers.x-a"),
            ({"start_time": "1h"}, "start_time"),
            ({"max_pages": 1, "pagination": {**PAGE, "max_pages": 1}}, "pagination.max_pages"),
            ({"tls": {}, "endpoint": "http://h"}, None),
            ({"tls": {"accept_invalid_certs": True}, "endpoint": "http://h"}, "tls"),
            ({"params": {"skip": 1}, "pagination": OFFSET}, "params.skip"),
            ({"params": {"limit": 1}, "pagination": OFFSET}, "params.limit"),
            ({"params": {"cursor": 1}, "pagination": CURSOR}, "params.cursor"),
            ({"params": {"page": 1}, "pagination": PAGE}, "params.page"),
            ({"params": {"since": 1}, "time_filter_param": "since"}, "params.since"),
            ({"endpoint": "https://h?skip=1", "pagination": OFFSET}, "endpoint"),
            ({"endpoint": "https://h?limit", "pagination": OFFSET}, "endpoint"),
            ({"endpoint": "https://h?cur%73or=", "pagination": CURSOR}, "endpoint"),
            ({"endpoint": "https://h?a=b&page=1", "pagination": PAGE}, "endpoint"),
            ({"endpoint": "https://h?since=1", "time_filter_param": "since"}, "endpoint"),
            (
                {"time_filter_param": "limit", "pagination": OFFSET},
                "pagination.limit_param",
            ),
        ],
    )
    def test_in_a_source(self, keys: dict[str, Any], path: str | None) -> None:
        if path is None:
            assert read(one(**keys))
        else:
            assert only(one(**keys))[0] == f"api_sources[0].{path}"

    def test_a_key_needs_its_certificate(self, tmp_path: Path) -> None:
        pem = tmp_path / "key.pem"
        pem.write_text("x", encoding="ascii")
        path, message = only(shipping(tls={"key_path": str(pem)}))
        assert path == "api_sources[0].destination.tls.key_path"
        assert "cert_path" in message

    @pytest.mark.parametrize(
        ("keys", "names"),
        [
            ({"api_key": "k", "basic": {"username": "u", "password": "p"}}, ("api_key", "basic")),
            ({"api_key": "k", "auth": {"type": "bearer", "token": "t"}}, ("api_key", "auth")),
        ],
    )
    def test_two_ways_of_authentication_are_both_named(
        self, keys: dict[str, Any], names: tuple[str, str]
    ) -> None:
        path, message = only(shipping(**keys))
        assert path == "api_sources[0].destination"
        assert all(f"`{name}`" in message for name in names)

    @pytest.mark.parametrize(
        "keys",
        [
            {"api_key": "k", "headers": {"Authorization": "x"}},
            {
                "auth": {"type": "header", "name": "Authorization", "value": "v"},
                "headers": {"authorization": "x"},
            },
        ],
    )
    def test_a_header_of_a_destination_is_not_sent_twice(self, keys: dict[str, Any]) -> None:
        path, _ = only(shipping(**keys))
        assert path.startswith("api_sources[0].destination.headers.")

    def test_a_time_filter_needs_no_timestamp_field(self) -> None:
        assert source(time_filter_param="since", start_time="1h").start_time == timedelta(hours=1)


class TestFile:
    """The file as a whole."""

    def whole(self, text: str) -> str:
        """Return the message about the file as a whole."""
        path, message = only(text)
        assert path == ""
        assert message.startswith("test.yaml ")
        return message

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "---", "null", "~"])
    def test_an_empty_file_is_refused(self, text: str) -> None:
        assert "is empty" in self.whole(text)

    @pytest.mark.parametrize("text", ["- a", "text", "7"])
    def test_the_top_level_is_a_mapping(self, text: str) -> None:
        assert "must be a mapping" in self.whole(text)

    @pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a:\n  token: hunter2\n  b: c: d", "line 3, column 7"),
            ("a: [hunter2", "is no YAML at line"),
            ("a: 'hunter2", "is no YAML at line"),
            ("token: *hunter2", "alias"),
            ("token: !x!hunter2 y", "is no YAML at line 1"),
            ("a:\n\ttoken: hunter2", "indent with spaces"),
            ("token: @hunter2", "cannot begin with @"),
            ("token: %hunter2", "cannot begin with %"),
            ("token: `hunter2", "cannot begin with `"),
            ("a: &hunter2 1\nb: &hunter2 2", "a second time at line 2"),
            ("a: 1\n---\ntoken: hunter2", "second document"),
            ("token: hunter2\x00", "control characters"),
            ("token: hunter2\ud800", "broken Unicode"),
            ("[" * 100_000, "levels deep"),
            ("a: {x: ${hunter2}}", "is no YAML at line 1"),
        ],
    )
    def test_broken_yaml_is_reported_by_its_place_alone(
        self, monkeypatch: pytest.MonkeyPatch, loader: str, text: str, words: str
    ) -> None:
        """T67: yaml's own message quotes the line, with the secret on it."""
        monkeypatch.setattr(config, "_LOADER", getattr(yaml, loader, yaml.SafeLoader))
        with pytest.raises(ConfigError) as caught:
            config.parse(text, {}, origin="test.yaml")
        assert words in str(caught.value)
        assert "hunter2" not in shown(caught.value)

    def test_a_key_given_twice_is_named_with_its_lines(self) -> None:
        text = "api_sources:\n- name: a\n  endpoint: https://h\n  name: b\n"
        found = problems(text + "destination: {endpoint: https://h}\n")
        assert list(found) == ["api_sources[0].name"]
        assert "at lines 2 and 4" in found["api_sources[0].name"]

    @pytest.mark.parametrize(
        "value", ["!!python/object/apply:os.system [hunter2]", "!hunter2 x", "!!int hunter2"]
    )
    def test_only_plain_values_are_taken(self, value: str) -> None:
        text = f"api_sources:\n- name: a\n  endpoint: https://h\n  api_key: {value}\n"
        path, message = only(text + "destination: {endpoint: https://h}\n")
        assert path == "api_sources[0].api_key"
        assert "hunter2" not in message

    def test_anchors_upon_anchors_are_refused_in_time(self) -> None:
        levels = ["a0: &a0 [x, x]"]
        levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
        merges = ["b0: &b0 {x: y}"]
        merges += [f"b{n}: &b{n} {{<<: [*b{n - 1}, *b{n - 1}]}}" for n in range(1, 35)]
        for bomb in (levels, merges):
            began_at = time.monotonic()
            assert "values once its anchors are followed" in self.whole("\n".join(bomb))
            assert time.monotonic() - began_at < 20

    @pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
    def test_an_anchor_inside_itself_is_refused(self, text: str) -> None:
        assert "inside itself" in self.whole(text)

    def test_a_merge_takes_mappings_only(self) -> None:
        assert "merges something at line 1" in problems("<<: 7")[""]

    def test_a_key_is_text(self) -> None:
        assert "a key at line 1" in problems("? [a, b]\n: c")[""]

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.yaml"
        with pytest.raises(ConfigError, match=re.escape(f"{path} does not exist")):
            config.load(path, {})

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            config.load(tmp_path, {})

    def test_a_file_in_another_encoding_is_refused(self, tmp_path: Path) -> None:
        """T67: the bytes that do not fit are not shown."""
        path = tmp_path / "latin.yaml"
        path.write_bytes(b"token: hunter2\xe9")
        with pytest.raises(ConfigError, match=r"offset 14") as caught:
            config.load(path, {})
        assert "hunter2" not in shown(caught.value)

    def test_a_file_too_large_to_be_one_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "large.yaml"
        path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))
        with pytest.raises(ConfigError, match="larger than 16 MiB"):
            config.load(path, {})

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "bom.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(one()).encode())
        assert config.load(path, {}).sources[0].name == "a"


FULL: dict[str, Any] = {
    "api_sources": [
        {
            **entry(),
            "headers": {"X-A": "a"},
            "basic": {"username": "u", "password": "p"},
            "api_key": "k",
            "params": {"p": "v"},
            "polling_frequency_ms": 1,
            "results_field": "r",
            "timestamp_field": "t",
            "message_field": "m",
            "id_field": "i",
            "time_filter_param": "since",
            "time_filter_format": "unix",
            "start_time": "1h",
            "lookback_ms": 0,
            "max_pages": 1,
            "max_response_bytes": 1,
            "timeout_ms": 1,
            "tls": {"accept_invalid_certs": True},
            "pagination": {**CURSOR, "page_size": 1},
            "buffer_size": 1,
            "flush_interval_ms": 1,
            "match_on": ["a"],
            "exclude_on": "b",
            "destination": {
                "type": "http",
                "endpoint": "https://siem.example",
                "headers": {"X-B": "b"},
                "auth": {"type": "bearer", "token": "t"},
                "api_key": "k",
                "basic": {"username": "u", "password": "p"},
                "require_auth": True,
                "compression": True,
                "format": "json",
                "concurrency": 1,
                "tls": {"accept_invalid_certs": True},
                "timeout_ms": 1,
            },
        }
    ],
    "retry": {"max_retries": 1, "initial_delay_ms": 1, "max_delay_ms": 1, "max_queue_size": 1},
    "dead_letter_path": "x",
}


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += places(item, (*path, key))
    return found


def put(file: dict[str, Any], path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """Return a copy of a file with another value at a path."""
    copy: dict[str, Any] = json.loads(json.dumps(file))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


class TestSecrets:
    """T67: no message, repr or traceback shows a value."""

    @pytest.mark.parametrize("place", places(FULL), ids=lambda place: ".".join(map(str, place)))
    @pytest.mark.parametrize(
        "wrong",
        [SECRET, [SECRET], {"x": SECRET}, {SECRET: None}, f" {SECRET}\n", f"${{x-{SECRET}}}"],
        ids=["text", "list", "mapping", "key", "spaces", "expansion"],
    )
    def test_a_value_in_the_wrong_place_is_never_shown(
        self, place: tuple[str | int, ...], wrong: object
    ) -> None:
        """T67: whatever stands wherever it should not."""
        with pytest.raises(ConfigError) as caught:
            read(put(FULL, place, wrong))
        assert SECRET not in shown(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("place", places(FULL), ids=lambda place: ".".join(map(str, place)))
    def test_a_mistyped_key_does_not_show_its_value(self, place: tuple[str | int, ...]) -> None:
        """T67: pydantic's own message for an unknown key prints the value."""
        with pytest.raises(ConfigError) as caught:
            read(
                put(FULL, (*place[:-1], "api_kye") if isinstance(place[-1], str) else place, SECRET)
            )
        assert SECRET not in shown(caught.value)

    def test_a_forgotten_space_does_not_make_a_secret_a_key_to_show(self) -> None:
        """T67: `{api_key:hunter2}` is one key to YAML."""
        text = """
        api_sources:
        - {name: a, endpoint: "https://h", api_key:hunter2, headers: {X-Key:hunter2, hunter2}}
        destination: {endpoint: "https://h"}
        """
        found = problems(text)
        assert "api_sources[0].<key at line 3>" in found
        assert "hunter2" not in str(found)

    def test_settings_do_not_show_secrets(self) -> None:
        """T67: in a log line or a debugger."""
        keys: dict[str, Any] = {
            "endpoint": f"https://h/?token={SECRET.replace(' ', '+')}",
            "headers": {"X-A": SECRET},
            "params": {"p": SECRET},
            "api_key": SECRET,
        }
        keys["destination"] = {
            "endpoint": "https://h",
            "auth": {"type": "basic", "username": "u", "password": SECRET},
        }
        assert "hunter2" not in repr(read(one(**keys)))


class TestSchema:
    """The JSON Schema for editors."""

    def check(self, file: object) -> bool:
        """Tell whether a file fits the schema."""
        return bool(jsonschema.Draft202012Validator(config.json_schema()).is_valid(file))

    def test_is_itself_valid(self) -> None:
        schema = config.json_schema()
        assert schema["$schema"].endswith("2020-12/schema")
        jsonschema.Draft202012Validator.check_schema(schema)

    def test_describes_every_key(self) -> None:
        schema = config.json_schema()
        models = [schema, *schema["$defs"].values()]
        keys = {name: key for model in models for name, key in model["properties"].items()}
        assert {"api_sources", "next_cursor_field", "accept_invalid_certs"} <= set(keys)
        assert [name for name, key in keys.items() if not key.get("description")] == []
        assert [name for name, key in keys.items() if not key.get("title")] == []

    def test_takes_a_file_with_every_key(self) -> None:
        assert self.check(FULL)

    @pytest.mark.parametrize(
        "keys",
        [
            {"buffer_size": "${SIZE}"},
            {"tls": {"accept_invalid_certs": "${X:-true}"}},
            {"match_on": "a"},
            {"params": {"a": 1, "b": True, "c": "d"}, "headers": {"X-A": 1}},
            {"max_pages": "${PAGES}"},
            {"time_filter_format": "${FORMAT}"},
        ],
    )
    def test_takes_what_is_right(self, keys: dict[str, Any]) -> None:
        assert self.check(one(**keys))

    @pytest.mark.parametrize(
        "keys",
        [
            {"buffer_size": "100"},
            {"buffer_size": True},
            {"buffer_size": 0},
            {"polling_frequncy_ms": 1},
            {"time_filter_format": "rfc"},
            {"pagination": {"pagination_type": "page"}},
            {"destination": {}},
        ],
    )
    def test_refuses_what_is_wrong(self, keys: dict[str, Any]) -> None:
        assert not self.check(one(**keys))
