"""The reader of strangers' pickles: what it reads, what it refuses, and that it neither runs nor hoards anything."""

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import EnvironmentFault, UsageError
from align.record.pickle_machine import PickleMachine
from align.record.safe_pickle import (
    read_dictionary,
    read_dictionary_bytes,
    read_pdparams,
    read_pdparams_bytes,
    save_dictionary,
)

PROTOCOLS = [2, 3, 4, 5]
HEADER = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"


def npy(value, protocol=4):
    """What numpy.save writes, in any protocol: numpy itself offers one."""
    box = np.empty((), object)
    box[()] = value
    return HEADER + pickle.dumps(box, protocol)


def boxed(body):
    """A hand-made pickle of one value, put where numpy.save puts the dictionary."""
    outer = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01)"
    dtype = b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    return HEADER + outer + dtype + b"\x89]" + body + b"atb."


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def f4(shape, data, dtype=b"\x8c\x02f4"):
    """Opcodes of one float32 array; `shape` as opcodes."""
    kind = b"cnumpy\ndtype\n" + dtype + b"\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
        + shape
        + kind
        + b"\x89"
        + data
        + b"tb"
    )


def same(ours, theirs):
    assert type(ours) is (dict if isinstance(theirs, dict) else type(theirs))
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, np.ndarray | np.generic):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


