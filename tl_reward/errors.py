"""The one exception that users cause: bad input, said in one line."""


class InputError(ValueError):
    """Bad input. The message is one line: what was got, and what is allowed.

    The command line prints it as it is and exits with status 2.
    """
