"""Copies of a side's process: each starts from what is imported already, and what it imports or breaks stays its own.

The copy serves the same pipes until it leaves or dies; meanwhile the original only waits for it.
"""

import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

FORK, LEAVE = "fork", "leave"  # requests: make a copy; end it
LEFT = "left"  # the event by which the original tells that its copy has ended


def serve_copy(send: Callable[[Mapping[str, Any]], None], roots: Collection[str]) -> None:
    """Fork. In the copy, which imports from `roots` before all else, this returns at once; in the original at its end.

    Nothing may have been computed before: a framework's threads are not in the copy.
    """
    copy = os.fork()
    if copy == 0:
        sys.path[:0] = roots
        send({"event": "done", "process": os.getpid()})
        return
    _, status = os.waitpid(copy, 0)
    send({"event": LEFT, "status": os.waitstatus_to_exitcode(status)})
