"""`align diff`: recordings made earlier or elsewhere, or two reprod_log files of any project."""

import argparse
import json
from pathlib import Path
from typing import Any

from align import mapping
from align.cli import gate
from align.cli.output import shown
from align.compare import bare, waivers
from align.compare.pairing import check_mapping
from align.compare.runs import Runs, compare_runs
from align.compare.statistics import Difference
from align.errors import NothingCompared, UsageError
from align.record.lock import exclusive
from align.record.manifest import MANIFEST, Recording
from align.record.safe_pickle import read_dictionary
from align.report import json as json_report
from align.report.details import details
from align.report.staged import staged

EXAMPLES = (
    "align diff log_reprod",
    "align diff there here                                     reference from there, port from here",
    "align diff forward_torch.npy forward_paddle.npy           reprod_log files of any project",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="a run's folder, a reference's recording, or an .npy")
    parser.add_argument("second", type=Path, nargs="?", metavar="B", help="the port's, if it is not in A too")
    parser.add_argument("--case", help="which case, where a folder holds several")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write every report there too")
    parser.add_argument("--map", type=Path, metavar="FILE", help="which names of the port belong to which (TOML)")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON on standard output")
    gate.configure(parser)


def execute(args: argparse.Namespace) -> int:
    for path in (args.first, args.second):
        if path and not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    if args.first.is_file():
        return _files(args)
    exceptions = waivers.read(args.waivers, args.deviations)
    runs = _find(args)
    for recording in runs.all:
        recording.verify()
    names = mapping.read(args.map)
    check_mapping(names, *({name for step in run.manifest.steps for name in run.step(step)} for run in runs.all[:2]))
    result = compare_runs(runs, exceptions, args.fixed, mapping=names)
    if args.out:
        with exclusive(args.out), staged(args.out) as reports:
            json_report.write(result, reports, details(runs, json_report.rows_of(result)))
    with shown():
        if args.json:
            print(json.dumps(json_report.verdict(result), indent=1))
        else:
            from align.report import console

            console.print_verdict(result, str(args.out) if args.out else "not written (give --out)")
    if result.verdict == "empty":
        raise NothingCompared("the recordings have no tensor to compare")
    return result.exit_code


def _find(args: argparse.Namespace) -> Runs:
    """The newest recordings under A and B: the reference from A, the port from B (from A where B is not given)."""
    first = _recordings(args.first, args.case)
    second = _recordings(args.second, args.case) if args.second else first
    # Two recordings of one side are also worth a comparison: a GPU against a CPU, one version against another.
    port_side = "paddle" if any(r.manifest.side == "paddle" for r in second) or not args.second else "torch"
    reference, reference_twin = _pick(first, "torch", args.first)
    port, port_twin = _pick(second, port_side, args.second or args.first)
    return Runs(reference, port, reference_twin, port_twin)


def _recordings(folder: Path, case: str | None) -> list[Recording]:
    manifests = [p for p in folder.rglob(MANIFEST) if not p.parent.name.startswith(".")]
    found = [Recording(p.parent) for p in sorted(manifests, key=lambda p: p.stat().st_mtime, reverse=True)]
    cases = {recording.manifest.case for recording in found}
    if case:
        found = [recording for recording in found if recording.manifest.case == case]
    elif len(cases) > 1:
        raise UsageError(f"{folder}: holds recordings of {', '.join(sorted(cases))}; name one with --case")
    if not found:
        what = f" of case {case}" if case else ""
        raise UsageError(f"{folder}: no recording{what} in it; make one with `align record` or `align run`")
    return found


def _pick(found: list[Recording], side: str, folder: Path) -> tuple[Recording, Recording | None]:
    """The newest recording of a side in a working type, and its float64 twin."""
    ours = [recording for recording in found if recording.manifest.side == side]
    working = next((r for r in ours if r.manifest.dtype != "float64"), None)
    twin = next((r for r in ours if r.manifest.dtype == "float64"), None)
    if working is None and twin is None:
        raise UsageError(f"{folder}: no recording of the {side} side; record it with `align record --side {side}`")
    if working is None:
        assert twin
        return twin, None
    return working, twin


def _files(args: argparse.Namespace) -> int:
    if args.map:
        raise UsageError(f"--map {args.map}: is for recordings; the keys of two files must be the same")
    if args.second is None:
        raise UsageError(f"{args.first}: a file is compared with a second one: align diff A.npy B.npy")
    result = bare.compare_dictionaries(_arrays(args.second), _arrays(args.first), args.fixed)
    rows = [
        {
            "name": row.name,
            "verdict": row.verdict,
            "reason": row.reason,
            "rule": row.limits.rule if row.limits else None,
            **_facts(row.difference),
        }
        for row in result.rows
    ]
    with shown():
        if args.json:
            print(json.dumps({"schema": "align-files/1", "verdict": result.verdict, "rows": rows}, indent=1))
        else:
            _print_rows(result, args.first)
    if result.verdict == "empty":
        raise NothingCompared(f"{args.first} and {args.second} have no element in common to compare")
    return 0 if result.verdict == "aligned" else 1


def _print_rows(result: bare.BareResult, reference: Path) -> None:
    for row in result.rows:
        facts = f"{row.verdict:<10} {row.name}"
        if row.difference:
            facts += f" {_told(row.difference)}"
        if row.limits:
            facts += f" [{row.limits.rule}]"
        print(f"{facts} {row.reason}".rstrip())
    bad = sum(row.verdict != "aligned" for row in result.rows)
    print(f"{result.verdict}: {len(result.rows)} rows, {bad} bad (reference: {reference})")


def _facts(found: Difference | None) -> dict[str, Any]:
    """Of one row, as JSON; all null where the two could not be compared element by element."""
    names = {"max_abs", "mean_abs", "rel", "cosine", "min_absolute_tolerance"}
    numbers = {name: json_report.number(getattr(found, name)) if found else None for name in sorted(names)}
    numbers["min_tolerance"] = numbers.pop("min_absolute_tolerance")
    index = list(found.index) if found and found.index is not None else None
    return {**numbers, "index": index, "ulp": found.max_ulp if found else None}


def _told(found: Difference) -> str:
    """The same in one line: at which index, and what an absolute tolerance would have to be."""
    at = "" if found.index is None else f" at {found.index}"
    ulp = "" if found.max_ulp is None else f" {found.max_ulp} ulp"
    return (
        f"max {found.max_abs:.3g}{at} mean {found.mean_abs:.3g} rel {found.rel:.3g} cos {found.cosine:.6g}{ulp}, "
        f"passes at {found.min_absolute_tolerance:.3g}"
    )


def _arrays(path: Path) -> dict[str, Any]:
    """Path -> array of everything in a file; UsageError names the file if it holds what cannot be compared."""
    content = read_dictionary(path)
    try:
        return dict(bare.flatten(content))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
