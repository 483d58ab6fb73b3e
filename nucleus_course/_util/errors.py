"""Errors that a user can cause, and mend."""


class UserError(Exception):
    """Wrong input: the message is one line that names the file or argument and the mend.

    The command line prints the message alone, without a traceback, and exits with ``exit_code``.
    """

    exit_code = 2
