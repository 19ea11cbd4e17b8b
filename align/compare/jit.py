"""numba's decorator as the kernels use it: without the GIL, and with the machine code kept on disk.

Importing this module imports numba (about half a second), so only `compiled.kernel` does, when arrays are first
compared. Where no cache folder can be written, kernels are compiled anew in each process (about two seconds for each
pair of types that occurs).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

BLOCK = 2048  # elements summed in vector registers before compensated addition
# Sums may be reordered and multiply-adds contracted; that there is no NaN or infinity is *not* promised, and quotients
# stay correctly rounded.
REORDER = {"reassoc", "contract", "nsz"}
# A folder for these very sources: numba writes its index before the code it points to, so a process killed in between
# would leave a new index over old code.
HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("jit.py", "kernels.py", "integer_kernels.py")]
STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES) + numba.__version__.encode()).hexdigest()[:16]
CACHE = Path(numba.config.CACHE_DIR or HERE / "__pycache__") / f"kernels-{STAMP}"


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit` with the kernels' settings, cached on disk if any of numba's cache folders can be written."""

    def decorate(function: Callable) -> Callable:
        settings = {"nogil": True, "error_model": "numpy", **options}
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(CACHE)  # read while decorating, and only then
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # "cannot cache function: no locator available"
            return numba.njit(**settings)(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


@compiled()
def add(total: float, rest: float, value: float) -> tuple[float, float]:
    """Neumaier's step of a compensated sum: the new total, and the rounding errors gathered so far."""
    new = total + value
    if abs(total) >= abs(value):
        rest += (total - new) + value
    else:
        rest += (value - new) + total
    return new, rest
