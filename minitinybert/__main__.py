"""`python -m minitinybert` is the command `minitinybert`."""

import sys

from .cli import main

sys.exit(main())
