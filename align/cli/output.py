"""Where a command's answer goes: files that the user names, and a reader of standard output who may leave early."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align.errors import UsageError


def check_writable(option: str, path: Path | None) -> None:
    """UsageError, naming the option, before anything is run for a file that could not be written in the end."""
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        raise UsageError(f"{option} {path}: cannot write there; name a file in a folder that is there")


@contextmanager
def shown() -> Iterator[None]:
    """Print in this block. That nobody reads on (`| head`) changes no verdict, and so no exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left unwritten goes there
