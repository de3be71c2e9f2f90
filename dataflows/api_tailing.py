"""Flicker's dataflow for `python -m bytewax.run`.

FLICKER_CONFIG=config.yaml python -m bytewax.run dataflows.api_tailing -r DIR -s 5 -b 0 -w 2
python -m bytewax.run "dataflows.api_tailing:get_flow('config.yaml')" -r DIR -s 5 -b 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flicker.hosted import hosted_flow

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow


def get_flow(config_path: str | None = None) -> Dataflow:
    """Build the dataflow of a configuration file.

    Args:
        config_path: The YAML file; by default the one that FLICKER_CONFIG
            names.
    """
    return hosted_flow(config_path)


def __getattr__(name: str) -> Dataflow:
    # `flow` is what Bytewax looks for by default. Built on demand, so that
    # importing the factory needs no FLICKER_CONFIG.
    if name == "flow":
        return get_flow()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
