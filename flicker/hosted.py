"""Running under `python -m bytewax.run`, whose options Flicker has to share."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flicker import collector, config
from flicker.errors import ConfigError, FlickerError, Problem
from flicker.flow import build, explain_failure
from flicker.log import FORMATS, LEVELS, conceal_secrets, configure_logging
from flicker.memory import given_back
from flicker.registry.access import LEASE_S, RemoteOptions, open_remote, parse_lease
from flicker.registry.local import open_registry
from flicker.registry.location import S3Location, parse_location
from flicker.signals import exit_when_asked, hand_over

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

    from flicker.registry.caretaker import Caretaker
    from flicker.registry.local import Registry
    from flicker.runtime import Runtime

HANDLER_LIMIT_S = 4.0
"""How long a signal may take to be handled by a flow that runs."""

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
    with collector.at_rest():
        settings = config.load(Path(config_path), os.environ)
    conceal_secrets(settings)
    options = host_options(sys.argv)
    exit_when_asked()
    # For as long as the process lives: when the flow ends, Bytewax does not say.
    memory = contextlib.ExitStack()
    memory.enter_context(given_back())
    atexit.register(memory.close)
    registry = _open_registry(options)
    if registry is not None:
        atexit.register(registry.close)
    dead_letter_dir = options.recovery_dir.absolute().parent if options.recovery_dir else None
    plan = build(settings, registry, dead_letter_dir=dead_letter_dir)
    atexit.register(plan.runtime.offload.close)
    sys.excepthook = lambda _kind, error, _traceback: _say_why(error, registry)
    hand_over(plan.runtime.stop.set)
    _end_where_no_handler_runs(plan.runtime)
    if plan.caretaker is not None:
        plan.caretaker.start()
        atexit.register(_finish, plan.caretaker, registry)
    return plan.flow


def _finish(caretaker: Caretaker, registry: Registry | None) -> None:
    """Look and upload a last time; where that fails, exit with 1 as the command does."""
    caretaker.stop()
    trouble = caretaker.trouble
    if trouble is None and registry is not None and registry.remote is not None:
        trouble = registry.remote.trouble
    if trouble is not None:
        print(f"flicker: {trouble}", file=sys.stderr, flush=True)
        if registry is not None:
            registry.close()
        # Bytewax has ended with its own code, which nothing else changes.
        os._exit(1)


def _open_registry(options: HostOptions) -> Registry | None:
    """Open the registry that `-r` and FLICKER_REGISTRY_FILE ask for.

    All processes of a cluster share one recovery directory, so the first holds
    the registry in S3 for all of them.

    Raises:
        ConfigError: They contradict each other.
        RegistryError: It cannot be used.
    """
    environ = os.environ
    text = environ.get("FLICKER_REGISTRY_FILE")
    directory = options.recovery_dir
    if not text:
        if directory is None:
            return None
        return open_registry(directory, process_index=options.process_index)
    location = parse_location(text)
    if not isinstance(location, S3Location):
        message = "FLICKER_REGISTRY_FILE must be s3://BUCKET/KEY here; a local registry is -r DIR"
        raise ConfigError([Problem("", message)])
    if directory is None:
        message = "FLICKER_REGISTRY_FILE needs -r DIR, a directory for the working copy"
        raise ConfigError([Problem("", message)])
    if options.process_index > 0:
        return open_registry(directory, process_index=options.process_index)
    try:
        lease_s = parse_lease(environ.get("FLICKER_LEASE_SECONDS") or str(LEASE_S))
    except ValueError as error:
        raise ConfigError([Problem("", f"FLICKER_LEASE_SECONDS {error}")]) from None
    is_standby = _choice("FLICKER_STANDBY", ("true", "false"), "false") == "true"
    return open_remote(location, RemoteOptions(directory, is_standby=is_standby, lease_s=lease_s))


def _end_where_no_handler_runs(runtime: Runtime) -> None:
    """Obey signals while Bytewax waits for the other processes of a cluster.

    It does so without letting Python run its handlers, for as long as a
    process is missing. Nothing has been polled by then.
    """
    woken, waker = socket.socketpair()
    waker.settimeout(0)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    arguments = (runtime, woken, waker)
    threading.Thread(target=_watch, args=arguments, name="flicker-signals", daemon=True).start()


def _watch(runtime: Runtime, woken: socket.socket, waker: socket.socket) -> None:
    while waker.fileno() >= 0:
        if woken.recv(1)[0] not in {signal.SIGTERM, signal.SIGINT}:
            continue
        asked_at = time.monotonic()
        while not (runtime.stop.is_set or runtime.has_begun):
            if time.monotonic() - asked_at > HANDLER_LIMIT_S:
                print("flicker: stopped before all processes were there", file=sys.stderr)
                sys.stderr.flush()
                os._exit(0)
            time.sleep(0.05)


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
