"""What a command prints, and what becomes of it where nothing takes it."""

from __future__ import annotations


class OutputError(Exception):
    """What was to be printed cannot be written."""


def show(text: str, end: str = "\n") -> None:
    """Print something, and have it written.

    Raises:
        BrokenPipeError: Nobody reads it.
        OutputError: It cannot be written.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"the output cannot be written ({error.strerror})"
        raise OutputError(message) from None
