"""What recording every module costs: forward and backward of PiT-Ti with and without, in turn, on both sides.

    python benchmarks/record_speed.py [--rounds N]

Prints JSON. `ratio` is the sum of both sides' recording passes over the sum of their bare passes (medians of passes
taken in turn in one process a side); writing out what was still in memory is `flush`, apart. `own_ratio` is of the
processor seconds of the thread that computes: what remains where the writing thread has a processor for itself.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from align.record.process import environment  # noqa: E402


def measure(name: str, rounds: int) -> dict[str, float]:
    """Seconds of one side: medians of the bare pass, the recording pass and its flush; `own_` of the thread alone."""
    import numpy as np

    from align.record.observer import observe
    from align.record.store import StoreWriter

    side = getattr(importlib.import_module(f"align.sides.{name}"), f"{name.capitalize()}Side")("cpu", 1, False)
    side.set_precision("float32")
    package = {"torch": "torch_ref", "paddle": "paddle_impl"}[name]
    model = side.build(importlib.import_module(f"{package}.pit").pit_ti, {})
    side.set_training(model, True)
    images = side.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32))
    seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began, own = time.perf_counter(), time.thread_time()
        yield
        seconds[what].append(time.perf_counter() - began)
        seconds[f"own_{what}"].append(time.thread_time() - own)

    def one_pass() -> None:
        outputs = model(images)
        side.backward([outputs], [side.from_numpy(np.ones(tuple(outputs.shape), np.float32))])
        side.clear_gradients(model)

    one_pass()
    for _ in range(rounds):
        with timed("bare"):
            one_pass()
        with tempfile.TemporaryDirectory() as folder:
            writer = StoreWriter(Path(folder), "pass")
            with timed("recording"), observe(side, model, writer, gradients=True, copy=False):
                one_pass()
            with timed("flush"):
                writer.close()
    return {what: statistics.median(values) for what, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", choices=("torch", "paddle"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.rounds)))
        return
    sides, began = {}, os.getloadavg()[0]
    for side in ("torch", "paddle"):
        command = [sys.executable, __file__, "--side", side, "--rounds", str(args.rounds)]
        settings = environment(threads=1, tf32=False, path=(ROOT,))  # what a recording process really runs with
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings).stdout
        sides[side] = json.loads(output.splitlines()[-1])
    total = {what: sum(side[what] for side in sides.values()) for what in sides["torch"]}
    answer = {
        "job": "pit_ti, batch 4, 224 px, float32, forward and backward, every module",
        "sides": sides,
        "ratio": total["recording"] / total["bare"],
        "own_ratio": total["own_recording"] / total["own_bare"],
        "flush_ratio": total["flush"] / total["bare"],
        "load_average": [began, os.getloadavg()[0]],
    }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
