"""Where two training runs part: the first update after which the distance is more than rounding that grew."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from align.compare.judge import FACTOR
from align.compare.runs import Runs
from align.compare.verdict import Verdict
from align.locate.divergence import Divergence
from align.record.calls import ROOT_MODULE
from align.record.sketch import PREFIX

STEP = "train_align"
FINER = 2.0**-29  # float64 ulps to a float32 one: rounding in the twins is this much finer


@dataclass(frozen=True)
class Parting:
    """After update `iteration` (from 0) `parameter` is the first to be further off than rounding explains.

    `ratio`: its distance in units of the reference's own rounding up to there.
    """

    iteration: int
    parameter: str
    ratio: float

    def __str__(self) -> str:
        return (
            f"after update {self.iteration + 1} the runs part, first in {self.parameter}: {self.ratio:.3g} times what "
            "rounding had grown to in the reference's own runs"
        )


def envelopes(runs: Runs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By parameter, after every update: how far the port is from the reference, and how far rounding explains; float64.

    Both (iterations,), rms of the difference of sketches. The second is what the reference's working type is off its
    own float64 run, at its greatest so far, scaled to float64; never less than one float64 ulp of the parameter. Empty
    if the runs have no twins or did not record this.
    """
    if not (runs.reference_twin and runs.port_twin) or STEP not in runs.reference.manifest.steps:
        return {}
    truth, port = runs.reference_twin.step(STEP), runs.port_twin.step(STEP)
    working = runs.reference.step(STEP)
    found = {}
    for name in truth.entries:
        if name.startswith(PREFIX) and name in port.entries and port[name].shape == truth[name].shape:
            grown = np.maximum.accumulate(_rms(working[name] - truth[name])) * FINER
            ulp = np.spacing(_rms(truth[name]))
            found[name.removeprefix(PREFIX)] = (_rms(port[name] - truth[name]), np.maximum(grown, ulp))
    return found


def parting(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Parting | None:
    """The first update after which some parameter has left its envelope, and the one that is furthest out then."""
    if not found:
        return None
    ratios = {name: distance / allowed for name, (distance, allowed) in found.items()}
    outside = {name: np.flatnonzero(~(ratio <= FACTOR)) for name, ratio in ratios.items()}  # NaN is outside
    left = {name: int(where[0]) for name, where in outside.items() if len(where)}
    if not left:
        return None
    first = min(left.values())
    name = max((n for n, at in left.items() if at == first), key=lambda n: np.nan_to_num(ratios[n][first], nan=np.inf))
    return Parting(first, name, float(ratios[name][first]))


def partings(result: Verdict, runs: Runs) -> list[Divergence]:
    """Of a red `train_align`, the update and the parameter in which the runs part, if they do; it tells no line."""
    if not any(step.step == STEP and not step for step in result.steps):
        return []
    found = parting(envelopes(runs))
    if found is None:
        return []
    module = found.parameter.rpartition(".")[0] or ROOT_MODULE
    return [Divergence(STEP, module, str(found), math.inf, None, None)]


def _rms(array: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(array.astype(np.float64)), axis=-1))
