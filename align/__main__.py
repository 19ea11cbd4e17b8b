"""`python -m align` is the `align` command."""

import sys

from align.cli import main

if __name__ == "__main__":
    sys.exit(main())
