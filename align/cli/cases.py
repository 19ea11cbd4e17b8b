"""`align cases`: what can be given to --case."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from align.cases import every, files

EXAMPLES = (
    "align cases",
    "align cases --json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="list the cases of a TOML or Python file")
    parser.add_argument("--json", action="store_true", help="print the full definitions as JSON")


def execute(args: argparse.Namespace) -> int:
    cases = files.read(args.file) if args.file else every()
    if args.json:
        print(json.dumps({name: asdict(case) for name, case in cases.items()}, indent=1))
        return 0
    width = max(map(len, cases), default=0)
    for name, case in cases.items():
        print(f"{name:<{width}}  {case.summary or f'{case.reference} and {case.port}'}")
    return 0
