"""`align check`: two models, without a file to write: forwards and backwards, in evaluation and in training mode."""

import argparse
import shlex
from pathlib import Path

from align import mapping
from align.case import ALONE, Case
from align.cases import inputs
from align.cases.pair import pair
from align.cli import gate, run, sides
from align.cli.output import check_writable
from align.errors import UsageError
from align.pipeline import Options
from align.sides import DTYPES, SIDES

EXAMPLES = (
    "align check torchvision.models:resnet50 paddle.vision.models:resnet50 --input 2,3,224,224",
    "align check my_reference.py:Net my_port.py:Net --input 'ids=2,128:int64<30000' --input mask=2,128:bool",
    "align check 'torch:cumsum(..., dim=1)' 'paddle:cumsum(..., axis=1)' --input 3,5    a function is its own model",
    "align check a.py:Net b.py:Net --input 2,8 --write-map map.toml                  which weights belong together",
    "align check a.py:Net b.py:Net --input 2,8 --side torch --out there              the reference now, the port later",
)


def configure(parser: argparse.ArgumentParser) -> None:
    what = "package.module:name or file.py:name; literal arguments, if it needs any, in brackets"
    parser.add_argument("reference", metavar="REFERENCE", help=f"the PyTorch model's builder: {what}")
    parser.add_argument("port", metavar="PORT", help="the Paddle model's builder, likewise")
    inputs.configure(parser)
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both", help="record one side only (default: both)")
    parser.add_argument("--step", choices=ALONE, nargs="+", default=ALONE, help="default: both")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="the working type (default: float32)")
    parser.add_argument("--seed", type=int, metavar="N", default=Case.seed, help="of the weights and inputs")
    parser.add_argument("--name", help="of the case, in reports and folders (default: the reference's name)")
    parser.add_argument("--map", type=Path, metavar="FILE", help="which names of the port belong to which (TOML)")
    parser.add_argument("--write-map", type=Path, metavar="FILE", help="write there which names were found to belong")
    parser.add_argument("--replay", metavar="MODULE", help="compare one MODULE alone, on the reference's own inputs")
    run.configure_results(parser)
    sides.configure(parser)
    gate.configure(parser)
    parser.epilog = "A function is its own model if its inputs are dots: torch:cumsum(..., dim=1)."


def execute(args: argparse.Namespace) -> int:
    options = options_of(args)
    check_writable("--write-map", args.write_map)
    if args.write_map and (args.replay or args.side == "torch"):
        raise UsageError("--write-map: the port's parameters are not looked for with --replay or --side torch")
    if args.replay:
        return run.replayed(options, args, again(args))
    if args.side == "torch":
        return run.record_only(options, args)
    return run.gated(options, args, again(args))


def again(args: argparse.Namespace) -> str:
    """The command that runs one `{step}` of the same check."""
    words = ["align", "check", args.reference, args.port]
    words += [word for spec in args.input for word in ("--input", spec)]
    told = {"--map": args.map, "--seed": args.seed if args.seed != Case.seed else None}
    told["--dtype"] = args.dtype if args.dtype != "float32" else None
    words += [word for name, value in told.items() if value is not None for word in (name, str(value))]
    return f"{shlex.join(words)} --step {{step}}"


def options_of(args: argparse.Namespace) -> Options:
    """The options of a check, whose case is made of its arguments."""
    told = {"mapping": mapping.read(args.map), "seed": args.seed}
    case = pair(args.reference, args.port, inputs.read(args.input), args.name, **told)
    return Options(
        case=case,
        out=args.out.absolute(),
        steps=tuple(step for step in ALONE if step in args.step),
        sides=SIDES if args.side == "both" else (args.side,),
        dtype=args.dtype,
        devices=sides.devices(args),
        pythons=sides.pythons(args),
        threads=args.threads,
        tf32=args.tf32,
        modules=tuple(args.modules),
    )
