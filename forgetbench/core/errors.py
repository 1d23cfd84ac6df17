"""The one exception a user is meant to read: what was given, what was expected, what to do next."""


class UserError(Exception):
    """Bad input or a bad state of files; the command line prints it plainly and exits with 2."""
