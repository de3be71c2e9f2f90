"""Dataflows for `python -m bytewax.run`."""
