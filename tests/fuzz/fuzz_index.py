"""Coverage-guided fuzzing of the reader of a recording's index: `fuzz_index.py [libFuzzer option or corpus ...]`.

    python tests/fuzz/fuzz_index.py -max_total_time=600 -rss_limit_mb=1024 new_corpus tests/fuzz/corpus/index

Whatever the index says of its 4,096 bytes of tensors, the store opens and every tensor that it holds can be read, or
UsageError is raised.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["align"]):
    from align.errors import UsageError
    from align.record.store import Store, store_files

FOLDER = Path(tempfile.mkdtemp(prefix="align-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
DATA, INDEX = (FOLDER / name for name in store_files("step"))


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


if __name__ == "__main__":
    DATA.write_bytes(bytes(range(256)) * 16)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
