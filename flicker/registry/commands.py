"""`flicker registry ...`: what the commands take and print."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.output import show
from flicker.registry.edit import forget, import_registry, rewind
from flicker.registry.exchange import export_registry
from flicker.registry.location import DEFAULT_PATH, parse_location
from flicker.registry.report import inspect
from flicker.registry.view import VERSION, write_atomically
from flicker.timefmt import format_instant, format_rfc3339, parse_start_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.registry.report import Report


def add_commands(parser: argparse.ArgumentParser, add_common: Callable[..., None]) -> None:
    """Add the commands below `registry`.

    Args:
        parser: Of `registry`.
        add_common: Adds the options that every command takes.
    """
    commands = parser.add_subparsers(
        dest="registry_command", title="commands", metavar="COMMAND", required=True
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        add_common(command, is_top=False)
        command.add_argument(
            "--registry-file",
            metavar="PATH",
            default=argparse.SUPPRESS,
            help=f"a path (default {DEFAULT_PATH}), a recovery directory, or s3://BUCKET/KEY",
        )
        return command

    show = add("show", "show where each source stands, and who holds the registry")
    show.add_argument("--json", action="store_true", dest="is_json", help="for programs")
    again = add("rewind", "have a source read again from an instant on")
    again.add_argument("name", metavar="NAME", help="the source")
    again.add_argument(
        "--to",
        type=_instant,
        required=True,
        metavar="WHEN",
        help="an instant such as 2025-01-01T00:00:00Z, or a span before now such as 24h",
    )
    drop = add("forget", "drop all that is known of a source")
    drop.add_argument("name", metavar="NAME", help="the source")
    save = add("export", "write the whole registry into a file")
    load = add("import", "read sources from an exported file, or from the Rust Flicker's registry")
    for command in (save, load):
        command.add_argument("file", metavar="FILE", help="the file; - is standard output or input")
    for command in (drop, load):
        command.add_argument(
            "--force", action="store_true", help="also if events are lost that are not delivered"
        )


def _instant(text: str) -> int:
    try:
        when = parse_start_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    now_ns = time.time_ns()
    if isinstance(when, timedelta):
        return max(0, now_ns - int(when.total_seconds() * 1e9))
    if when > now_ns:
        message = "lies in the future, and what happened until then would be passed over"
        raise argparse.ArgumentTypeError(message)
    return when


def run(args: argparse.Namespace) -> int:
    """Run one of the commands.

    Raises:
        FlickerError: It failed; the message says what to do.
        BrokenPipeError: Nobody reads what it prints.
        OutputError: What it prints cannot be written.
    """
    text = args.registry_file
    location = Path(text).absolute() if text and Path(text).is_dir() else parse_location(text)
    if args.registry_command == "show":
        report = inspect(location)
        if args.is_json:
            show(json.dumps(_document(report), indent=2, ensure_ascii=False))
        else:
            show(_table(report))
    elif args.registry_command == "rewind":
        from_ns = rewind(location, args.name, args.to)
        start = "the beginning" if from_ns is None else format_rfc3339(from_ns)
        show(f"{args.name}: is read from {start} on at the next start")
    elif args.registry_command == "forget":
        forget(location, args.name, is_forced=args.force)
        show(f"{args.name}: forgotten")
    elif args.registry_command == "export":
        _write(args.file, export_registry(location))
    else:
        names = import_registry(location, _read(args.file), is_forced=args.force)
        show(f"imported {len(names)} source(s): {', '.join(names)}")
    return 0


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        raise RegistryError(message) from None


def _write(name: str, data: bytes) -> None:
    try:
        path = Path(name).absolute()
        if name == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():
            # A pipe or a device is written to, and stays what it is.
            path.write_bytes(data)
        else:
            # It holds events that are not delivered: the owner's alone.
            write_atomically(path, data)
    except OSError as error:
        message = f"{name} cannot be written: {error.strerror}"
        raise RegistryError(message) from None


def _document(report: Report) -> dict[str, Any]:
    return {
        "version": VERSION,
        "registry": report.registry,
        "lease": {
            "instance": report.holder,
            "expires_at": report.expires_at and format_instant(report.expires_at),
        }
        if report.holder is not None
        else None,
        "written_at": report.written_at and format_instant(report.written_at),
        "age_s": None if report.age_s is None else round(report.age_s, 1),
        "api_sources": {
            name: {**view, "state": _state(view)} for name, view in report.api_sources.items()
        },
    }


def _table(report: Report) -> str:
    until = f" until {format_instant(report.expires_at)}" if report.expires_at else ""
    lines = [
        f"registry  {report.registry}",
        f"held by   {report.holder or 'nobody'}{until}",
        f"saved     {'never' if report.age_s is None else f'{report.age_s:.0f} s ago'}",
        "",
    ]
    rows = [("SOURCE", "LAST TIMESTAMP", "STATE", "UNDELIVERED", "CURSOR")]
    rows += [
        (
            _printable(name),
            _printable(str(view.get("last_timestamp") or "-")),
            _state(view),
            f"{view.get('undelivered_batches', 0)} batches",
            _printable(str(_place(view))),
        )
        for name, view in sorted(report.api_sources.items())
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _printable(text: str) -> str:
    # A cursor is the vendor's text, and could tell the terminal what to do.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _state(view: dict[str, Any]) -> str:
    state = "mid-scan" if view.get("scanning") else "idle"
    return f"{state}, retired" if view.get("retired") else state


def _place(view: dict[str, Any]) -> str:
    for kind in ("offset", "page"):
        if kind in view:
            return f"{kind} {view[kind]}"
    return view.get("cursor") or "-"
