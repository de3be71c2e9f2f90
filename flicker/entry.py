"""Where the `flicker` command begins: ready for signals before anything else."""

from __future__ import annotations

from flicker import collector
from flicker.signals import exit_if_asked, exit_when_asked


def main() -> int:
    """Run the command.

    A signal that comes while it is still being loaded, which takes the better
    part of a second, stops it as a later one does.
    """
    exit_when_asked()
    with collector.at_rest():
        from flicker.cli import main as run  # noqa: PLC0415 - what takes so long

    exit_if_asked()
    return run()
