"""One unknown number of a formula, found from what the formula must give."""

from collections.abc import Callable

import numpy as np

ROUNDS = 16  # Gauss-Newton steps at most
TRIALS = (1.0, 0.2, 5.0)  # times the expected number: where a search starts
SETTLED = 1e-14  # relative change that ends one
HOPELESS = 1e-4  # so near to where it ends, a search that will fit has less than that missing


def solved(formula: Callable[[float], np.ndarray], wanted: np.ndarray, expected: float) -> float | None:
    """The positive number for which `formula` gives `wanted` (any shape); None if the search does not settle.

    Gauss-Newton on its logarithm: where the formula fits exactly that converges to rounding. Whether it does fit is
    for the caller to see.
    """
    for trial in TRIALS:
        found = _from(formula, wanted, np.log(expected * trial))
        if found is not None:
            return found
    return None


def _from(formula: Callable[[float], np.ndarray], wanted: np.ndarray, start: float) -> float | None:
    at, scale = start, float(np.linalg.norm(wanted)) or 1.0
    best: tuple[float, float] = (np.inf, at)
    for _ in range(ROUNDS):
        with np.errstate(all="ignore"):
            step = 1e-6
            missing = (wanted - formula(float(np.exp(at)))).reshape(-1)
            slope = ((formula(float(np.exp(at + step))) - formula(float(np.exp(at - step)))) / (2 * step)).reshape(-1)
        error, steepness = float(np.linalg.norm(missing)) / scale, float(slope @ slope)
        if not np.isfinite(error) or not np.isfinite(steepness) or steepness == 0:
            return None
        best = min(best, (error, at))
        move = float(np.clip(slope @ missing / steepness, -2.0, 2.0))
        at += move
        if abs(move) <= HOPELESS and float(np.linalg.norm(missing - slope * move)) > HOPELESS * scale:
            return None
        if abs(move) <= SETTLED * max(1.0, abs(at)):
            break
    return float(np.exp(best[1])) if best[0] < 1e-9 else None


def short(value: float) -> float:
    """A fitted number as it may have been written: with at most six digits, if that is as near as float32 tells."""
    rounded = float(f"{value:.6g}")
    return rounded if abs(rounded - value) <= 2.0**-24 * abs(value) else value
