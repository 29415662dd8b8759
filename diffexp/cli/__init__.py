"""The command: ``python -m diffexp key=value ...``, or ``diffexp`` once installed.

Mistakes end in one line on stderr and exit code 2 before torch is imported; a run that fails in one line and exit code
1, with the traceback in its diffexp.log; Ctrl-C in exit code 130, and so do SIGTERM, by which clusters end a job, and
SIGHUP, by which a closed terminal does.
"""

import logging
import signal
import sys
from typing import NoReturn

from diffexp.cli.command import run_command
from diffexp.experiment.allocator import retain_freed_heap


def main() -> NoReturn:
    """Run the command line in ``sys.argv`` and exit."""
    retain_freed_heap()
    logging.raiseExceptions = False  # a full disk or a closed pipe is no reason for a traceback at every line
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    sys.exit(run_command(sys.argv[1:]))
