"""Two recorded runs, and their float64 twins, compared step by step into a verdict. Needs no framework."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from align.case import STEPS
from align.compare.accuracy import STEP, final_accuracy
from align.compare.distributions import judge_distributions
from align.compare.judge import Sources, Tensors, judge_step, rejoined
from align.compare.pairing import paired
from align.compare.rows import Row
from align.compare.verdict import StepVerdict, Verdict
from align.compare.waivers import Exceptions
from align.compare.weights import weights_of
from align.errors import Incomparable
from align.golden.rows import in_full
from align.golden.thinning import THINNED, ThinnedPort, ThinnedReference
from align.mapping import Mappings
from align.record.manifest import NO_KERNEL, Recording
from align.record.store import Store, store_files
from align.steps import STATISTICAL, WITHOUT_TWIN
from align.steps import early as early_rows

RAISED = "(raised)"  # the name of the row that stands for an exception

# Fields of a manifest's sources in the order in which a difference explains most.
SOURCES = ("case", "seed", "images", "weights", "plan")


@dataclass(frozen=True)
class Runs:
    """The recordings of a comparison; a twin is None where the working type is float64 itself."""

    reference: Recording
    port: Recording
    reference_twin: Recording | None
    port_twin: Recording | None

    @property
    def all(self) -> tuple[Recording, ...]:
        return tuple(run for run in (self.reference, self.port, self.reference_twin, self.port_twin) if run)

    def seconds(self, step: str) -> float:
        """What all of them took for a step."""
        return round(sum(run.manifest.steps.get(step, 0.0) for run in self.all), 3)

    def check_comparable(self) -> None:
        """Raise Incomparable, naming the field, unless all were made from the same sources, seed and case."""
        first = self.reference
        for other in self.all[1:]:
            for field in SOURCES:
                ours, theirs = other.manifest.sources.get(field), first.manifest.sources.get(field)
                if ours != theirs:
                    raise Incomparable(
                        f"{other.folder.name} and {first.folder.name} have different {field}: {ours} against {theirs}; "
                        "record both from the same sources"
                    )
        if self.port.manifest.dtype != self.reference.manifest.dtype:
            ours, theirs = self.port.manifest.dtype, self.reference.manifest.dtype
            raise Incomparable(f"the port was recorded in {ours}, the reference in {theirs}; record both in one dtype")


def compare_runs(
    runs: Runs,
    exceptions: Exceptions,
    fixed: float | None = None,
    steps: Collection[str] = STEPS,
    mapping: Mappings | None = None,
    early: bool = False,
) -> Verdict:
    """Judge every step of `steps` that either side recorded. `fixed` gates by reprod_log's rule (mean |a - b|).

    `mapping` is a user's, see `align.mapping`; what a port was recorded with is in force in any case. With `early` only
    the early rows count, see `align.steps.early`.
    """
    runs.check_comparable()
    mapping = {**runs.port.manifest.parameters, **(mapping or {})}
    judged = []
    recorded = (runs.reference.manifest.steps.keys() | runs.port.manifest.steps.keys()) & set(steps)
    case = runs.reference.manifest.case
    for step in sorted(recorded, key=STEPS.index):
        pairing = paired(_sources(runs, step, early), mapping)
        sources = pairing.sources
        rows = judge_distributions(step, sources) if step in STATISTICAL else judge_step(step, sources, fixed)
        rows = [exceptions.noted(case, row, sources, fixed) for row in rows]
        if fixed is None:
            rows = rejoined(rows)  # once more: a result that is noted is not wrong
        if sources.reference is not None:
            rows = [in_full(row, sources.reference.entries) for row in rows]
        rows = [replace(row, matched_by=pairing.matched_by.get(row.name)) for row in rows]
        rows = _with_failure(step, rows, runs)
        judged.append(StepVerdict(step, tuple(exceptions.applied(case, step, rows)), runs.seconds(step)))
    untwinned = {step: why for step in recorded if (why := _no_twin(runs, step))}
    notes = tuple(f"{step}: {why}; only the working type is judged" for step, why in untwinned.items())
    environment = {run.manifest.side: run.manifest.environment for run in (runs.reference, runs.port)}
    accuracy = final_accuracy(runs.port, runs.reference) if STEP in recorded and not early else None
    return Verdict(
        case,
        tuple(judged),
        environment,
        exceptions.complaints(case, recorded),
        weights=weights_of(runs.port.manifest.parameters),
        no_twin=untwinned,
        accuracy=accuracy,
        notes=notes,
    )


def _with_failure(step: str, rows: list[Row], runs: Runs) -> list[Row]:
    """Where the port raised, one row that says so stands for all that it therefore did not record."""
    told = [run.manifest.failures[step] for run in (runs.port, runs.port_twin) if run and step in run.manifest.failures]
    told = [failure for failure in told if not failure.startswith(NO_KERNEL)]
    if not told:
        return rows
    raised = Row(step, RAISED, "output", "misaligned", reason=f"the port raised {told[0]}")
    return [raised, *(row for row in rows if row.difference is not None and row.precision is not None)]


def _sources(runs: Runs, step: str, early: bool) -> Sources:
    pair = _pair(runs.reference, runs.port, step)
    twins = _pair(runs.reference_twin, runs.port_twin, step)
    if early and (wanted := early_rows(step)):
        pair, twins = ((_only(a, wanted), _only(b, wanted)) for a, b in (pair, twins))
    noise, working = runs.reference.noise(step), runs.reference.manifest.dtype
    if working == "float64" and step not in WITHOUT_TWIN:
        twins = pair  # it is its own truth, and the perturbed runs tell its noise
    return Sources(*pair, *twins, noise, working, _no_twin(runs, step))


def _no_twin(runs: Runs, step: str) -> str:
    """Why the port's float64 run of a step is missing, if its framework has no kernel for it; empty otherwise."""
    failure = runs.port_twin.manifest.failures.get(step, "") if runs.port_twin else ""
    return failure.removeprefix(NO_KERNEL) if failure.startswith(NO_KERNEL) else ""


def _only(tensors: Tensors | None, wanted: Callable[[str], bool]) -> Tensors | None:
    return tensors.only(wanted) if isinstance(tensors, Store) else tensors


def _pair(reference: Recording | None, port: Recording | None, step: str) -> tuple[Tensors | None, Tensors | None]:
    """Both sides' tensors of a step, None for a side without it; a golden recording's are thinned."""
    theirs, ours = (run.step(step) if run and step in run.manifest.steps else None for run in (reference, port))
    if theirs is None or not (theirs.folder / store_files(f"{step}.{THINNED}")[0]).is_file():
        return theirs, ours
    seen = ThinnedReference(theirs, Store(theirs.folder, f"{step}.{THINNED}"))
    return seen, ours and ThinnedPort(step, ours, theirs.entries)
