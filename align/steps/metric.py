"""`metric`: top-1 and top-5, on the reference's recorded logits and over ragged batches through `evaluate`."""

import numpy as np

from align.record.context import Context

# With these ranks of their label, the samples give a top-1 and a top-5 that differ and are neither 0 nor 1.
RANKS = (0, 3, 7, 0, 2, 9)
BATCH = 16


def labels_at_ranks(logits: np.ndarray) -> np.ndarray:
    """For each row of the logits (samples, classes) the class at the next of `RANKS`: (samples,) int64."""
    order = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    return order[np.arange(len(logits)), np.resize(RANKS, len(logits))]


def record(context: Context) -> None:
    side, metrics, train = context.side, context.package("metrics"), context.package("train")
    logits = np.asarray(context.recorded("forward")["logits"])
    acc1, acc5 = metrics.accuracy(side.from_numpy(logits), side.from_numpy(labels_at_ranks(logits)), (1, 5))
    context.emit("acc1", np.float64(acc1), "metric", headline=True)
    context.emit("acc5", np.float64(acc5), "metric", headline=True)
    table, target = context.plan.tensors["metric/logits"], context.plan.tensors["metric/target"]
    batches = [
        (side.from_numpy(table[i : i + BATCH]), side.from_numpy(target[i : i + BATCH]))
        for i in range(0, len(table), BATCH)
    ]
    result = train.evaluate(side.as_model(lambda logits: logits), batches)
    for name in ("acc1", "acc5", "samples"):
        context.emit(f"evaluate/{name}", np.float64(result[name]), "metric")
