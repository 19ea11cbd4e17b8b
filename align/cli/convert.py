"""`align convert IN OUT`: weights among .pth, .safetensors and .pdparams, official and timm keys, checked."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from align.convert import KINDS, convert

NAME = "convert"
HELP = "convert weights among .pth, .safetensors and .pdparams"


EXAMPLES = (
    "align convert pit_ti.pdparams pit_ti.safetensors",
    "align convert pit_ti.safetensors pit_ti.pth --keys timm --model pit_ti",
)


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = ", ".join(KINDS)
    parser.add_argument("source", metavar="IN", type=Path, help=f"weights of a PiT: {kinds}")
    parser.add_argument("target", metavar="OUT", type=Path, help=f"file to make: {kinds}")
    parser.add_argument("--model", metavar="VARIANT", help="refuse weights of any other variant, such as pit_ti")
    parser.add_argument("--keys", choices=["official", "timm"], default="official", help="names in OUT (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON; phases go to standard error")
    for side in ("torch", "paddle"):
        parser.add_argument(f"--{side}-python", metavar="P", help=f"interpreter that has {side} (default: this one)")


def execute(args: argparse.Namespace) -> int:
    stream = sys.stderr if args.json else sys.stdout
    done = convert(
        args.source,
        args.target,
        variant=args.model,
        keys=args.keys,
        force=args.force,
        pythons={"torch": args.torch_python, "paddle": args.paddle_python},
        tell=lambda phase, text: print(f"{phase:<8} {text}", file=stream, flush=True),
    )
    if args.json:
        print(json.dumps(asdict(done), indent=1))
    else:
        print(f"{'done':<8} {done.tensors} tensors, {done.transposed} transposed, sha256 {done.sha256}")
    return 0
