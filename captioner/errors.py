"""The one error that user mistakes raise."""

from __future__ import annotations


class CaptionerError(Exception):
    """Something the user gave cannot be used.

    The message names the file or option, the value and the remedy; the command line prints it
    without a traceback and exits with code 2.
    """


def damaged(part: str, reason: str) -> CaptionerError:
    """What is wrong with a part of a model file, and what to do.

    Args:
        part: what messages call it.
        reason: what it holds that no captioner wrote.
    """
    return CaptionerError(f"{part}: {reason}; the file is damaged, get it again")
