"""How much memory two models need to be compared, and how much there is."""

import ctypes
import gc
import resource
from contextlib import suppress
from pathlib import Path

from align.errors import EnvironmentFault

# Of each side's process, for each parameter, at the least: weights, gradients and what is on its way to the disk, in
# float64. Measured as the growth of the peak: 57 (Paddle) and 102 (PyTorch) for ResNet-101, 128 and 141 for one Linear
# of 25 million; below the least of them, so that only what certainly cannot be done is refused.
BYTES = 45
MUCH = 1 << 31  # bytes of a process that are worth it, too
LARGE = 1 << 26  # bytes of a model from which on a collection, a tenth of a second, costs less than what it holds


def available() -> int | None:
    """Bytes that this machine can still give; None where it does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def check(name: str, parameters: int, processes: int = 2) -> None:
    """EnvironmentFault, with both numbers, if a model of so many parameters cannot be compared on this machine."""
    needed, there = parameters * BYTES * processes, available()
    if there is not None and needed > there:
        raise EnvironmentFault(
            f"{name}: its {parameters:,} parameters need at least {needed / 1e9:.1f} GB to be compared in float64, and "
            f"{there / 1e9:.1f} GB are free. Check a smaller variant (fewer layers of one kind show the same bugs), "
            "or record one side at a time"
        )


def make_room(size: int = 0) -> None:
    """Before so many bytes of a model: models that are done with hang in cycles until they are collected."""
    if size > LARGE or resident() > MUCH:
        give_back()


def resident() -> int:
    """Bytes that this process holds of the machine's memory; 0 where it does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def give_back() -> None:
    """Hand freed memory back to the system: large models in a row would otherwise keep what the largest had."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
