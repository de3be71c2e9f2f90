"""README and reference are true: YAML, commands, tables and the example are run or checked."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from bytewax import run as bytewax_run

from flicker import cli, config
from flicker.demo.servers import Destination, Response
from tests.auth.keys import write_service_account
from tests.servers.scripted import ScriptedApi

if TYPE_CHECKING:
    from flicker.settings import Settings
    from tests.processes import Home

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = README + (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

BLOCK = re.compile(r"^(?:<!-- (\w+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
SECRET_FILE = "${file:/run/secrets/vendor-password}"
KEY_FILE = "/run/secrets/service-account.json"

# The models that each section of the reference describes, by their names in the schema.
MODELS = {
    "The file": ["ConfigFile"],
    "`api_sources`": ["SourceEntry"],
    "`pagination`": [
        "OffsetPagination",
        "CursorPagination",
        "PagePagination",
        "LinkHeaderPagination",
        "NextUrlPagination",
        "NoPagination",
    ],
    "`fetch_each`": ["FetchEntry"],
    "`destination`": ["DestinationEntry"],
    "`auth`": ["BearerAuth", "BasicAuth", "HeaderAuth"],
    "`basic`": ["BasicEntry"],
    "`oauth2`": ["OAuth2Entry"],
    "`jwt_bearer`": ["JwtBearerEntry"],
    "`aws_sigv4`": ["AwsSigV4Entry"],
    "`tls`": ["TlsEntry"],
    "`retry`": ["RetryEntry"],
}
SCHEMA = config.json_schema()
DEFINITIONS = {**SCHEMA["$defs"], "ConfigFile": SCHEMA}


class AnyVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return f"value-of-{name.lower()}"

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: Any = None) -> Any:
        del default
        return self[name]


def blocks(language: str) -> list[str]:
    return [text for _, found, text in BLOCK.findall(DOCUMENTS) if found == language]


def named_block(wanted: str) -> str:
    [text] = [text for name, _, text in BLOCK.findall(DOCUMENTS) if name == wanted]
    return str(text)


def completed(fragment: str) -> str:
    """Make a whole configuration out of a part of one."""
    part = yaml.safe_load(fragment)
    if "api_sources" in part:
        return fragment
    top = DEFINITIONS["ConfigFile"]["properties"]
    whole = {key: value for key, value in part.items() if key in top}
    source = {
        "name": "a",
        "endpoint": "https://api.example.com/logs",
        **{key: value for key, value in part.items() if key not in top},
    }
    whole.setdefault("destination", {"endpoint": "https://siem.example.com/ingest"})
    return yaml.safe_dump({"api_sources": [source], **whole})


def parse(text: str, tmp_path: Path) -> Settings:
    secret = tmp_path / "password"
    secret.write_text("a-password\n", encoding="utf-8")
    text = text.replace(SECRET_FILE, f"${{file:{secret}}}")
    text = text.replace(KEY_FILE, str(write_service_account(tmp_path)))
    return config.parse(text, AnyVariable(), origin="README.md")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_block_is_valid(text: str, tmp_path: Path) -> None:
    assert len(parse(completed(text), tmp_path).sources) == 1


@pytest.mark.parametrize("name", ["okta", "github", "custom-vendor"])
def test_vendors_examples_are_the_files_in_configs(name: str, tmp_path: Path) -> None:
    path = f"configs/{name}.yaml"
    after = README[README.index(f"(`{path}`)") :]
    found = BLOCK.search(after)
    assert found is not None
    assert parse(found[3], tmp_path) == parse((ROOT / path).read_text(encoding="utf-8"), tmp_path)


@pytest.mark.process
def test_main_example_ships_what_the_readme_shows(home: Home) -> None:
    """T01, T14: what Okta answers arrives as shown, once, though its next link never ends."""
    answer, arrives = named_block("answer"), json.loads(named_block("arrives"))
    more = ("Link", '</api/v1/logs?after=1&limit=100>; rel="next"')
    answers = [Response(200, [more], answer.encode()), Response(200, [more], b"[]")]
    with ScriptedApi(answers) as api, Destination(token="siem-token") as siem:
        text = named_block("main")
        assert "https://your-domain.okta.com/" in text
        text = text.replace("https://your-domain.okta.com", api.url)
        text = text.replace("https://your-siem.com", siem.url)
        home.config_path.write_text(text, encoding="utf-8")
        ended = home.start("--once", env={"OKTA_TOKEN": "okta-token", "SIEM_TOKEN": "siem-token"})
        assert ended.wait() == 0, ended.stderr
        first = api.requests[0]
        assert f"GET {first.target}" in README
        assert first.headers["authorization"] == "SSWS okta-token"
        [post] = siem.posts
        assert f"`POST {post.target}`" in README
        assert json.loads(post.content) == arrives
        # Keys stand in the order shown.
        assert [list(record) for record in json.loads(post.content)] == [
            list(record) for record in arrives
        ]
        for event, served in zip(siem.raw_events, json.loads(answer), strict=True):
            assert event.decode() in answer
            assert json.loads(event) == served
        shown = json.loads(named_block("registry"))
        view = json.loads(home.registry_path.read_text(encoding="utf-8"))
        [shown_source] = shown["api_sources"].values()
        [source] = view["api_sources"].values()
        assert view.keys() == shown.keys()
        assert source.keys() == shown_source.keys()
        assert source["last_timestamp"] == shown_source["last_timestamp"]
        del shown_source["cursor"], source["cursor"]
        assert source == shown_source


def label(schema: dict[str, Any]) -> str:
    """Give the word that the README has for a type."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        *others, last = (f"`{choice}`" for choice in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if "anyOf" in schema:
        ways = [way for way in schema["anyOf"] if way.get("type") != "null"]
        # The last way is `${...}`, which any number and switch may be.
        if ways[-1].get("pattern"):
            ways = ways[:-1]
        return " or ".join(dict.fromkeys(label(way) for way in ways))
    if "$ref" in schema or "oneOf" in schema:
        return "mapping"
    words = {
        "string": "text",
        "integer": "number",
        "number": "number",
        "boolean": "switch",
        "object": "mapping",
        "array": "list",
    }
    return words[schema["type"]]