CONTENT = {
    "half": np.linspace(-1, 1, 5, dtype="f2"),
    "float": np.arange(6, dtype="f4").reshape(2, 3),
    "double": np.array([np.nan, np.inf, -0.0]),
    "long": np.arange(2, dtype="longdouble"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": np.arange(10)[::3],
    "0-d": np.array(2.5, "f4"),
    "empty": np.zeros((0, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "bytes": np.arange(3, dtype="u1"),
    "complex": np.array([1 + 2j], "c8"),
    "one byte": np.zeros((), "u1"),
    "numpy scalar": np.float32(1.5),
    "numpy bool": np.bool_(True),
    "nested": {"a/b.c": np.ones(2), "deeper": {"x y": np.int64(-3), "ordered": OrderedDict(z=np.ones(1))}},
    "plain": [1, -70000, 2**40, 2.5, float("nan"), None, True, "text", "中文", (1, (2,)), [], {}],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_arrays_and_plain_containers_of_every_protocol(protocol):
    same(read_dictionary_bytes(npy(CONTENT, protocol)), CONTENT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_numpy_1(protocol):
    """numpy 1 writes the same with numpy.core for numpy._core; in frames and lengths, the shorter name counts."""
    old = npy({"a": np.arange(3.0), "s": np.float32(2)}, protocol)
    if protocol < 4:
        old = old.replace(b"numpy._core", b"numpy.core")
    else:
        renamed = old.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
        renamed = renamed.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
        start = len(HEADER) + 3
        length = struct.unpack_from("<Q", old, start)[0] - (len(old) - len(renamed))
        old = renamed[:start] + struct.pack("<Q", length) + renamed[start + 8 :]
    assert b"numpy.core" in old
    assert b"numpy._core" not in old
    same(read_dictionary_bytes(old), {"a": np.arange(3.0), "s": np.float32(2)})


def test_reads_what_numpy_save_writes(tmp_path):
    np.save(tmp_path / "a.npy", CONTENT)
    same(read_dictionary(tmp_path / "a.npy"), CONTENT)


def test_round_trip_with_reprod_log(tmp_path, run_python):
    code = """
import sys, numpy as np
from reprod_log import ReprodLogger, ReprodDiffHelper
logger = ReprodLogger()
logger.add("logits", np.arange(12, dtype="f4").reshape(3, 4))
logger.add("loss", np.array(2.5))
logger.save(sys.argv[1])
ours = ReprodDiffHelper().load_info(sys.argv[2])
assert list(ours) == ["logits", "loss"] and ours["logits"].shape == (3, 4) and ours["loss"] == 2.5
"""
    arrays = {"logits": np.arange(12, dtype="f4").reshape(3, 4), "loss": np.array(2.5)}
    save_dictionary(tmp_path / "ours.npy", arrays)
    run_python(code, tmp_path / "theirs.npy", tmp_path / "ours.npy")
    same(read_dictionary(tmp_path / "theirs.npy"), arrays)
    assert (tmp_path / "theirs.npy").read_bytes() == (tmp_path / "ours.npy").read_bytes()


def test_reads_what_paddle_save_writes(tmp_path, run_python):
    code = """
import sys, numpy as np, paddle
model = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
for name, protocol in (("4", 4), ("2", 2), ("3", 3)):
    paddle.save(model.state_dict(), sys.argv[1] + "/" + name + ".pdparams", protocol=protocol)
paddle.save({k: v.astype("bfloat16") for k, v in model.state_dict().items()}, sys.argv[1] + "/bf16.pdparams")
paddle.save({"model": model.state_dict(), "epoch": 3}, sys.argv[1] + "/nested.pdparams")
np.savez(sys.argv[1] + "/expected.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
"""
    run_python(code, tmp_path)
    with np.load(tmp_path / "expected.npz") as file:
        expected = {key: file[key] for key in ("0.weight", "0.bias", "1.weight", "1.bias", "1._mean", "1._variance")}
    for protocol in "234":
        same(read_pdparams(tmp_path / f"{protocol}.pdparams"), expected)
    halves = read_pdparams(tmp_path / "bf16.pdparams")
    assert {array.dtype for array in halves.values()} == {np.dtype("u2")}
    with pytest.raises(
        UsageError, match=r"nested.pdparams: 'model' is not a tensor, but a dict; save the state dict alone"
    ):
        read_pdparams(tmp_path / "nested.pdparams")


def test_arrays_are_views_of_the_file_and_read_only(tmp_path):
    big = np.arange(1 << 22, dtype="f4")
    np.save(tmp_path / "a.npy", {"c": big, "f": np.asfortranarray(big.reshape(2048, 2048))})
    tracemalloc.start()
    arrays = read_dictionary(tmp_path / "a.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20, f"{peak} bytes were allocated for a file of {32 << 20}"
    assert arrays["f"].flags.f_contiguous
    assert (arrays["c"] == big).all()
    with pytest.raises(ValueError, match="read-only"):
        arrays["c"][0] = 1


NUMBERS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?"),
        hnp.complex_number_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    fill=st.nothing(),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        NAMES, st.recursive(NUMBERS, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
    ),
    st.sampled_from(PROTOCOLS),
    st.randoms(),
)
def test_round_trip_of_any_dictionary(content, protocol, random):
    def shuffle(value):
        if isinstance(value, dict):
            return {key: shuffle(item) for key, item in value.items()}
        return value.transpose(random.sample(range(value.ndim), value.ndim))

    content = shuffle(content)
    same(read_dictionary_bytes(npy(content, protocol)), content)


def test_save_dictionary_is_byte_for_byte_numpys(tmp_path):
    content = {"a": np.asfortranarray(np.ones((2, 3))), "n": {"b": np.array(3.0)}}
    save_dictionary(tmp_path / "new" / "ours.npy", content)
    np.save(tmp_path / "theirs.npy", content)
    assert (tmp_path / "new" / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert os.listdir(tmp_path / "new") == ["ours.npy"]


@pytest.mark.parametrize("value", [np.array([None]), np.array(["a"]), [1], 1.5, np.zeros(1, "M8[s]")])
def test_save_dictionary_takes_numeric_arrays_only(tmp_path, value):
    with pytest.raises(ValueError, match=r"^a/b is no numeric array"):
        save_dictionary(tmp_path / "x.npy", {"a": {"b": value}})
    assert os.listdir(tmp_path) == []


def test_save_dictionary_leaves_the_earlier_file_alone_if_it_fails(tmp_path):
    save_dictionary(tmp_path / "x.npy", {"a": np.ones(1)})
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="could not be written"):
        save_dictionary(tmp_path / "file" / "x.npy", {"a": np.ones(1)})
    same(read_dictionary(tmp_path / "x.npy"), {"a": np.ones(1)})


# Whatever is refused is refused with UsageError, runs nothing and allocates little.

MARKER = "executed-by-a-pickle"


class Runs:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


EXECUTING = {
    "reduce": pickle.dumps({"a": Runs()}, 4)[:-1],
    "reduce in protocol 2": pickle.dumps({"a": Runs()}, 2)[:-1],
    "global": b"cposix\nmkdir\n",
    "stack global": text("posix") + text("mkdir") + b"\x93",
    "eval by global": b"cbuiltins\neval\n" + text("__import__('os').mkdir('" + MARKER + "')") + b"\x85R",
    "eval by old name": b"c__builtin__\neval\n" + text("1") + b"\x85R",
    "getattr": b"cbuiltins\ngetattr\n",
    "dotted name": text("numpy") + text("ndarray.__init__") + b"\x93",
    "numpy's own unsafe loader": b"cnumpy\nload\n",
    "numpy.testing": b"cnumpy.testing._private.utils\nrunstring\n",
    "codecs decode": b"c_codecs\ndecode\n",
    "encode by another codec": b"c_codecs\nencode\n" + text("b") + text("zlib_codec") + b"\x86R",
    "name from a dictionary": b"}}\x93",
    "INST": b"(" + text(MARKER) + b"iposix\nmkdir\n",
    "OBJ": b"(cposix\nmkdir\n" + text(MARKER) + b"o",
    "OBJ of an admitted name": b"(cnumpy\nndarray\nK\x01o",
    "NEWOBJ": b"cnumpy\nndarray\nK\x01\x85\x81",
    "NEWOBJ_EX": b"cnumpy\nndarray\nK\x01\x85}\x92",
    "call of ndarray": b"cnumpy\nndarray\nK\x01\x85R",
    "call of text": text("posix") + b")R",
    "call of a result": b"ccollections\nOrderedDict\n)R)R",
    "BUILD of a dictionary": b"}}b",
    "BUILD of a list": b"]}b",
    "BUILD of a name": b"cnumpy\ndtype\n}b",
    "persistent id, text": b"P0\n",
    "persistent id": b"K\x00Q",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"C\x01a\x98",
    "set": b"\x8f",
    "frozenset": b"(\x91",
    "LONG4": b"\x8b\x00\x00\x00\x10",
    "long LONG1": b"\x8a\xff" + b"\x01" * 255,
    "protocol 0 string": b"S'a'\n",
    "protocol 0 integer": b"I1\n",
    "protocol 0 long": b"L" + b"9" * 5000 + b"L\n",
    "DUP": b"}2",
    "POP": b"}0",
    "bytearray by name": b"cbuiltins\nbytearray\nK\xff\x85R",
    "Python 2's bytes with a size": b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R",
    "memmap": b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nmemmap\nK\x00\x85C\x01b\x87R",
}


@pytest.mark.parametrize("body", EXECUTING.values(), ids=EXECUTING.keys())
def test_refuses_everything_that_could_run(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read, content in (
        (read_dictionary_bytes, HEADER + b"\x80\x04" + body + b"."),
        (read_dictionary_bytes, boxed(body)),
        (read_dictionary_bytes, boxed(b"}" + text("a") + body + b"s")),
        (read_pdparams_bytes, b"\x80\x04}" + text("a") + body + b"s."),
    ):
        with pytest.raises(UsageError, match="Nothing in it was run"):
            read(content)
    assert os.listdir(tmp_path) == []


def test_the_malicious_pickle_of_this_test_does_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps({"a": Runs()}))
    assert os.listdir(tmp_path) == [MARKER]


def test_names_what_a_pickle_asks_for():
    with pytest.raises(UsageError, match=r"it asks for posix\.mkdir, which has no place .* \(at byte \d+ of \d+\)"):
        read_dictionary_bytes(npy({"a": Runs()}))
    with pytest.raises(UsageError, match=r"asks for \\x1b\[31mred\.x"):
        read_dictionary_bytes(boxed(b"c\x1b[31mred\nx\n"))


ONE = b"C\x04" + struct.pack("<f", 1)
HUGE = b"\x8a\x08" + struct.pack("<q", 1 << 61)
MALFORMED = {
    "object dtype": npy({"deep": {"objects": np.array([1, "a"], object)}}),
    "array of arrays": npy({"a": np.array([np.ones(2), None], object)}),
    "text array": npy({"a": np.array(["x"])}),
    "bytes array": npy({"a": np.array([b"x"])}),
    "dates": npy({"a": np.zeros(1, "M8[s]")}),
    "structured": npy({"a": np.zeros(1, [("x", "f4")])}),
    "void": npy({"a": np.zeros(1, "V4")}),
    "bytes as a value": npy({"a": b"bytes"}),
    "a name as a value": boxed(b"}" + text("a") + b"cnumpy\ndtype\ns"),
    "a dtype as a value": npy({"a": np.dtype("f4")}),
    "not a dictionary": npy([1, 2]),
    "an array alone": npy(np.ones(2)),
    "integer key": npy({1: np.ones(2)}),
    "tuple key": npy({("a",): np.ones(2)}),
    "None as key": npy({None: np.ones(2)}),
    "key with an escape sequence": npy({"\x1b[2J": np.ones(2)}),
    "key with a line break": npy({"a\nb": np.ones(2)}),
    "key with a NUL": npy({"a\0b": np.ones(2)}),
    "long key": npy({"a" * 5000: np.ones(2)}),
    "key twice": boxed(b"}(" + text("a") + b"K\x01" + text("a") + b"K\x02u"),
    "odd items": boxed(b"}(" + text("a") + b"u"),
    "items of a list in a dictionary": boxed(b"}K\x01a"),
    "huge BINBYTES8": boxed(b"}" + text("a") + b"\x8e" + struct.pack("<Q", 1 << 62) + b"xs"),
    "negative BINBYTES8": boxed(b"\x8e" + b"\xff" * 8),
    "huge BYTEARRAY8": boxed(b"\x96" + struct.pack("<Q", 1 << 40)),
    "huge BINUNICODE8": boxed(b"\x8d" + struct.pack("<Q", 1 << 40)),
    "huge BINUNICODE": boxed(b"X\xff\xff\xff\xff"),
    "huge frame": boxed(b"\x95" + struct.pack("<Q", 1 << 60)),
    "text that is no text": boxed(b"\x8c\x01\xff"),
    "huge shape, little data": boxed(b"}" + text("a") + f4(b"(" + HUGE + b"K\x04t", ONE) + b"s"),
    "huge empty shape": boxed(b"}" + text("a") + f4(b"(K\x00" + HUGE + HUGE + HUGE + b"t", b"C\x00") + b"s"),
    "shape that overflows to fit": boxed(b"}" + text("a") + f4(b"(" + HUGE + b"K\x08K\x01t", ONE) + b"s"),
    "hundreds of sides": boxed(b"}" + text("a") + f4(b"(" + b"K\x01" * 300 + b"t", ONE) + b"s"),
    "many huge sides": boxed(b"}" + text("a") + f4(b"(" + HUGE * 3000 + b"t", ONE) + b"s"),
    "negative side": boxed(b"}" + text("a") + f4(b"J\xff\xff\xff\xff\x85", ONE) + b"s"),
    "true as a side": boxed(b"}" + text("a") + f4(b"\x88\x85", ONE) + b"s"),
    "shape that is no tuple": boxed(b"}" + text("a") + f4(b"]", ONE) + b"s"),
    "too little data": boxed(b"}" + text("a") + f4(b"K\x02\x85", ONE) + b"s"),
    "too much data": boxed(b"}" + text("a") + f4(b")", b"C\x05abcde") + b"s"),
    "data that is text": boxed(b"}" + text("a") + f4(b")", text("abcd")) + b"s"),
    "array without state": boxed(b"}" + text("a") + f4(b")", ONE)[:76] + b"s"),
    "state twice": boxed(b"}" + text("a") + f4(b")", ONE) + b"(K\x01)" + f4(b")", ONE)[80:] + b"s"),
    "made with a size": boxed(b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + HUGE + b"\x85C\x01b\x87R"),
    "impossible dtype": boxed(b"}" + text("a") + f4(b")", ONE, text("f99")) + b"s"),
    "dtype with fields": boxed(b"}" + text("a") + f4(b")", ONE, text("f4,f4")) + b"s"),
    "dtype by a number": boxed(b"}" + text("a") + f4(b")", ONE, b"K\x01") + b"s"),
    "bool of 2": boxed(b"}" + text("a") + f4(b"K\x04\x85", b"C\x04\x01\x02\x00\x00", text("b1")) + b"s"),
    "mark without an end": boxed(b"("),
    "no mark": HEADER + b"\x80\x04t.",
    "nothing on the stack": HEADER + b"\x80\x04.",
    "two values": HEADER + b"\x80\x04}}.",
    "no memo": boxed(b"h\x07"),
    "memo of nothing": HEADER + b"\x80\x04\x94.",
    "unknown opcode": HEADER + b"\x80\x04\xff.",
    "protocol 9": HEADER + b"\x80\x09}.",
    "bytes after the end": npy({"a": np.ones(1)}) + b"more",
    "no pickle": HEADER,
    "plain array": None,
    "longer header": b"\x93NUMPY\x01\x00\xff\xff" + HEADER[10:],
    "header that is code": HEADER.replace(b"'|O'", b"f()"),
    "object array of one": HEADER.replace(b"(), } ", b"(1,), }"),
    "other version": b"\x93NUMPY\x09\x00" + HEADER[8:],
    "npz": b"PK\x03\x04" + HEADER,
    "empty": b"",
}
_plain = io.BytesIO()
np.save(_plain, np.ones(3))
MALFORMED["plain array"] = _plain.getvalue()


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_refuses_what_is_malformed(content):
    tracemalloc.start()
    with pytest.raises(UsageError):
        read_dictionary_bytes(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1 << 20) + 64 * len(content)


def test_messages_say_what_and_where():
    for name, words in {
        "object dtype": r"/deep/objects is an array of objects \(dtype object\); only numbers are read",
        "text array": "an array of dtype U1; booleans, integers, floats and complex numbers are read",
        "plain array": r"holds one plain array \(dtype <f8\), not a dictionary",
        "key twice": "the key a stands twice in one dictionary",
        "too little data": r"an array of shape \(2,\) and dtype float32 with 4 bytes",
        "huge BINBYTES8": r"truncated: 4611686018427387904 bytes are announced and \d+ are left",
        "bytes after the end": "4 bytes follow the end of the pickle",
        "LONG4": "the opcode LONG4 has no place in a pickle of arrays",
    }.items():
        with pytest.raises(UsageError, match=words):
            read_dictionary_bytes(MALFORMED[name] if name in MALFORMED else boxed(EXECUTING[name]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_at_every_byte(protocol):
    content = npy({"a": np.arange(3.0), "n": {"b": np.float32(1)}, "l": [1, 2.5, "x"]}, protocol)
    read_dictionary_bytes(content)
    for length in range(len(content)):
        with pytest.raises(UsageError):
            read_dictionary_bytes(content[:length])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PROTOCOLS), st.data())
def test_changed_bytes_are_read_or_refused_and_nothing_else(protocol, data):
    content = bytearray(npy({"a": np.arange(3.0), "n": {"b": np.float32(1)}, "l": [1, 2.5, "x"]}, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UsageError):
        assert isinstance(read_dictionary_bytes(bytes(content)), dict)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([bytes([n]) for n in range(256)] + [text("a"), f4(b")", ONE), b"K\x00", b"q\x00", b"h\x00"])
    )
)
def test_any_opcodes_are_read_or_refused_and_nothing_else(pieces):
    for read, content in ((read_dictionary_bytes, boxed(b"".join(pieces))), (read_pdparams_bytes, b"".join(pieces))):
        with contextlib.suppress(UsageError):
            assert isinstance(read(content), dict)


def laughs(levels):
    """Dictionaries of ten references each to the one before: 10 ** levels values."""
    body = b"}q\x00"
    for level in range(levels):
        body += b"}(" + b"".join(text(str(n)) + b"h" + bytes([level]) for n in range(10)) + b"uq" + bytes([level + 1])
    return boxed(b"}" + text("a") + b"](" + body + b"es")


SHARED = f4(b"M\x00\x40\x85", b"B\x00\x00\x01\x00" + bytes(65536))
BOMBS = {
    "many empty dictionaries": boxed(b"}" * 500_000),
    "many marks": boxed(b"(" * 500_000),
    "many memos": boxed(b"}" + b"\x94" * 500_000),
    "deep tuples": boxed(b")" + b"\x85" * 500_000),
    "deep lists": boxed(b"]" * 100_000 + b"a" * 99_999),
    "deep dictionaries": boxed(b"}" + text("a") * 1 + (b"}" + text("a")) * 1000 + b"K\x01" + b"s" * 1001),
    "list in itself": boxed(b"}" + text("a") + b"]q\x00h\x00as"),
    "dictionary in itself": boxed(b"}q\x00" + text("a") + b"h\x00s"),
    "billion laughs": laughs(12),
    "one array under many keys": boxed(
        b"}" + text("first") + SHARED + b"q\x00s" + b"".join(text(f"{n}") + b"h\x00s" for n in range(20_000))
    ),
    "one buffer in many arrays": boxed(
        b"B\x00\x00\x01\x00" + bytes(65536) + b"q\x00}" + b"".join(
            text(f"{n}") + f4(b"M\x00\x40\x85", b"h\x00") + b"s" for n in range(1000)
        )
    ),
    "one text encoded many times": boxed(
        b"X\x00\x00\x04\x00" + b"a" * (1 << 18) + b"q\x00c_codecs\nencode\nq\x01" + text("latin1") + b"q\x02"
        + b"h\x01h\x00h\x02\x86R" * 1000
    ),
    "one wide character": boxed(b"X\x00\x00\x10\x00" + b"a" * ((1 << 20) - 4) + "\U0001f600".encode()),
}  # fmt: skip


REASONS = {
    "many empty dictionaries": "more objects",
    "many marks": "more objects",
    "many memos": "more objects",
    "deep tuples": "more objects",
    "deep lists": "nested more than 32 deep",
    "deep dictionaries": "nested more than 32 deep",
    "list in itself": "nested more than 32 deep",
    "dictionary in itself": "nested more than 32 deep",
    "billion laughs": "more objects",
    "one array under many keys": "outgrow the file, at /",
    "one buffer in many arrays": "claim more bytes than the file has",
    "one text encoded many times": "more text",
    "one wide character": "no array or plain value|no dictionary",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_stay_within_what_the_file_justifies(name):
    content = BOMBS[name]
    tracemalloc.start()
    with pytest.raises(UsageError, match=REASONS[name]):
        read_dictionary_bytes(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (32 << 20) + 64 * len(content), f"{peak >> 20} MiB for {len(content) >> 10} KiB"


def test_the_budget_does_not_refuse_a_hundred_thousand_small_arrays():
    small = {f"layer.{n}.weight": np.full(1, n, "f4") for n in range(20_000)}
    assert PickleMachine(b"").budget < 20_000 * 2_500, "a case that the start alone would let pass proves nothing"
    assert len(read_dictionary_bytes(npy(small))) == 20_000


def test_one_array_under_a_few_keys_is_read():
    array = np.ones(1000)
    same(read_dictionary_bytes(npy({"a": array, "b": {"c": array}})), {"a": array, "b": {"c": array}})


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.npy").write_bytes(b"")
    for path, words in {
        tmp_path / "none.npy": "there is no such file",
        tmp_path: "there is no such file",
        tmp_path / "pipe": "there is no such file",
        "/dev/zero": "there is no such file",
        tmp_path / "empty.npy": "the file is empty",
        "nul\0.npy": "cannot be read|no such file",
    }.items():
        with pytest.raises(UsageError, match=words):
            read_dictionary(path)
        with pytest.raises(UsageError, match=words):
            read_pdparams(path)


def test_loads_no_framework(run_python, tmp_path):
    np.save(tmp_path / "a.npy", CONTENT)
    run_python(
        "import sys; from align.record.safe_pickle import read_dictionary; read_dictionary(sys.argv[1]);"
        "assert not {'torch', 'paddle', 'pickletools'} & set(sys.modules)",
        tmp_path / "a.npy",
    )
