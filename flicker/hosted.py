"""Running under `python -m bytewax.run`, whose options Flicker has to share."""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flicker import config
from flicker.errors import ConfigError, FlickerError, Problem
from flicker.flow import build, explain_failure
from flicker.log import FORMATS, LEVELS, conceal_secrets, configure_logging
from flicker.registry.local import open_registry

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

    from flicker.registry.local import Registry

logger = logging.getLogger(__name__)


class HostOptions(NamedTuple):
    """What Flicker needs to know of Bytewax's options.

    Attributes:
        recovery_dir: `-r`.
        process_index: `-i`.
    """

    recovery_dir: Path | None
    process_index: int


def hosted_flow(config_path: str | None) -> Dataflow:
    """Build the dataflow for a Bytewax that somebody else runs.

    The recovery directory is made ready where it is empty; signals stop the
    flow as they stop the command. Exits with 2 or 1, as the command does,
    where the configuration or the registry is wrong.

    Args:
        config_path: The YAML file; by default what FLICKER_CONFIG names.
    """
    try:
        configure_logging(
            _choice("FLICKER_LOG_LEVEL", LEVELS, "info"),
            _choice("FLICKER_LOG_FORMAT", FORMATS, "text"),
        )
        return _build(config_path or os.environ.get("FLICKER_CONFIG"))
    except ConfigError as error:
        for problem in error.problems:
            print(f"flicker: {problem}", file=sys.stderr)
        sys.exit(2)
    except FlickerError as error:
        print(f"flicker: {error}", file=sys.stderr)
        sys.exit(1)


def _choice(name: str, choices: tuple[str, ...], default: str) -> str:
    value = os.environ.get(name) or default
    if value not in choices:
        raise ConfigError([Problem("", f"{name} must be one of {', '.join(choices)}")])
    return value


def _build(config_path: str | None) -> Dataflow:
    if not config_path:
        problem = Problem(
            "", "no configuration: set FLICKER_CONFIG, or use the factory get_flow('config.yaml')"
        )
        raise ConfigError([problem])
    settings = config.load(Path(config_path), os.environ)
    conceal_secrets(settings)
    options = host_options(sys.argv)
    registry = None
    if options.recovery_dir is not None:
        registry = open_registry(options.recovery_dir, process_index=options.process_index)
    dead_letter_dir = options.recovery_dir.absolute().parent if options.recovery_dir else None
    plan = build(settings, registry, dead_letter_dir=dead_letter_dir)
    sys.excepthook = lambda _kind, error, _traceback: _say_why(error, registry)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: plan.runtime.stop.set())
    if plan.caretaker is not None:
        plan.caretaker.start()
        atexit.register(plan.caretaker.stop)
    return plan.flow


def _say_why(error: BaseException, registry: Registry | None) -> None:
    """Say in one line what Bytewax dies of; its exit code is 1 either way."""
    logger.debug("the dataflow failed", exc_info=error)
    print(f"flicker: {explain_failure(error, registry)}", file=sys.stderr)


def host_options(argv: list[str]) -> HostOptions:
    """Read Bytewax's options from its command line and environment.

    Args:
        argv: As `sys.argv`; nothing is read from the command line of a
            program that is not Bytewax's.
    """
    environ = os.environ
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "-r", "--recovery-directory", type=Path, default=environ.get("BYTEWAX_RECOVERY_DIRECTORY")
    )
    parser.add_argument("-i", "--process-id", type=int, default=environ.get("BYTEWAX_PROCESS_ID"))
    is_bytewax = Path(argv[0]).parent.name == "bytewax"
    known, _ = parser.parse_known_args(argv[1:] if is_bytewax else [])
    index = known.process_id
    if index is None and {"BYTEWAX_POD_NAME", "BYTEWAX_STATEFULSET_NAME"} <= environ.keys():
        prefix = environ["BYTEWAX_STATEFULSET_NAME"] + "-"
        index = int(environ["BYTEWAX_POD_NAME"].replace(prefix, ""))
    return HostOptions(known.recovery_directory, index or 0)
