"""`align report`: the reports of a finished run made again, from its `verdict.json`, `rows.jsonl` and recordings."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from align.compare.runs import Runs
from align.errors import UsageError
from align.pipeline import TWIN
from align.record.lock import exclusive
from align.record.manifest import MANIFEST, Recording
from align.report.details import details
from align.report.json import read, write_reports
from align.report.staged import staged
from align.sides import SIDES

EXAMPLES = (
    "align report log_reprod",
    "align report log_reprod --json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's folder, with verdict.json and rows.jsonl")
    parser.add_argument("--json", action="store_true", help="print the paths of the reports as JSON")


def execute(args: argparse.Namespace) -> int:
    verdict, rows = read(args.folder)
    with exclusive(args.folder), staged(args.folder) as reports:
        runs = _runs(args.folder, verdict)
        try:
            write_reports(verdict, rows, reports, details(runs, rows) if runs else None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = f"{type(error).__name__}: {error}"
            raise UsageError(f"{args.folder}: verdict.json or rows.jsonl was changed ({told}); run again") from error
        written = [str(args.folder / path.name) for path in sorted(reports.iterdir())]
    if runs is None:
        print("without heat maps, curves and images: the verdict's recordings are not there", file=sys.stderr)
    print(json.dumps({"reports": written}, indent=1) if args.json else "\n".join(written))
    return 0


def _runs(folder: Path, verdict: dict[str, Any]) -> Runs | None:
    """The recordings that the verdict was made from; None where they are gone, or others have taken their place."""
    newest: dict[tuple[str, str], Recording] = {}
    paths = [path for path in folder.rglob(MANIFEST) if not path.parent.name.startswith(".")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        recording = Recording(path.parent)
        if recording.manifest.case == verdict["case"]:
            newest[recording.manifest.side, recording.manifest.dtype] = recording
    for dtype in sorted({dtype for _, dtype in newest}, key=lambda dtype: dtype == TWIN):
        reference, port = (newest.get((side, dtype)) for side in SIDES)
        if reference and port:
            twins = (newest.get((side, TWIN)) if dtype != TWIN else None for side in SIDES)
            runs = Runs(reference, port, *twins)
            if _are_judged(runs, verdict):
                for recording in runs.all:
                    recording.verify()
                return runs
    return None


def _are_judged(runs: Runs, verdict: dict[str, Any]) -> bool:
    """No two recordings take the same milliseconds in every step, and a verdict tells the steps' seconds."""
    took = {step["step"]: step["seconds"] for step in verdict["steps"]}
    return all(seconds == runs.seconds(step) for step, seconds in took.items())
