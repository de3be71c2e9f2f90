"""`python -m flicker`."""

import sys

from flicker.cli import main

sys.exit(main())
