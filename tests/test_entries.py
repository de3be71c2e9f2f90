"""What a listing points at: fetched one by one, and none is lost or holds up the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flicker.dedup import DedupWindow
from flicker.demo.servers import Request, Response
from flicker.entries import MOST_PUT_OFF, Entries
from flicker.position import Pending, Position
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


FOREIGN = "http://localhost:1/document/1"
FAILURES = {
    "403": Response(403),
    "500": Response(500),
    "no JSON": Response(body="oops"),
    "empty": Response(body=""),
}


@pytest.mark.parametrize("failure", [*FAILURES, "foreign"])
def test_an_entry_that_cannot_be_fetched_holds_up_no_other(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T60: nor the pages behind it; it stays in the position, and comes when it can."""
    documents = Documents(10)
    if failure == "foreign":
        documents.urls[1] = FOREIGN
    else:
        documents.answers[1] = lambda: FAILURES[failure]
    with ScriptedApi(documents.respond) as api:
        source = documents_at(api.url)
        drive = Drive(source)
        drive.until(lambda: len(drive.ids) == 18)
        documents.count = 12
        drive.until(lambda: len(drive.ids) == 22)
        assert drive.ids == documents.ids(1)
        asked, lists = documents.asked[1], documents.lists
        drive.until(lambda: documents.lists > lists + 3)
        if failure == "foreign":
            assert asked == 0
        else:
            drive.until(lambda: documents.asked[1] > asked)
        (kept,) = drive.state["pending"]
        assert kept[1].endswith("/document/1")
        documents.answers.clear()
        resumed = Drive(source, resume_state=drive.state)
        if failure == "foreign":
            resumed.until_scanned()
            assert resumed.ids == []
        else:
            resumed.until(lambda: resumed.ids)
            assert resumed.ids == [102, 103]
            assert resumed.state["pending"] == []
    assert set(documents.asked.values()) - {documents.asked[1]} <= {1}
    lines = [line for line in said(caplog) if "cannot be fetched" in line.getMessage()]
    assert len({line.reason for line in lines}) == 1
    human = failure in {"403", "foreign"}
    assert {line.levelname for line in lines} == {"ERROR" if human else "WARNING"}


def test_entries_left_by_an_earlier_run_hold_up_no_listing() -> None:
    """T60: though not one of them can be fetched."""
    documents = Documents(4)
    for at in range(4):
        documents.answers[at] = lambda: Response(503)
    with ScriptedApi(documents.respond) as api:
        source = documents_at(api.url)
        drive = Drive(source)
        drive.until(lambda: documents.lists > 3)
        assert len(drive.state["pending"]) == 4
        documents.count = 6
        resumed = Drive(source, resume_state=drive.state)
        resumed.until(lambda: len(resumed.ids) == 4)
        assert sorted(resumed.ids) == documents.ids(0, 1, 2, 3)
        documents.answers.clear()
        resumed.until(lambda: len(resumed.ids) == 12)
        assert sorted(resumed.ids) == documents.ids()


