"""Errors a user can act on, each with the exit code that the command line returns for it."""

import errno


class AlignError(Exception):
    """Something the user can put right. The message says what, where, and what to do; `exit_code` is the command's."""

    exit_code = 3


class UsageError(AlignError):
    """Unknown name, or missing, corrupt or unreadable input."""

    exit_code = 2


class EnvironmentFault(AlignError):
    """The machine lacks something: a GPU, a package, disk space, or a folder that is not in use."""

    exit_code = 3

    @classmethod
    def of_full_disk(cls, error: BaseException, where: object) -> "EnvironmentFault | None":
        """The fault that an error is if it says that the disk is full; None otherwise."""
        if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return None
        return cls(f"{error.filename or where}: {error.strerror}; free space, or give another --out, then run again")


class Incomparable(AlignError):
    """Two recordings were made from different sources, seeds or cases."""

    exit_code = 4


class NothingCompared(AlignError):
    """There was no row to judge."""

    exit_code = 5
