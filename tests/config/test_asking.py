"""How an API is asked: POST and its body, many sources of one entry, shared limits."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from flicker import config
from flicker.config.models import ConfigFile
from flicker.errors import ConfigError
from tests.config.files import CURSOR, OFFSET, SECRET, entry, one, only, problems, read, shown
from tests.config.files import source as read_source

POST: dict[str, Any] = {"method": "POST"}
OAUTH2: dict[str, Any] = {
    "token_url": "https://login.example/token",
    "client_id": "c",
    "client_secret": "s3cr3t",
}


def check(file: object) -> bool:
    """Tell whether a file fits the schema."""
    return bool(jsonschema.Draft202012Validator(config.json_schema()).is_valid(file))


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "POST", "body": {"a": [1, {"b": None}], "c": True}},
        {"method": "POST"},
        {"method": "POST", "pagination": {**CURSOR, "location": "query"}},
        {"method": "POST", "pagination": {**CURSOR, "location": "body"}},
        {"params": {"actions": ["a", 1, True], "b": "c"}},
        {"foreach": ["a", 1, 2.5], "params": {"x": "{item}"}},
        {"foreach": ["a"], "headers": {"X-Tenant": "{item}"}},
        {"requests_per_second": 0.5, "rate_limit_group": "g"},
        {"requests_per_second": 20},
        {"requests_per_second": "${RATE}"},
        {"response_format": "ndjson"},
        {"fetch_each": {"url_field": "u", "results_field": "", "id_field": ["a", "b"]}},
        {"fetch_each": {"url_field": "u"}, "response_format": "csv", "results_field": "r"},
        {"fetch_each": {"url_field": "u", "success_field": "ok", "error_field": "0.error"}},
        {"time_filter_param": "t", "time_filter_end_param": "t"},
    ],
)
def test_the_schema_takes_what_is_read(keys: dict[str, Any]) -> None:
    assert read(one(**keys), {"RATE": "0.25"})
    assert check(one(**keys))


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"method": "PUT"}, "method"),
        ({"method": "POST", "body": [1]}, "body"),
        ({"method": "POST", "body": "{}"}, "body"),
        ({"params": {"a": []}}, "params.a"),
        ({"params": {"a": [["b"]]}}, "params.a[0]"),
        ({"params": {"a": {"b": "c"}}}, "params.a"),
        ({"foreach": [], "params": {"x": "{item}"}}, "foreach"),
        ({"foreach": "a", "params": {"x": "{item}"}}, "foreach"),
        ({"foreach": [""], "params": {"x": "{item}"}}, "foreach[0]"),
        ({"foreach": [["a"]], "params": {"x": "{item}"}}, "foreach[0]"),
        ({"foreach": [False], "params": {"x": "{item}"}}, "foreach[0]"),
        ({"requests_per_second": 0}, "requests_per_second"),
        ({"requests_per_second": -1}, "requests_per_second"),
        ({"requests_per_second": "1"}, "requests_per_second"),
        ({"response_format": "xml"}, "response_format"),
        ({"response_format": ["csv"]}, "response_format"),
        ({"fetch_each": {}}, "fetch_each.url_field"),
        ({"fetch_each": {"url_field": "u", "url": "x"}}, "fetch_each.url"),
    ],
)
def test_the_schema_refuses_what_is_refused(keys: dict[str, Any], path: str) -> None:
    assert only(one(**keys))[0] == f"api_sources[0].{path}"
    assert not check(one(**keys))


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"body": {"a": 1}}, "body", "add `method: POST`"),
        ({"method": "GET", "body": {}}, "body", "add `method: POST`"),
        ({"pagination": {**CURSOR, "location": "body"}}, "pagination.location", "`method: POST`"),
        (
            {**POST, "body": {"limit": 1}, "pagination": OFFSET},
            "body.limit",
            "`pagination.limit_param`",
        ),
        (
            {**POST, "body": {"f": {"since": 1}}, "time_filter_param": "f.since"},
            "body.f.since",
            "leave it null",
        ),
        (
            {**POST, "body": {"f.x": 1}, "time_filter_param": "f.x"},
            "body.<key at line 1>",
            "`time_filter_param`",
        ),
        ({**POST, "body": {"f": "x"}, "time_filter_param": "f.since"}, "body.f", "is overwritten"),
        (
            {**POST, "body": {"f": [1]}, "time_filter_param": "f.since"},
            "time_filter_param",
            "leads into a list of 1 at `since`",
        ),
        (
            {**POST, "body": {"f": [{}]}, "time_filter_param": "f.1.since"},
            "time_filter_param",
            "leads into a list of 1 at `1`",
        ),
        (
            {**POST, "time_filter_param": "t", "time_filter_end_param": "t"},
            "time_filter_end_param",
            "in a body one name has one value",
        ),
        (
            {**POST, "time_filter_param": "limit.x", "pagination": OFFSET},
            "time_filter_param",
            "leads into what `pagination.limit_param` names",
        ),
        (
            {"fetch_each": {"url_field": "u"}, "decode_field": "d"},
            "decode_field",
            "`fetch_each`",
        ),
        (
            {"fetch_each": {"url_field": "u"}, "explode_field": "d"},
            "explode_field",
            "`fetch_each`",
        ),
        (
            {"response_format": "csv", "fetch_each": {"url_field": "u", "error_field": "e"}},
            "fetch_each.error_field",
            "not json",
        ),
        ({"response_format": "ndjson", "results_field": "r"}, "results_field", "not json"),
        ({"response_format": "csv", "success_field": "r"}, "success_field", "not json"),
        (
            {"response_format": "csv", "pagination": CURSOR},
            "pagination.next_cursor_field",
            "not json",
        ),
        ({"foreach": ["a"]}, "foreach", "has nowhere to go"),
        ({"foreach": ["a"], "params": {"{item}": "x"}}, "params.<key at line 1>", "no item is put"),
        ({"foreach": ["a"], "results_field": "{item}"}, "results_field", "no item is put"),
        (
            {"foreach": ["a"], "destination": {"endpoint": "https://siem.example/{item}"}},
            "destination.endpoint",
            "no item is put",
        ),
        (
            {
                "foreach": ["a"],
                "endpoint": "https://h/{item}",
                "aws_sigv4": {"service": "s", "region": "{item}", "profile": "p-{item}"},
            },
            "aws_sigv4.profile",
            "no item is put",
        ),
        (
            {
                "foreach": ["a"],
                "oauth2": {**OAUTH2, "scope": "{item}", "extra": {"resource": "{item}"}},
            },
            "oauth2.extra.resource",
            "no item is put",
        ),
        ({"endpoint": "https://h/{item}"}, "endpoint", "items of `foreach`: add that"),
        ({"params": {"x": "{item}"}}, "params.x", "items of `foreach`: add that"),
        (
            {"foreach": ["a", "b", "a"], "params": {"x": "{item}"}},
            "foreach[2]",
            "is given twice",
        ),
        (
            {"foreach": ["a", "b c"], "endpoint": "https://{item}..example.com/x"},
            "foreach[0]",
            "makes an `endpoint` that has no valid host name",
        ),
        (
            {"foreach": ["a", "\u2013"], "headers": {"X-Tenant": "t-{item}"}},
            "foreach[1]",
            "makes a header X-Tenant that holds a character outside Latin-1",
        ),
    ],
)
def test_says_where_what_and_what_to_do(keys: dict[str, Any], path: str, words: str) -> None:
    found = problems(one(**keys))
    assert words in found[f"api_sources[0].{path}"]


def test_no_item_is_put_into_the_destination_of_all_sources() -> None:
    file = one(foreach=["a"], params={"x": "{item}"})
    found = problems({**file, "destination": {"endpoint": "https://siem.example/{item}"}})
    assert "no item is put" in found["destination.endpoint"]


@pytest.mark.parametrize("number", [".nan", "-.inf"])
def test_a_body_holds_only_what_json_has_words_for(number: str) -> None:
    file = f"""
