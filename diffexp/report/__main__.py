"""``python -m diffexp.report DIR… [out=FILE]``: one page that compares runs or sweeps."""

import sys
from pathlib import Path

from diffexp.errors import InputError

USAGE = "usage: python -m diffexp.report DIR... [out=FILE]   (folders of runs or sweeps; default out: DIR/report.html)"


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    try:
        print(f"report: {_write(arguments)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _write(arguments: list[str]) -> Path:
    out, folders = None, []
    for word in arguments:
        key, _, value = word.partition("=")
        if word.startswith("-"):
            raise InputError(f"{word} is not a flag; {USAGE}")
        if key == "out" and value:
            out = Path(value)
        elif Path(word).is_dir():
            folders.append(Path(word))
        else:
            raise InputError(f"{word} is no folder")
    if not folders:
        raise InputError(f"no folder is given; {USAGE}")
    from diffexp.report import write_report  # seconds to import

    return write_report(folders, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
