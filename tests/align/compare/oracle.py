"""A slow, exact answer to what `align.compare.statistics` computes, in Python integers and fractions.

It shares no code with the comparison. Values come from the arrays' bytes through `struct`, differences and sums are
fractions, and only the final figures are rounded.
"""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from align.compare.arrays import BFloat16

CODES = {"float16": "e", "float32": "f", "float64": "d", "bool": "?"}
CODES |= {f"int{8 * size}": code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))}
CODES |= {f"uint{8 * size}": code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass
class Answer:
    max_abs: float
    position: int  # flat; -1 if nothing differs
    mean_abs: Fraction
    rms: float
    rel: float
    max_rel: float
    cosine: float
    max_ulp: int | None
    differing: int
    pairs: int
    candidate_rms: float
    reference_rms: float
    candidate_max: float
    reference_max: float
    nan: tuple[int, int]
    inf: tuple[int, int]
    nonfinite_differing: int
    nonfinite_position: int


def name(array):
    return "bfloat16" if isinstance(array, BFloat16) else array.dtype.name


def numbers(array):
    """The elements in C order as Python numbers: int for integers and bool, else float."""
    if isinstance(array, BFloat16):
        return [struct.unpack("<f", struct.pack("<I", int(bits) << 16))[0] for bits in array.bits.ravel().tolist()]
    code = CODES[array.dtype.name]
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    return [value + 0 for (value,) in struct.iter_unpack("<" + code, data)]


def ordered(value, dtype):
    """Rank of a finite number among the numbers of that type, 0 for zero."""
    if dtype == "bfloat16":
        bits = struct.unpack("<I", struct.pack("<f", abs(value)))[0] >> 16
    else:
        bits = int.from_bytes(struct.pack("<" + CODES[dtype], abs(value)), "little")
    return -bits if math.copysign(1.0, value) < 0 else bits


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def root(value: Fraction) -> float:
    """The square root of a non-negative fraction, correct to the last places of float64."""
    if value == 0:
        return 0.0
    shift = 2 * max(0, 128 - (value.numerator.bit_length() - value.denominator.bit_length()) // 2)
    return rounded(Fraction(math.isqrt((value.numerator << (2 * shift)) // value.denominator), 1 << shift))


def answer(candidate, reference) -> Answer:
    kinds = name(candidate), name(reference)
    a, b = numbers(candidate), numbers(reference)
    finite = [(i, Fraction(x), Fraction(y)) for i, (x, y) in enumerate(zip(a, b, strict=True)) if ok(x) and ok(y)]
    exact = [abs(x - y) for _, x, y in finite]
    # Of floats, differences that round to the same float64 are the same difference; integers are told apart exactly.
    integers = all(isinstance(x, int) for x in [*a, *b])
    distances = exact if integers else [rounded(d) for d in exact]
    greatest = max(distances, default=0)
    position = (
        next((i for (i, _, _), d in zip(finite, distances, strict=True) if d == greatest), -1) if greatest else -1
    )
    square_d = sum((d * d for d in exact), Fraction(0))
    square_a = sum((Fraction(x) ** 2 for x in a if ok(x)), Fraction(0))
    square_b = sum((Fraction(y) ** 2 for y in b if ok(y)), Fraction(0))
    product = sum((x * y for _, x, y in finite), Fraction(0))
    strange = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not (ok(x) and ok(y)) and not same(x, y)]
    quotients = [
        rounded(d / abs(y)) if y else (math.inf if d else 0.0) for d, (_, _, y) in zip(exact, finite, strict=True)
    ]
    if square_a and square_b:
        cosine = root(product**2 / (square_a * square_b)) * (1 if product > 0 else -1)
    else:
        cosine = 0.0 if square_a or square_b else 1.0
    ulps = None
    if kinds[0] == kinds[1] and kinds[0] in SIZES:
        floats = [(a[i], b[i]) for i, _, _ in finite]
        ulps = max((abs(ordered(x, kinds[0]) - ordered(y, kinds[0])) for x, y in floats), default=0)
    return Answer(
        max_abs=rounded(Fraction(greatest)) if math.isfinite(greatest) else math.inf,
        position=position,
        mean_abs=sum(exact, Fraction(0)) / len(exact) if exact else Fraction(0),
        rms=root(square_d / len(exact)) if exact else 0.0,
        rel=root(square_d / square_b) if square_b else (math.inf if square_d else 0.0),
        max_rel=max(quotients, default=0.0),
        cosine=cosine,
        max_ulp=ulps,
        differing=sum(d != 0 for d in exact) + len(strange),
        pairs=len(finite),
        candidate_rms=root(square_a / max(1, sum(map(ok, a)))),
        reference_rms=root(square_b / max(1, sum(map(ok, b)))),
        candidate_max=float(max((abs(x) for x in a if ok(x)), default=0.0)),
        reference_max=float(max((abs(y) for y in b if ok(y)), default=0.0)),
        nan=(sum(x != x for x in a), sum(y != y for y in b)),
        inf=(sum(abs(x) == math.inf for x in a), sum(abs(y) == math.inf for y in b)),
        nonfinite_differing=len(strange),
        nonfinite_position=strange[0] if strange else -1,
    )


def ok(value) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def same(x, y) -> bool:
    return x == y or (x != x and y != y)
