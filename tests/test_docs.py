"""The pages in `docs/` are true: manifests, commands and messages."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flicker import cli, config

ROOT = Path(__file__).parent.parent
CONTAINERS = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text() for path in (ROOT / "flicker").glob("**/*.py"))
ENVIRON = {"OKTA_TOKEN": "okta-secret", "SIEM_TOKEN": "siem-secret"}


def block(name: str) -> str:
    [text] = re.findall(
        rf"^<!-- {name} -->\n```\w+\n(.*?)^```$", CONTAINERS, re.MULTILINE | re.DOTALL
    )
    return str(text)


def is_stateless(arguments: list[str]) -> bool:
    args = cli._parser().parse_args(arguments)
    return args.track and args.standby and args.registry_file.startswith("s3://")


def test_the_deployment_is_one_that_kubernetes_would_run(tmp_path: Path) -> None:
    """No claim on a volume, a configuration that is valid, secrets from a Secret."""
    config_map, deployment = yaml.safe_load_all(block("kubernetes"))
    (tmp_path / "config.yaml").write_text(config_map["data"]["config.yaml"])
    settings = config.load(tmp_path / "config.yaml", ENVIRON)
    assert [source.name for source in settings.sources] == ["okta-audit-logs"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert is_stateless(container["args"])
    assert {variable["name"] for variable in container["env"]} >= ENVIRON.keys()
    assert not any("persistentVolumeClaim" in volume for volume in pod["volumes"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_task_has_no_volume() -> None:
    task = json.loads(block("ecs"))
    [container] = task["containerDefinitions"]
    assert is_stateless(container["command"])
    assert "volumes" not in task
    assert {secret["name"] for secret in container["secrets"]} == ENVIRON.keys()


def test_the_policy_allows_what_the_store_is_asked_for() -> None:
    """Every action that an error message can name."""
    allowed = set()
    for statement in json.loads(block("policy"))["Statement"]:
        actions = statement["Action"]
        allowed |= set(actions if isinstance(actions, list) else [actions])
    store = (ROOT / "flicker/registry/store.py").read_text()
    assert allowed == set(re.findall(r'"(s3:\w+)"', store))


@pytest.mark.parametrize(
    "line", re.findall(r"^\$ (flicker .*)$", CONTAINERS, re.MULTILINE), ids=lambda line: line[:60]
)
def test_every_command_is_one(line: str) -> None:
    assert cli._parser().parse_args(shlex.split(line)[1:])


def test_every_message_is_one_that_flicker_says() -> None:
    """In its own words, up to what stands for a name."""
    table = CONTAINERS.partition("## When it does not start")[2]
    said = re.findall(r"^\| `(?:\.\.\. )?(.*?)(?: NAME.*| \.\.\.)?` \|", table, re.MULTILINE)
    assert len(said) == 9
    assert [text for text in said if text not in SOURCES] == []
