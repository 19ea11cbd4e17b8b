"""The files that users of reprod_log know: the `.npy` pair of every step, and its `*_diff.log`."""

from pathlib import Path

from align.compare.rows import Row
from align.compare.verdict import StepVerdict
from align.pipeline import Recorder
from align.record.classic import save
from align.record.manifest import Recording

SHOWN = 20  # failing rows named in a log


def write(recorder: Recorder, step: StepVerdict, recordings: dict[str, Recording], out: Path) -> None:
    """Write `<step>_torch.npy`, `<step>_paddle.npy` and `<step>_diff.log` into `out`."""
    pair = {side: out / f"{step.step}_{side}.npy" for side in recordings}
    thinned = _thinned(step.step, recordings["torch"])
    for side, recording in recordings.items():
        if side == "torch" and "golden" in recording.manifest.sources:  # no process of that side is needed, or there
            store = recording.step(step.step)
            save({name: store[name] for name, e in store.entries.items() if e.headline and e.stored}, pair[side], side)
            continue
        recorder.process(side).request(
            "headlines", recording=str(recording.folder), step=step.step, path=str(pair[side]), without=thinned
        )
    log = out / f"{step.step}_diff.log"
    aside = log.with_name(f".{log.name}")
    headline = [row for row in step.rows if row.headline and row.name not in thinned]
    recorder.process("paddle").request(
        "diff_log",
        reference=str(pair["torch"]),
        port=str(pair["paddle"]),
        log=str(aside),
        threshold=max((row.allowance for row in headline), default=0.0),
        lines=_lines(step, len(thinned)),
    )
    aside.replace(log)


def _thinned(step: str, reference: Recording) -> list[str]:
    """The headline arrays that a golden recording does not hold whole: the package cannot compare these."""
    if step not in reference.manifest.steps:
        return []
    return [name for name, entry in reference.step(step).entries.items() if entry.headline and not entry.stored]


def _lines(step: StepVerdict, thinned: int) -> list[str]:
    """What this project says of the step, under what the package says."""
    failing = step.failing
    told = [f"{thinned} headline arrays over 64 elements are not above: the golden recording has them thinned"] * (
        thinned > 0
    )
    told += [f"{row.verdict}: {row.name}: {row.reason}" for row in failing[:SHOWN]]
    if len(failing) > SHOWN:
        told.append(f"... and {len(failing) - SHOWN} more rows")
    return [*told, f"step {step.step}: {step.verdict}, {len(step.rows)} rows{_worst(step.worst)}"]


def _worst(row: Row | None) -> str:
    if row is None or row.meaning is None:
        return ""
    limit = f"limit {row.meaning.limit:.1e}" if row.meaning.limit else "must be equal"
    return f", worst {row.name}: meaning {row.meaning.error:.2e} ({limit})"
