"""What is told of an exception in a side's process: one line, with the place in the user's own code."""

import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from align.errors import AlignError, EnvironmentFault

OWN = Path(__file__).resolve().parents[1]
LONGEST = 300  # characters of an exception's first line that are passed on; the log has all
# Paddle's own words.
MISSING_KERNEL = re.compile(r"key \((\w+),[^)]*\), (float16|bfloat16|float64)\) of kernel `(\w+)` is not registered")


class Raised(Exception):
    """A user's code raised; the message says which, and what."""


def failure(error: BaseException) -> dict[str, Any]:
    """The event that answers a request which raised; what a user's code raised goes to the log in full."""
    error = EnvironmentFault.of_full_disk(error, "the recording") or error
    if isinstance(error, MemoryError):
        error = EnvironmentFault(f"out of memory: {in_one_line(error)}; give a smaller input, or a larger machine")
    if isinstance(error, AlignError):
        return {"event": "error", "kind": type(error).__name__, "message": str(error)}
    log_trace(error)
    return {
        "event": "error",
        "kind": "raised",
        "message": str(error) if isinstance(error, Raised) else in_one_line(error),
    }


def kernel_missing(error: BaseException, dtype: str) -> str | None:
    """That Paddle's build has no kernel for the type that was asked for; None for all else.

    A port that casts to half by itself in a run that is not is the port's own fault, and stays one.
    """
    found = MISSING_KERNEL.search(str(error))
    if not found or found[2] != dtype:
        return None
    return f"Paddle has no {dtype} kernel of {found[3]!r} for {found[1]}"


def log_trace(error: BaseException) -> None:
    with suppress(OSError):  # the log may lie on the disk that is full
        traceback.print_exception(error)


def in_one_line(error: BaseException) -> str:
    """The exception in one line, with the last line of the user's own code that it passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if OWN not in Path(f.filename).resolve().parents and "site-packages" not in f.filename]
    where = f" at {outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:LONGEST]}{where}"


def dependent(name: str, other: str) -> str:
    """That the process of one side has imported the other's framework, and through which of the user's files."""
    module = sys.modules[other]
    by = [m.__file__ for m in list(sys.modules.values()) if getattr(m, other, None) is module and _is_users(m)]
    who = f" ({by[0]})" if by else ""
    return (
        f"the {name} process imported {other!r}{who}: what it ran is no independent side; keep the two "
        "frameworks in files of their own. The reference is the torch side, the port the paddle side"
    )


def _is_users(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and "site-packages" not in file and OWN not in Path(file).resolve().parents


def missing(name: str, error: BaseException) -> AlignError:
    """That a side's framework, or what it needs, is not installed here, or does not start."""
    if isinstance(error, ModuleNotFoundError):
        what = f"cannot import {error.name!r}, which the {name} side needs"
    else:
        log_trace(error)
        what = f"cannot start the {name} side: {in_one_line(error)}"
    return EnvironmentFault(
        f"{sys.executable} {what}; run scripts/setup.sh or name an interpreter that has it with --{name}-python"
    )
