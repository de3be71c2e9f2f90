"""CrowdStrike's alerts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bearer, given, issue
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, expression, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import VendorApi
    from tests.servers.vendors.listing import Page

_TOKEN_PATH = "/oauth2/token"
# An alert changes again and again under its id, so the events share this many ids.
_ALERTS = 100

_issue = issue(
    grant_type="client_credentials",
    client_id="crowdstrike-id",
    client_secret="crowdstrike-secret",
)


def _issue_token(api: VendorApi, request: Request) -> Response:
    """Hand out a token with 201, as CrowdStrike does."""
    return replace(_issue(api, request), status=201)


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "composite_id": f"c1:ind:{serial % _ALERTS}",
        "created_timestamp": iso(instant_ns - 1, 9),
        "updated_timestamp": iso(instant_ns, 9),
        "display_name": "Suspicious activity",
        "comments_count": serial,
    }


def _wrap(page: Page) -> dict[str, object]:
    paging = {"limit": len(page.items), "total": page.total}
    if page.token is not None:
        paging["after"] = page.token
    return {"meta": {"pagination": paging}, "errors": [], "resources": page.items}


VENDORS = (
    Vendor(
        name="crowdstrike-alerts",
        emulated=(
            "POST with FQL, `sort` and `after` in the body; alerts that change under one id; too "
            "many requests told by `errors` in an answer of status 200; at most 1,000 a page; "
            "tokens for client credentials, that expire, with status 201"
        ),
        not_emulated="429 with the header for the next attempt, FQL beyond one lower bound",
        routes={
            f"POST {_TOKEN_PATH}": _issue_token,
            "POST /alerts/combined/alerts/v1": Listing(
                envelope=_wrap,
                bounds=expression("filter", r"updated_timestamp:>='(?P<since>[^']+)'"),
                page_param="after",
                with_cursor="again",
                over_limit="refuse",
                choices={"sort": ("updated_timestamp|asc", "updated_timestamp.asc")},
            ),
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            CROWDSTRIKE_HOST="api.crowdstrike.com",
            CROWDSTRIKE_CLIENT_ID="crowdstrike-id",
            CROWDSTRIKE_CLIENT_SECRET="crowdstrike-secret",
        ),
        make_event=_make_event,
        serial_of=lambda event: str(event["comments_count"]),
        limited=lambda: Response(
            200,
            body={
                "meta": {},
                "errors": [{"code": 429, "message": "API rate limit exceeded."}],
                "resources": [],
            },
        ),
        error_body=lambda status, problem: {
            "meta": {},
            "errors": [{"code": status, "message": problem}],
        },
    ),
)
