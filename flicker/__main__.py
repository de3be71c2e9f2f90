"""`python -m flicker`."""

import sys

from flicker.entry import main

sys.exit(main())
