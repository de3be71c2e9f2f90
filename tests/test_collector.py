"""When the garbage collector runs."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from flicker import collector


def test_it_rests_until_the_end_even_where_that_is_an_error() -> None:
    seen: list[bool] = []

    def work() -> None:
        with collector.at_rest():
            seen.append(gc.isenabled())
            raise ValueError("of the work")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="of the work"):
        work()
    assert seen == [False]
    assert gc.isenabled()


LOADING = """
import gc, sys
from flicker import config

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "flicker.cli":
            print("modules:", gc.isenabled())

def load(*arguments, load=config.load):
    print("configuration:", gc.isenabled())
    return load(*arguments)

sys.meta_path.insert(0, Finder())
config.load = load
from flicker.entry import main
main()
print("afterwards:", gc.isenabled())
"""


@pytest.mark.process
def test_it_rests_while_the_command_and_a_configuration_are_loaded() -> None:
    argv = [sys.executable, "-c", LOADING, "validate", "-c", "missing.yaml"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.splitlines() == ["modules: False", "configuration: False", "afterwards: True"]
