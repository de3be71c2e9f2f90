"""Microsoft's logs behind Graph and Azure Resource Manager."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.servers.vendors.access import bearer, given, issue, retry_after
from tests.servers.vendors.emulator import NS_PER_S, RefusedError, Vendor
from tests.servers.vendors.listing import Listing, Page, expression, iso, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN_PATH = "/tenant-1/oauth2/v2.0/token"
_RETENTION_NS = 90 * 24 * 3600 * NS_PER_S


def _make_event_at(timestamp: str, identity: str) -> Callable[[int, int], dict[str, object]]:
    def make_event(serial: int, instant_ns: int) -> dict[str, object]:
        return {
            identity: f"Directory_{serial}",
            timestamp: iso(instant_ns, 7),
            "category": "Policy",
        }

    return make_event


def _write_odata(page: Page) -> dict[str, object]:
    body: dict[str, object] = {"@odata.context": "$metadata#auditLogs", "value": page.items}
    return body if page.next_url is None else {**body, "@odata.nextLink": page.next_url}


def _write_azure(page: Page) -> dict[str, object]:
    body: dict[str, object] = {"value": page.items}
    return body if page.next_url is None else {**body, "nextLink": page.next_url}


def _kept(text: str) -> int:
    """Read an instant, of which the log knows the last 90 days."""
    instant_ns = rfc3339(text)
    if instant_ns < time.time_ns() - _RETENTION_NS:
        raise RefusedError("the start is more than 90 days ago")
    return instant_ns


def _issue(scope: str) -> Callable[..., object]:
    return issue(
        grant_type="client_credentials",
        client_id="entra-client",
        client_secret="entra-secret",
        scope=scope,
    )


def _error(status: int, problem: str) -> dict[str, object]:
    return {"error": {"code": str(status), "message": problem}}


_ENTRA = given(
    ENTRA_TENANT_ID="tenant-1",
    ENTRA_CLIENT_ID="entra-client",
    ENTRA_CLIENT_SECRET="entra-secret",
)
_GRAPH = "https://graph.microsoft.com/.default"

VENDORS = (
    Vendor(
        name="entra-directory-audits",
        emulated=(
            "`value`; absolute `@odata.nextLink`; `$filter` with `ge`, inclusive; `$orderby`, "
            "newest first without; timestamps of seven digits; at most 999 a page; OAuth client "
            "credentials; 429 with `Retry-After`"
        ),
        not_emulated="other filters, expiry of links",
        routes={
            "GET /v1.0/auditLogs/directoryAudits": Listing(
                envelope=_write_odata,
                bounds=expression("$filter", r"activityDateTime ge (?P<since>\S+)"),
                page_param="$skiptoken",
                gaps=1,
                order="desc",
                order_param=(
                    "$orderby",
                    {"activityDateTime asc": "asc", "activityDateTime": "asc"},
                ),
                limit_param="$top",
                max_limit=999,
                over_limit="refuse",
            ),
            f"POST {TOKEN_PATH}": _issue(_GRAPH),
        },
        open_paths=(TOKEN_PATH,),
        authorise=bearer,
        environ=_ENTRA,
        make_event=_make_event_at("activityDateTime", "id"),
        serial_of=lambda event: event["id"].rpartition("_")[2],
        limited=retry_after(_error(429, "TooManyRequests")),
        tick_ns=100,
        lag_s=120,
        error_body=_error,
    ),
    Vendor(
        name="entra-sign-ins",
        emulated=(
            "`value`, newest first; absolute `@odata.nextLink`; `$filter` with `ge`, inclusive; at "
            "most 1,000 a page; OAuth client credentials; 429 with `Retry-After`"
        ),
        not_emulated="other filters, expiry of links",
        routes={
            "GET /v1.0/auditLogs/signIns": Listing(
                envelope=_write_odata,
                bounds=expression("$filter", r"createdDateTime ge (?P<since>\S+)"),
                page_param="$skiptoken",
                gaps=1,
                order="desc",
                limit_param="$top",
                max_limit=1000,
                over_limit="refuse",
            ),
            f"POST {TOKEN_PATH}": _issue(_GRAPH),
        },
        open_paths=(TOKEN_PATH,),
        authorise=bearer,
        environ=_ENTRA,
        make_event=_make_event_at("createdDateTime", "id"),
        serial_of=lambda event: event["id"].rpartition("_")[2],
        limited=retry_after(_error(429, "TooManyRequests")),
        tick_ns=NS_PER_S,
        lag_s=120,
        error_body=_error,
    ),
    Vendor(
        name="azure-activity-log",
        emulated=(
            "`value`, newest first; absolute `nextLink`; both bounds mandatory, quoted and "
            "inclusive, and within 90 days; `api-version`; OAuth client credentials; 429 with "
            "`Retry-After`"
        ),
        not_emulated="further filters, `$select`",
        routes={
            "GET /subscriptions/subscription-1/providers/Microsoft.Insights/eventtypes/management"
            "/values": Listing(
                envelope=_write_azure,
                bounds=expression(
                    "$filter",
                    r"eventTimestamp ge '(?P<since>[^']+)' "
                    r"and eventTimestamp le '(?P<until>[^']+)'",
                    parse=_kept,
                    required=True,
                ),
                page_param="$skipToken",
                gaps=1,
                order="desc",
                limit_param=None,
                default_limit=150,
                required={"api-version": "2015-04-01"},
            ),
            f"POST {TOKEN_PATH}": _issue("https://management.azure.com/.default"),
        },
        open_paths=(TOKEN_PATH,),
        authorise=bearer,
        environ=given(
            AZURE_TENANT_ID="tenant-1",
            AZURE_SUBSCRIPTION_ID="subscription-1",
            AZURE_CLIENT_ID="entra-client",
            AZURE_CLIENT_SECRET="entra-secret",
        ),
        make_event=_make_event_at("eventTimestamp", "eventDataId"),
        serial_of=lambda event: event["eventDataId"].rpartition("_")[2],
        limited=retry_after(_error(429, "TooManyRequests")),
        tick_ns=100,
        lag_s=120,
        error_body=_error,
    ),
)
