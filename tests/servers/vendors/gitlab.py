"""GitLab's audit events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.servers.vendors.access import given, headers, retry_after
from tests.servers.vendors.emulator import NS_PER_S, Ask, RefusedError, Vendor
from tests.servers.vendors.listing import Listing, bounds, iso, links, rfc3339_seconds

if TYPE_CHECKING:
    from tests.servers.vendors.listing import Bounds

_LONGEST_S = 30 * 24 * 3600
_READ = bounds("created_after", "created_before", parse=rfc3339_seconds)


def _read_bounds(ask: Ask) -> Bounds:
    """Read both; without an upper one, it is now."""
    since_ns, until_ns = _READ(ask)
    last_ns = time.time_ns() if until_ns is None else until_ns
    if since_ns is not None and last_ns - since_ns > _LONGEST_S * NS_PER_S:
        raise RefusedError("created_after is more than 30 days before created_before")
    return since_ns, until_ns


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    return {
        "id": serial + 1,
        "author_id": 1,
        "entity_type": "Project",
        "created_at": iso(instant_ns),
        "details": {"custom_message": "Project archived"},
    }


VENDORS = (
    Vendor(
        name="gitlab",
        emulated=(
            "root array by descending id; keyset `Link` behind each page, none behind an empty "
            "one; `created_after` and `created_before` inclusive, to the second, 30 days apart at "
            "most; at most 100 a page; 429 with `Retry-After`"
        ),
        not_emulated="offset paging, totals",
        routes={
            "GET /api/v4/audit_events": Listing(
                envelope=lambda page: page.items,
                headers=links,
                bounds=_read_bounds,
                has_next="each",
                gaps=1,
                order="desc",
                ordered_by="arrival",
                limit_param="per_page",
                default_limit=20,
                max_limit=100,
                required={"pagination": "keyset", "order_by": "id", "sort": "desc"},
            )
        },
        authorise=headers(private_token="gitlab-token"),
        environ=given(GITLAB_HOST="gitlab.acme.example", GITLAB_TOKEN="gitlab-token"),
        make_event=_make_event,
        serial_of=lambda event: str(event["id"] - 1),
        limited=retry_after("Retry later\n"),
        error_body=lambda _, problem: {"error": problem},
    ),
)
