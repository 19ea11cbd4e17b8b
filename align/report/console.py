"""What a person sees: a progress bar while it runs, one table at the end."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from align.compare.rows import Judgement, Row
from align.compare.verdict import Verdict
from align.compare.weights import Weights
from align.locate.divergence import Divergence
from align.locate.search import Replayed
from align.pipeline import Progress as Report

COLOURS = {"aligned": "green", "misaligned": "red", "empty": "yellow", "vacuous": "yellow"}
WIDTH = 140
SHOWN = 5  # failing rows printed below the table; rows.jsonl has all


class _Console(Console):
    """Leaves it to the command what to make of a reader who has gone; rich would end it with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def progress(totals: dict[str, int], quiet: bool) -> Iterator[Report]:
    """A bar a side on standard error: runs of steps done of its total, and the one at hand."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        tasks = {side: bars.add_task(side, total=total) for side, total in totals.items()}
        finished = dict.fromkeys(totals, 0)

        def report(side: str, step: str, dtype: str, done: int, of: int) -> None:
            whole = (done, of) == (1, 1)
            finished[side] += whole
            inner = 0 if whole or of == 0 else min(done / of, 0.99)
            bars.update(tasks[side], description=f"{side} {dtype} {step}", completed=round(finished[side] + inner, 2))

        yield report


def print_verdict(result: Verdict, out: str, again: str = "", console: Console | None = None) -> None:
    """The final table: step, rows, worst difference, verdict, seconds; then the first failing rows.

    `again` is the command that runs one `{step}` once more; without it no such command is printed.
    """
    console = wide(console)
    table = Table(title=f"{result.case}: {result.environment_line}", title_justify="left")
    table.add_column("step", no_wrap=True)
    for column in ("rows", "max diff", "meaning", "precision"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst row", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for step in result.steps:
        worst = step.worst
        greatest = max((row.difference.max_abs for row in step.rows if row.difference), default=None)
        table.add_row(
            step.step,
            str(len(step.rows)),
            "-" if greatest is None else f"{greatest:.2e}",
            _in_noise(worst.meaning if worst else None),
            _in_noise(worst.precision if worst else None),
            escape(worst.name) if worst else "-",
            f"[{COLOURS[step.verdict]}]{step.verdict}[/]",
            f"{step.seconds:.1f}",
        )
    console.print(table)
    if result.weights:
        _print_weights(console, result.weights)
    if result.accuracy:
        console.print(f"  {result.accuracy}", soft_wrap=True, highlight=False)
    failing = [row for step in result.steps for row in step.failing]
    for row in failing[:SHOWN]:
        console.print(f"  [red]{row.verdict}[/] {row.step}: {escape(row.name)}: {escape(row.reason)}", soft_wrap=True)
    if len(failing) > SHOWN:
        console.print(f"  ... and {len(failing) - SHOWN} more rows, see {out}/rows.jsonl", soft_wrap=True)
    _print_divergences(console, result.divergences, again, result.rows)
    if len(_by_line(result.divergences)) > SHOWN:
        console.print(f"  ... more of them in {out}/verdict.json", soft_wrap=True)
    for complaint in result.complaints:
        console.print(f"  [red]exception[/] {escape(complaint)}", soft_wrap=True)
    for subject in result.blind[:SHOWN]:
        console.print(f"  [yellow]blind[/] no row could have shown a wrong {escape(subject)}", soft_wrap=True)
    for note in result.notes:
        console.print(f"  {escape(note)}", soft_wrap=True, highlight=False)
    colour = COLOURS[result.verdict]
    blamed = f", first in step {result.blamed_step}" if result.blamed_step else ""
    console.print(f"[bold {colour}]{result.verdict}[/]{blamed}. Reports: {out}", soft_wrap=True, highlight=False)


def _print_weights(console: Console, weights: Weights) -> None:
    console.print(f"  {weights}", soft_wrap=True, highlight=False)
    for side, names in weights.unpaired.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            told = ", ".join(map(escape, names[:SHOWN]))
            console.print(f"  [red]not paired[/], {side}: {told}{more}", soft_wrap=True, highlight=False)
    if any(weights.unpaired.values()):
        console.print("  say which belong together: --write-map FILE, fill it in, --map FILE", soft_wrap=True)


def print_replay(tensors: list[Replayed], found: list[Divergence], again: str, console: Console | None = None) -> None:
    """One module alone: what its own code makes, and the two source lines if it is wrong."""
    console = wide(console)
    table = Table("tensor", "shape", "own error (relative)")
    for tensor in tensors:
        table.add_row(escape(tensor.name), str(tensor.shape), f"{tensor.error:.3g}")
    console.print(table)
    _print_divergences(console, found, again)
    console.print("[bold red]misaligned[/]" if found else "[bold green]aligned[/]")


def wide(console: Console | None) -> Console:
    """The console; in a log nothing needs to be cut to 80 columns."""
    console = console or _Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def _by_line(divergences: Iterable[Divergence]) -> list[list[Divergence]]:
    """The same line is wrong in every module that runs it: those stand together, in the order of the first of them."""
    groups: dict[object, list[Divergence]] = {}
    for divergence in divergences:
        port = divergence.port
        built = port and port.built and (port.built["file"], port.built["line"])
        key = (divergence.step, port.file, port.line, built) if port else id(divergence)
        groups.setdefault(key, []).append(divergence)
    return list(groups.values())


def _print_divergences(
    console: Console, divergences: Iterable[Divergence], again: str, rows: Sequence[Row] = ()
) -> None:
    for number, (first, *others) in enumerate(_by_line(divergences)[:SHOWN], 1):
        _print_divergence(console, number, first, again, _before_and_after(first, rows))
        modules = ", ".join(escape(divergence.module) for divergence in others if divergence.module)
        if modules:
            console.print(f"   likewise  {modules}", soft_wrap=True, highlight=False)


def _before_and_after(divergence: Divergence, rows: Sequence[Row]) -> str:
    """Shape and ratio of what the module made in the free run, and of what was recorded before it; empty if unknown."""
    here = [row for row in rows if row.step == divergence.step]
    made = f"activation/{divergence.module}/out"
    for index, row in enumerate(here):
        if row.name.startswith(made) and row.meaning and row.verdict != "aligned":
            before = here[index - 1] if index else None
            told = f"{row.shape} {_in_noise(row.meaning)}"
            return f"{told}, before it {_in_noise(before.meaning)} at {before.name}" if before else told
    return ""


def _print_divergence(console: Console, number: int, divergence: Divergence, again: str, seen: str) -> None:
    """The two source lines one above the other."""
    subject = f"{divergence.step}: {escape(divergence.module)}" if divergence.module else divergence.step
    told = f"[bold]{number}. {subject}[/]: {escape(divergence.what)}"
    if divergence.error < float("inf"):
        told += f", off by {divergence.error:.3g} on the reference's own inputs"
    console.print(told, soft_wrap=True, highlight=False)
    for side, where in (("reference", divergence.reference), ("port", divergence.port)):
        if where:
            made = f"  (made at {where.built['file']}:{where.built['line']})" if where.built else ""
            first = where.code.splitlines()[0] if where.code else ""
            console.print(f"   {side:<9} {where}  {escape(first)}{made}", soft_wrap=True, highlight=False)
    if divergence.cause:
        change = divergence.cause.get("change")
        told = divergence.cause["text"] + (f" ({change})" if change else "")
        console.print(f"   cause     {escape(told)}", soft_wrap=True, highlight=False)
    if seen:
        console.print(f"   float64   {escape(seen)}", soft_wrap=True, highlight=False)
    if again and divergence.module and divergence.port:
        command = f"{again.replace('{step}', divergence.step)} --replay {shlex.quote(divergence.module)}"
        console.print(f"   alone     {escape(command)}", soft_wrap=True, highlight=False, style="dim")


def _in_noise(judgement: Judgement | None) -> str:
    """The worst row's error in units of noise; exact rows have no noise, only a difference."""
    if judgement is None:
        return "-"
    if judgement.limit == 0:
        return "equal" if judgement.error == 0 else f"{judgement.error:.2e}"
    return f"{judgement.ratio:.3g}x noise"
