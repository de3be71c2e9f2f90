"""The files in `configs/`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml

from flicker import config
from flicker.errors import ConfigError
from flicker.settings import (
    Credentials,
    Destination,
    Endpoint,
    Pagination,
    Secret,
    Settings,
    Source,
)

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))
ENVIRON = {
    "OKTA_TOKEN": "okta-token",
    "GITHUB_TOKEN": "github-token",
    "VENDOR_API_KEY": "vendor-key",
    "SIEM_TOKEN": "siem-token",
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_loads(path: Path) -> None:
    assert len(config.load(path, ENVIRON).sources) == 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_holds_no_literal_credential(path: Path) -> None:
    found = []
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    for problem in caught.value.problems:
        found += re.findall(r"variable (\w+),", problem.message)
    assert found
    assert set(found) <= set(ENVIRON)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_fits_the_schema_for_editors(path: Path) -> None:
    jsonschema.Draft202012Validator(config.json_schema()).validate(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )


def test_names_of_the_files() -> None:
    assert {path.stem for path in CONFIGS} >= {"custom-vendor", "github", "okta", "overview"}


def test_custom_vendor_is_read_key_by_key() -> None:
    path = next(path for path in CONFIGS if path.stem == "custom-vendor")
    assert config.load(path, ENVIRON) == Settings(
        sources=(
            Source(
                name="vendor-audit-api",
                endpoint=Endpoint(
                    url="https://api.vendor.com/v1/audit/events",
                    credentials=Credentials(api_key=Secret("vendor-key")),
                ),
                destination=Destination(
                    endpoint=Endpoint(
                        url="https://your-siem.com/ingest",
                        credentials=Credentials(bearer=Secret("siem-token")),
                    )
                ),
                poll_interval=timedelta(seconds=30),
                results_field="data.events",
                timestamp_field="event_time",
                message_field="description",
                time_filter_param="from_time",
                time_filter_format="rfc3339",
                pagination=Pagination(
                    type="offset", page_size=50, limit_param="limit", offset_param="skip"
                ),
                buffer_size=25,
                flush_interval=timedelta(seconds=15),
            ),
        )
    )


def test_okta_follows_a_cursor_of_the_root_array() -> None:
    path = next(path for path in CONFIGS if path.stem == "okta")
    okta = config.load(path, ENVIRON).sources[0]
    assert okta.endpoint.headers == (("Authorization", Secret("SSWS okta-token")),)
    assert okta.results_field == ""
    assert okta.pagination == Pagination(
        type="cursor", page_size=100, cursor_param="after", next_cursor_field="next"
    )
