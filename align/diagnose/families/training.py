"""A training loop: accumulation, clearing, modes, the moving average; and what dropout and drop-path drew."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.fitting import short
from align.diagnose.numbers import told
from align.diagnose.rows import Recorded, RowEvidence
from align.locate.modules import LIMIT, own_error
from align.record.sketch import sketch
from align.steps.rates_on import ACCUMULATION, DECAY, UPDATES

RANK = 5
LISTED = 8  # modules of which both rates are told
WEIGHTS = "train_align/weights/"

# Counts that a row holds: id, what is counted. They are read, not fitted.
COUNTS = {
    "modules_in_training": ("training-mode", "modules in training mode after an evaluation"),
    "average_in_evaluation": ("training-mode", "modules of the moving average in evaluation mode"),
    "draws": ("training-mode", "random draws"),
    "evaluation_draws_nothing": ("training-mode", "evaluations that draw nothing"),
    "moved": ("frozen-parameter", "parameters that training moved"),
    "gradients_cleared": ("gradients-not-cleared", "parameters without a gradient after an update"),
}


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.rows.step != "train_align":
        return
    first, _, rest = evidence.name.partition("/")
    if first in ("draw", "natural"):
        yield from _drawn(evidence)
    elif (counted := rest if first == "loop" else first) in COUNTS:
        name, words = COUNTS[counted]
        ours, theirs = (None if side is None else told(float(side)) for side in (evidence.port, evidence.reference))
        if evidence.port is not None and ours and theirs:
            text = f"{words}: {ours} in the port, {theirs} in the reference"
            yield Hypothesis(name, text, evidence.port, evidence.port, read=True)
    elif rest.startswith(("ema/", "path/ema")):
        yield from _averaged(evidence.rows)
    if evidence.kind == "curve" or first in ("loop", "param", "loss", "grad_norm"):
        yield from _accumulated(evidence.rows)


# The moving average


def _averaged(rows: Recorded) -> Iterator[Hypothesis]:
    """Of sketches, which are linear: what holds of parameters holds of them."""
    sides = []
    for side in (rows.port, rows.reference):
        values, average = (side.get(f"loop/path/{what}") for what in ("param", "ema"))
        if values is None or average is None or values.shape != average.shape:
            return
        sides.append((values, average))
    state = [name.removeprefix(WEIGHTS) for name in rows.plan if name.startswith(WEIGHTS)]
    before = np.concatenate([sketch(name, np.asarray(rows.plan[WEIGHTS + name])) for name in state])
    (values, average), (right_values, right) = sides
    if before.shape != values.shape[1:] or own_error(_path(before, right_values, DECAY), right) > LIMIT:
        return
    earlier = np.concatenate([before[None], values[:-1]])
    change = f"decay {told(DECAY)}, once an update, after it"
    several_times = DECAY ** np.array(UPDATES[: len(values)])
    several = f"updated for each of {ACCUMULATION} micro-batches"
    for name, text, made in (
        ("ema-missing", "the moving average is never updated in the port", np.broadcast_to(before, average.shape)),
        ("ema-order", "the moving average is updated before the parameters in the port", _path(before, earlier, DECAY)),
        (
            "ema-per-micro-batch",
            f"the moving average is {several} in the port, once an update in the reference",
            _path(before, values, several_times),
        ),
        (
            "ema-per-micro-batch",
            f"the moving average is {several}, before the parameters, in the port; once an update in the reference",
            _path(before, earlier, several_times),
        ),
    ):
        yield Hypothesis(name, text, made, average, change=change)
    held = np.concatenate([before[None], average[:-1]])
    away = (values - held).reshape(-1)
    share = float((average - held).reshape(-1) @ away / (away @ away))
    swapped = ", the weights of the average and of the parameters are swapped" if abs(share - DECAY) < 1e-9 else ""
    text = f"moving average with decay {told(short(1 - share))} in the port, {told(DECAY)} in the reference{swapped}"
    yield Hypothesis("ema-decay", text, _path(before, values, 1 - share), average, fitted=1, change=change)


def _path(before: np.ndarray, values: np.ndarray, decay: float | np.ndarray) -> np.ndarray:
    """The average after each update; `decay` may be one for each."""
    found, held = [], before
    for value, share in zip(values, np.broadcast_to(decay, len(values)), strict=True):
        held = held + (1 - share) * (value - held)
        found.append(held)
    return np.array(found)


# Accumulation


def _accumulated(rows: Recorded) -> Iterator[Hypothesis]:
    loss, parts = rows.port.get("loop/loss"), rows.port.get("loop/micro_loss")
    if loss is not None and parts is not None:
        yield from _of_micro_batches(np.asarray(loss, np.float64), np.asarray(parts, np.float64))
    whole, count = _beginning(rows.port), _micro_batches(rows)
    right = _beginning(rows.reference)
    if whole is None or right is None or count < 2:
        return
    for of_loss in (1, count):  # of the gradient alone, or of what is told of the loss, too
        made = right * [of_loss, count]
        text = f"the first update's gradient is {count} times the reference's, the number of micro-batches"
        yield Hypothesis("accumulation", text, made, whole, change=f"divide the loss by {count}")


def _of_micro_batches(loss: np.ndarray, parts: np.ndarray) -> Iterator[Hypothesis]:
    """What each update (n,) made of its micro-batches' losses (m,)."""
    if parts.size == sum(UPDATES) and len(loss) == len(UPDATES):
        groups = np.split(parts, np.cumsum(UPDATES)[:-1])
        for words, made in (
            ("is the sum of its micro-batches, not their mean", [group.sum() for group in groups]),
            (f"is the sum of its micro-batches over {ACCUMULATION}", [group.sum() / ACCUMULATION for group in groups]),
            ("is its first micro-batch's", [group[0] for group in groups]),
            ("is its last micro-batch's", [group[-1] for group in groups]),
            ("is its last micro-batch's share", [group[-1] / group.size for group in groups]),
        ):
            text = f"an update's loss {words} in the port"
            yield Hypothesis("accumulation", text, np.array(made), loss, change="the mean")
    whole = [size == ACCUMULATION for size in UPDATES]
    if parts.size == ACCUMULATION * sum(whole) and len(loss) == sum(whole):
        text = (
            f"micro-batches that are fewer than {ACCUMULATION} make no update in the port, a last one in the reference"
        )
        made = parts.reshape(-1, ACCUMULATION).mean(1)
        yield Hypothesis("remainder-dropped", text, made, loss, change="update from what is left, too")


