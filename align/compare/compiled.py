"""The compiled kernels, each tried on known values before it is trusted.

The machine code comes from a cache on disk, which may be damaged, or cannot be written because the disk is full; a
comparison must not fail, let alone lie, for that.
"""

import shutil
from collections.abc import Callable
from functools import cache

import numpy as np

from align.errors import EnvironmentFault

# (candidate, reference) and what `measure_floats`, `measure_integers` and `measure_scaled` must say of them.
SAMPLE = ((1, 0), (3, 0))
SUMS = (2.0, 4.0, 1.0, 9.0, 3.0)
ULPS = {("float32", "float32"): 3 << 22, ("float64", "float64"): 3 << 51}
# A function that cannot be saved is kept in memory all the same, so each attempt gets one function further.
ATTEMPTS = 12


@cache
def kernel(name: str, candidate: str, reference: str) -> Callable[..., tuple]:
    """The function of that name in `kernels` or `integer_kernels`, ready for read-only pieces of those two dtypes."""
    from align.compare import integer_kernels, jit, kernels  # here, because numba takes half a second to import

    function = getattr(integer_kernels if name == "measure_integers" else kernels, name)
    arguments: list = [np.array(values, dtype) for values, dtype in zip(SAMPLE, (candidate, reference), strict=True)]
    for array in arguments:
        array.flags.writeable = False
    if name == "measure_scaled":
        arguments += [1.0, 1.0, 1.0]
        expected: tuple = (0, 2.0 / 3.0, *SUMS)
    else:
        ulps = ULPS.get((candidate, reference), 0)
        expected = (2, 0, 2.0 / 3.0, 1.0, 3.0, ulps, 1, 2, *SUMS, 0, 0, 0, 0, 0, -1)
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            answer = function(*arguments)
        except Exception as error:  # whatever a damaged cache file makes pickle or LLVM raise
            problem = f"{type(error).__name__}: {error}"
            shutil.rmtree(jit.CACHE, ignore_errors=True)
            continue
        if answer == expected:
            return function
        problem = f"it answers {answer}, not {expected}"
        break
    raise EnvironmentFault(
        f"the comparison kernel {name}({candidate}, {reference}) does not work here: {problem}. "
        f"Remove {jit.CACHE} and check that the installed numba and numpy fit each other."
    )


def prepare() -> None:
    """Compile what every run uses, into the cache: ten seconds' work."""
    for candidate, reference in (("float32", "float32"), ("float32", "float64"), ("float64", "float64")):
        kernel("measure_floats", candidate, reference)
    kernel("measure_scaled", "float64", "float64")
    for wide in ("int64", "uint64"):
        kernel("measure_integers", wide, wide)


if __name__ == "__main__":
    prepare()
