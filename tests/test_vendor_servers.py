"""The vendors' servers refuse what the vendors refuse: nothing else proves a configuration."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.servers.vendors import VENDORS
from tests.servers.vendors.emulator import NS_PER_S, VendorApi
from tests.servers.vendors.listing import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_S = 86_400


@contextmanager
def _serve(name: str, count: int = 0, **how: int) -> Iterator[VendorApi]:
    with VendorApi(VENDORS[name]) as api:
        api.add(count, **how)
        yield api


def _get(
    api: VendorApi, path: str, params: Any = None, headers: dict[str, str] | None = None
) -> requests.Response:
    authorization = {"Authorization": f"Bearer {api.issue_token()}"}
    return requests.get(api.url + path, params, headers=headers or authorization, timeout=10)


def _ago(seconds: float, digits: int = 0, zone: str = "Z") -> str:
    return iso(time.time_ns() - int(seconds * NS_PER_S), digits, zone)


@pytest.mark.parametrize("name", VENDORS)
def test_nobody_is_answered_without_credentials(name: str) -> None:
    with _serve(name) as api:
        routes = [route.split() for route in api.vendor.routes]
        closed = [pair for pair in routes if pair[1] not in api.vendor.open_paths]
        for method, path in closed:
            answer = requests.request(method, api.url + path.replace("*", "x"), timeout=10)
            assert answer.status_code == 401, path
        assert len(api.refusals) == len(closed) > 0


OFFICE = "/api/v1.0/tenant-1/activity/feed/subscriptions/content"


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (_ago(DAY_S + 60, zone=""), _ago(30, zone="")),
        (_ago(7 * DAY_S + 60, zone=""), _ago(7 * DAY_S, zone="")),
        (_ago(60, zone=""), None),
        (_ago(60), _ago(0)),
        (_ago(60, 3, zone=""), _ago(0, zone="")),
        (_ago(0, zone=""), _ago(60, zone="")),
    ],
    ids=["longer than a day", "older than a week", "one bound", "zone", "fraction", "backwards"],
)
def test_office_refuses_a_span(since: str, until: str | None) -> None:
    span = {"contentType": "Audit.General", "startTime": since, "endTime": until}
    with _serve("office-365") as api:
        assert _get(api, OFFICE, span).status_code == 400


def test_office_leads_through_pages_of_blobs_by_its_header() -> None:
    listed: list[str] = []
    with _serve("office-365", 47, spread=7) as api:
        url: str | None = f"{api.url}{OFFICE}?contentType=Audit.General"
        sizes = []
        while url is not None:
            answer = _get(api, url.removeprefix(api.url))
            listed += [blob["contentId"] for blob in answer.json()]
            sizes.append(len(answer.json()))
            url = answer.headers.get("NextPageUri")
        assert sizes == [20, 20, 7]
        assert set(listed) == {entry.value["contentId"] for entry in api.log("Audit.General")}
        assert listed != sorted(listed), "blobs come in no order"


def test_box_tells_a_position_from_what_a_float_makes_of_it() -> None:
    with _serve("box", 12) as api:
        query: dict[str, Any] = {"stream_type": "admin_logs_streaming", "limit": 5}
        position = _get(api, "/2.0/events", query).json()["next_stream_position"]
        assert int(float(position)) != position
        exact = _get(api, "/2.0/events", {**query, "stream_position": position})
        rounded = _get(api, "/2.0/events", {**query, "stream_position": int(float(position))})
        assert exact.json()["next_stream_position"] == position + 3
        assert rounded.json() != exact.json()


def test_box_repeats_events_and_gives_them_out_of_order() -> None:
    with _serve("box", 12) as api:
        query = {"stream_type": "admin_logs_streaming", "limit": "10"}
        first = _get(api, "/2.0/events", query).json()
        second = _get(
            api, "/2.0/events", {**query, "stream_position": first["next_stream_position"]}
        ).json()
        ids = [event["event_id"] for page in (first, second) for event in page["entries"]]
        assert len(ids) > len(set(ids)) == 12
        assert ids != sorted(ids)


def test_zoom_clips_a_long_span_without_a_word() -> None:
    with _serve("zoom", 1) as api:
        api.add(1, ago_s=40 * DAY_S)
        path, today = "/v2/report/operationlogs", _ago(0)[:10]
        logs = _get(api, path, {"from": _ago(60 * DAY_S)[:10], "to": today}).json()
        assert len(logs["operation_logs"]) == 1
        assert logs["next_page_token"] == ""


def test_zoom_takes_a_page_token_only_with_the_days_that_it_came_with() -> None:
    with _serve("zoom", 3) as api:
        path = "/v2/report/operationlogs"
        span = {"from": _ago(DAY_S)[:10], "to": _ago(0)[:10], "page_size": "2"}
        token = _get(api, path, span).json()["next_page_token"]
        assert _get(api, path, {**span, "next_page_token": token}).status_code == 200
        moved = {**span, "from": _ago(2 * DAY_S)[:10], "next_page_token": token}
        assert _get(api, path, moved).status_code == 400


@pytest.mark.parametrize(
    "query",
    [{"limit": "101"}, {"starting_after": "evt_none"}, {"created[gte]": "1.5"}, {"since": "1"}],
    ids=str,
)
def test_stripe_refuses(query: dict[str, str]) -> None:
    with _serve("stripe", 3) as api:
        key = {"Authorization": "Bearer stripe-key"}
        assert _get(api, "/v1/events", query, key).status_code == 400


@pytest.mark.parametrize("given", [("start",), ("end",), ()], ids=str)
def test_tailscale_wants_both_bounds(given: tuple[str, ...]) -> None:
    with _serve("tailscale", 1) as api:
        path = "/api/v2/tailnet/-/logging/configuration"
        query = {name: _ago(0) for name in given}
        answer = requests.get(api.url + path, query, auth=("tailscale-key", ""), timeout=10)
        assert answer.status_code == 400


ZENDESK_USER = "auditor@acme.example/token"


def test_zendesk_wants_both_bounds_under_one_name() -> None:
    with _serve("zendesk", 1) as api:
        url, auth = f"{api.url}/api/v2/audit_logs.json", (ZENDESK_USER, "zendesk-token")
        pair = [("filter[created_at][]", _ago(60)), ("filter[created_at][]", _ago(0))]
        assert requests.get(url, pair, auth=auth, timeout=10).status_code == 200
        assert requests.get(url, pair[:1], auth=auth, timeout=10).status_code == 422


def test_1password_repeats_its_cursor_while_nothing_is_new() -> None:
    with _serve("1password", 3) as api:
        url, head = f"{api.url}/api/v2/auditevents", {"Authorization": "Bearer events-token"}
        page = requests.post(url, json={"limit": 3}, headers=head, timeout=10).json()
        for _ in range(2):
            cursor = page["cursor"]
            page = requests.post(url, json={"cursor": cursor}, headers=head, timeout=10).json()
            assert page == {"cursor": cursor, "has_more": False, "items": []}
        both = {"cursor": cursor, "start_time": _ago(0)}
        assert requests.post(url, json=both, headers=head, timeout=10).status_code == 400
