"""``python -m diffexp.report --watch DIR``: the page of a folder through a server on this machine."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from diffexp.cli.words import split_words
from diffexp.errors import InputError

FLAG, KEYS = "--watch", ("port",)
PORT = 8765


def watch(arguments: Sequence[str]) -> None:
    """Serve the folder of a command line until Ctrl-C.

    Raises:
        InputError: not one folder is given, a word is unknown, or the port cannot be used.
    """
    keyed = [word for word in arguments if word.startswith("port=")]
    folders = [word for word in arguments if word not in (*keyed, FLAG)]
    port = _port(split_words(keyed, KEYS).get("port", str(PORT)))
    if len(folders) != 1:
        raise InputError(f"{FLAG} serves one folder, as in python -m diffexp.report {FLAG} outputs port={PORT}")
    root = Path(folders[0]).expanduser()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; {FLAG} takes a folder and port=...")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from diffexp.report.watch import serve  # imports torch

    serve(root, port)


def _port(text: str) -> int:
    if not re.fullmatch(r"0*[0-9]{1,5}", text, re.ASCII) or int(text[-5:]) > 65535:
        raise InputError(f"port={text[:20]} is no port: give a number from 0, any that is free, to 65535")
    return int(text[-5:])
