"""What a number may be: how it is told, and which of the numbers at hand it comes from."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

NEAR = 1e-9  # relative: a fitted number this close to a known one is that
FEW = 4  # that small they need no source
SMALL = 16  # numerators and denominators that count as known without any source


def told(value: object) -> str:
    """A setting in short: floats that are exact in float32 as float32 prints them (the twin rounds settings so)."""
    if isinstance(value, float):
        if math.isfinite(value) and float(np.float32(value)) == value:
            short = str(np.float32(value))
            return short.removesuffix(".0") if value == int(value) else short
        return f"{value:.12g}"
    if isinstance(value, (list, tuple)):
        items = [told(item) for item in value]
        return items[0] if items and len(set(items)) == 1 and len(items) <= 3 else f"({', '.join(items)})"
    return repr(value) if isinstance(value, str) else str(value)


def recognise(factor: float, numbers: Mapping[str, float]) -> str | None:
    """What a factor is, like `sqrt(8), 8 is head_dim`; None if it is nothing of what is at hand."""
    if _near(abs(factor), 1):
        return "-1" if factor < 0 else "1"
    small = Fraction(factor).limit_denominator(SMALL)
    if small and max(abs(small.numerator), small.denominator) <= FEW and _near(factor, float(small)):
        return str(small)
    for name, value in numbers.items():
        for power, form in _POWERS.items():
            rational = power in (0.5, -0.5) and math.sqrt(value).is_integer() if value > 0 else True
            if value != 1 and not rational and _near(factor, value**power):
                number = told(float(value))
                return f"{form.format(number)}, {number} is {name}"
    for (first, a), (second, b) in _ratios(numbers):
        for power, form in _ROOTS.items():
            if _near(factor, (a / b) ** power):
                return f"{form.format(f'{told(float(a))}/{told(float(b))}')}, of {first} and {second}"
    if small and abs(small.numerator) <= SMALL and _near(factor, float(small)):
        return str(small)
    return None


_POWERS = {1: "{}", -1: "1/{}", 0.5: "sqrt({})", -0.5: "1/sqrt({})", 2: "{} squared", -2: "1/{} squared"}
_ROOTS = {1: "{}", 0.5: "sqrt({})"}
_MOST = 8  # numbers of which ratios are formed


def _ratios(numbers: Mapping[str, float]) -> Iterator[tuple[tuple[str, float], tuple[str, float]]]:
    first = [(name, value) for name, value in numbers.items() if value > 0][:_MOST]
    for one in first:
        for other in first:
            if one[1] != other[1]:
                yield one, other


def _near(first: float, second: float) -> bool:
    return abs(first - second) <= NEAR * abs(second)
