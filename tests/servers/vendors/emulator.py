"""The server that plays a vendor: what all of them have in common.

A vendor is an entry in a table: a `Vendor`, with a route for each path it
answers. Most routes are a `Listing` (see `listing.py`); a vendor that answers
like nobody else has a function. Whatever a vendor would refuse is refused and
kept in `refusals`, so that a test can say that nobody asked wrongly.
"""

from __future__ import annotations

import fnmatch
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flicker.demo.servers import EmbeddedServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
# Less than a second, since the client's begins when it has read the answer.
LIMITED_S = 0.9


class RefusedError(Exception):
    """A request that the vendor refuses."""

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


class Ask:
    """A request's parameters, each to be taken once; what is left over is unknown.

    Most vendors ignore what they do not know. A configuration that sends it is
    mistaken all the same, so it is refused here.
    """

    def __init__(self, request: Request) -> None:
        """Read the query and, of a POST, the JSON object that is its body."""
        self._values: dict[str, list[Any]] = {}
        for name, text in request.query:
            self._values.setdefault(name, []).append(text)
        if request.method == "POST":
            try:
                body = json.loads(request.body)
            except ValueError:
                raise RefusedError("the body is not JSON") from None
            if not isinstance(body, dict):
                raise RefusedError("the body is not an object")
            for name, value in body.items():
                self._values.setdefault(name, []).append(value)

    def take(self, name: str) -> Any:
        """Give a parameter's value, None where it is missing."""
        values = self.take_all(name)
        if len(values) > 1:
            raise RefusedError(f"{name} is repeated")
        return values[0] if values else None

    def take_all(self, name: str) -> list[Any]:
        """Give the values of a parameter that may be repeated."""
        return self._values.pop(name, [])

    @property
    def names(self) -> frozenset[str]:
        """Names of what is left."""
        return frozenset(self._values)

    def finish(self) -> None:
        """Refuse what nobody took."""
        if self._values:
            raise RefusedError(f"unknown parameters: {', '.join(sorted(self._values))}")


