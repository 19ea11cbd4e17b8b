"""What does it cost to find the line? `python benchmarks/locate_speed.py`: PiT-Ti, the reference against the port.

Prints JSON, seconds: both sides' bare forward and backward; replay and value trace of every module, as after a red
verdict (in two processes that run already; what a run does once for all, importing and building, is left out); and
PaDiff's `auto_diff` on the same two models, if it can be imported:

    python -m pip install --no-deps --target FOLDER padiff==0.2.0
    PYTHONPATH=FOLDER python benchmarks/locate_speed.py

Its verdict is given beside its time. The cost of a value trace alone is in `trace_speed.py`.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PACKAGES = {"torch": "torch_ref", "paddle": "paddle_impl"}
SKIPPED = "padiff cannot be imported: see the head of this file"


def bare(name, batch, rounds):
    """Median seconds of a float64 forward and backward of one side, in this process."""
    import numpy as np

    side = getattr(importlib.import_module(f"align.sides.{name}"), f"{name.capitalize()}Side")("cpu", 1, False)
    side.set_precision("float64")
    model = side.build(importlib.import_module(f"{PACKAGES[name]}.pit").pit_ti, {})
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224))
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        side.backward([model(side.from_numpy(images)).sum()])
        times.append(time.perf_counter() - start)
        side.clear_gradients(model)
    return statistics.median(times[1:])


def ours(batch):
    """Seconds of the replay of the clean pair, and of the replay and trace with every module's operations noted."""
    from align.cases import find
    from align.locate.search import replayed
    from align.pipeline import Options, Recorder

    case = find("pit_ti")
    case = replace(case, inputs=(replace(case.inputs[0], shape=(batch, *case.inputs[0].shape[1:])),))
    answer = {}
    with tempfile.TemporaryDirectory() as name:
        options = Options(case, Path(name), ("bp_align",))
        with Recorder(options, lambda *_: None) as recorder:
            recorder.open_twins()
            assert replayed(recorder, "bp_align") == []  # unmeasured: both sides warm up
            start = time.perf_counter()
            answer["divergences"] = len(replayed(recorder, "bp_align"))
            answer["replay"] = time.perf_counter() - start
            folder = Path(name, "kept")
            folder.mkdir()
            start = time.perf_counter()
            for operation, settings in (("replay", {}), ("trace", {"modules": ["*"]})):
                for side in PACKAGES:
                    request = {"run": f"{side}-float64", "step": "bp_align", "folder": str(folder), **settings}
                    recorder.process(side).request(operation, **request)
            answer["replay_and_trace"] = time.perf_counter() - start
    return answer


def padiff(batch):
    """Seconds of `auto_diff` on the same models, its answer and its last words; one process holds both frameworks."""
    sys.path.insert(0, str(Path.cwd()))  # where padiff leaves its reports
    from padiff import assign_weight, auto_diff  # isort: skip  # before what it wraps

    import numpy as np
    import paddle
    import torch

    import paddle_impl.pit
    import torch_ref.pit

    torch.set_default_dtype(torch.float64)
    paddle.set_default_dtype("float64")
    models = (paddle_impl.pit.pit_ti(), torch_ref.pit.pit_ti())
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224))
    inputs = ({"x": paddle.to_tensor(images)}, {"x": torch.from_numpy(images)})
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assign_weight(*models)
        start = time.perf_counter()
        passed = auto_diff(*models, inputs, auto_weights=False, options={"diff_phase": "both"})
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "passed": bool(passed), "said": said.getvalue().strip().splitlines()[-3:]}


def child(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:  # padiff leaves files where it runs
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:]}
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=(*PACKAGES, "padiff"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(padiff(args.batch) if args.part == "padiff" else bare(args.part, args.batch, args.rounds)))
        return 0
    size = ("--batch", args.batch, "--rounds", args.rounds)
    answer = {"bare": {name: child("--part", name, *size) for name in PACKAGES}, "align": ours(args.batch)}
    found = importlib.util.find_spec("padiff")
    answer["padiff"] = child("--part", "padiff", *size) if found else SKIPPED
    print(json.dumps(answer, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
