"""What the models are fed: photographs, numbers, tokens, flags, or a user's own arrays."""

from pathlib import Path

import numpy as np

from align.case import Case, Input
from align.errors import UsageError
from align.plan import photographs
from align.record.store import DTYPES, StoreWriter

PHOTOGRAPHED = (1, 3)  # channels
SPECIAL = ("least", "greatest", "one", "the same again")  # integers that have a place of their own
# Half a level of a pixel: without it a black corner is a tie for every maximum, and rounding decides where its gradient
# goes. Far less than what the values differ by elsewhere.
DITHER = 0.5 / 255
LEAST = 8  # pixels of the shorter edge that can show something


def shows_photographs(shape: tuple[int, ...]) -> bool:
    """Whether an input of this shape, (batch, channels, height, width), takes images."""
    return len(shape) == 4 and shape[1] in PHOTOGRAPHED and min(shape[2:]) >= LEAST


def add(store: StoreWriter, case: Case, chosen: list[photographs.Photograph]) -> None:
    """`input/<name>` of every input of the case; with a recipe, `bp_align/<i>/...` of every iteration."""
    rng = np.random.default_rng([case.seed, 1])
    prefixes = ["input"] if case.alone else ["input", *(f"bp_align/{i}/input" for i in range(case.iterations))]
    for prefix in prefixes:
        for spec in case.inputs:
            values = _values(spec, chosen, rng)
            if case.alone and spec.fill == "photographs":
                values = values + (DITHER * rng.uniform(-1, 1, spec.shape)).astype(np.float32)
            store.add(f"{prefix}/{spec.name}", values, "input")
    if case.alone:
        return
    batch = case.inputs[0].shape[0]
    for i in range(case.iterations):
        store.add(f"bp_align/{i}/target", rng.permutation(case.classes)[:batch], "input")
        store.add(f"bp_align/{i}/teacher", rng.standard_normal((batch, case.classes)).astype(np.float32), "input")


def _values(spec: Input, chosen: list[photographs.Photograph], rng: np.random.Generator) -> np.ndarray:
    if spec.fill == "photographs":
        return photographs.crops(chosen, spec.shape, rng).astype(np.float32)
    if spec.fill == "integers":
        return _integers(spec, rng).astype(DTYPES[spec.dtype])
    if spec.fill == "flags":
        flags = rng.random(spec.shape) < 0.5
        if spec.shape and spec.shape[-1] > 1:  # a row of one value only is a special case, and often NaN
            flags[..., 0], flags[..., -1] = False, True
        return flags
    if spec.fill == "file":
        return _of_file(Path(spec.file))
    values = rng.standard_normal(spec.shape)
    if len(spec.shape) > 1 and spec.shape[0] > 1:
        values[-1] = 0.3 + values[-1] * 1e-3  # on rows of low variance a wrong epsilon shows
    return values.astype(np.float32)


def _integers(spec: Input, rng: np.random.Generator) -> np.ndarray:
    """Among them the least, often a padding, the greatest, and one value twice, where gradients add up."""
    values = rng.integers(0, spec.high, spec.shape)
    if values.size >= len(SPECIAL):
        first, last, one, other = rng.choice(values.size, len(SPECIAL), replace=False)
        values.flat[first], values.flat[last], values.flat[one] = 0, spec.high - 1, values.flat[other]
    return values


def _of_file(path: Path) -> np.ndarray:
    """The array of an `.npy` file; floating ones in float32. UsageError for what holds anything else."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"--input @{path}: cannot read it: {error}; save one array with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise UsageError(f"--input @{path}: expected one .npy array of numbers")
    return array.astype(np.float32) if array.dtype.kind == "f" else array
