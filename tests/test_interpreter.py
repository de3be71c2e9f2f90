"""Where further interpreters find their modules."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from flicker.interpreter import command_of

if TYPE_CHECKING:
    from pathlib import Path


def test_no_module_comes_from_the_working_directory(tmp_path: Path) -> None:
    """Whoever may write there would be obeyed, with the tokens of the environment."""
    for name in ("json", "runpy", "base64", "types"):
        (tmp_path / f"{name}.py").write_text("print('obeyed')")
    ended = subprocess.run(
        command_of("base64", "-d", "-"),
        cwd=tmp_path,
        input=b"aGVsbG8=",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"hello"), ended.stderr
