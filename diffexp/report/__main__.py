"""``python -m diffexp.report DIR...``."""

import sys

from diffexp.cli.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
