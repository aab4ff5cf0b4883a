"""The command line: `python -m optimization`, which is `optfactory`."""

import sys

from optimization.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
