"""`align mutate`: put known bugs into copies of the port, one at a time, and publish what the gate said of each."""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from align.cli.output import check_writable
from align.errors import UsageError
from align.mutate import matrix
from align.mutate.patch import Mutant, read_catalogue
from align.record.lock import exclusive
from align.report import mutants as report
from align.report import mutants_console as console
from align.report.staged import staged

SHIPPED = Path(__file__).resolve().parent.parent / "mutate" / "catalogue.yaml"


EXAMPLES = (
    "align mutate",
    "align mutate --catalogue bugs.yaml --out mutants",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--catalogue", type=Path, default=SHIPPED, metavar="FILE", help="mutants (YAML; default: shipped)"
    )
    parser.add_argument("--only", nargs="+", metavar="GLOB", help="only the mutants of these ids")
    parser.add_argument(
        "--out", type=Path, default=Path("log_reprod/mutants"), metavar="DIR", help="default: log_reprod/mutants"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at a time (default: 2)")
    parser.add_argument("--fresh", action="store_true", help="run again what DIR has outcomes of")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the matrix there as well")
    parser.add_argument("--json", action="store_true", help="print mutants.json on standard output")
    parser.epilog = (
        "example: align mutate --catalogue my_bugs.yaml --only 'ln-*'. "
        "Exit code 1 if any expectation fails, 2 if a mutant could not be tried."
    )


def execute(args: argparse.Namespace) -> int:
    mutants = _chosen(read_catalogue(args.catalogue), args.only, args.catalogue)
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: at least 1")
    check_writable("--markdown", args.markdown)
    out = args.out.absolute()
    with exclusive(out), staged(out) as reports:
        if args.fresh:
            (out / "outcomes.jsonl").unlink(missing_ok=True)
        with console.progress(len(mutants), quiet=args.json or not sys.stderr.isatty()) as told:
            result = matrix.run(mutants, out, args.jobs, told)
        report.write(result, reports)
    if args.markdown:
        args.markdown.write_text((out / "mutants.md").read_text())
    if args.json:
        print((out / "mutants.json").read_text(), end="")
    else:
        console.print_matrix(result, str(out))
    return result.exit_code


def _chosen(mutants: list[Mutant], only: list[str] | None, catalogue: Path) -> list[Mutant]:
    if only is None:
        return mutants
    chosen = [mutant for mutant in mutants if any(fnmatchcase(mutant.id, pattern) for pattern in only)]
    if not chosen:
        raise UsageError(f"--only {' '.join(only)}: {catalogue} has no such mutant")
    return chosen
