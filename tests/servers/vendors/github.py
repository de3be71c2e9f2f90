"""GitHub's audit logs: in its cloud by cursor, on one's own server by page."""

from __future__ import annotations

from tests.servers.vendors.access import given, headers, reset_at, retry_after
from tests.servers.vendors.emulator import NS_PER_MS, NS_PER_S, Vendor
from tests.servers.vendors.listing import Listing, Page, expression, rfc3339

_ORDERS = ("order", {"asc": "asc", "desc": "desc"})
_HEADERS = {
    "authorization": "Bearer github-token",
    "accept": "application/vnd.github+json",
}


def _created(text: str) -> int:
    """Read an instant as the search does: to the second."""
    instant_ns = rfc3339(text)
    return instant_ns - instant_ns % NS_PER_S


def _make_event(serial: int, instant_ns: int) -> dict[str, object]:
    at_ms = instant_ns // NS_PER_MS
    event: dict[str, object] = {
        "@timestamp": at_ms,
        "_document_id": f"9hC0quDshWUm{serial}",
        "action": "git.clone" if serial % 3 else "repo.create",
        "org": ["acme"] if serial % 2 else "acme",
    }
    # Events of git have no `created_at`.
    return event if serial % 3 else {**event, "created_at": at_ms}


def _write_links(page: Page) -> list[tuple[str, str]]:
    """Give all relations in one line, that of the first page with an empty cursor."""
    parts = [f'<{page.origin}{page.target.partition("?")[0]}?after=&before=>; rel="first"']
    if page.next_url is not None:
        parts.insert(0, f'<{page.next_url}>; rel="next"')
    return [("Link", ", ".join(parts))]


def _serial_of(event: dict[str, str]) -> str:
    return event["_document_id"].removeprefix("9hC0quDshWUm")


_BOUNDS = expression("phrase", r"created:>=(?P<since>\S+)", parse=_created)

VENDORS = (
    Vendor(
        name="github",
        emulated=(
            "root array; cursors in one `Link` line with `first`, whose path is "
            "`/organizations/ID`; time in `phrase` only, to the second; newest first unless "
            "`order=asc`; at most 100 a page; 403 with `x-ratelimit-remaining: 0`"
        ),
        not_emulated="secondary limits, other qualifiers of `phrase`, retention",
        routes={
            f"GET {path}": Listing(
                envelope=lambda page: page.items,
                headers=_write_links,
                bounds=_BOUNDS,
                page_param="after",
                gaps=1,
                next_path="/organizations/80307827/audit-log",
                order="desc",
                order_param=_ORDERS,
                limit_param="per_page",
                default_limit=30,
                max_limit=100,
                choices={"include": ("web", "git", "all")},
            )
            for path in ("/orgs/acme/audit-log", "/organizations/80307827/audit-log")
        },
        authorise=headers(**_HEADERS),
        environ=given(GITHUB_ORG="acme", GITHUB_TOKEN="github-token"),
        make_event=_make_event,
        serial_of=_serial_of,
        limited=reset_at("x-ratelimit", {"message": "API rate limit exceeded"}, status=403),
        error_body=lambda status, problem: {"message": problem, "status": str(status)},
    ),
    Vendor(
        name="github-enterprise-server",
        emulated=(
            "root array; pages by number, an empty one behind the last; time in `phrase` only, to "
            "the second; newest first unless `order=asc`; at most 100 a page; 429 with "
            "`Retry-After`"
        ),
        not_emulated="`Link` headers, other qualifiers of `phrase`",
        routes={
            "GET /api/v3/*/acme/audit-log": Listing(
                envelope=lambda page: page.items,
                bounds=_BOUNDS,
                paging="page",
                page_param="page",
                order="desc",
                order_param=_ORDERS,
                limit_param="per_page",
                default_limit=30,
                max_limit=100,
                choices={"include": ("web", "git", "all")},
            )
        },
        authorise=headers(**_HEADERS),
        environ=given(GHES_HOST="github.acme.example", GHES_ORG="acme", GHES_TOKEN="github-token"),
        make_event=_make_event,
        serial_of=_serial_of,
        limited=retry_after({"message": "You have exceeded a secondary rate limit"}),
        error_body=lambda status, problem: {"message": problem, "status": str(status)},
    ),
)
