"""The ways of paging that the file can name."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from flicker.config.checks import header_name_problem
from flicker.config.fields import (
    Count,
    CountOrZero,
    Entry,
    ParamName,
    Switch,
    Text,
    must_pass,
    wrong,
)


class _PaginationEntry(Entry):
    limit_param: ParamName | None = Field(
        default=None,
        description="Query parameter that carries `page_size`; without it none is sent.",
    )
    location: Literal["query", "body"] | None = Field(
        default=None,
        description="Where these parameters and the time filter go: the query string, or the"
        " `body`, where a name is a dotted path. By default the body of a POST.",
    )
    page_size: Count = Field(default=100, description="Events to ask for in one page.")
    max_pages: Count | None = Field(
        default=None, description="Pages of one poll; the next poll goes on where it ended."
    )


class _TokenEntry(_PaginationEntry):
    has_more_field: Text | None = Field(
        default=None,
        description="Dotted path of what says whether there is another page; without it, the"
        " token alone tells.",
    )
    stop_on_empty: Switch | None = Field(
        default=None,
        description="Whether an empty page ends a poll, though it leads on; by default it does"
        " where the next poll goes on from there, and else some of them are followed.",
    )
    persist_cursor: Switch | None = Field(
        default=None,
        description="Whether the next poll goes on from the last token instead of the time"
        " filter; by default where there is one and the listing is not newest first.",
    )


class OffsetPagination(_PaginationEntry):
    """Pages asked for by the number of events to skip."""

    pagination_type: Literal["offset"] = Field(description="Kind of pagination.")
    offset_param: ParamName = Field(
        description="Query parameter that carries the number of events to skip."
    )


class CursorPagination(_TokenEntry):
    """Pages asked for by a token that the page before handed out."""

    pagination_type: Literal["cursor"] = Field(description="Kind of pagination.")
    cursor_param: ParamName = Field(description="Query parameter that carries the cursor.")
    next_cursor_field: Text | None = Field(
        default=None,
        description="Dotted path of the next cursor in the response, or, for a root array,"
        " the relation of the Link header to follow. Required without `cursor_from_last`.",
    )
    cursor_only: Switch = Field(
        default=False,
        description="Whether the cursor stands for all other parameters of time and page, which"
        " are then left out beside it.",
    )
    cursor_from_last: Text | None = Field(
        default=None,
        description="Dotted path, inside an event, of what the last event of a page is the"
        " next cursor by; the last that has it. Where none does, it is an error.",
    )

    @model_validator(mode="after")
    def _has_one_cursor(self) -> CursorPagination:
        if self.next_cursor_field is not None and self.cursor_from_last is not None:
            raise wrong("has both `next_cursor_field` and `cursor_from_last`: keep one of them")
        if self.next_cursor_field is None and self.cursor_from_last is None:
            raise wrong(
                "needs either `next_cursor_field`, where the response has the next cursor, or"
                " `cursor_from_last`, where the last event has it"
            )
        return self


class LinkHeaderPagination(_TokenEntry):
    """Pages that a Link header leads to."""

    pagination_type: Literal["link_header"] = Field(description="Kind of pagination.")
    rel: Text = Field(default="next", description="Relation of the link to follow.")


class NextUrlPagination(_TokenEntry):
    """Pages whose URL the page before has."""

    pagination_type: Literal["next_url"] = Field(description="Kind of pagination.")
    next_url_field: Text | None = Field(
        default=None,
        description="Dotted path of the next page's URL in the response, absolute or relative.",
    )
    next_url_header: Annotated[Text, must_pass(header_name_problem)] | None = Field(
        default=None, description="Name of the response header that has it instead."
    )

    @model_validator(mode="after")
    def _has_one_url(self) -> NextUrlPagination:
        if (self.next_url_field is None) == (self.next_url_header is None):
            if self.next_url_field is None:
                raise wrong("needs either `next_url_field` or `next_url_header`")
            raise wrong("has both `next_url_field` and `next_url_header`: keep one of them")
        return self


class NoPagination(_PaginationEntry):
    """One request has it all."""

    pagination_type: Literal["none"] = Field(description="Kind of pagination.")


class PagePagination(_PaginationEntry):
    """Pages asked for by number."""

    pagination_type: Literal["page"] = Field(description="Kind of pagination.")
    page_param: ParamName = Field(description="Query parameter that carries the page number.")
    start_page: CountOrZero = Field(default=1, description="Number of the first page.")


AnyPagination = (
    OffsetPagination
    | CursorPagination
    | PagePagination
    | LinkHeaderPagination
    | NextUrlPagination
    | NoPagination
)
PAGINATIONS = get_args(AnyPagination)
PaginationByType = Annotated[AnyPagination, Field(discriminator="pagination_type")]
