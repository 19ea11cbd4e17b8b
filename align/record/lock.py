"""One run at a time into one folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align.errors import EnvironmentFault, UsageError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises EnvironmentFault naming the process that holds it, or if the disk is full, and UsageError if the folder
    cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        if fault := EnvironmentFault.of_full_disk(error, folder):
            raise fault from None
        raise UsageError(f"--out {folder}: cannot write there: {error.strerror}; name another folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise EnvironmentFault(f"{folder}: in use by process {holder}; wait for it or give another --out") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
