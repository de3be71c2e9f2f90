"""A tap made with singer-sdk, which writes its records to the standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BasePageNumberPaginator

if TYPE_CHECKING:
    from requests import Response


class _Pages(BasePageNumberPaginator):
    def has_more(self, response: Response) -> bool:
        return bool(response.json()["events"])


class _Events(RESTStream):
    name = "events"
    path = ""
    records_jsonpath = "$.events[*]"
    primary_keys = ("uuid",)
    schema = th.PropertiesList(
        th.Property("uuid", th.StringType),
        th.Property("published", th.DateTimeType),
        th.Property("displayMessage", th.StringType),
        th.Property("eventType", th.StringType),
        additional_properties=True,
    ).to_dict()

    @property
    def url_base(self) -> str:
        return str(self.config["url"])

    def get_new_paginator(self) -> _Pages:
        return _Pages(1)

    def get_url_params(self, context: Any, next_page_token: int | None) -> dict[str, Any]:
        del context
        return {"page": next_page_token, "limit": 1000}


class Listing(Tap):
    """Reads the listing page by page."""

    name = "tap-listing"
    config_jsonschema = th.PropertiesList(
        th.Property("url", th.StringType, required=True)
    ).to_dict()

    def discover_streams(self) -> list[_Events]:
        """Give the one that there is."""
        return [_Events(self)]


if __name__ == "__main__":
    Listing.cli()
