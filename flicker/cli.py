"""The `flicker` command: arguments, messages, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bytewax.recovery import RecoveryConfig
from bytewax.testing import cluster_main

from flicker import collector, config
from flicker.errors import ConfigError, FlickerError, RegistryError
from flicker.flow import build, explain_failure
from flicker.log import FORMATS, LEVELS, conceal_secrets, configure_logging
from flicker.memory import given_back
from flicker.output import OutputError, show
from flicker.registry.access import LEASE_S, RemoteOptions, open_located, parse_lease
from flicker.registry.commands import add_commands
from flicker.registry.commands import run as run_registry
from flicker.registry.location import DEFAULT_PATH, parse_location
from flicker.signals import exit_if_asked, hand_over
from flicker.slack import slack_for_signals
from flicker.vendors import compose, list_vendors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flicker.flow import Plan
    from flicker.registry.local import Registry
    from flicker.settings import Settings

STOPPED, FAILED, MISCONFIGURED = 0, 1, 2

UNREAD = 128 + signal.SIGPIPE
"""What a shell shows for a command that ends at a closed pipe."""

EPOCH_INTERVAL = timedelta(seconds=1)
"""Time between two snapshots, and so the age of what a crash falls back to."""

LONGEST_EPOCH = timedelta(seconds=2.5)
SOURCES_A_SECOND = 400
"""How many sources' positions are written down, changed or not: Bytewax writes
all of them at each snapshot."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 stopped as asked, 1 failed, 2 wrong configuration or arguments, 141
        nobody reads the output any longer.
    """
    args = _parser().parse_args(arguments)
    try:
        code = _obey(args)
        # What is left in the buffer would fail at exit, where nothing can catch it.
        show("", end="")
    except BrokenPipeError:
        _drop_output()
        return UNREAD
    except OutputError as error:
        _drop_output()
        _say(str(error))
        return FAILED
    return code


def _drop_output() -> None:
    # So that Python's own flush at exit finds a place to write to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _obey(args: argparse.Namespace) -> int:
    """Do what the arguments ask for, and give the exit code."""
    quiet = "warning" if args.command == "registry" else "info"
    configure_logging(args.log_level or quiet, args.log_format)
    try:
        answer = _answer(args)
        if answer is not None:
            show(answer)
            return STOPPED
        if args.command == "demo":
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from flicker.demo.tour import run_tour  # noqa: PLC0415 - only the tour needs it

            return run_tour()
        if args.command == "registry":
            return run_registry(args)
        if args.config is None:
            _say("no configuration: give one with -c config.yaml")
            return MISCONFIGURED
        with collector.at_rest():
            settings = config.load(args.config, os.environ)
        if args.command == "validate":
            show(f"{args.config}: {len(settings.sources)} source(s), no problem found")
            return STOPPED
        return _run(settings, args)
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
        return MISCONFIGURED
    except FlickerError as error:
        _say(str(error))
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _answer(args: argparse.Namespace) -> str | None:
    """Give what a command that only prints has to print; None for the others."""
    if args.command == "schema":
        return json.dumps(config.json_schema(), indent=2)
    if args.command == "vendors":
        return list_vendors(as_json=args.as_json)
    if args.command == "init":
        return compose(args.names)
    return None


def _say(message: str) -> None:
    print(f"flicker: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flicker", description="Ship the audit logs behind REST APIs to a SIEM."
    )
    parser.add_argument("--version", action="version", version=f"flicker {version('flicker')}")
    _add_common(parser, is_top=True)
    parser.add_argument(
        "--track", action="store_true", help="remember positions, and resume from them"
    )
    parser.add_argument(
        "--registry-file",
        metavar="PATH",
        help=f"where positions are remembered: a path (default {DEFAULT_PATH}) or "
        "s3://BUCKET/KEY; implies nothing without --track",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="with s3://: keep the working copy there (default: a temporary directory)",
    )
    parser.add_argument(
        "--standby",
        action="store_true",
        help="with s3://: wait while another instance holds the registry, then take over",
    )
    parser.add_argument(
        "--lease-seconds",
        type=_lease,
        metavar="N",
        help=f"with s3://: how long the registry stays ours after a crash ({LEASE_S:.0f})",
    )
    parser.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="Bytewax worker threads (1)"
    )
    parser.add_argument(
        "--once", action="store_true", help="scan every source once, deliver everything, exit"
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    validate = commands.add_parser("validate", help="report every problem of a configuration")
    _add_common(validate, is_top=False)
    _add_common(
        commands.add_parser("demo", help="a tour of Flicker, on this machine only"), is_top=False
    )
    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    _add_common(schema, is_top=False)
    vendors = commands.add_parser("vendors", help="list the ready configurations")
    vendors.add_argument("--json", action="store_true", dest="as_json", help="for programs")
    _add_common(vendors, is_top=False)
    init = commands.add_parser("init", help="print a configuration made of ready ones")
    init.add_argument("names", nargs="*", metavar="NAME", help="as `flicker vendors` lists them")
    _add_common(init, is_top=False)
    registry = commands.add_parser("registry", help="look into the registry, or change it")
    add_commands(registry, _add_common)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, is_top: bool) -> None:
    """Add the options that may stand before or behind a command."""

    def default(value: str | None) -> str | None:
        return value if is_top else argparse.SUPPRESS

    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", default=default(None), help="the YAML file"
    )
    parser.add_argument(
        "--log-level", choices=LEVELS, default=default(None), help="least severity shown (info)"
    )
    parser.add_argument(
        "--log-format", choices=FORMATS, default=default("text"), help="form of log lines"
    )


def _lease(text: str) -> float:
    try:
        return parse_lease(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = "must be a whole number from 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _run(settings: Settings, args: argparse.Namespace) -> int:
    conceal_secrets(settings)
    registry = _open_registry(args)
    try:
        exit_if_asked()
        return _run_with(settings, args, registry)
    finally:
        if registry is not None:
            registry.close()


def _run_with(settings: Settings, args: argparse.Namespace, registry: Registry | None) -> int:
    dead_letter_dir = registry.view_path.parent if registry and registry.view_path else Path()
    plan = build(settings, registry, once=args.once, dead_letter_dir=dead_letter_dir)
    hand_over(plan.runtime.stop.set)
    _execute(plan, registry, args.workers)
    if plan.caretaker is not None and plan.caretaker.trouble is not None:
        _say(f"{plan.caretaker.trouble}. What was shipped is shipped again by the next start")
        return FAILED
    if registry is not None and registry.remote is not None and registry.remote.trouble is not None:
        _say(registry.remote.trouble)
        return FAILED
    if plan.runtime.failed:
        names = ", ".join(sorted(plan.runtime.failed))
        kept = "the registry keeps what is owed" if registry else "without --track it is not kept"
        _say(f"not everything was read and delivered ({names}); {kept}")
        return FAILED
    remote = registry.remote if registry is not None else None
    logger.info("stopped", extra=remote.counters if remote is not None else {})
    return STOPPED


def _open_registry(args: argparse.Namespace) -> Registry | None:
    """Open the registry that the arguments ask for.

    Raises:
        ConfigError: They contradict each other.
        RegistryError: It cannot be used.
    """
    options = RemoteOptions(args.state_dir, is_standby=args.standby, lease_s=args.lease_seconds)
    if not args.track:
        if args.registry_file is not None or options.is_given:
            logger.warning(
                "--registry-file, --state-dir, --standby and --lease-seconds have no effect "
                "without --track; positions are not kept"
            )
        return None
    return open_located(parse_location(args.registry_file), options)


def _epoch_interval(sources: int) -> timedelta:
    longer = timedelta(seconds=sources / SOURCES_A_SECOND)
    return max(EPOCH_INTERVAL, min(LONGEST_EPOCH, longer))


def _execute(plan: Plan, registry: Registry | None, workers: int) -> None:
    """Run the dataflow until it ends.

    Raises:
        RegistryError: Something other than a stop ended it.
    """
    recovery = RecoveryConfig(registry.directory, timedelta(0)) if registry else None
    if plan.caretaker is not None:
        plan.caretaker.start()
    try:
        with given_back(), slack_for_signals():
            cluster_main(
                plan.flow,
                [],
                0,
                epoch_interval=_epoch_interval(plan.partitions),
                recovery_config=recovery,
                worker_count_per_proc=workers,
            )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # A panic of Rust's is a BaseException.
        logger.debug("the dataflow failed", exc_info=error)
        raise RegistryError(explain_failure(error, registry)) from None
    finally:
        plan.runtime.offload.close()
        if plan.caretaker is not None:
            plan.caretaker.stop()
