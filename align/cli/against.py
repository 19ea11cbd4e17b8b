"""`align run --against FILE`: the port alone, judged by a golden recording, without a process of the reference."""

import argparse
from dataclasses import replace

from align.cases import every, find
from align.cli import run
from align.compare import waivers
from align.compare.runs import Runs, compare_runs
from align.errors import NothingCompared, UsageError
from align.golden import archive, current
from align.golden.archive import Golden
from align.locate.recorded import from_rows
from align.pipeline import TWIN, Options, Recorder
from align.record.lock import exclusive
from align.report import classic, console
from align.report import json as json_report
from align.report.details import details
from align.report.staged import staged


def execute(args: argparse.Namespace) -> int:
    golden = archive.read(args.against)
    options = _options(args, golden)
    exceptions = waivers.read(args.waivers, args.deviations)
    with exclusive(options.out), staged(options.out) as reports:
        frozen = archive.unpack(golden, options.folder)
        with Recorder(options, lambda *_: None) as recorder:
            ours = run.record(recorder, args)
            dtype = options.dtype
            runs = Runs(frozen[dtype], ours["paddle", dtype], frozen[TWIN], ours.get(("paddle", TWIN)))
            result = compare_runs(runs, exceptions, args.fixed, options.steps, options.case.mapping)
            result = replace(result, notes=(*result.notes, *_notes(golden, red=not result)))
            if not result:
                result = replace(result, divergences=tuple(from_rows(recorder, result, runs)))
            for step in result.steps:
                classic.write(recorder, step, {"torch": runs.reference, "paddle": runs.port}, reports)
        more = details(runs, json_report.rows_of(result))
        if args.keep == "summary":
            shown = result.around_first_difference()
            for recording in ours.values():
                if recording.manifest.side == "paddle":
                    recording.thin(shown)
        json_report.write(result, reports, more)
    if args.json:
        print((options.out / "verdict.json").read_text(), end="")
    else:
        console.print_verdict(result, str(options.out))
    if result.verdict == "empty":
        raise NothingCompared("no tensor was compared: name at least one step that records something")
    return result.exit_code


def _options(args: argparse.Namespace, golden: Golden) -> Options:
    """What the command line asked for, as far as the file holds it."""
    for name in ("data", "weights", "replay"):
        if getattr(args, name):
            raise UsageError(
                f"--{name}: {golden.path} holds inputs and results of a run; leave it out, or leave out --against"
            )
    if args.side == "torch":
        raise UsageError("--against judges the port: leave --side out")
    # A case in a file of the user's is found by --case alone; what the two must have in common is its name.
    name = golden.case.name
    if args.case is None and name not in every():
        raise UsageError(
            f"{golden.path}: holds case {name}, which is not built in; say where it is: --case FILE:{name}"
        )
    args.case = args.case or name
    if find(args.case).name != name:
        raise UsageError(f"{golden.path}: holds case {name}, not {args.case}")
    args.side, args.steps = "paddle", args.steps or list(golden.steps)
    options = run.options_of(args)
    if lacking := [step for step in options.steps if step not in golden.steps]:
        raise UsageError(f"{golden.path}: holds no {', '.join(lacking)}; it has {' '.join(golden.steps)}")
    current.check(golden, options)
    return replace(options, devices={**options.devices, "torch": golden.working.device})


def _notes(golden: Golden, red: bool) -> tuple[str, ...]:
    versions = golden.working.environment.get("versions", {})
    name, torch = golden.path.name, versions.get("torch", "unknown")
    notes = [
        f"The reference is a golden recording, {name}, frozen by align {golden.head['align']} from torch {torch} "
        f"on {golden.working.device}. Of tensors over 64 elements it holds 16 elements and 48 weighted sums."
    ]
    if red:
        notes.append(
            "Named is the first module whose inputs are right and whose output is not, and where it is called and "
            "made. The operation inside it, the reference's line and the cause need the reference itself: `align run`."
        )
    return tuple(notes)
