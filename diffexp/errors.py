"""The one error type whose message is meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input: the message is one line that says what, where, and the nearest valid spelling or next step.

    The command line prints it and exits with code 2.
    """
