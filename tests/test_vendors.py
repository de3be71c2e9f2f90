"""The ready configurations in `configs/vendors`, and the commands that hand them out."""

from __future__ import annotations

import json
import re
from itertools import pairwise, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flicker import config
from flicker.errors import ConfigError
from flicker.vendors import compose, vendor_names, vendor_text

if TYPE_CHECKING:
    from flicker.settings import Settings
    from tests.processes import Finished, Home

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs/vendors").glob("*.yaml"))
HEAD = ["Vendor", "Log", "Auth", "Lag", "Needs", "Set", "Docs"]
DESTINATION = {"endpoint": "${SIEM_URL}", "api_key": "${SIEM_TOKEN}"}
VARIABLE = re.compile(r"\$\{(\w+)")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Google hands out for a service account."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("google") / "key.json"
    account = {
        "type": "service_account",
        "client_email": "flicker@acme.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1f2e3d",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.write_text(json.dumps(account), encoding="utf-8")
    return path


def environ_for(text: str, key_file: Path) -> dict[str, str]:
    """Set every variable that a configuration names."""
    values = {name: f"{name.lower().replace('_', '-')}.example" for name in VARIABLE.findall(text)}
    return {
        **values,
        "SIEM_URL": "https://siem.example.com/ingest",
        "GOOGLE_KEY_FILE": str(key_file),
    }


def parse(text: str, key_file: Path) -> Settings:
    return config.parse(text, environ_for(text, key_file), origin="config.yaml")


def head_of(text: str) -> dict[str, str]:
    """Read the lines `# Key: value` before the configuration itself."""
    head, _, _ = text.partition("api_sources:\n")
    return dict(re.findall(r"^# ([A-Z][a-z]+): (.+)$", head, re.MULTILINE))


def sources_of(name: str) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = yaml.safe_load(vendor_text(name))["api_sources"]
    return sources


def test_all_files_are_shipped() -> None:
    """What an installed Flicker reads is what `configs/vendors` holds."""
    assert vendor_names() == NAMES
    assert len(NAMES) >= 35
    for name in NAMES:
        shipped = (ROOT / f"configs/vendors/{name}.yaml").read_text(encoding="utf-8")
        assert vendor_text(name) == shipped


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_what_is_needed(name: str) -> None:
    head = head_of(vendor_text(name))
    assert [key for key in head if key != "Unverified"] == HEAD


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_named_in_the_head(name: str) -> None:
    text = vendor_text(name)
    used = set(VARIABLE.findall(text)) - {"SIEM_URL", "SIEM_TOKEN"}
    named = set(re.findall(r"\b[A-Z0-9]+(?:_[A-Z0-9]+)+\b", head_of(text)["Set"]))
    assert used <= named
    # AWS's own tools name theirs; all others stand in the file.
    assert {other for other in named - used if not other.startswith(("AWS_", "SIEM_"))} == set()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_source_of_the_files_name(name: str) -> None:
    whole = yaml.safe_load(vendor_text(name))
    assert list(whole) == ["api_sources", "destination"]
    assert [source["name"] for source in whole["api_sources"]] == [name]
    assert whole["destination"] == DESTINATION


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid(name: str, key_file: Path) -> None:
    [source] = sources_of(name)
    settings = parse(vendor_text(name), key_file)
    wanted = [f"{name}/{item}" for item in source.get("foreach", [])] or [name]
    assert [found.name for found in settings.sources] == wanted
    jsonschema.Draft202012Validator(config.json_schema()).validate(
        yaml.safe_load(vendor_text(name))
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_credential_is_literal(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(vendor_text(name), {}, origin="config.yaml")
    missing = set(re.findall(r"variable (\w+),", str(caught.value)))
    assert missing == set(VARIABLE.findall(vendor_text(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_time_filter_has_a_start(name: str) -> None:
    """A first poll neither fails for want of a bound nor asks for years."""
    [source] = sources_of(name)
    if "time_filter_param" in source:
        assert source["start_time"] in {"24h", "48h"}
        assert source["timestamp_field"]
    else:
        # A cursor that outlives the poll is what there is instead.
        assert source["pagination"]["persist_cursor"] is True


def test_the_readme_says_which_sources_do_not_begin_a_day_ago() -> None:
    starts = {name: sources_of(name)[0].get("start_time") for name in NAMES}
    others = {name: start for name, start in starts.items() if start != "24h"}
    assert others == {"box": None, "salesforce-event-log-file": "48h"}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "`salesforce-event-log-file` begins two days before" in readme
    assert "`box`, which has no time filter, with all that Box still keeps" in readme


@pytest.mark.parametrize("name", NAMES)
def test_it_says_whether_its_cursor_outlives_a_poll(name: str) -> None:
    """Not left to the default: what a vendor means by a cursor is known here."""
    [source] = sources_of(name)
    pagination = source["pagination"]
    has_token = pagination["pagination_type"] in {"cursor", "link_header", "next_url"}
    assert ("persist_cursor" in pagination) == has_token


def test_neighbours_make_one_configuration(key_file: Path) -> None:
    alone = {name: parse(vendor_text(name), key_file).sources for name in NAMES}
    for first, second in pairwise([*NAMES, NAMES[0]]):
        assert parse(compose([first, second]), key_file).sources == alone[first] + alone[second]


def test_all_make_one_configuration(key_file: Path) -> None:
    text = compose(NAMES)
    settings = parse(text, key_file)
    alone = [parse(vendor_text(name), key_file).sources for name in NAMES]
    assert settings.sources == tuple(source for sources in alone for source in sources)
    names = [source.name for source in settings.sources]
    assert len(set(names)) == len(names)
    assert text.count("\ndestination:") == 1


def test_order_does_not_matter_and_a_name_given_twice_counts_once(key_file: Path) -> None:
    for names in permutations(["okta", "github", "okta"]):
        settings = parse(compose(names), key_file)
        assert [source.name for source in settings.sources] == list(dict.fromkeys(names))


def test_the_command_at_the_head_is_wrapped() -> None:
    head, _, _ = compose(NAMES).partition("api_sources:\n")
    lines = head.splitlines()
    assert len(lines) > 3
    assert all(line.startswith("# ") and len(line) <= 100 for line in lines)
    command = " ".join(line[2:] for line in lines)
    assert f"`flicker init {' '.join(NAMES)}`. Set the variables" in command


def test_comments_are_kept() -> None:
    text = compose(["okta", "github"])
    for name in ("okta", "github"):
        comments = re.findall(r"#.*", vendor_text(name))
        assert comments
        assert [comment for comment in comments if comment not in text] == []


@pytest.mark.process
def test_init_prints_a_configuration_that_validates(home: Home, key_file: Path) -> None:
    made = home.run("init", "okta", "github")
    assert (made.code, made.stderr) == (0, "")
    home.config_path.write_text(made.stdout, encoding="utf-8")
    validated = home.run(
        "validate", "-c", str(home.config_path), env=environ_for(made.stdout, key_file)
    )
    assert validated.code == 0, validated.stderr
    assert "2 source(s), no problem found" in validated.stdout


def refused(finished: Finished) -> list[str]:
    """Give the lines of an error of use."""
    assert finished.code == 2
    assert finished.stdout == ""
    return finished.stderr.splitlines()


@pytest.mark.process
def test_init_names_what_an_unknown_vendor_may_have_meant(home: Home) -> None:
    mistyped, short_name, *nothing_near = refused(
        home.run("init", "okat", "github", "Entra", "zzzz", "nope")
    )
    assert mistyped == (
        "flicker: no ready configuration is called 'okat'. Did you mean okta?"
        " `flicker vendors` lists them"
    )
    assert short_name == (
        "flicker: no ready configuration is called 'Entra'. Did you mean"
        " entra-directory-audits or entra-sign-ins? `flicker vendors` lists them"
    )
    assert nothing_near == [
        f"flicker: no ready configuration is called '{name}'. `flicker vendors` lists them"
        for name in ("zzzz", "nope")
    ]


@pytest.mark.process
def test_init_without_a_vendor_says_how_to_name_one(home: Home) -> None:
    [line] = refused(home.run("init"))
    assert line == (
        "flicker: no vendor: name one or more, as in `flicker init okta github`;"
        " `flicker vendors` lists them"
    )


@pytest.mark.process
def test_vendors_lists_all_in_columns(home: Home) -> None:
    listed = home.run("vendors")
    assert (listed.code, listed.stderr) == (0, "")
    titles, *lines = listed.stdout.splitlines()
    assert titles.split() == ["name", "vendor", "log", "auth", "lag"]
    starts = [titles.index(title) for title in titles.split()]
    assert [line.split()[0] for line in lines] == NAMES
    for line in lines:
        # Every column begins where its title does.
        head = head_of(vendor_text(line.split()[0]))
        ends = [*starts[1:], None]
        cells = [line[start:end].rstrip() for start, end in zip(starts, ends, strict=True)]
        assert cells[1:] == [head["Vendor"], head["Log"], head["Auth"], head["Lag"]]
        assert all(line[start - 1] == " " for start in starts[1:])


@pytest.mark.process
def test_vendors_lists_all_for_programs(home: Home) -> None:
    listed = home.run("vendors", "--json")
    assert listed.code == 0
    vendors = {vendor.pop("name"): vendor for vendor in json.loads(listed.stdout)}
    assert list(vendors) == NAMES
    for name, vendor in vendors.items():
        head = head_of(vendor_text(name))
        assert vendor == {key.lower(): head[key] for key in ("Vendor", "Log", "Auth", "Lag")}


def test_the_readme_shows_every_configuration() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("\n## Vendors\n") :]
    section = section[: section.index("\n## ", 1)]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    expected = []
    for name in NAMES:
        head = head_of(vendor_text(name))
        [source] = sources_of(name)
        paging = source["pagination"]["pagination_type"]
        cells = (f"{head['Vendor']}: {head['Log']}", head["Auth"], head["Lag"], f"`{paging}`")
        expected.append(f"| `{name}` | {' | '.join(cells)} |")
    missing = "\n".join(row for row in expected if row not in rows)
    stale = "\n".join(row for row in rows if row not in expected)
    advice = "make the rows of the README's section Vendors these, in order of their names"
    assert rows == expected, f"{advice}. Add:\n{missing}\nTake out:\n{stale}"
