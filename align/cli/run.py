"""`align run`: record both sides of a case, compare them, write every report."""

import argparse
import sys
from pathlib import Path

from align import steps as step_modules
from align.case import STEPS
from align.cases import find
from align.cli import sides
from align.compare.judge import Sources, judge_step
from align.compare.verdict import StepVerdict, Verdict
from align.errors import NothingCompared, UsageError
from align.pipeline import NEEDS, TWIN, Options, Recorder, noise_runs, order
from align.record.lock import exclusive
from align.record.manifest import Recording
from align.report import classic, console
from align.report import json as json_report
from align.sides import DTYPES, SIDES


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"steps to run (default: all): {' '.join(STEPS)}")
    parser.add_argument("--case", default="pit_ti", help="what to align (default: pit_ti; `align cases` lists them)")
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both", help="record one side only (default: both)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="the working type (default: float32)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="photographs of your own, as CLASS/IMAGE")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights (.pth, .safetensors, .pdparams); else probe weights"
    )
    parser.add_argument("--out", type=Path, default=Path("log_reprod"), metavar="DIR", help="default: log_reprod")
    parser.add_argument("--json", action="store_true", help="print verdict.json on standard output")
    sides.configure(parser)


def execute(args: argparse.Namespace) -> int:
    options = _options(args)
    with exclusive(options.out):
        with Recorder(options, lambda *_: None) as recorder:
            totals = {
                side: len(order(options)) + len(noise_runs(options)) * (side == "torch") for side in options.sides
            }
            with console.progress(totals, quiet=args.json or not sys.stderr.isatty()) as report:
                recorder.progress = report
                recordings = recorder.run()
            if "paddle" not in options.sides:
                folders = ", ".join(str(recording.folder) for recording in recordings.values())
                print(f"recorded: {folders}", file=sys.stderr if args.json else sys.stdout)
                return 0
            result = compare(options, recordings)
            for step in result.steps:
                pair = {side: recordings[side, options.dtype] for side in SIDES}
                classic.write(recorder, step, pair, options.out)
        json_report.write(result, options.out)
    if args.json:
        print((options.out / "verdict.json").read_text(), end="")
    else:
        console.print_verdict(result, str(options.out))
    if result.verdict == "empty":
        raise NothingCompared("no tensor was compared: name at least one step that records something")
    return result.exit_code


def _options(args: argparse.Namespace) -> Options:
    case = find(args.case)
    for step in args.steps:
        if step not in STEPS:
            raise UsageError(f"unknown step {step!r}; the steps are {' '.join(STEPS)}")
        if step not in step_modules.AVAILABLE:
            raise UsageError(
                f"step {step!r} is not part of this version yet; available: {' '.join(step_modules.AVAILABLE)}"
            )
    asked = set(args.steps or step_modules.AVAILABLE)
    asked |= {NEEDS[step] for step in asked if step in NEEDS}
    return Options(
        case=case,
        out=args.out.absolute(),
        steps=tuple(step for step in STEPS if step in asked and step in case.steps),
        sides=SIDES if args.side == "both" else (args.side,),
        dtype=args.dtype,
        devices=sides.devices(args),
        pythons=sides.pythons(args),
        data=args.data,
        weights=args.weights,
        threads=args.threads,
        tf32=args.tf32,
    )


def compare(options: Options, recordings: dict[tuple[str, str], Recording]) -> Verdict:
    """Read both sides' recordings step by step and judge every row."""
    steps = []
    for step in options.steps:
        twin = step not in step_modules.EXACT
        stores = {
            (side, dtype): recordings[side, dtype].step(step)
            for side in SIDES
            for dtype in ((options.dtype, TWIN) if twin else (options.dtype,))
        }
        sources = Sources(
            stores["torch", options.dtype],
            stores["paddle", options.dtype],
            stores.get(("torch", TWIN)),
            stores.get(("paddle", TWIN)),
            recordings["torch", options.dtype].noise(step),
        )
        seconds = sum(recording.manifest.steps.get(step, 0.0) for recording in recordings.values())
        steps.append(StepVerdict(step, tuple(judge_step(step, sources)), round(seconds, 3)))
    environment = {side: recordings[side, options.dtype].manifest.environment for side in SIDES}
    return Verdict(options.case.name, tuple(steps), environment)
