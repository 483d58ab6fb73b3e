"""Errors that a user can cause and correct."""


class UserError(Exception):
    """Wrong input: one line that names the file or argument and says what to do.

    The command line prints only this line, without a traceback, and exits with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, message=""):
        super().__init__(" ".join(str(message).splitlines()))  # file names may contain line breaks