@dataclass(frozen=True)
class Entry:
    """One record of a vendor's log.

    Attributes:
        arrival: Number in the order in which records became visible.
        instant_ns: What its timestamp says.
        persisted_ns: When it became visible.
        raw: Its JSON as served.
    """

    serial: int
    arrival: int
    instant_ns: int
    persisted_ns: int
    raw: bytes

    def at(self, clock: Literal["event", "arrival"]) -> int:
        """Give the instant that a filter looks at."""
        return self.instant_ns if clock == "event" else self.persisted_ns

    def key(self, clock: Literal["event", "arrival"]) -> tuple[int, int]:
        """Give what a listing is ordered by; no two entries share one."""
        return self.at(clock), self.arrival

    @property
    def value(self) -> Any:
        """The record, parsed."""
        return json.loads(self.raw)


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A vendor's API, and what its shipped configuration needs to meet it here.

    Attributes:
        name: Of the file in `configs/vendors/`.
        emulated: What of the vendor's behaviour is played, for the docs.
        not_emulated: What is not.
        routes: By method and path, in which `*` is anything: `GET /api/v1/logs`.
        authorise: Gives what is wrong with a request's credentials, if anything
            is; not asked for the paths in `open_paths`.
        open_paths: Those that hand out tokens.
        environ: The variables of the configuration, from the server and a
            directory in which to put files.
        make_event: Of a serial number and an instant in nanoseconds.
        serial_of: Of an event that was shipped, the serial number that it was
            made from; with `parts`, `17.0`, `17.1`.
        parts: Events that one record becomes.
        page_size: Records a page, where the configuration does not ask for a number.
        tick_ns: Precision of the timestamps.
        lag_s: Age of an event's timestamp when it becomes visible.
        late_s: By how much older than the newest an event may come, where the
            vendor's order of arrival finds it; otherwise the configuration's
            `lookback_ms` says so.
        limited: The refusal of a client that is too quick; one with headers is
            to say that it has to stay away for a second at least.
        error_body: Of a status and a problem.
        lanes: What a configuration with `foreach` polls apart; each has a log.
    """

    name: str
    emulated: str
    not_emulated: str
    routes: Mapping[str, Callable[[VendorApi, Request], Response]]
    authorise: Callable[[VendorApi, Request], str | None]
    environ: Callable[[VendorApi, Path], Mapping[str, str]]
    make_event: Callable[[int, int], Mapping[str, object]]
    serial_of: Callable[[Any], str]
    limited: Callable[[], Response]
    open_paths: tuple[str, ...] = ()
    parts: int = 1
    page_size: int | None = None
    tick_ns: int = NS_PER_MS
    lag_s: float = 0
    late_s: float = 0
    error_body: Callable[[int, str], object] = lambda status, problem: {
        "status": status,
        "error": problem,
    }
    lanes: tuple[str, ...] = ("",)


class VendorApi(EmbeddedServer):
    """Plays one vendor; records may be added while it runs."""

    def __init__(self, vendor: Vendor, *, has_gaps: bool = False) -> None:
        """Bind a free port.

        Args:
            vendor: Whom to play.
            has_gaps: Whether there are empty pages, with the vendors that end
                their listings by handing out no cursor.
        """
        super().__init__()
        self.vendor = vendor
        self.has_gaps = has_gaps
        self._lock = threading.Lock()
        self._logs: dict[str, list[Entry]] = {lane: [] for lane in vendor.lanes}
        self._count = 0
        self._newest_ns = 0
        self._issued = 0
        self._valid_tokens: set[str] = set()
        self._revoked_tokens: set[str] = set()
        self._revoked_met = 0
        self._to_limit = 0
        self._limited_until_s = 0.0
        self._refusals: list[str] = []

    def add(self, count: int, *, ago_s: float = 0, spread: int = 1) -> None:
        """Make records visible now.

        Args:
            count: How many, in each lane.
            ago_s: How much older their timestamps are than the vendor's lag
                makes them anyway.
            spread: How many share a timestamp; the last ones have the newest.
        """
        vendor = self.vendor
        with self._lock:
            now_ns = max(time.time_ns(), self._newest_ns)
            self._newest_ns = now_ns
            end_ns = now_ns - int((vendor.lag_s + ago_s) * NS_PER_S)
            for lane in self._logs:
                # Only what is asked to be late is older than what is there.
                floor_ns = 0 if ago_s else self._find_newest(lane)
                for index in range(count):
                    ticks = (count - 1 - index) // spread
                    instant_ns = end_ns - end_ns % vendor.tick_ns - ticks * vendor.tick_ns
                    self._append(lane, max(instant_ns, floor_ns), now_ns)

    def add_again(self, count: int) -> None:
        """Make records visible that share the newest timestamp of their lane."""
        with self._lock:
            now_ns = max(time.time_ns(), self._newest_ns)
            for lane in self._logs:
                newest_ns = self._find_newest(lane)
                for _ in range(count):
                    self._append(lane, newest_ns, now_ns)

    def _find_newest(self, lane: str) -> int:
        return max((entry.instant_ns for entry in self._logs[lane]), default=0)

    def _append(self, lane: str, instant_ns: int, persisted_ns: int) -> None:
        serial = self._count
        self._count += 1
        raw = msgspec.json.encode(self.vendor.make_event(serial, instant_ns))
        log = self._logs[lane]
        log.append(Entry(serial, len(log), instant_ns, persisted_ns, raw))

    @property
    def expected(self) -> set[str]:
        """The serial numbers of the events that are to be shipped, as text."""
        with self._lock:
            serials = range(self._count)
        if self.vendor.parts == 1:
            return {str(serial) for serial in serials}
        return {f"{serial}.{part}" for serial in serials for part in range(self.vendor.parts)}

    def log(self, lane: str = "") -> list[Entry]:
        """Give a lane's records in order of arrival."""
        with self._lock:
            if lane not in self._logs:
                raise RefusedError(f"there is no {lane}", 404)
            return list(self._logs[lane])

    @property
    def refusals(self) -> list[str]:
        """What was asked wrongly; troubles that were planned are not among it."""
        with self._lock:
            return list(self._refusals)

    def limit_next(self, count: int = 1) -> None:
        """Refuse the next requests for being too quick."""
        with self._lock:
            self._to_limit += count

    @property
    def still_to_limit(self) -> int:
        """How many requests `limit_next` has not met yet."""
        with self._lock:
            return self._to_limit

    def issue_token(self) -> str:
        """Make an access token that is good until `revoke_tokens`."""
        with self._lock:
            self._issued += 1
            token = f"access-{self._issued}"
            self._valid_tokens.add(token)
            return token

    def revoke_tokens(self) -> None:
        """Have every token that was issued refused from now on."""
        with self._lock:
            self._revoked_tokens |= self._valid_tokens
            self._valid_tokens.clear()

    @property
    def revoked_met(self) -> int:
        """Requests that came with a revoked token."""
        with self._lock:
            return self._revoked_met

    def check_token(self, token: str) -> str | None:
        """Give what is wrong with an access token, if anything is."""
        with self._lock:
            return None if token in self._valid_tokens else "the token is not valid"

    def answer(self, request: Request) -> Response:
        """Answer as the vendor, after its credentials and its quota."""
        try:
            return self._answer(request)
        except RefusedError as error:
            path = request.target.partition("?")[0]
            with self._lock:
                self._refusals.append(f"{request.method} {path}: {error.status} {error.problem}")
            return self._refuse(error.status, error.problem)

    def _answer(self, request: Request) -> Response:
        vendor = self.vendor
        route = self._find_route(f"{request.method} {request.path}")
        if request.path in vendor.open_paths:
            return route(self, request)
        problem = vendor.authorise(self, request)
        if problem is not None:
            token = request.headers.get("authorization", "").rpartition(" ")[2]
            with self._lock:
                was_planned = token in self._revoked_tokens
                self._revoked_met += was_planned
            if not was_planned:
                raise RefusedError(problem, 401)
            return self._refuse(401, problem)
        return self._limit() or route(self, request)

    def _limit(self) -> Response | None:
        """Refuse what is planned to be, and whoever does not stay away as told."""
        with self._lock:
            now_s = time.monotonic()
            # With several lanes others may be on their way when one is told.
            if now_s < self._limited_until_s and len(self._logs) == 1:
                raise RefusedError("this was asked before the quota was refilled", 429)
            if not self._to_limit:
                return None
            self._to_limit -= 1
            response = self.vendor.limited()
            self._limited_until_s = now_s + (LIMITED_S if response.headers else 0)
            return response

    def _find_route(self, target: str) -> Callable[[VendorApi, Request], Response]:
        for pattern, route in self.vendor.routes.items():
            if fnmatch.fnmatchcase(target, pattern):
                return route
        raise RefusedError(f"there is no {target}", 404)

    def _refuse(self, status: int, problem: str) -> Response:
        return Response(status, body=self.vendor.error_body(status, problem))


def origin_of(request: Request) -> str:
    """Give the client's own name for us, or a link would leave its origin."""
    return f"http://{request.headers['host']}"
