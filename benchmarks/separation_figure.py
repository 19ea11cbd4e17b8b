"""The figure of separation.py: clean runs and known bugs on one axis, error in units of the reference's noise."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

STYLE = {"svg.hashsalt": "separation", "svg.fonttype": "none", "font.size": 9}
CLEAN, BUG = "#2a7f62", "#b23a48"
LEFT, RIGHT = 0.3, 1e19


def draw(numbers: dict, path: Path) -> None:
    """Above, clean runs counted by their worst ratio; below, a dot a bug, in a line for each step."""
    pyplot.rcParams.update(STYLE)
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(9, 5), height_ratios=(1, 2), layout="constrained"
    )
    _clean(above, numbers)
    _bugs(below, numbers["bugs"])
    for axes in (above, below):
        axes.axvline(numbers["factor"], color="0.3", linewidth=1, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    above.text(numbers["factor"] * 1.3, above.get_ylim()[1] * 0.85, f"limit: {numbers['factor']:g}", color="0.3")
    below.set_xscale("log")
    below.set_xlim(LEFT, RIGHT)
    below.set_xticks([10.0**power for power in range(0, 19, 2)])
    below.set_xlabel("error in float64 of the worst row, in units of the reference's own rounding noise")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _clean(axes, numbers: dict) -> None:
    ratios = [row["meaning"][0] for row in numbers["clean"]]
    edges = [10 ** (power / 10) for power in range(-5, 31)]
    axes.hist([max(ratio, edges[0]) for ratio in ratios], bins=edges, color=CLEAN)
    axes.set_ylabel("runs")
    axes.set_title(f"{len(ratios)} correct pairs, worst of all rows of a run", loc="left", color=CLEAN, fontsize=9)


def _bugs(axes, bugs: list[dict]) -> None:
    steps = list(dict.fromkeys(bug["step"] for bug in bugs))
    for bug in bugs:
        line = steps.index(bug["step"])
        # Where the truth is all but zero, a ratio has no bounds: it lies at the edge.
        axes.plot(
            min(max(bug["ratio"], LEFT), RIGHT),
            line,
            "o",
            clip_on=False,
            color=BUG,
            fillstyle="none" if bug["exact"] else "full",
        )
    axes.set_yticks(range(len(steps)), steps)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_title(
        f"{len(bugs)} known bugs, worst row of the blamed step (open: what must be equal, in ulp or counts)",
        loc="left",
        color=BUG,
        fontsize=9,
    )