def _beginning(side: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Loss and gradient norm of the first update, which is made from equal weights."""
    loss, norm = side.get("loss"), side.get("grad_norm")
    return None if loss is None or norm is None else np.array([loss[0], norm[0]], np.float64)


def _micro_batches(rows: Recorded) -> int:
    return rows.case.training.accumulation if rows.case and rows.case.training else 1


# Draws


def _drawn(evidence: RowEvidence) -> Iterator[Hypothesis]:
    rows, leaf = evidence.rows, evidence.leaf
    module = evidence.name.split("/")[1].partition("#")[0]
    if leaf in ("mask", "shape") and evidence.name.startswith("draw/"):
        ours, theirs = _rates(rows.port), _rates(rows.reference)
        path = "path" in module
        ours, theirs = ({m: r for m, r in table.items() if ("path" in m) is path} for table in (ours, theirs))
        differ = [m for m in dict.fromkeys([*theirs, *ours]) if abs(ours.get(m, 0.0) - theirs.get(m, 0.0)) > LIMIT]
        if differ and (leaf == "mask" or module in differ):
            listed = "; ".join(
                f"{m} {told(short(ours.get(m, 0.0)))} in the port, {told(short(theirs.get(m, 0.0)))} in the reference"
                for m in differ[:LISTED]
            )
            form = _form(list({_block(m): r for m, r in ours.items()}.values())) if path else ""
            name = "drop-path-schedule" if path and len(differ) > 1 else "dropout-rate"
            made = np.array([ours.get(m, 0.0) for m in differ])
            yield Hypothesis(name, f"rate{'s' if len(differ) > 1 else ''} of {listed}{form}", made, made, read=True)
    if leaf == "shape" and evidence.port is not None and evidence.reference is not None:
        ours_shape, theirs_shape = (tuple(map(int, side.reshape(-1))) for side in (evidence.port, evidence.reference))
        per_batch = not ours_shape and len(theirs_shape) == 1
        name = "drop-path-per-batch" if per_batch else "mask-shape"
        text = f"{module}: one draw of shape {ours_shape} in the port, {theirs_shape} in the reference"
        text += ": the whole batch is dropped together" if per_batch else ""
        yield Hypothesis(name, text, np.ones(1), np.ones(1), read=True)
    if leaf == "scale" and evidence.port is not None and not evidence.port.any():
        text = f"{module}: what is kept is not divided by the fraction kept in the port"
        yield Hypothesis("dropout-scale", text, np.ones(1), np.ones(1), change="divide by 1 - rate", read=True)


def _rates(side: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By module: the rate at which its first draw drops."""
    found = {}
    for name in side:
        parts = name.split("/")
        if parts[0] == "draw" and parts[-1] == "mask" and len(parts) == 4 and parts[2] == "0":
            found[parts[1].partition("#")[0]] = 1 - float(np.asarray(side[name]).reshape(-1)[0])
    return found


def _block(module: str) -> str:
    return module.rpartition(".")[0]


def _form(rates: list[float]) -> str:
    """What a list of rates is, if it is something well known; a rate of 0 draws nothing and is not in it."""
    if len(rates) > 1 and np.ptp(rates) < 1e-7:
        return "; the port's are constant"
    if any(later < earlier - 1e-7 for earlier, later in pairwise(rates)):
        return "; the port's begin anew, or fall"
    steps = np.diff([0.0, *rates])
    return "; the port's grow by one step from block to block" if len(rates) > 1 and np.ptp(steps) < 1e-7 else ""
