"""Salesforce's event log files: listed by a query, then got one by one as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bearer, given, issue
from tests.servers.vendors.emulator import Vendor, origin_of
from tests.servers.vendors.listing import Listing, expression, iso

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import VendorApi
    from tests.servers.vendors.listing import Page

_TOKEN_PATH = "/services/oauth2/token"
_DATA = "/services/data/v61.0"
_PARTS = 3
# Salesforce may answer with fewer than the 2,000 rows that it promises at most.
_PAGE_SIZE = 20
_HAPPENED = "2025-01-04T00:00:00.000Z"
_COLUMNS = ("EVENT_TYPE", "TIMESTAMP", "REQUEST_ID", "URI", "TIMESTAMP_DERIVED")


def _make_file(serial: int, instant_ns: int) -> dict[str, object]:
    file_id = f"0ATSM{serial:013d}"
    return {
        "attributes": {
            "type": "EventLogFile",
            "url": f"{_DATA}/sobjects/EventLogFile/{file_id}",
        },
        "Id": file_id,
        "EventType": "Login",
        "LogDate": iso(instant_ns, 3, "+0000"),
        "CreatedDate": iso(instant_ns, 3, "+0000"),
        "LogFile": f"{_DATA}/sobjects/EventLogFile/{file_id}/LogFile",
    }


def _wrap(page: Page) -> dict[str, object]:
    body = {"totalSize": page.total, "done": page.token is None, "records": page.items}
    return body if page.token is None else {**body, "nextRecordsUrl": page.next_target}


def _get_file(_: VendorApi, request: Request) -> Response:
    """Write a file whose fields hold commas, quotes and line breaks."""
    serial = int(request.path.split("/")[-2].removeprefix("0ATSM"))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for part in range(_PARTS):
        request_id = f"{serial}.{part}"
        writer.writerow(("Login", "20250104000000.000", request_id, '/a,"b"\n', _HAPPENED))
    return Response(200, [("Content-Type", "text/csv")], text.getvalue())


_query = Listing(
    envelope=_wrap,
    bounds=expression("q", r"SELECT .* WHERE .*CreatedDate >= (?P<since>\S+).* ORDER BY .*"),
    page_param="locator",
    with_cursor="not",
    next_path=f"{_DATA}/query/01gRO0000016PIAYA2",
    limit_param=None,
    default_limit=_PAGE_SIZE,
)


VENDORS = (
    Vendor(
        name="salesforce-event-log-file",
        emulated=(
            "SOQL with a lower bound, relative `nextRecordsUrl`, fewer rows than asked for; then "
            "each `LogFile` as CSV with commas, quotes and line breaks in its fields; tokens for "
            "client credentials, that expire; 503 with `REQUEST_LIMIT_EXCEEDED`"
        ),
        not_emulated="SOQL beyond that, locators that expire, files that come days late",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                more=lambda _, request: {"instance_url": origin_of(request)},
                grant_type="client_credentials",
                client_id="salesforce-id",
                client_secret="salesforce-secret",
            ),
            f"GET {_DATA}/query": _query,
            f"GET {_query.next_path}": _query,
            f"GET {_DATA}/sobjects/EventLogFile/*": _get_file,
        },
        authorise=bearer,
        open_paths=(_TOKEN_PATH,),
        environ=given(
            SALESFORCE_DOMAIN="acme.my.salesforce.com",
            SALESFORCE_CLIENT_ID="salesforce-id",
            SALESFORCE_CLIENT_SECRET="salesforce-secret",
        ),
        make_event=_make_file,
        serial_of=lambda event: str(event["REQUEST_ID"]),
        limited=lambda: Response(
            503, body=[{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "Too many requests"}]
        ),
        parts=_PARTS,
        error_body=lambda _, problem: [{"errorCode": "MALFORMED_QUERY", "message": problem}],
    ),
)
