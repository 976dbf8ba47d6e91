"""The one error that user mistakes raise."""


class CaptionerError(Exception):
    """Something the user gave cannot be used.

    The message names the file or option, the value and the remedy; the command line prints it
    without a traceback and exits with code 2.
    """
