"""The final accuracy of a training run beside what the reference reaches from other seeds: told, and not judged."""

from dataclasses import dataclass

from align.record.manifest import Recording

STEP, ROW = "train_align", "acc_test"


@dataclass(frozen=True)
class FinalAccuracy:
    """Top-1 on the held-out samples, fractions. `other_seeds`: the reference's from other weights and orders."""

    reference: float
    port: float
    other_seeds: tuple[float, ...]

    def __str__(self) -> str:
        told = f"final accuracy {self.port:.1%} in the port, {self.reference:.1%} in the reference"
        if not self.other_seeds:
            return told
        low, high = min(self.other_seeds), max(self.other_seeds)
        return f"{told}, which reaches {low:.1%} to {high:.1%} with {len(self.other_seeds)} other seeds"


def final_accuracy(ours: Recording, theirs: Recording) -> FinalAccuracy | None:
    """Of the port's run and the reference's, in this order, if both trained to the end; None otherwise."""
    if not all(STEP in run.manifest.steps for run in (ours, theirs)):
        return None
    reference, port = theirs.step(STEP), ours.step(STEP)
    entry = reference.entries.get(ROW)
    if entry is None or ROW not in port.entries or not (entry.stored and port.entries[ROW].stored):
        return None
    seeds = (entry.facts or {}).get("other_seeds", ())
    return FinalAccuracy(float(reference[ROW]), float(port[ROW]), tuple(map(float, seeds)))
