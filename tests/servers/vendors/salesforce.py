"""Salesforce's Setup Audit Trail, through SOQL."""

from __future__ import annotations

from tests.servers.vendors.access import bearer, given, issue, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Vendor, VendorApi, origin_of
from tests.servers.vendors.listing import Listing, Page, expression, iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flicker.demo.servers import Request

QUERY = "/services/data/v61.0/query"


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "attributes": {"type": "SetupAuditTrail"},
        "Id": f"0Ym{serial:015d}",
        "Action": "changedprofile",
        "Section": "Manage Users",
        "CreatedDate": iso(instant_ns, zone="+0000"),
        "CreatedBy": None,
        "Display": "Changed profile",
        "DelegateUser": None,
    }


def write_records(page: Page) -> dict[str, object]:
    """Make the answer to a query; only one with more rows says where they are."""
    body = {"totalSize": page.total, "done": not page.has_more, "records": page.items}
    return {**body, "nextRecordsUrl": page.next_target} if page.has_more else body


def write_errors(status: int, problem: str) -> object:
    """Make the list that errors come in."""
    code = {401: "INVALID_SESSION_ID", 403: "REQUEST_LIMIT_EXCEEDED"}.get(status, "MALFORMED_QUERY")
    return [{"errorCode": code, "message": problem}]


def name_instance(_: VendorApi, request: Request) -> dict[str, object]:
    """Say where the instance is, as a token's answer does."""
    return {"instance_url": origin_of(request)}


VENDORS = (
    Vendor(
        name="salesforce-setup-audit-trail",
        emulated=(
            "`records` of a SOQL query with `>=` and `ORDER BY CreatedDate`; relative "
            "`nextRecordsUrl` until `done`, with smaller batches than asked for; `+0000` "
            "timestamps of whole seconds; OAuth client credentials; errors in a list; 503"
        ),
        not_emulated="SOQL at large, expiry of query locators, the daily limit of requests",
        routes={
            f"GET {QUERY}*": Listing(
                envelope=write_records,
                bounds=expression(
                    "q",
                    r"SELECT [\w., ]+ FROM SetupAuditTrail WHERE CreatedDate >= (?P<since>\S+) "
                    r"ORDER BY CreatedDate(?: ASC)?(?:, ?Id(?: ASC)?)?",
                    required=True,
                ),
                gaps=1,
                locator_path=f"{QUERY}/01g",
                limit_param=None,
                default_limit=150,
            ),
            "POST /services/oauth2/token": issue(
                more=name_instance,
                grant_type="client_credentials",
                client_id="sf-client",
                client_secret="sf-secret",
            ),
        },
        open_paths=("/services/oauth2/token",),
        authorise=bearer,
        environ=given(
            SALESFORCE_DOMAIN="acme.my.salesforce.com",
            SALESFORCE_CLIENT_ID="sf-client",
            SALESFORCE_CLIENT_SECRET="sf-secret",
        ),
        make_event=_make_event,
        serial_of=lambda event: str(int(event["Id"].removeprefix("0Ym"))),
        limited=retry_after(write_errors(503, "Server unavailable"), 503),
        tick_ns=NS_PER_S,
        error_body=write_errors,
    ),
)
