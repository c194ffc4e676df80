"""The threads that torch computes with."""

import ctypes
import os


def dismiss_helpers(_cell=None) -> None:
    """Let the calling thread's OpenMP helpers go; when it computes again, new ones come.

    torch gives every thread that computes helpers of its own. If there are more of them than cores,
    they fall asleep after every operation, and a slider's worker waits thousands of times for its
    own to wake. _cell: what IPython tells a callback; not looked at.
    """
    if os.name == "posix":  # elsewhere a process cannot look its own functions up
        pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
        if pause is not None:
            pause(1)  # omp_pause_soft: nothing is lost
