"""The wiring: step ids, seeds, retired sources, and what is said when it ends."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main

from flicker.demo.servers import Destination as Siem
from flicker.errors import RegistryError
from flicker.flow import build, explain_failure
from flicker.registry.local import open_registry
from flicker.registry.partitions import BUFFER_STEP, POLL_STEP, SHIP_STEP
from flicker.settings import Destination, Endpoint, Pagination, Settings, Source
from tests.processes import make_events
from tests.servers.listing import ListingApi, Style

if TYPE_CHECKING:
    from pathlib import Path


def test_step_ids_are_those_of_every_registry_in_use(tmp_path: Path) -> None:
    """Changing one loses every position: it would be a migration."""
    endpoint = Endpoint("http://127.0.0.1:1/")
    settings = Settings((Source("s", endpoint, Destination(endpoint)),))
    plan = build(settings, open_registry(tmp_path / "d"))
    steps = {step.step_id for step in plan.flow.substeps}
    assert {POLL_STEP, BUFFER_STEP, SHIP_STEP} <= steps
    assert (POLL_STEP, BUFFER_STEP, SHIP_STEP) == ("flicker.poll", "flicker.buffer", "flicker.ship")
    assert plan.caretaker is not None
    assert build(settings).caretaker is None


DISK = RuntimeError(
    "(src/run.rs:292:17) panicked at src/recovery.rs:626:22:\ncalled `Result::unwrap()` on an "
    "`Err` value: SqliteFailure(Error { code: DiskFull, extended_code: 13 }, "
    'Some("database or disk is full"))'
)


def test_says_in_one_line_what_ended_the_flow(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "d")
    wrapped = RuntimeError("error calling `build_part`")
    wrapped.__cause__ = RegistryError("s: the registry holds state of version 2")
    for error, said in (
        (DISK, f"the registry {tmp_path}/d cannot be written (database or disk is full)"),
        (RuntimeError("Send thread panic: Any { .. }"), "another process of the cluster is gone"),
        (wrapped, "s: the registry holds state of version 2"),
        (KeyError("x"), "stopped by a fault of Flicker's own (KeyError: 'x')"),
    ):
        line = explain_failure(error, registry)
        assert line.startswith(said)
        assert "\n" not in line


@pytest.mark.parametrize(
    ("seed", "asked"),
    [
        ({"last_timestamp": "2025-01-01T12:00:00.010Z"}, {"since": "2025-01-01T12:00:00.010Z"}),
        ({"last_timestamp": None, "offset": 7}, {"offset": "7"}),
        ({"last_timestamp": "nonsense"}, {}),
    ],
)
def test_a_readable_view_gives_a_position(
    tmp_path: Path, seed: dict[str, object], asked: dict[str, str]
) -> None:
    """T61: people may edit it; nonsense begins at the beginning."""
    with (
        ListingApi(make_events(20), Style(paging="offset", time_param="since")) as api,
        Siem() as siem,
    ):
        view = tmp_path / "r.json"
        view.write_text(json.dumps({"version": 1, "api_sources": {"s": seed}}))
        registry = open_registry(tmp_path / "r.json.d", view)
        source = Source(
            "s",
            Endpoint(api.endpoint),
            Destination(Endpoint(siem.url)),
            results_field="events",
            timestamp_field="timestamp",
            time_filter_param="since",
            pagination=Pagination("offset", limit_param="limit", offset_param="offset"),
        )
        flow = build(Settings((source,)), registry, once=True).flow
        run_main(flow, recovery_config=RecoveryConfig(registry.directory, timedelta(0)))
        params = api.requests[0].params
        assert {name: params.get(name) for name in asked} == asked
        assert ("since" in params) == ("since" in asked)
