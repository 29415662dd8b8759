"""From what a command raises to one line and an exit code: the same for every command."""

import os
import sys
from collections.abc import Callable

from diffexp.errors import BAD_INPUT, FAILED, INTERRUPTED, InputError, one_line
from diffexp.sweeps.console import styled

LONGEST = 1500
"""Characters of a message, at most."""


def guarded(command: Callable[[], int]) -> int:
    """The exit code of a command; what it raises is printed as one line."""
    try:
        return command()
    except InputError as error:
        return complain(one_line(error), BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        where = f"; what was finished is in {interrupt}" if interrupt.args else ""
        return complain(f"interrupted{where}", INTERRUPTED)
    except BrokenPipeError:  # as in `diffexp --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return complain(f"{one_line(error)} (HYDRA_FULL_ERROR=1 shows where)", FAILED)


def complain(message: str, code: int) -> int:
    """Print an error; returns the exit code. What somebody pasted may be long."""
    shown = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
    print(f"{styled('error:', 'bold red', sys.stderr)} {shown}", file=sys.stderr)
    return code
