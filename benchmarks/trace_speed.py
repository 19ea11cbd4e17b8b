"""What does a value trace cost? `python benchmarks/trace_speed.py`: PiT-Ti, forward and backward, bare against traced.

Prints JSON, milliseconds and ratios, each side and both together. A traced pass includes the copies of every
operation's output and gradient, their hashing and writing to a folder, and the list of operations; the pass alone,
while the writer's thread is still busy, is given beside it, and the ratio of processor seconds, which other work on
the machine does not harm: the ratio on a single processor. Each side runs in a process of its own; bare and traced
passes alternate. Exit code 1 if both sides together take more than LIMIT times the bare passes, or a traced pass
computes other bits than a bare one.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from align.record.store import StoreWriter

PACKAGES = {"torch": "torch_ref", "paddle": "paddle_impl"}
LIMIT = 3.0  # what the project promises


def measure(name, dtype, batch, rounds):
    """Medians of one side, in this process."""
    import numpy as np

    module = importlib.import_module(f"align.sides.{name}")
    side = getattr(module, f"{name.capitalize()}Side")(device="cpu", threads=1, tf32=False)
    side.set_precision(dtype)
    model = side.build(importlib.import_module(f"{PACKAGES[name]}.pit").pit_ti, {})
    side.set_training(model, False)
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224))

    def run():
        logits = model(side.from_numpy(images))
        side.backward([logits.sum()])
        return logits

    def results(logits):
        found = {"logits": side.to_numpy(logits), **side.gradients(model)}
        side.clear_gradients(model)
        return found

    run()  # unmeasured: allocators and threads warm up
    side.clear_gradients(model)
    times, same = [], True
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        expected = run()
        bare, bare_used = time.perf_counter() - start, time.process_time() - used
        expected = results(expected)
        with tempfile.TemporaryDirectory() as folder:
            start, used = time.perf_counter(), time.process_time()
            with StoreWriter(Path(folder), "trace") as sink:
                with side.trace(sink, model, gradients=True) as tracer:
                    found = run()
                alone = time.perf_counter() - start
            tracer.trace.write(Path(folder), "trace")
            whole, used = time.perf_counter() - start, time.process_time() - used
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        found = results(found)
        same &= all(np.array_equal(found[key], expected[key]) for key in expected)
        tracer.trace.check()
        times.append((bare, alone, whole, used / bare_used))
    bare, alone, whole, processor = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "bare_ms": round(1e3 * bare, 1),
        "traced_pass_ms": round(1e3 * alone, 1),
        "traced_whole_ms": round(1e3 * whole, 1),
        "ratio_pass": round(statistics.median(a / b for b, a, *_ in times), 2),
        "ratio_whole": round(statistics.median(w / b for b, _, w, _ in times), 2),
        "ratio_processor": round(processor, 2),
        "operations": len(tracer.trace.operations),
        "megabytes": round(size / 1e6),
        "same_bits": same,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", choices=tuple(PACKAGES), help="measure one side in this process")
    arguments = parser.parse_args()
    settings = (arguments.dtype, arguments.batch, arguments.rounds)
    if arguments.side:
        print(json.dumps(measure(arguments.side, *settings)))
        return 0

    sides = {}
    for name in PACKAGES:
        command = [sys.executable, __file__, "--side", name, "--dtype", settings[0]]
        command += ["--batch", str(settings[1]), "--rounds", str(settings[2])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        sides[name] = json.loads(answer.stdout.splitlines()[-1])
    together = {key: sum(side[key] for side in sides.values()) for key in ("bare_ms", "traced_whole_ms")}
    ratio = round(together["traced_whole_ms"] / together["bare_ms"], 2)
    result = {"model": "pit_ti", **dict(zip(("dtype", "batch", "rounds"), settings, strict=True)), **sides}
    result["both"] = {**together, "ratio_whole": ratio, "limit": LIMIT}
    print(json.dumps(result, indent=2))
    return 0 if ratio <= LIMIT and all(side["same_bits"] for side in sides.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
