"""`python -m audiovae` is the command `audiovae`."""

import sys

from audiovae.cli import main

sys.exit(main())
