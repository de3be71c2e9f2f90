"""A connector of Grove's for the benchmark's API, as its own connectors are written."""

from __future__ import annotations

import requests
from grove.connectors import BaseConnector
from grove.constants import CHRONOLOGICAL
from grove.exceptions import NotFoundException

START = "2025-01-01T00:00:00.000Z"


class Connector(BaseConnector):
    """Reads the listing page by page and saves each page."""

    CONNECTOR = "listing"
    POINTER_PATH = "published"
    LOG_ORDER = CHRONOLOGICAL

    def collect(self) -> None:
        """Read until there is an empty page."""
        try:
            _ = self.pointer
        except NotFoundException:
            self.pointer = START
        page = 1
        while True:
            params = {"page": page, "limit": 1000}
            reply = requests.get(self.configuration.url, params=params, timeout=30)
            reply.raise_for_status()
            events = reply.json()["events"]
            if not events:
                return
            self.save(events)
            page += 1
