"""`align doctor`: what each side would run on, and whether every switch that decides numerics is in force."""

import argparse
import json
import tempfile
from pathlib import Path

from align.cli import sides
from align.errors import AlignError
from align.record.process import SideProcess
from align.sides import SIDES

# Tested together; Paddle's GPU wheels in the common index end at 2.6.
SUPPORTED = {"torch": "2.x, tested with 2.15.0", "paddle": "3.3 and later 3.x, tested with 3.3.1"}


EXAMPLES = (
    "align doctor",
    "align doctor --device gpu --json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    sides.configure(parser)


def execute(args: argparse.Namespace) -> int:
    found, code = {}, 0
    for side in SIDES:
        try:
            found[side] = _ask(side, args)
        except AlignError as error:
            found[side], code = {"error": str(error)}, max(code, error.exit_code)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return code


def _ask(side: str, args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        process = SideProcess(
            side,
            Path(folder) / "log",
            python=sides.pythons(args)[side],
            device=sides.devices(args)[side],
            threads=args.threads,
            tf32=args.tf32,
        )
        with process:
            answer = dict(process.request("environment"))
    answer.pop("event")
    return answer


def _print(found: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for side, facts in found.items():
        console.print(f"[bold]{side}[/] (supported: {SUPPORTED[side]})")
        if "error" in facts:
            console.print(f"  [red]{escape(facts['error'])}[/]", soft_wrap=True)
            continue
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        gpus = ", ".join(facts["devices"]["gpus"]) or "none"
        console.print(f"  python {facts['python']}, {versions}", highlight=False)
        console.print(f"  device {facts['devices']['used']}, GPUs: {gpus}", highlight=False)
        table = Table("switch", "asked", "in force", "state", box=None, pad_edge=True)
        for switch in facts["switches"]:
            colour = {"in force": "green", "differs": "red"}.get(switch["state"], "dim")
            table.add_row(switch["name"], switch["asked"], switch["in_force"] or "-", f"[{colour}]{switch['state']}[/]")
        console.print(table)
