"""`align zoo`: many pairs in a row, by default the two frameworks' own models and layers."""

import argparse
import json
import shlex
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from align.case import Case
from align.cases import files
from align.cli.output import check_writable
from align.errors import UsageError
from align.record.lock import exclusive
from align.report import zoo
from align.zoo import changes, runner

EXAMPLES = (
    "align zoo --only 'resnet*' 'batch_norm*'",
    "align zoo --pairs my_pairs.toml --markdown my_pairs.md",
)

SHIPPED = Path(__file__).resolve().parent.parent / "zoo"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, nargs="+", metavar="FILE", help="cases (TOML; default: the shipped ones)")
    parser.add_argument("--only", nargs="+", metavar="GLOB", help="only the cases of these names")
    parser.add_argument(
        "--out", type=Path, default=Path("log_reprod/zoo"), metavar="DIR", help="default: log_reprod/zoo"
    )
    parser.add_argument("--fresh", action="store_true", help="run again what DIR has outcomes of")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page with a table of all outcomes")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON on standard output")
    parser.epilog = "Exit code 1 if any pair differs, 2 if one could not be run."


def execute(args: argparse.Namespace) -> int:
    paths = args.pairs or [SHIPPED / "models.toml", SHIPPED / "layers.toml"]
    cases = _chosen(paths, args.only)
    roots = tuple(dict.fromkeys(path.resolve().parent for path in args.pairs or ()))
    out = args.out.absolute()
    stream = sys.stderr if args.json else sys.stdout
    check_writable("--markdown", args.markdown)

    def told(case: Case, outcome: runner.Outcome) -> None:
        print(line(outcome), file=stream, flush=True)

    with exclusive(out):
        done = runner.run(cases, out, told, args.fresh, changes.shipped(), roots)
    outcomes = done.outcomes
    if args.markdown:
        args.markdown.write_text(zoo.page(outcomes, cases, done.versions, _command(args)))
    if args.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes], indent=1))
    if any(outcome.error for outcome in outcomes):
        return 2
    return 0 if all(outcome.verdict == "aligned" for outcome in outcomes) else 1


def _command(args: argparse.Namespace) -> str:
    words = ["align zoo"]
    for option, values in (("--pairs", args.pairs), ("--only", args.only)):
        words += [option, *(shlex.quote(str(value)) for value in values)] if values else []
    return " ".join([*words, "--markdown", str(args.markdown)])


def line(outcome: runner.Outcome) -> str:
    """One outcome in one line: name, verdict, worst ratios, where and why."""
    ratios = " ".join(f"{step} {ratio:.3g}x" for step, ratio in outcome.ratios.items())
    told = f"{outcome.name:<32} {outcome.verdict or 'error':<10} {outcome.seconds:>6.1f} s  {ratios}"
    if outcome.verdict == "aligned":
        return told
    why = f"; {outcome.why}" if outcome.why else ""
    changed = f"; with the change: {outcome.with_change}" if outcome.with_change else ""
    return f"{told}  {zoo.found(outcome)}{why}{changed}"


def _chosen(paths: list[Path], only: list[str] | None) -> list[Case]:
    cases = [case for path in paths for case in files.read(path).values()]
    chosen = [case for case in cases if not only or any(fnmatchcase(case.name, pattern) for pattern in only)]
    if not chosen:
        raise UsageError(f"--only {' '.join(only or ())}: no such case in {', '.join(map(str, paths))}")
    return chosen
