"""What is loaded, and when: the start must stay quick."""

from __future__ import annotations

import subprocess
import sys


def test_libraries_of_credentials_are_loaded_only_where_they_are_used() -> None:
    code = (
        "import sys, flicker.cli, flicker.flow, flicker.config;"
        "print([n for n in ('boto3', 'botocore', 'jwt', 'oauthlib', 'cryptography')"
        " if n in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"
