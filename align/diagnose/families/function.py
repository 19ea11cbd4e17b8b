"""Another function, or the same with another setting, of the same operand: both results are recomputed from it."""

from collections.abc import Iterator
from itertools import chain

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.functions import Form, forms, solved
from align.diagnose.modules import ModuleEvidence

RANK = 60
CORNER = 6  # elements along an axis that are looked at first
ROUNDED = 1e-5  # relative: constants this close are one constant, written with few digits


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or not evidence.pair or evidence.gradient:
        return
    port, reference = evidence.pair
    if not varied(port) or not varied(reference):
        return
    for name, operand in evidence.inputs:
        if operand.dtype.kind != "f" or not np.isfinite(operand).all():
            continue
        ours = fitting(operand, port)
        theirs = fitting(operand, reference) if ours else None
        if not ours or not theirs or ours == theirs:
            continue
        setting = ours.name == theirs.name
        if setting:
            text = f"{ours.name} with {ours.setting} in the port, {theirs.setting} in the reference"
        elif "identity" in (ours.name, theirs.name):
            side, done = ("reference", theirs) if ours.name == "identity" else ("port", ours)
            text = f"{name} is left as it is, where the {side} takes {done} of it"
            text = text if side == "reference" else f"{done} is taken of {name}, which the reference leaves as it is"
        else:
            text = f"{ours} of {name} in the port, {theirs} in the reference"
        id = _of_a_setting(ours, theirs) if setting else _of_two(ours, theirs)
        yield Hypothesis(
            id, text, made=theirs.apply(operand), wanted=reference, change=f"{theirs}", line=evidence.constructor
        )


def fitting(operand: np.ndarray, made: np.ndarray) -> Form | None:
    """The form that makes the one of the other."""
    few = _corner(operand.shape, ()) if operand.shape == made.shape else ()
    for form in chain(forms(operand, made.shape), solved(operand[few], made[few]) if few else ()):
        if _fits_a_few(form, operand, made) and equal(_applied(form, operand), made):
            return form
    return None


def _applied(form: Form, operand: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return form.apply(operand)


def _fits_a_few(form: Form, operand: np.ndarray, made: np.ndarray) -> bool:
    """In one corner, before all is computed: there the result depends on nothing outside."""
    corner = _corner(operand.shape, form.axes)
    theirs = corner if form.kept else tuple(part for k, part in enumerate(corner) if k not in form.axes)
    result, expected = _applied(form, operand[corner]), made[theirs]
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(np.allclose(result, expected, rtol=1e-9, atol=1e-9 * scale))


def _corner(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(None) if axis in whole else slice(CORNER) for axis in range(len(shape)))


def _of_a_setting(ours: Form, theirs: Form) -> str:
    if ours.number and theirs.number and abs(ours.number / theirs.number - 1) < ROUNDED:
        return "rounded-constant"
    return theirs.id


def _of_two(ours: Form, theirs: Form) -> str:
    if ours.name == "identity":
        return "missing-activation" if theirs.id != "function" else "missing-operation"
    if theirs.name == "identity":
        return "extra-activation" if ours.id != "function" else "extra-operation"
    kinds = {ours.id, theirs.id}
    if kinds <= {"activation", "approximate-gelu", "negative-slope", "alpha", "limit", "slope"}:
        return "wrong-activation"
    return "wrong-reduction" if {"mean", "sum", "max", "min"} & {ours.name, theirs.name} else "wrong-function"