api_sources:
- {{name: a, endpoint: "https://h", method: POST, body: {{a: [{{b: {number}}}]}}}}
destination: {{endpoint: "https://siem.example"}}
"""
    path, message = only(file)
    assert path == "api_sources[0].body.a[0].b"
    assert "JSON" in message


def test_null_keeps_a_place_in_the_body() -> None:
    body = {"a.b": None, "page": {"skip": None}}
    pagination = {**OFFSET, "offset_param": "page.skip"}
    assert read(one(method="POST", body=body, time_filter_param="a.b", pagination=pagination))


@pytest.mark.parametrize(
    ("keys", "location"),
    [
        ({}, "query"),
        ({"pagination": CURSOR}, "query"),
        ({"method": "POST"}, "body"),
        ({"method": "POST", "pagination": CURSOR}, "body"),
        ({"method": "POST", "pagination": {**CURSOR, "location": "query"}}, "query"),
    ],
)
def test_the_body_of_a_post_is_where_things_go(keys: dict[str, Any], location: str) -> None:
    assert read_source(**keys).location == location


def test_a_parameter_in_the_query_of_a_post_may_be_named_as_one_in_its_body() -> None:
    assert read(one(method="POST", params={"limit": 1}, pagination=OFFSET))


def test_each_item_makes_a_source() -> None:
    file = one(
        name="logs",
        endpoint="https://{item}.example.com/v1/{item}?type={item}",
        foreach=["eu", "us"],
        params={"x": ["{item}", "all"]},
        headers={"X-Tenant": "t-{item}"},
        method="POST",
        body={"q-{item}": [{"in": "<{item}>"}, 1]},
        time_filter_param="since",
        time_filter_template="{item}:{since}",
    )
    sources = read(file).sources
    assert [source.name for source in sources] == ["logs/eu", "logs/us"]
    eu = sources[0]
    assert eu.endpoint.url == "https://eu.example.com/v1/eu?type=eu"
    assert [(name, value.reveal()) for name, value in eu.params] == [("x", "eu"), ("x", "all")]
    assert eu.endpoint.headers[0][1].reveal() == "t-eu"
    assert eu.body is not None
    assert json.loads(eu.body.reveal()) == {"q-eu": [{"in": "<eu>"}, 1]}
    assert eu.time_filter_template == "eu:{since}"
    assert {source.rate_limit_group for source in sources} == {"logs"}


def test_an_item_alone_in_the_credentials_makes_a_source() -> None:
    """Microsoft's scopes name what is asked."""
    scopes = {**OAUTH2, "scope": "https://{item}/.default"}
    sources = read(one(foreach=["one", "two"], oauth2=scopes)).sources
    grants = [source.endpoint.credentials.oauth2 for source in sources]
    assert [grant and grant.scope for grant in grants] == [
        "https://one/.default",
        "https://two/.default",
    ]
    aws = {"service": "cloudtrail", "region": "{item}"}
    (source,) = read(one(foreach=["eu-west-1"], aws_sigv4=aws)).sources
    assert source.endpoint.credentials.aws_sigv4 is not None
    assert source.endpoint.credentials.aws_sigv4.region == "eu-west-1"


