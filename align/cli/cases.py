"""`align cases`: what can be given to --case."""

import argparse
import json
from dataclasses import asdict

from align.cases import every

EXAMPLES = (
    "align cases",
    "align cases --json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the full definitions as JSON")


def execute(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps({name: asdict(case) for name, case in every().items()}, indent=1))
        return 0
    width = max(map(len, every()))
    for name, case in every().items():
        print(f"{name:<{width}}  {case.summary}")
    return 0
