"""Whether progress bars can be seen."""

import sys


def shows_bars() -> bool:
    """Whether progress bars can be seen: on a terminal, and in a notebook."""
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or "IPKernelApp" in getattr(ipython, "config", ())
