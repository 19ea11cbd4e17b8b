"""What recording every module costs: forward and backward of PiT-Ti with and without, in turn, on both sides.

    python benchmarks/record_speed.py [--rounds N]

Prints JSON. `ratio` is the sum of both sides' recording passes over the sum of their bare passes (medians of passes
taken in turn in one process a side); writing out what was still in memory is `flush`, apart.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from align.record.process import environment  # noqa: E402


def measure(name: str, rounds: int) -> dict[str, float]:
    """Seconds of one side: medians of the bare pass, the recording pass, and its flush."""
    import numpy as np

    from align.record.observer import observe
    from align.record.store import StoreWriter

    side = getattr(importlib.import_module(f"align.sides.{name}"), f"{name.capitalize()}Side")("cpu", 1, False)
    side.set_precision("float32")
    package = {"torch": "torch_ref", "paddle": "paddle_impl"}[name]
    model = side.build(importlib.import_module(f"{package}.pit").pit_ti, {})
    side.set_training(model, True)
    images = side.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32))
    seconds: dict[str, list[float]] = {"bare": [], "recording": [], "flush": []}

    def one_pass() -> None:
        outputs = model(images)
        side.backward([outputs], [side.from_numpy(np.ones(tuple(outputs.shape), np.float32))])
        side.clear_gradients(model)

    one_pass()
    for _ in range(rounds):
        began = time.perf_counter()
        one_pass()
        seconds["bare"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            writer = StoreWriter(Path(folder), "pass")
            began = time.perf_counter()
            with observe(side, model, writer, gradients=True, copy=False):
                one_pass()
            seconds["recording"].append(time.perf_counter() - began)
            began = time.perf_counter()
            writer.close()
            seconds["flush"].append(time.perf_counter() - began)
    return {what: statistics.median(values) for what, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", choices=("torch", "paddle"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.rounds)))
        return
    sides = {}
    for side in ("torch", "paddle"):
        command = [sys.executable, __file__, "--side", side, "--rounds", str(args.rounds)]
        settings = environment(threads=1, tf32=False, roots=())  # what a recording process really runs with
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings).stdout
        sides[side] = json.loads(output.splitlines()[-1])
    total = {what: sum(side[what] for side in sides.values()) for what in ("bare", "recording", "flush")}
    answer = {
        "job": "pit_ti, batch 4, 224 px, float32, forward and backward, every module",
        "sides": sides,
        "ratio": total["recording"] / total["bare"],
        "flush_ratio": total["flush"] / total["bare"],
    }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
