"""`align run`: record both sides of a case, compare them, write every report."""

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from align import mapping
from align import steps as step_modules
from align.case import NEEDS, STEPS
from align.cases import files, find
from align.cli import gate, sides, write_map
from align.cli.output import shown
from align.compare import waivers
from align.errors import NothingCompared, UsageError
from align.gate import reported
from align.locate.search import replay_module
from align.pipeline import Options, Recorder, noise_runs, order
from align.record.lock import exclusive
from align.record.manifest import Recording
from align.report import console
from align.report import json as json_report
from align.sides import DTYPES, SIDES

CASE = "pit_ti"  # by default


EXAMPLES = (
    "align run --case pit_probe",
    "align run forward loss --case pit_s --weights pit_s.safetensors --out results",
    "align run --case pit_probe --side paddle                  the port again, by the last reference",
    "align run forward --case pit_probe --replay norm          one module, on the reference's own inputs",
    "align run --against golden/pit_probe.align                the port alone, without PyTorch",
)


def configure(parser: argparse.ArgumentParser) -> None:
    configure_recording(parser)
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both", help="record one side only (default: both)")
    parser.add_argument("--replay", metavar="MODULE", help="compare one MODULE alone, on the reference's own inputs")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="judge the port alone by a file of `align freeze`; needs no torch",
    )
    gate.configure(parser)


def configure_recording(parser: argparse.ArgumentParser) -> None:
    """What says how recordings are made: common to `run` and `record`."""
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"steps to run (default: all): {' '.join(STEPS)}")
    parser.add_argument("--case", help=f"what to align (default: {CASE}; `align cases` lists them)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="the working type (default: float32)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="photographs of your own, as CLASS/IMAGE")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a weight file; probe weights otherwise")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the probe weights, crops and labels (default: the case's)"
    )
    parser.add_argument("--map", type=Path, metavar="FILE", help="which names of the port belong to which (TOML)")
    configure_results(parser)
    sides.configure(parser)


def configure_results(parser: argparse.ArgumentParser) -> None:
    """What says what is left of a run: common to all commands that record."""
    parser.add_argument("--out", type=Path, default=Path("log_reprod"), metavar="DIR", help="default: log_reprod")
    parser.add_argument(
        "--keep",
        choices=("full", "summary"),
        default="full",
        help="summary: statistics only, and full tensors around the first difference (default: full)",
    )
    parser.add_argument(
        "--modules", nargs="+", default=["*"], metavar="GLOB", help="record only modules of these names (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print verdict.json on standard output")


def execute(args: argparse.Namespace) -> int:
    if args.against:
        from align.cli import against

        return against.execute(args)
    if args.replay:
        return _replay(args)
    if args.side == "torch":
        return record_only(options_of(args), args)
    return gated(options_of(args), args, _again(args))


def _again(args: argparse.Namespace) -> str:
    return f"align run {{step}} --case {shlex.quote(args.case or CASE)}"


def gated(options: Options, args: argparse.Namespace, again: str) -> int:
    """Record, compare, look for the place, write every report; the answer is the exit code.

    `again` is the command that runs one `{step}` of this once more, to which `--replay MODULE` is added.
    """
    exceptions = waivers.read(args.waivers, args.deviations)

    def recorded(recorder: Recorder) -> dict[tuple[str, str], Recording]:
        recordings = record(recorder, args)
        write_map.write(getattr(args, "write_map", None), options.case.name, recorder.parameters)
        return recordings

    result = reported(options, exceptions, fixed=args.fixed, keep=args.keep, record=recorded)
    with shown():
        if args.json:
            print((options.out / "verdict.json").read_text(), end="")
        else:
            console.print_verdict(result, str(options.out), again)
    if result.verdict == "empty":
        raise NothingCompared("no tensor was compared: name at least one step that records something")
    return result.exit_code


def record_only(options: Options, args: argparse.Namespace) -> int:
    """Record one side and compare nothing."""
    if args.keep == "summary":
        raise UsageError("--keep summary needs a comparison, and nothing is compared here; record with --keep full")
    with exclusive(options.out), Recorder(options, lambda *_: None) as recorder:
        recordings = record(recorder, args)
    for (side, _), recording in recordings.items():
        if side == args.side:
            print(f"recorded: {recording.folder}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _replay(args: argparse.Namespace) -> int:
    return replayed(options_of(args), args, _again(args))


def replayed(options: Options, args: argparse.Namespace, again: str) -> int:
    """One module of the port on the reference's inputs and output gradients; nothing is recorded or overwritten."""
    able = [step for step in options.steps if step in step_modules.REPLAYABLE]
    if len(able) != 1 or options.sides != SIDES:
        raise UsageError(f"--replay needs both sides and one of the steps {', '.join(step_modules.REPLAYABLE)}")
    with exclusive(options.out), Recorder(options, lambda *_: None) as recorder:
        recorder.open_twins()
        tensors, found = replay_module(recorder, able[0], args.replay)
    if args.json:
        rows = [{"name": t.name, "shape": t.shape, "error": json_report.number(t.error)} for t in tensors]
        print(
            json.dumps({"module": args.replay, "tensors": rows, "divergences": [d.as_json() for d in found]}, indent=1)
        )
    else:
        console.print_replay(tensors, found, again)
    return 1 if found else 0


def record(recorder: Recorder, args: argparse.Namespace) -> dict[tuple[str, str], Recording]:
    options = recorder.options
    totals = {side: len(order(options)) + len(noise_runs(options)) * (side == "torch") for side in options.sides}
    with console.progress(totals, quiet=args.json or not sys.stderr.isatty()) as report:
        recorder.progress = report
        return recorder.run()


def options_of(args: argparse.Namespace) -> Options:
    case = find(args.case or CASE)
    if args.seed is not None:
        case = replace(case, seed=args.seed)
    if args.map:
        case = replace(case, mapping=mapping.read(args.map))
    for path, what in ((args.data, "--data"), (args.weights, "--weights")):
        if path and not path.exists():
            raise UsageError(f"{what} {path}: no such file or folder")
    for step in args.steps:
        if step not in STEPS:
            raise UsageError(f"unknown step {step!r}; the steps are {' '.join(STEPS)}")
        if step not in case.steps:
            raise UsageError(f"case {case.name} has no step {step!r}; it has {' '.join(case.steps)}")
    asked = set(args.steps or STEPS)
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
        roots=files.roots(args.case or CASE),
        modules=tuple(args.modules),
    )
