"""Each shipped configuration against a server that behaves as its vendor's."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flicker.demo.servers import Destination
from tests.processes import ROOT, wait_until
from tests.servers.vendors import VENDORS, has_gaps, write_table
from tests.servers.vendors.emulator import Vendor, VendorApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Home, Process

CONFIGS = ROOT / "configs" / "vendors"
QUICK = {"polling_frequency_ms": 200, "flush_interval_ms": 50}
QUICK_IF_CAPPED = {"requests_per_second": 50}
MORE_EVENTS = 207
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
            source |= {**QUICK, **capped}
        self._configure()
        self._environ = {
            "SIEM_URL": siem.url,
            "SIEM_TOKEN": "siem-token",
            **vendor.environ(api, home.directory),
        }
        self._process: Process

    def _configure(self) -> None:
        self._home.configure(*self._config["api_sources"], destination=self._config["destination"])

    def leave_out(self, key: str) -> None:
        """Take a key out of each source's pagination."""
        for source in self._config["api_sources"]:
            del source["pagination"][key]
        self._configure()

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
        return (self.vendor.page_size or size) + MORE_EVENTS

    def start(self) -> None:
        """Start Flicker."""
        self._process = self._home.start(env=self._environ)

    def kill(self) -> None:
        """End Flicker as a power cut would."""
        self._process.kill()

    def arrived(self) -> Counter[str]:
        """Count the deliveries of each event."""
        return Counter(self.vendor.serial_of(event) for event in self._siem.events)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, or fail with what Flicker said and what was refused."""
        is_met = wait_until(lambda: condition() or not self._process.is_running)
        assert is_met, f"refused: {self.api.refusals[:5]}\n{self._process.stderr[-2000:]}"
        assert self._process.is_running, self._process.stderr[-2000:]

    def wait_for_all(self) -> None:
        """Wait until each event was delivered."""
        self.wait(
            lambda: (
                self._siem.delivered_count >= len(self.api.expected)
                and self.arrived().keys() >= self.api.expected
            )
        )

    def wait_for_requests(self, count: int) -> None:
        """Wait for so many further requests of each source."""
        expected = len(self.api.requests) + count * len(self.vendor.lanes)
        self.wait(lambda: len(self.api.requests) >= expected)


@pytest.fixture(params=VENDORS)
def run(request: pytest.FixtureRequest, home: Home) -> Iterator[Run]:
    vendor = VENDORS[request.param]
    with VendorApi(vendor, has_gaps=True) as api, Destination() as siem:
        yield Run(vendor, home, api, siem)


@pytest.mark.process
def test_ships_each_event_once_whatever_happens(run: Run) -> None:
    """Late events, empty pages, a revoked token, a quota used up and a power cut in between."""
    api = run.api
    api.add(run.first_events, spread=SHARING)
    run.start()
    run.wait_for_requests(2)
    api.add(5)
    run.wait_for_all()
    api.revoke_tokens()
    api.limit_next()
    api.add(5, spread=5)
    if run.late_s:
        api.add(2, ago_s=run.late_s)
    run.wait(lambda: not api.still_to_limit and (api.revoked_met or not run.vendor.open_paths))
    run.wait_for_all()
    run.wait_for_requests(3)
    run.kill()
    api.add_again(3)
    api.add(5)
    run.start()
    run.wait_for_all()
    run.wait_for_requests(3)
    repeated = {serial: count for serial, count in run.arrived().items() if count > 1}
    assert repeated == {}
    assert run.arrived().keys() == api.expected
    assert api.refusals == []


@pytest.mark.process
@pytest.mark.parametrize(
    "run", ["office-365", "aws-cloudtrail", "entra-directory-audits"], indirect=True
)
def test_empty_pages_hide_nothing_where_the_configuration_does_not_speak_of_them(run: Run) -> None:
    """A window that begins with one, a listing that always does, and six in a row."""
    run.leave_out("stop_on_empty")
    run.api.add(run.first_events, spread=SHARING)
    run.start()
    run.wait_for_requests(8)
    run.kill()
    run.api.add(5)
    run.start()
    run.wait_for_all()
    assert run.arrived().keys() == run.api.expected
    assert run.api.refusals == []


def test_every_shipped_configuration_has_a_server() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(VENDORS)


@pytest.mark.parametrize("name", [name for name in VENDORS if has_gaps(VENDORS[name])])
def test_an_empty_page_is_no_end_where_a_missing_token_is(name: str) -> None:
    """However many there are: without being told, Flicker would take some for the end."""
    [source] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["api_sources"]
    assert source["pagination"]["stop_on_empty"] is False


def test_the_documented_table_is_that_of_the_servers() -> None:
    text = (ROOT / "docs" / "vendors.md").read_text(encoding="utf-8")
    assert write_table() in text, "python -m tests.servers.vendors prints the table"