def test_a_pattern_may_look_for_braces() -> None:
    file = one(endpoint="https://h/{item}", foreach=["a"], match_on=["{item}"])
    assert read(file).sources[0].match_on[0].pattern == "{item}"


@pytest.mark.parametrize(
    ("item", "url"),
    [
        ("a b&c=d", "https://h/logs/a%20b%26c%3Dd?x=a%20b%26c%3Dd"),
        ("a/b", "https://h/logs/a/b?x=a/b"),
        ("50%?#", "https://h/logs/50%25%3F%23?x=50%25%3F%23"),
        ("\u00e9", "https://h/logs/%C3%A9?x=%C3%A9"),
        ("DeviceEvents:v1", "https://h/logs/DeviceEvents:v1?x=DeviceEvents:v1"),
    ],
)
def test_an_item_is_encoded_in_a_url(item: str, url: str) -> None:
    source = read(one(endpoint="https://h/logs/{item}?x={item}", foreach=[item])).sources[0]
    assert source.endpoint.url == url
    assert source.name == f"a/{item}"


@pytest.mark.parametrize("item", ["a/b", "a b", "a@b", "a?b"])
def test_an_item_leads_to_no_host_of_its_own(item: str) -> None:
    """What the items are is up to somebody else at times."""
    file = one(endpoint="https://{item}.example.com/logs", foreach=[item])
    path, message = only(file)
    assert path == "api_sources[0].foreach[0]"
    assert "makes an `endpoint` that has no valid host name" in message


def test_items_are_what_they_are_written_as() -> None:
    file = """
api_sources:
- {name: a, endpoint: "https://h/{item}", foreach: [007, 1.10, "no"]}
destination: {endpoint: "https://siem.example"}
"""
    assert [source.name for source in read(file).sources] == ["a/007", "a/1.10", "a/no"]
    path, message = only(file.replace("007", "'no'"))
    assert path == "api_sources[0].foreach[2]"
    assert "is given twice" in message
    path, message = only(file.replace('"no"', "no"))
    assert path == "api_sources[0].foreach[2]"
    assert "put the item in quotes" in message


def test_an_item_may_not_make_the_name_of_another_source() -> None:
    file = one(name="logs", endpoint="https://h/{item}", foreach=["eu", "us"])
    file["api_sources"].append(entry(name="logs/us"))
    path, message = only(file)
    assert path == "api_sources[1].name"
    assert "api_sources[0]" in message


@pytest.mark.parametrize(
    "broken",
    [
        {"method": "POST", "body": {"token": SECRET, "x": [SECRET]}, "timeout_ms": SECRET},
        {"method": "POST", "body": [SECRET]},
        {"method": "POST", "body": SECRET},
        {"body": {"token": SECRET}},
        {"method": "POST", "body": {"limit": SECRET}, "pagination": OFFSET},
        {"method": "POST", "body": {"f": [SECRET]}, "time_filter_param": "f.x"},
        {"params": {"token": [SECRET, {"a": SECRET}]}},
        {"params": {"limit": [SECRET, SECRET]}, "pagination": OFFSET},
        {"params": {"token": [SECRET]}, "foreach": ["a", "a"]},
    ],
)
def test_no_message_shows_what_is_asked_with(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(one(**broken))
    assert SECRET not in shown(caught.value)


def test_no_repr_shows_what_is_asked_with() -> None:
    file = one(method="POST", body={"token": SECRET}, params={"key": [SECRET, SECRET]})
    assert SECRET not in repr(read(file))
    assert SECRET not in repr(ConfigFile.model_validate(file))
