"""The figure of docs/training.md: `python benchmarks/trajectory_figure.py DIR WRONG [CASE]` (needs the extra `bench`).

DIR and WRONG hold the recordings of `align run train_align`, of the port as it is and of one with a bug.
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
from align.locate.trajectory import envelopes, parting
from align.record import manifest
from align.record.manifest import Recording

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "trajectory.svg"


def runs(out: str, case: str) -> Runs:
    folder = Path(out) / "recordings" / case
    names = (f"{side}-cpu-{dtype}" for dtype in ("float32", "float64") for side in ("torch", "paddle"))
    found = [manifest.latest(folder, name) for name in names]
    if not all(found):
        raise SystemExit(f"{folder}: record it first with `align run train_align --case {case} --out {out}`")
    return Runs(*(Recording(path) for path in found if path))


def main(clean: str, wrong: str, case: str = "pit_ti") -> None:
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    for out, colour, label in ((wrong, "tab:red", "wrong port"), (clean, "tab:blue", "correct port")):
        found = envelopes(runs(out, case))
        ratios = np.array([distance / allowed for distance, allowed in found.values()])  # (parameters, updates)
        updates = np.arange(1, ratios.shape[1] + 1)
        low, middle, high = np.quantile(np.maximum(ratios, 1e-2), (0, 0.5, 1), axis=0)
        axes.fill_between(updates, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(updates, middle, color=colour, label=f"{label}: median and range of {len(ratios)} parameters")
        print(f"{label}: at most {ratios.max():.3g}, {parting(found)}")
    axes.axhline(FACTOR, color="black", linestyle="--", linewidth=0.8, label=f"limit: {FACTOR:.0f}")
    axes.set(yscale="log", xlabel="update", ylabel="distance / rounding", title=f"{case}, float64")
    axes.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(FIGURE)


if __name__ == "__main__":
    main(*sys.argv[1:])
