"""What a listing points at: fetched one by one, and none is lost or holds up the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flicker.demo.servers import Request, Response
from flicker.settings import FetchEach, Pagination
from tests.servers.scripted import ScriptedApi
from tests.test_source import SINCE, Drive, event, said, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.settings import Source

EACH = FetchEach("url", timestamp_field="timestamp", id_field=("id",))
PAGES = Pagination(
    "cursor",
    page_size=4,
    limit_param="limit",
    cursor_param="c",
    next_cursor_field="next",
    persist_cursor=False,
)


class Documents:
    """Lists documents, four a page, the oldest first; each holds two events."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.answers: dict[int, Callable[[], Response]] = {}
        """By document: what it is answered with instead."""
        self.urls: dict[int, str] = {}
        self.asked: Counter[int] = Counter()
        self.lists = 0

    def respond(self, request: Request) -> Response:
        kind, _, number = request.path.strip("/").partition("/")
        if kind == "document":
            at = int(number)
            self.asked[at] += 1
            return self.answers.get(at, lambda: Response(body=self.events(at)))()
        self.lists += 1
        since = request.params.get(SINCE, "")
        at = int(request.params.get("c", "0"))
        listed = [
            {**event(at), "url": self.urls.get(at, f"/document/{at}")}
            for at in range(self.count)
            if str(event(at)["timestamp"]) >= since
        ]
        following = str(at + 4) if at + 4 < len(listed) else None
        return Response(body={"events": listed[at : at + 4], "next": following})

    @staticmethod
    def events(at: int) -> list[dict[str, object]]:
        return [event(100 + 2 * at), event(101 + 2 * at)]

    def ids(self, *left_out: int) -> list[int]:
        return [
            number
            for at in range(self.count)
            if at not in left_out
            for number in (100 + 2 * at, 101 + 2 * at)
        ]


def documents_at(url: str, **more: Any) -> Source:
    return source_of(f"{url}/list", PAGES, **{"fetch_each": EACH, **more})


@pytest.mark.parametrize(
    ("body", "each", "words"),
    [
        ("", EACH, "is empty"),
        (" \n", EACH, "is empty"),
        ([{"errorCode": "X"}], FetchEach("url", error_field="0.errorCode"), "0.errorCode"),
        ({"error": {"m": "later"}, "d": []}, FetchEach("url", "d", error_field="error"), '"error"'),
        ({"ok": False, "d": []}, FetchEach("url", "d", success_field="ok"), '"ok"'),
    ],
)
def test_a_document_that_is_none_is_asked_for_again(
    body: object, each: FetchEach, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T43: taken for one without events, it would never be asked for again."""
    documents = Documents(3)

    def fail_twice() -> Response:
        good: object = documents.events(1)
        if each.results_field:
            good = {"ok": True, "d": good}
        return Response(body=body if documents.asked[1] < 3 else good)

    if each.results_field:
        for at in (0, 2):
            good = {"ok": True, "d": documents.events(at)}
            documents.answers[at] = lambda good=good: Response(body=good)  # type: ignore[misc]
    documents.answers[1] = fail_twice
    with ScriptedApi(documents.respond) as api:
        drive = Drive(documents_at(api.url, fetch_each=each))
        drive.until(lambda: len(drive.ids) >= 6)
    assert sorted(drive.ids) == documents.ids()
    assert any(words in line.reason for line in said(caplog))
