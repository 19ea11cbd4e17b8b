"""Inputs as they come: mapped files, strides, foreign byte order, odd addresses; read in C order, never whole."""

import mmap

import numpy as np
import pytest

from align.compare import pieces
from align.compare.arrays import BFloat16, Operand, dtype_name
from align.compare.statistics import compare


def pair(shape=(7, 5, 6), dtype=np.float32):
    generator = np.random.default_rng(0)
    reference = generator.standard_normal(shape).astype(dtype)
    candidate = (reference + 1e-3 * generator.standard_normal(shape)).astype(dtype)
    return candidate, reference


VIEWS = {
    "transposed": lambda x: x.T,
    "axes moved": lambda x: np.moveaxis(x, 1, 0),
    "reversed": lambda x: x[::-1, :, ::-1],
    "every second": lambda x: x[:, ::2],
    "one row": lambda x: x[3],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("piece", [4, 64, 1 << 18])
def test_strided_inputs_are_read_as_their_contiguous_copies(name, piece, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    candidate, reference = map(VIEWS[name], pair())
    expected = compare(np.array(candidate, order="C"), np.array(reference, order="C"))
    assert compare(candidate, reference) == expected
    assert compare(candidate, np.array(reference, order="C")) == expected
    assert expected.differing == candidate.size


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i8", "u8"])
def test_foreign_byte_order_is_read_by_value(dtype, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 16)
    candidate, reference = (np.abs(100 * x).astype("<" + dtype) for x in pair())
    expected = compare(candidate, reference)
    assert compare(candidate.astype(">" + dtype), reference) == expected
    assert compare(candidate.astype(">" + dtype), reference.astype(">" + dtype)) == expected
    assert dtype_name(candidate.astype(">" + dtype)) == dtype_name(candidate)


def test_arrays_at_odd_addresses_are_read():
    candidate, reference = pair()
    at_odd = np.frombuffer(b"x" + candidate.tobytes(), np.float32, offset=1).reshape(candidate.shape)
    assert not at_odd.flags.aligned
    assert compare(at_odd, reference) == compare(candidate, reference)


def test_bfloat16_comes_as_bits_or_as_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    candidate, reference = (x.astype(ml_dtypes.bfloat16) for x in pair())
    as_bits = compare(BFloat16(candidate.view(np.uint16)), BFloat16(reference.view(np.uint16)))
    assert compare(candidate, reference) == as_bits
    assert as_bits.max_abs == float(np.max(np.abs(candidate.astype(np.float64) - reference.astype(np.float64))))
    assert dtype_name(candidate) == dtype_name(BFloat16(candidate.view(np.uint16))) == "bfloat16"


def test_bits_of_another_type_are_no_bfloat16():
    with pytest.raises(TypeError, match="uint16 bits, not as float32"):
        BFloat16(np.zeros(3, np.float32))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_are_compared_like_arrays(tmp_path, mode, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1 << 12)  # several pages a piece, so that pages are let go on the way
    candidate, reference = pair((60, 50, 40))
    np.save(tmp_path / "candidate.npy", candidate)
    np.save(tmp_path / "reference.npy", reference)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in ("candidate", "reference")]
    expected = compare(candidate, reference)
    assert compare(*mapped) == expected
    assert compare(*mapped) == expected  # pages that were let go come back
    with (tmp_path / "reference.npy").open("rb") as file:
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    offset = len(raw) - reference.nbytes
    assert compare(candidate, np.frombuffer(raw, np.float32, offset=offset).reshape(reference.shape)) == expected


def test_what_was_written_to_a_private_mapping_survives(tmp_path):
    size = 1 << 23  # 32 MiB: pages of a read-only mapping would be let go
    np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(size,)).flush()
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[::1000] = 7.0
    assert compare(private, np.zeros(size, np.float32)).differing == len(private[::1000])
    assert np.count_nonzero(private) == len(private[::1000])


MEMORY = """
import sys, numpy as np
from align.compare.statistics import compare
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
small = np.zeros(1 << 20, np.float32)
compare(small, small)
a, b = (np.load(path, mmap_mode="r") for path in sys.argv[1:])
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
before = peak()
assert compare(a, b).differing == 1
after = peak()
parts = range(0, a.size, 1 << 14)  # the same as many small tensors
assert sum(compare(a[i : i + (1 << 14)], b[i : i + (1 << 14)]).differing for i in parts) == 1
small = peak()
float(np.add.reduce(a))  # what reading everything without letting go looks like
print(after - before, small - before, peak() - before)
"""


def test_memory_does_not_grow_with_the_size_of_mapped_files(tmp_path, run_python):
    size = 1 << 26  # 256 MiB each; files with holes, so that nothing is written
    paths = []
    for name, last in (("a.npy", 1.0), ("b.npy", 2.0)):
        array = np.lib.format.open_memmap(tmp_path / name, mode="w+", dtype=np.float32, shape=(size,))
        array[-1] = last
        array.flush()
        paths.append(tmp_path / name)
    one, many, whole = map(float, run_python(MEMORY, *paths).stdout.split())
    assert max(one, many) < 128, f"{one} and {many} MiB more than before for 512 MiB of input"
    assert whole > 200, "the measure would not have seen a file that was read whole"


def test_operand_reads_any_stretch_in_c_order():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1)
    operand = Operand(array)
    flat = array.ravel()
    for start in range(24):
        for stop in range(start, 25):
            assert operand.bits(start, stop).tolist() == flat[start:stop].tolist()
    assert [operand.item(i) for i in range(24)] == flat.tolist()