def expected_rows(models: list[str]) -> dict[str, tuple[str, str]]:
    """Give type and default of every key of some models, as the README writes them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    defaults = {}
    for model in models:
        definition = DEFINITIONS[model]
        for key, schema in definition["properties"].items():
            kinds[key].append(label(schema))
            if key in definition.get("required", []):
                defaults[key] = "required"
            elif schema["default"] is None:
                defaults[key] = "none"
            elif schema["default"] == "":
                defaults[key] = '`""`'
            else:
                text = str(schema["default"])
                defaults[key] = f"`{text.lower() if text in {'True', 'False'} else text}`"
    rows = {}
    for key, words in kinds.items():
        *others, last = dict.fromkeys(words)
        kind = f"{', '.join(others)} or {last}" if others else last
        rows[key] = (kind, defaults[key])
    return rows


@pytest.mark.parametrize("section", MODELS)
def test_key_tables_and_the_schema_agree(section: str) -> None:
    text = dict(SECTION.findall(DOCUMENTS))[section]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    table = {key.strip("`"): (kind, default) for key, kind, default, _ in rows}
    assert len(table) == len(rows)
    assert table == expected_rows(MODELS[section])
    assert all(len(meaning) > 10 for *_, meaning in rows)


def test_every_model_of_the_schema_has_its_table() -> None:
    assert {model for models in MODELS.values() for model in models} == DEFINITIONS.keys()


def commands() -> list[list[str]]:
    """Every command of the README: in console blocks, and in back quotes."""
    lines = [
        line[2:].partition("  #")[0]
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    lines += re.findall(r"`((?:flicker|make) [^`]+)`", BLOCK.sub("", DOCUMENTS))
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_exists(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = command
    monkeypatch.setattr(os, "environ", {"PATH": ""})
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
    elif name == "flicker" and arguments == ["--version"]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("flicker ")
    elif name == "flicker":
        assert isinstance(cli._parser().parse_args(arguments), argparse.Namespace)
    elif name == "python":
        assert arguments[:2] == ["-m", "bytewax.run"]
        monkeypatch.setattr(sys, "argv", arguments[1:])
        assert bytewax_run._parse_args().import_str.startswith("dataflows.api_tailing")
    elif name == "source":
        [venv] = re.findall(r"^VENV := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments == [f"{venv}/bin/activate"]
    else:
        assert name == "export"


def test_every_option_and_subcommand_of_the_command_is_in_the_readme(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    help_text = capsys.readouterr().out
    options = set(re.findall(r"--[a-z-]+", help_text)) - {"--help", "--config"}
    assert options
    assert [option for option in sorted(options) if option not in README] == []


def test_every_file_named_in_the_readme_exists() -> None:
    made_by_flicker = {
        "flicker-dead-letter.jsonl",
        ".flicker-registry.json",
        "registry.json",
        "refused.jsonl",
    }
    named = set(re.findall(r"`([\w./-]+\.(?:py|yaml|md|jsonl?))`", DOCUMENTS)) - made_by_flicker
    places = (ROOT, *(ROOT / "flicker" / name for name in ("", "offload", "registry")))
    missing = [
        name
        for name in sorted(named - {"config.yaml"})
        if not any((place / name).exists() for place in places)
    ]
    assert not missing
    modules = {path.stem for path in (ROOT / "flicker").glob("*.py")} - {"__init__", "__main__"}
    # What each module is for stands in the map, or it is too small to be there.
    assert modules - set(re.findall(r"(\w+)\.py", README)) <= {"errors", "items", "log", "runtime"}
