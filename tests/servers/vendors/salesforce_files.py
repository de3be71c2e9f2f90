"""Salesforce's event log files: listed by a query, then got one by one as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from flicker.demo.servers import Request, Response
from tests.servers.vendors.access import bare, bearer, given, issue
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, expression, iso
from tests.servers.vendors.salesforce import QUERY, name_instance, write_errors, write_records

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import VendorApi

_TOKEN_PATH = "/services/oauth2/token"
_DATA = "/services/data/v61.0"
_QUERY = (
    r"SELECT [\w, ]+ FROM EventLogFile WHERE CreatedDate >= (?P<since>\S+) "
    r"AND Interval = 'Daily' ORDER BY CreatedDate ASC, Id ASC"
)
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


VENDORS = (
    Vendor(
        name="salesforce-event-log-file",
        emulated=(
            "SOQL with a lower bound, relative `nextRecordsUrl`, fewer rows than asked for; then "
            "each `LogFile` as CSV with commas, quotes and line breaks in its fields; tokens for "
            "client credentials, that expire; 403 with `REQUEST_LIMIT_EXCEEDED`"
        ),
        not_emulated="SOQL beyond that, locators that expire, files that come days late",
        routes={
            f"POST {_TOKEN_PATH}": issue(
                more=name_instance,
                grant_type="client_credentials",
                client_id="salesforce-id",
                client_secret="salesforce-secret",
            ),
            f"GET {QUERY}*": Listing(
                envelope=write_records,
                bounds=expression("q", _QUERY),
                gaps=1,
                locator_path=f"{QUERY}/01g",
                limit_param=None,
                default_limit=_PAGE_SIZE,
            ),
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
        limited=bare(403, write_errors(403, "TotalRequests Limit exceeded.")),
        parts=_PARTS,
        page_size=_PAGE_SIZE,
        error_body=write_errors,
    ),
)
