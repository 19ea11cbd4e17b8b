"""What a person sees: a progress bar while it runs, one table at the end."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from align.case import STEPS
from align.compare.verdict import BAD, Verdict
from align.pipeline import Progress as Report
from align.steps import AVAILABLE

COLOURS = {"aligned": "green", "misaligned": "red", "empty": "yellow", "missing": "red"}
SHOWN = 5  # failing rows printed below the table; rows.jsonl has all


@contextmanager
def progress(sides: tuple[str, ...], total: int, quiet: bool) -> Iterator[Report]:
    """A bar a side on standard error: steps done of `total`, and the step at hand."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        tasks = {side: bars.add_task(side, total=total) for side in sides}
        finished = dict.fromkeys(sides, 0)

        def report(side: str, step: str, dtype: str, done: int, of: int) -> None:
            whole = (done, of) == (1, 1)
            finished[side] += whole
            inner = 0 if whole or of == 0 else min(done / of, 0.99)
            bars.update(tasks[side], description=f"{side} {dtype} {step}", completed=round(finished[side] + inner, 2))

        yield report


def print_verdict(result: Verdict, out: str, console: Console | None = None) -> None:
    """The final table: step, rows, worst difference, verdict, seconds; then the first failing rows."""
    console = console or Console()
    table = Table("step", "worst row", title=f"{result.case}: {result.environment_line}", title_justify="left")
    for column in ("rows", "max diff", "meaning", "limit", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for step in result.steps:
        worst = step.worst
        facts = ["-", "-", "-"]
        if worst and worst.difference:
            facts[0] = f"{worst.difference.max_abs:.2e}"
        if worst and worst.meaning:
            facts[1:] = f"{worst.meaning.error:.1e}", f"{worst.meaning.limit:.0e}" if worst.meaning.limit else "exact"
        colour = COLOURS[step.verdict]
        table.add_row(
            step.step,
            escape(worst.name) if worst else "-",
            str(len(step.rows)),
            *facts,
            f"{step.seconds:.1f}",
            f"[{colour}]{step.verdict}[/]",
        )
    console.print(table)
    for pending in (step for step in STEPS if step not in AVAILABLE):
        console.print(f"  {pending}: not part of this version yet", style="dim")
    failing = [row for step in result.steps for row in step.rows if row.verdict in BAD]
    for row in failing[:SHOWN]:
        console.print(f"  [red]{row.verdict}[/] {row.step}: {escape(row.name)}: {escape(row.reason)}", soft_wrap=True)
    if len(failing) > SHOWN:
        console.print(f"  ... and {len(failing) - SHOWN} more rows, see {out}/rows.jsonl", soft_wrap=True)
    colour = COLOURS[result.verdict]
    blamed = f", first in step {result.blamed_step}" if result.blamed_step else ""
    console.print(f"[bold {colour}]{result.verdict}[/]{blamed}. Reports: {out}", soft_wrap=True, highlight=False)
