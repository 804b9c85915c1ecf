"""`python -m minitinybert` is the command `minitinybert`."""

import sys

from .commands.cli import main

sys.exit(main())