@pytest.mark.parametrize("status", [404, 410, 400])
def test_an_entry_is_left_out_when_it_was_refused_three_times(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """T60: other failures in between are no refusals."""
    documents = Documents(6)
    documents.answers[1] = lambda: Response(503 if documents.asked[1] % 2 else status)
    with ScriptedApi(documents.respond) as api:
        drive = Drive(documents_at(api.url))
        drive.until(lambda: any("left out" in line.getMessage() for line in said(caplog)))
        assert documents.asked[1] == 6
        drive.until(lambda: len(drive.ids) == 10)
        assert drive.ids == documents.ids(1)
        assert drive.state["pending"] == []
    (line,) = [line for line in said(caplog) if "left out" in line.getMessage()]
    assert "entry" in line.reason
    assert "plan" not in line.reason


def test_once_reads_all_but_what_cannot_be_fetched_and_fails() -> None:
    """Its exit code tells, and the next run asks again."""
    documents = Documents(10)
    documents.answers[1] = lambda: Response(500)
    with ScriptedApi(documents.respond) as api:
        source = documents_at(api.url)
        drive = Drive(source, once=True)
        drive.until(lambda: drive.is_over)
        assert drive.ids == documents.ids(1)
        assert drive.runtime.failed == {"s"}
        documents.answers.clear()
        again = Drive(source, once=True, resume_state=drive.state)
        again.until(lambda: again.is_over)
        assert again.ids == [102, 103]
        assert again.runtime.failed == set()


def test_once_waits_for_an_entry_that_fails_for_a_while() -> None:
    documents = Documents(3)
    documents.answers[1] = lambda: Response(
        500 if documents.asked[1] < 5 else 200, body=documents.events(1)
    )
    with ScriptedApi(documents.respond) as api:
        drive = Drive(documents_at(api.url), once=True)
        drive.until(lambda: drive.is_over)
        assert sorted(drive.ids) == documents.ids()
        assert drive.runtime.failed == set()


def test_a_listing_that_rests_for_what_cannot_be_fetched_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flicker.entries.MOST_PUT_OFF", 2)
    documents = Documents(10)
    for at in range(10):
        documents.answers[at] = lambda: Response(503)
    with ScriptedApi(documents.respond) as api:
        drive = Drive(documents_at(api.url))
        drive.until(lambda: "no more are listed" in caplog.text)
        asked = documents.asked[0]
        drive.until(lambda: documents.asked[0] > asked + 1)
    assert caplog.text.count("no more are listed") == 1


def entry(number: int) -> Pending:
    return Pending(number.to_bytes(16, "big"), f"/{number}", None)


def test_so_many_may_be_put_off_and_no_more() -> None:
    """T60: all of them are in each snapshot."""
    position = Position(DedupWindow("s"))
    entries = Entries(position)
    for number in range(MOST_PUT_OFF):
        assert not entries.is_full
        entries.add(entry(number))
        entries.note_failure(0.0, 0.0, is_refusal=False)
        entries.go_on(100.0 + number, with_listing=True)
    assert entries.is_full
    entries.recall(99.0)
    assert entries.current is None
    entries.recall(100.0)
    assert entries.current == entry(0)
    entries.leave()
    assert not entries.is_full
    assert entries.due_at == 101.0


def test_who_fails_goes_behind_those_whose_turn_comes_and_before_those_put_off() -> None:
    position = Position(DedupWindow("s"), pending=[entry(9)])
    entries = Entries(position)
    entries.note_failure(0.0, 0.0, is_refusal=False)
    entries.go_on(0.5, with_listing=True)
    for number in range(3):
        entries.add(entry(number))
    entries.note_failure(0.0, 0.0, is_refusal=False)
    entries.go_on(1.0, with_listing=False)
    assert position.pending == [entry(number) for number in (1, 2, 0, 9)]
    entries.leave()
    entries.leave()
    entries.note_failure(0.0, 0.0, is_refusal=False)
    entries.go_on(5.0, with_listing=True)
    assert entries.current is None
    entries.recall(2.0)
    assert entries.current == entry(9)
    entries.note_failure(0.0, 0.0, is_refusal=False)
    entries.go_on(6.0, with_listing=False)
    assert entries.current is None
    entries.recall(5.5)
    assert entries.current == entry(0)


def test_after_a_restart_all_have_their_turn() -> None:
    """T60: which of them failed is not known, and the others shall not wait for polls."""
    position = Position(DedupWindow("s"), pending=[entry(number) for number in range(3)])
    entries = Entries(position)
    for number in range(3):
        assert entries.current == entry(number)
        entries.leave()
    assert entries.current is None


def test_what_is_refused_counts_as_gone_after_a_while_and_not_before() -> None:
    """T60: what was listed just now may be there a little later."""
    entries = Entries(Position(DedupWindow("s"), pending=[entry(1)]))
    for now in (100.0, 101.0, 102.0, 159.0):
        *_, is_gone = entries.note_failure(now, 60.0, is_refusal=True)
        assert not is_gone
    assert entries.note_failure(159.9, 60.0, is_refusal=False)[2] is False
    assert entries.note_failure(160.0, 60.0, is_refusal=True) == (6, 5, True)
    late = Entries(Position(DedupWindow("s"), pending=[entry(1)]))
    late.note_failure(0.0, 60.0, is_refusal=True)
    assert late.note_failure(100.0, 60.0, is_refusal=True) == (2, 2, False)
