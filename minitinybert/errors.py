"""The one exception a user is meant to read."""


class InputError(Exception):
    """Bad input: one clear line saying what was wrong, where (file, row, tensor) and what to do.

    Raised at entry points only (files, command-line values, shapes handed to a model); the command
    line prints it on standard error and exits 2.
    """
