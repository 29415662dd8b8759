"""``python -m diffexp``."""

# Only what the interpreter has imported already, before the path is safe.
import os
import sys


def keep_working_folder_out(path: list[str], package: str, cwd: str) -> list[str]:
    """``sys.path`` without the working folder in front, where ``python -m`` puts it.

    A user's ``timeit.py`` would otherwise be imported by torch. Where the package itself lies in the working folder (a
    checkout that is not installed) it goes to the end, behind everything that it could stand in for.
    """
    if not path or path[0] not in ("", cwd):
        return path
    own = os.path.dirname(os.path.abspath(package)) == cwd
    return [*path[1:], cwd] if own else path[1:]


if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path[:] = keep_working_folder_out(sys.path, os.path.dirname(os.path.abspath(__file__)), os.getcwd())
        if os.getcwd() not in sys.path:
            os.environ.setdefault("PYTHONSAFEPATH", "1")  # the same for worker processes
    from diffexp.cli import main

    main()
