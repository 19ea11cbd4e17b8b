"""Coverage-guided fuzzing of the reader of a recording's index: `fuzz_index.py [libFuzzer option or corpus ...]`.

    python tests/fuzz/fuzz_index.py -max_total_time=600 -rss_limit_mb=1024 new_corpus tests/fuzz/corpus/index

Whatever the index says of its 4,096 bytes of tensors, the store opens and every tensor that it holds can be read, or
UsageError is raised. Half of the mutations change bytes; the others what a line of JSON says, because few changed bytes
are JSON.
"""

import json
import math
import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["align"]):
    from align.errors import UsageError
    from align.record.store import DTYPES, KINDS, Store, store_files

FOLDER = Path(tempfile.mkdtemp(prefix="align-fuzz-"))
DATA, INDEX = (FOLDER / name for name in store_files("step"))
SIZE = 4096

NUMBERS = (-1, 0, 1, 2, 3, 24, 64, 1024, SIZE, 2**31, 2**40, 2**61, 2**62, 2**63, 2**70, 1.5, float("nan"), True, "1")
FIELDS = {
    "name": ("x", "", "y" * 1000, "../../x", "\0", "\ud800", 7, None, ["x"]),
    "kind": (*KINDS, "outputs", None, 7),
    "dtype": (*DTYPES, "object", "O", ">f4", "f4,f4", "str128", "(9,9)f4", "", None, 7, {"names": []}),
    "shape": ([], [1] * 64, [1] * 65, [0, 2**62], [2**32, 2**32], [[1]], {}, None, "12"),
    "offset": NUMBERS,
    "nbytes": NUMBERS,
    "headline": (True, False, None, 1),
    "facts": (None, {}, {"same_as": "x"}, {"same_as": 7}, {"summary": {}}, [], "same_as"),
    "stored": (True, False, None, 0),
    "more": (1,),
}


def one_input(data: bytes) -> None:
    INDEX.write_bytes(data)
    try:
        store = Store(FOLDER, "step")
    except UsageError:
        return
    for name, entry in store.entries.items():
        try:
            store[name]
            array = store.raw(name)
        except UsageError:
            assert not entry.stored
            continue
        assert array.shape == entry.shape
        assert not array.flags.writeable
        array.tobytes()


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """A changed index of at most so many bytes."""
    chance = random.Random(seed)
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except (ValueError, RecursionError):
        lines = []
    if not lines or not all(isinstance(line, dict) for line in lines) or chance.random() < 0.5:
        return atheris.Mutate(data, most)
    line = chance.choice(lines)
    for _ in range(chance.randint(1, 3)):
        change(line, chance)
    if chance.random() < 0.1:
        lines.append(dict(line))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)[:most]


def change(line: dict, chance: random.Random) -> None:
    """One field taken out, given a telling value, or, for shapes and sizes, one that may fit."""
    field = chance.choice(list(FIELDS))
    if chance.random() < 0.05:
        line.pop(field, None)
    elif field == "shape" and chance.random() < 0.7:
        line[field] = chance.choices(NUMBERS, k=chance.randint(0, 4))
    else:
        line[field] = chance.choice(FIELDS[field])
    if chance.random() < 0.3:
        line["nbytes"] = fitting(line)


def fitting(line: dict) -> int:
    """The number of bytes that the shape and dtype ask for, if they are any."""
    shape, dtype = line.get("shape"), line.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list):
        return 0
    return DTYPES[dtype].itemsize * math.prod(side for side in shape if type(side) is int)


if __name__ == "__main__":
    DATA.write_bytes(bytes(range(256)) * (SIZE // 256))
    atheris.Setup(sys.argv, one_input, custom_mutator=mutated)
    atheris.Fuzz()
