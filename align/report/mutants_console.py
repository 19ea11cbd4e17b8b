"""What a person sees of `align mutate`: a bar or a line a mutant while it runs, the sums and the misses at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from align.mutate.matrix import Matrix
from align.mutate.outcome import Outcome
from align.mutate.patch import Mutant
from align.report.console import wide


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Callable[[Mutant, Outcome], None]]:
    """A bar on standard error, or a line a mutant where that is no terminal."""
    columns = (TextColumn("{task.description:<50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        task = bars.add_task("mutants", total=total)

        def told(mutant: Mutant, outcome: Outcome) -> None:
            bars.update(
                task, description=f"{mutant.id}: {outcome.blamed_step or outcome.verdict or 'error'}", advance=1
            )
            if quiet:
                print(f"{mutant.id}: {_said(outcome)}", file=sys.stderr, flush=True)

        yield told


def _said(outcome: Outcome) -> str:
    if outcome.error:
        return f"error: {outcome.error}"
    place = outcome.divergence or {}
    port = place.get("port") or {}
    where = f", {place.get('module')} at {port['file']}:{port['line']}" if port else ""
    cause = f", {outcome.cause}" if outcome.cause else ""
    return f"{outcome.verdict} in {outcome.blamed_step}{where}{cause} ({outcome.seconds:.1f} s)"


def print_matrix(result: Matrix, out: str, console: Console | None = None) -> None:
    """The sums, and every mutant whose expectations do not hold."""
    console, summary = wide(console), result.summary()
    for mutant, outcome, held in result.scores:
        if not held.holds:
            parts = ", ".join(name for name, value in vars(held).items() if value is False)
            console.print(f"  [red]{parts}[/] {escape(mutant.id)}: {escape(_said(outcome))}", soft_wrap=True)
    told = [f"{summary['killed']}/{summary['mutants']} detected", f"{summary['step_right']} in the right step"]
    told += [f"{summary[f'{part}_right']}/{summary[f'{part}_total']} {part}" for part in ("module", "line", "cause")]
    told += [
        f"{summary['flagged_equivalent']}/{summary['equivalent']} equivalent flagged",
        f"{summary['errors']} errors",
    ]
    colour = "red" if result.exit_code else "green"
    console.print(f"[bold {colour}]{', '.join(told)}[/], {summary['seconds']:.0f} s. Reports: {out}", soft_wrap=True)
