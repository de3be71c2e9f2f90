"""The ready configurations of `configs/vendors`: what there is, and one file of several."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import asdict, astuple, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING

from flicker.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

# A link to `configs/vendors`, so that an installed Flicker has the files too.
_DIRECTORY = files("flicker") / "vendor_configs"
_HEAD_LINE = re.compile(r"^# (Vendor|Log|Auth|Lag): (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^(?:api_sources|destination):\n", re.MULTILINE)
# By difflib's default, `nope` would have meant openai.
NEAR = 0.7
HEAD_WIDTH = 100
_SEE_LIST = "`flicker vendors` lists them"


@dataclass(frozen=True)
class Vendor:
    """What the head of a ready configuration says.

    Attributes:
        name: Of the file and of its source.
        vendor: Who has the log.
        log: Which of the vendor's logs it is.
        auth: Kind of credentials.
        lag: How late events may be.
    """

    name: str
    vendor: str
    log: str
    auth: str
    lag: str


def vendor_names() -> list[str]:
    """Give the names of all ready configurations, in order."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _DIRECTORY.iterdir()
        if entry.name.endswith(".yaml")
    )


def vendor_text(name: str) -> str:
    """Give the text of a ready configuration."""
    return (_DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8")


def read_head(name: str, text: str) -> Vendor:
    """Read the head of a ready configuration."""
    head = {key.lower(): value for key, value in _HEAD_LINE.findall(text)}
    return Vendor(name=name, **head)


def list_vendors(*, as_json: bool) -> str:
    """List the ready configurations: a table, or JSON for programs."""
    vendors = [read_head(name, vendor_text(name)) for name in vendor_names()]
    if as_json:
        return json.dumps([asdict(vendor) for vendor in vendors], indent=2)
    rows = [tuple(field.name for field in fields(Vendor)), *map(astuple, vendors)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def compose(names: Sequence[str]) -> str:
    """Make one configuration with the sources of ready ones, comments included.

    Args:
        names: Of the ready configurations; one given twice counts once.

    Raises:
        ConfigError: There are no names, or unknown ones.
    """
    if not names:
        message = f"no vendor: name one or more, as in `flicker init okta github`; {_SEE_LIST}"
        raise ConfigError([Problem("", message)])
    known = vendor_names()
    problems = [Problem("", _unknown(name, known)) for name in names if name not in known]
    if problems:
        raise ConfigError(problems)
    names = list(dict.fromkeys(names))
    sources = []
    for name in names:
        # The destination is the same in each of them.
        head, source, destination = _BLOCK.split(vendor_text(name))
        sources.append("".join(f"  {line}\n" for line in head.splitlines()) + source)
    head = textwrap.fill(
        f"Written by `flicker init {' '.join(names)}`. Set the variables that each source names, "
        "SIEM_URL and SIEM_TOKEN; then: flicker validate -c FILE",
        HEAD_WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
    )
    listed = "\n".join(sources)
    return f"{head}\napi_sources:\n{listed}\ndestination:\n{destination.rstrip()}"


def _unknown(name: str, known: Sequence[str]) -> str:
    wanted = name.lower()
    near = [other for other in known if wanted and wanted in other]
    near += get_close_matches(wanted, known, cutoff=NEAR)
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    return f"no ready configuration is called {name!r}.{hint} {_SEE_LIST}"
