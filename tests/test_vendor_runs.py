"""Each shipped configuration against a server that behaves as its vendor's."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flicker.demo.servers import Destination
from tests.processes import LIMIT_S, ROOT, Home, Process, wait_until
from tests.servers.vendors import VENDORS
from tests.servers.vendors.emulator import Vendor, VendorApi

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGS = ROOT / "configs" / "vendors"
QUICK = {"polling_frequency_ms": 200, "flush_interval_ms": 50}
QUICK_IF_CAPPED = {"requests_per_second": 50}
# No divisor of a page's size, so that a page ends inside of such a group.
SHARING = 7
ORIGIN = re.compile(r"https?://[^/?]+")


class Run:
    """A vendor, its configuration, Flicker, and a destination."""

    def __init__(self, vendor: Vendor, home: Home, api: VendorApi, siem: Destination) -> None:
        self.vendor = vendor
        self.api = api
        self._home = home
        self._siem = siem
        self._config = yaml.safe_load((CONFIGS / f"{vendor.name}.yaml").read_text(encoding="utf-8"))
        for source in self._config["api_sources"]:
            self._lead_here(source)
            capped = {key: value for key, value in QUICK_IF_CAPPED.items() if key in source}
            source |= {**QUICK, **capped, **vendor.overrides}
        home.configure(*self._config["api_sources"], destination=self._config["destination"])
        self._environ = {
            "SIEM_URL": siem.url,
            "SIEM_TOKEN": "siem-token",
            **vendor.environ(api, home.directory),
        }

    def _lead_here(self, entry: dict[str, Any]) -> None:
        """Replace scheme and host of the URLs that Flicker asks."""
        for key, value in entry.items():
            if isinstance(value, dict) and key in {"oauth2", "jwt_bearer"}:
                self._lead_here(value)
            elif key in {"endpoint", "token_url"}:
                entry[key] = ORIGIN.sub(self.api.url, value, count=1)

    @property
    def late_s(self) -> float:
        """How much older than the newest an event may be that still has to be found."""
        lookbacks = [source.get("lookback_ms", 0) for source in self._config["api_sources"]]
        return max(self.vendor.late_s, min(lookbacks) / 1000) / 2

    @property
    def first_events(self) -> int:
        """So many that there are several pages, and groups across their edges."""
        paginations = [source.get("pagination", {}) for source in self._config["api_sources"]]
        size = max(pagination.get("page_size", 100) for pagination in paginations)
        return (self.vendor.page_size or size) * 2 + SHARING

    def start(self) -> Process:
        """Start Flicker."""
        return self._home.start(env=self._environ)

    def arrived(self) -> Counter[str]:
        """Count the deliveries of each event."""
        return Counter(self.vendor.serial_of(event) for event in self._siem.events)

    def wait_for_all(self) -> None:
        """Wait until each event was delivered."""

        def is_all_there() -> bool:
            return len(self._siem.delivered) >= len(self.api.expected) and (
                self.arrived().keys() >= self.api.expected
            )

        if not self._siem.wait_for(is_all_there, LIMIT_S):
            missing = sorted(self.api.expected - self.arrived().keys(), key=float)
            pytest.fail(f"missing: {missing[:20]} ({len(missing)}); {self.api.refusals[:5]}")

    def wait_for_polls(self, count: int = 3) -> None:
        """Wait for so many further requests, behind which nothing of before is left to do."""
        assert self.api.wait_for_requests(len(self.api.requests) + count, LIMIT_S)


@pytest.fixture(params=VENDORS)
def run(request: pytest.FixtureRequest, home: Home) -> Iterator[Run]:
    vendor = VENDORS[request.param]
    with VendorApi(vendor) as api, Destination() as siem:
        yield Run(vendor, home, api, siem)


@pytest.mark.process
def test_ships_each_event_once_whatever_happens(run: Run) -> None:
    """Late events, a revoked token, a quota used up and a power cut in between."""
    api = run.api
    api.add(run.first_events, spread=SHARING)
    process = run.start()
    assert api.wait_for_requests(2, LIMIT_S)
    api.add(5)
    run.wait_for_all()
    api.revoke_tokens()
    api.limit_next()
    api.add(5, spread=5)
    if run.late_s:
        api.add(2, ago_s=run.late_s)
    assert wait_until(lambda: not api.still_to_limit)
    run.wait_for_all()
    run.wait_for_polls()
    process.kill()
    api.add_again(3)
    api.add(5)
    process = run.start()
    run.wait_for_all()
    run.wait_for_polls()
    assert process.is_running
    repeated = {serial: count for serial, count in run.arrived().items() if count > 1}
    assert repeated == {}
    assert run.arrived().keys() == api.expected
    assert api.refusals == []


def test_every_shipped_configuration_has_a_server() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(VENDORS)


def test_the_documented_table_is_that_of_the_servers() -> None:
    from tests.servers.vendors import write_table

    text = Path(ROOT / "docs" / "vendors.md").read_text(encoding="utf-8")
    assert write_table() in text, "python -m tests.servers.vendors prints the table"
