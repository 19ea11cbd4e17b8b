"""The trajectory figure of docs/training.md: `python benchmarks/trajectory_figure.py DIR [CASE]` (extra `bench`).

DIR holds the recordings of `align run train_align` (`log_reprod` by default).
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from align.compare.judge import FACTOR
from align.compare.runs import Runs
from align.locate.trajectory import envelopes
from align.record import manifest
from align.record.manifest import Recording

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "trajectory.svg"


def main(out: str = "log_reprod", case: str = "pit_ti") -> None:
    folder = Path(out) / "recordings" / case
    names = (f"{side}-cpu-{dtype}" for dtype in ("float32", "float64") for side in ("torch", "paddle"))
    found = [manifest.latest(folder, name) for name in names]
    assert all(found), f"{folder}: record train_align first"
    distances = envelopes(Runs(*(Recording(path) for path in found if path)))
    figure, axes = pyplot.subplots(figsize=(8, 4))
    for index, (distance, allowed) in enumerate(distances.values()):
        updates = np.arange(1, len(distance) + 1)
        label = {"label": "port against reference, float64"} if not index else {}
        axes.plot(updates, np.maximum(distance, 1e-19), color="tab:blue", alpha=0.35, linewidth=0.8, **label)
        label = {"label": f"limit: {FACTOR:.0f} x rounding of the reference"} if not index else {}
        axes.plot(updates, FACTOR * allowed, color="tab:orange", alpha=0.25, linewidth=0.8, **label)
    axes.set(
        yscale="log", xlabel="update", ylabel="rms distance of a parameter", title=f"{case}: each line a parameter"
    )
    axes.legend(loc="lower right")
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE)


if __name__ == "__main__":
    main(*sys.argv[1:])
