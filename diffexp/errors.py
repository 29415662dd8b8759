"""The one error type whose message is meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input: the message is one line that says what, where, and the nearest valid spelling or next step.

    The command line prints it and exits with code 2.
    """


def one_line(error: BaseException) -> str:
    """What went wrong: the message, after the kind of error where it is no ``InputError``, and the notes on it."""
    text = " ".join(str(error).split())
    told = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".rstrip(": ")
    return told + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
