"""Coverage-guided fuzzing of the reader of strangers' pickles: `fuzz_dictionary.py [libFuzzer option or corpus ...]`.

    python tests/fuzz/fuzz_dictionary.py -max_total_time=600 -rss_limit_mb=1024 new_corpus tests/fuzz/corpus/dictionary

Whatever the bytes, the readers answer with plain content or UsageError. Anything else is a crash, and so is memory
beyond the limit or a second spent on one input.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["align"]):
    from align.errors import UsageError
    from align.record import safe_pickle

import numpy as np

HEADER = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
READERS = (
    safe_pickle.read_dictionary_bytes,
    # With a header that is right: most mutations of one are not, and would end there.
    lambda data: safe_pickle.read_dictionary_bytes(HEADER + data),
    safe_pickle.read_pdparams_bytes,
)


def one_input(data: bytes) -> None:
    for read in READERS:
        try:
            content = read(data)
        except UsageError:
            continue
        check(content)


def check(value: object) -> None:
    """Only plain content comes out, arrays are read-only, and every element of them is there."""
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            check(item)
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "biufc"
        assert not value.flags.writeable
        value.tobytes()
    else:
        assert value is None or isinstance(value, (str, bool, int, float, np.generic)), type(value)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
