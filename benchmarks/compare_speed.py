"""How fast are two recordings compared? `python benchmarks/compare_speed.py`; prints JSON with ratios.

Two recordings of a gigabyte each (float32, tensors of 16 MB, the second a rounding away from the first) are written to
a temporary folder by the project's own store, and as reprod_log dictionaries. Then, each in a process of its own:

- `recordings`: hash check of both files and statistics of every tensor, against reprod_log's load and compare;
- `statistics`: the statistics alone, against numpy reading both arrays once (`np.add.reduce`), alternating;
- `memory`: by how much the process grew at its peak while it checked and compared the mapped files;
- `small`: 100,000 tensors of 100 elements.

Imports, and the loading of compiled kernels, are not measured. Files are in the page cache. Each ratio is the median of
the ratios of neighbours in time, so that a busy machine harms it little. Exit code 1 if a target is missed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from align.compare.statistics import compare
from align.record.hashing import file_hash
from align.record.store import Store, StoreWriter

ELEMENTS = 1 << 22  # of one tensor: 16 MB
SIDES = ("port", "reference")
# From the issue that this answers: twice reprod_log's throughput, a third of numpy's reading speed, 256 MB, a minute.
TARGETS = {"recordings": 2.0, "statistics": 1 / 3, "memory_mb": 256.0, "small_s": 60.0}


def write(folder, gigabytes, classic):
    """Both recordings, and with `classic` the same tensors as reprod_log saves them. Returns bytes of one side."""
    count = max(1, round(gigabytes * 1e9 / (4 * ELEMENTS)))
    generator = np.random.default_rng(0)
    base = generator.standard_normal(ELEMENTS, np.float32)
    for side in SIDES:
        kept = {}
        with StoreWriter(folder, side) as store:
            for index in range(count):
                tensor = base * np.float32(1 + index)
                if side == "port":
                    tensor += np.float32(1e-6) * base[::-1]
                store.add(f"layer/{index}", tensor, "activation")
                if classic:
                    kept[f"layer/{index}"] = tensor
        if classic:
            np.save(folder / f"{side}.npy", kept)
    return count * 4 * ELEMENTS


def check_and_compare(folder):
    for side in SIDES:
        file_hash(folder / f"{side}.tensors")
    port, reference = (Store(folder, side) for side in SIDES)
    return [compare(port.raw(name), reference.raw(name)) for name in reference]


def timed(call, *arguments):
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def part_recordings(folder):
    compare(np.ones(2, np.float32), np.ones(2, np.float32))
    seconds, differences = timed(check_and_compare, folder)
    assert all(0 < difference.rel < 1e-5 for difference in differences)
    return seconds


def part_reprod_log(folder):
    from reprod_log import ReprodDiffHelper  # imports paddle

    def load_and_compare():
        helper = ReprodDiffHelper()
        helper.compare_info(*(helper.load_info(str(folder / f"{side}.npy")) for side in SIDES))

    return timed(load_and_compare)[0]


def part_statistics(folder):
    """Seconds of numpy and of ours in turn, on arrays in memory: half a gigabyte a side, to fit beside the files."""
    port, reference = (Store(folder, side) for side in SIDES)
    names = list(reference)[: 1 << 29 >> 24]
    arrays = [(np.array(port.raw(name)), np.array(reference.raw(name))) for name in names]
    times = []
    for _ in range(9):
        reading = timed(lambda: [(np.add.reduce(a), np.add.reduce(b)) for a, b in arrays])[0]
        ours = timed(lambda: [compare(a, b) for a, b in arrays])[0]
        times.append((reading, ours))
    return {"bytes": sum(a.nbytes + b.nbytes for a, b in arrays), "times": times[1:]}


def part_memory(folder):
    def status(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

    compare(np.ones(2, np.float32), np.ones(2, np.float32))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    check_and_compare(folder)
    return (status("VmHWM") - before) / 1e6


def part_small(folder):
    def run(count):
        reference = np.random.default_rng(0).standard_normal((count, 100), np.float32)
        port = reference + np.float32(1e-6)
        return timed(lambda: [compare(port[index], reference[index]) for index in range(count)])[0]

    run(100)
    return {count: run(count) for count in (10_000, 100_000)}


def in_process(name, folder):
    """The answer of one part, from an interpreter of its own."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{name}: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def measure(folder, gigabytes, rounds, classic):
    size = write(folder, gigabytes, classic)
    result = {"bytes_per_side": size, "processors": len(os.sched_getaffinity(0)), "rounds": rounds}
    pairs = []
    for _ in range(rounds):
        theirs = in_process("reprod_log", folder) if classic else None
        pairs.append((theirs, in_process("recordings", folder)))
    ours = statistics.median(pair[1] for pair in pairs)
    result["recordings"] = {"seconds": round(ours, 3), "gb_per_s": round(2 * size / ours / 1e9, 2)}
    if classic:
        theirs = statistics.median(pair[0] for pair in pairs)
        result["recordings"] |= {
            "reprod_log_seconds": round(theirs, 3),
            "reprod_log_gb_per_s": round(2 * size / theirs / 1e9, 2),
            "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        }
    answer = in_process("statistics", folder)
    reading, comparing = (statistics.median(column) for column in zip(*answer["times"], strict=True))
    result["statistics"] = {
        "gb_per_s": round(answer["bytes"] / comparing / 1e9, 2),
        "numpy_gb_per_s": round(answer["bytes"] / reading / 1e9, 2),
        "ratio": round(statistics.median(a / b for a, b in answer["times"]), 3),
    }
    result["memory_mb"] = round(in_process("memory", folder), 1)
    small = in_process("small", folder)
    result["small"] = {"tensors": 100_000, "seconds": round(small["100000"], 2)}
    result["small"]["growth_of_tenfold"] = round(small["100000"] / small["10000"], 2)
    return result


def verdicts(result):
    verdict = {
        "statistics": result["statistics"]["ratio"] >= TARGETS["statistics"],
        "memory_mb": result["memory_mb"] <= TARGETS["memory_mb"],
        "small_s": result["small"]["seconds"] <= TARGETS["small_s"],
    }
    if "ratio" in result["recordings"]:
        verdict["recordings"] = result["recordings"]["ratio"] >= TARGETS["recordings"]
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of one recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-reprod-log", action="store_true", help="it needs five times the size in memory")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(globals()[f"part_{arguments.part}"](arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments.gigabytes, arguments.rounds, not arguments.without_reprod_log)
    result["targets"] = TARGETS
    result["met"] = verdicts(result)
    print(json.dumps(result, indent=2))
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
