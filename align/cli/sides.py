"""Options that every command with side processes takes: device, interpreter, threads, TF32."""

import argparse
from typing import Any

from align.sides import SIDES


def configure(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the two sides")
    group.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="device of both sides (default: cpu)")
    for side in SIDES:
        group.add_argument(f"--{side}-device", choices=("cpu", "gpu"), help=f"device of the {side} side alone")
        group.add_argument(f"--{side}-python", metavar="P", help=f"interpreter of the {side} side (default: this one)")
    group.add_argument(
        "--threads",
        type=_positive,
        default=1,
        metavar="N",
        help="threads a side (default: 1; Paddle changes bits with it)",
    )
    group.add_argument("--tf32", action="store_true", help="allow TensorFloat-32 on a GPU (off by default)")


def devices(args: argparse.Namespace) -> dict[str, str]:
    return {side: getattr(args, f"{side}_device") or args.device for side in SIDES}


def pythons(args: argparse.Namespace) -> dict[str, Any]:
    return {side: getattr(args, f"{side}_python") for side in SIDES}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
