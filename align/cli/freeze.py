"""`align freeze`: what the reference computes, in one file that a port is judged by without it."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from align.case import NEEDS, STEPS
from align.cli import run, sides
from align.errors import EnvironmentFault, UsageError
from align.golden.freeze import Reference, freeze, references
from align.pipeline import TWIN, Recorder
from align.sides import DTYPES

EXAMPLES = (
    "align freeze --case pit_probe                             records the reference, writes golden/pit_probe.align",
    "align freeze forward bp_align --from log_reprod --out small.align",
    "align run --against small.align                           later, where there is no PyTorch",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"steps to freeze (default: all): {' '.join(STEPS)}")
    parser.add_argument("--case", help="what to freeze (default: pit_ti, or the only case in --from)")
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="DIR", help="a run's folder (default: records anew)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where it goes (default: golden/CASE.align)")
    working = [dtype for dtype in DTYPES if dtype != TWIN]
    parser.add_argument("--dtype", choices=working, default="float32", help="the working type (default: float32)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="photographs of your own, as CLASS/IMAGE")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a weight file; probe weights otherwise")
    parser.add_argument("--seed", type=int, metavar="N", help="of the probe weights, crops and labels")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    sides.configure(parser)
    parser.set_defaults(map=None, modules=["*"], side="torch")


def execute(args: argparse.Namespace) -> int:
    if args.out and args.out.is_dir():
        raise UsageError(f"--out {args.out}: is a folder; name a file in it")
    if args.source:
        unused = {"--data": args.data, "--weights": args.weights, "--seed": args.seed}
        if given := [option for option, value in unused.items() if value is not None]:
            raise UsageError(f"{given[0]}: goes with a recording made anew, not with --from")
        reference = _recorded(args.source, args.case)
        asked = set(args.steps or reference.working.manifest.steps)
        asked |= {NEEDS[step] for step in asked if step in NEEDS}
        told = _freeze(reference, asked, args)
    else:
        parent = Path(args.out).parent if args.out else Path("golden")
        _make(parent)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".partial-freeze-") as name:
            args.case, out, args.out = args.case or run.CASE, args.out, Path(name)
            options = run.options_of(args)
            with Recorder(options, lambda *_: None) as recorder:
                found = run.record(recorder, args)
                reference = Reference.of(found["torch", options.dtype], found["torch", TWIN])
                args.out = out
                told = _freeze(reference, set(options.steps), args)
    text = f"{told['file']}: {told['bytes'] / 1e6:.1f} MB, {told['case']}: {' '.join(told['steps'])}"
    print(json.dumps(told, indent=1) if args.json else text)
    return 0


def _recorded(folder: Path, case: str | None) -> Reference:
    found = {reference.working.manifest.case: reference for reference in references(folder, case)}
    if len(found) > 1:
        raise UsageError(f"{folder}: holds recordings of {', '.join(sorted(found))}; name one with --case")
    if not found:
        raise UsageError(f"{folder}: no recording of a reference and its float64 run; make one with `align run`")
    return next(iter(found.values()))


def _freeze(reference: Reference, asked: set[str], args: argparse.Namespace) -> dict[str, Any]:
    for step in asked:
        if step not in STEPS:
            raise UsageError(f"unknown step {step!r}; the steps are {' '.join(STEPS)}")
    case, steps = reference.working.manifest.case, tuple(step for step in STEPS if step in asked)
    target = args.out or Path("golden", f"{case}.align")
    _make(target.parent)
    freeze(reference, steps, target)
    return {"file": str(target), "bytes": target.stat().st_size, "case": case, "steps": list(steps)}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if fault := EnvironmentFault.of_full_disk(error, folder):
            raise fault from None
        raise UsageError(f"--out {folder}: cannot write there: {error.strerror}; name another folder") from None
