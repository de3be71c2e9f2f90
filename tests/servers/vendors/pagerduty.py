"""PagerDuty's audit trail."""

from __future__ import annotations

from tests.servers.vendors.access import bare, given, headers
from tests.servers.vendors.emulator import Vendor
from tests.servers.vendors.listing import Listing, bounds, iso


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": f"PDRECORDID_{serial}",
        "execution_time": iso(instant_ns),
        "action": "create",
        "root_resource": {"id": f"PD{serial}", "type": "user_reference"},
    }


VENDORS = (
    Vendor(
        name="pagerduty",
        emulated=(
            "newest first; `cursor`, and `next_cursor` null on the last page; `since` inclusive; "
            "at most 100 a page; both headers insisted on; 429 that names no time"
        ),
        not_emulated="the range that is answered where no bound is given, filters",
        routes={
            "GET /audit/records": Listing(
                envelope=lambda page: {
                    "records": page.items,
                    "next_cursor": page.token,
                    "limit": len(page.items),
                },
                bounds=bounds("since", "until"),
                with_cursor="again",
                gaps=1,
                order="desc",
                max_limit=100,
            )
        },
        authorise=headers(
            authorization="Token token=pagerduty-key",
            accept="application/vnd.pagerduty+json;version=2",
        ),
        environ=given(PAGERDUTY_API_KEY="pagerduty-key"),
        make_event=_make_event,
        serial_of=lambda event: str(event["root_resource"]["id"].removeprefix("PD")),
        limited=bare(body={"error": {"message": "Rate Limit Exceeded", "code": 2020}}),
        error_body=lambda status, problem: {"error": {"message": problem, "code": status}},
    ),
)
