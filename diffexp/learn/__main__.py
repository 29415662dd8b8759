"""``python -m diffexp.learn``."""

import os
import sys

from diffexp.__main__ import keep_working_folder_out

if __name__ == "__main__":
    if not sys.flags.safe_path:
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        sys.path[:] = keep_working_folder_out(sys.path, package, os.getcwd())
    from diffexp.cli.learn import main

    main()
