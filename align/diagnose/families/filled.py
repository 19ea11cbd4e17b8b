"""A part of an image that is filled with one colour: another than the reference's, or instead of noise."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence

RANK = 9
LEAST = 16  # pixels that differ, below which one colour may be chance


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "data" or not evidence.pair:
        return
    port, reference = evidence.pair
    channels = 2 if port.ndim == 3 and port.shape[2] == 3 else 0
    if port.ndim != 3 or port.shape[channels] != 3:
        return
    ours, theirs = (np.moveaxis(side, channels, 2) for side in (port, reference))
    differ = (ours != theirs).any(2)
    if differ.sum() < LEAST or differ.all() or np.ptp(ours[differ], axis=0).any():
        return
    one = not np.ptp(theirs[differ], axis=0).any()
    made = theirs.copy()
    made[differ] = ours[differ][0]
    colours = [", ".join(f"{number:.6g}" for number in side[differ][0]) for side in (ours, theirs)]
    rows, columns = np.nonzero(differ.any(1))[0], np.nonzero(differ.any(0))[0]
    where = f"rows {rows[0]}:{rows[-1] + 1}, columns {columns[0]}:{columns[-1] + 1}"
    told = f"filled with ({colours[0]}) in the port, with " + (f"({colours[1]})" if one else "many colours")
    yield Hypothesis(
        "fill-colour" if one else "filled-with-one-colour",
        f"{where} are {told} in the reference",
        made=np.moveaxis(made, 2, channels),
        wanted=port,
        fitted=3,
        change=f"fill with ({colours[1]})" if one else None,
    )
