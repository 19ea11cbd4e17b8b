"""Options that every command with a verdict takes: exceptions, and the classic rule."""

import argparse
import math
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the gate")
    group.add_argument("--waivers", type=Path, metavar="FILE", help="accepted differences (TOML), each with an end")
    group.add_argument("--deviations", type=Path, metavar="FILE", help="differences inherent in a framework (TOML)")
    group.add_argument(
        "--fixed", type=tolerance, metavar="TOL", help="gate by reprod_log's rule, mean |a - b| <= TOL, not by noise"
    )


def tolerance(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return number
