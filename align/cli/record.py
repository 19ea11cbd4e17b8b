"""`align record`: one side of a case, for the split form: record there, copy the folder, `align diff` here."""

import argparse

from align.cli import run
from align.sides import SIDES

EXAMPLES = (
    "align record --case pit_probe --side torch --out there",
    "align record --case pit_probe --side paddle --out here    after `there` was copied to `here`",
)


def configure(parser: argparse.ArgumentParser) -> None:
    run.configure_recording(parser)
    parser.add_argument("--side", choices=SIDES, required=True, help="the port's side needs the reference's in --out")


def execute(args: argparse.Namespace) -> int:
    return run.record_only(run.options_of(args), args)
