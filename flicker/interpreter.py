"""Further interpreters that find their modules where this one does."""

from __future__ import annotations

import os
import sys

# Nothing may be imported before the path is set: `python -c` and `python -m` look
# into the working directory first, and whoever may write there would be obeyed.
_RUN = """\
import sys
module, paths = sys.argv[1:3]
sys.path[:] = paths.split("\\n")
sys.argv[:] = [module, *sys.argv[3:]]
import runpy
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def command_of(module: str, *arguments: str) -> list[str]:
    """Give the command that runs a module in an interpreter of its own.

    Args:
        module: Its full name.
        arguments: It finds them in `sys.argv`.
    """
    paths = "\n".join(path or os.getcwd() for path in sys.path)  # noqa: PTH109 - as sys.path has them
    return [sys.executable, "-c", _RUN, module, paths, *arguments]
