"""A loss: its reduction, smoothing, temperature, weights and targets, made again in numpy from the plan's logits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.criteria import (
    Criterion,
    Function,
    Given,
    criteria,
    divergence,
    log_softmax,
    measured,
    softmax,
)
from align.diagnose.evidence import Evidence
from align.diagnose.fitting import short, solved
from align.diagnose.numbers import NEAR, recognise, told
from align.diagnose.rows import Recorded, RowEvidence
from align.diagnose.substitutes import substitutes
from align.locate.modules import LIMIT, own_error

RANK = 5
GRADIENTS = ("grad", "grad_kd")


@dataclass(frozen=True)
class Case:
    """One loss that differs: its formula, and both sides' (value, gradients) in the formula's order and scale."""

    name: str
    right: Criterion
    port: np.ndarray
    reference: np.ndarray
    scale: np.ndarray

    def hypothesis(self, name: str, text: str, made: np.ndarray, fitted: int = 0, change: str = "") -> Hypothesis:
        return Hypothesis(name, text, made / self.scale, self.port / self.scale, fitted=fitted, change=change or None)

    def holds(self, made: np.ndarray) -> bool:
        return own_error(made / self.scale, self.port / self.scale) <= LIMIT


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.rows.step != "loss":
        return
    case = _case(evidence.rows, evidence.name.partition("/")[0])
    if case is None:
        return
    yield from _weighted(case, evidence.code)
    yield from _of_gradient(case)
    for name, text, change, made in _otherwise(case):
        yield case.hypothesis(name, text, made.vector(), change=change)
    yield from _tempered(case)


def given(rows: Recorded, exact: bool) -> Given:
    """The plan's part; in float64 runs the recipe's numbers are what float32 holds."""
    names = ("logits", "logits_kd", "teacher", "soft_target")
    logits, logits_kd, teacher, soft = (np.asarray(rows.plan[f"loss/{name}"], np.float64) for name in names)
    target, ignored = (np.asarray(rows.plan[f"loss/{name}"]) for name in ("target", "target_ignored"))
    smoothing, alpha, tau = (float(np.float32(value)) if exact else value for value in (0.1, 0.3, 3.0))
    return Given(logits, logits_kd, teacher, target, ignored, soft, smoothing, alpha, tau)


def _case(rows: Recorded, name: str) -> Case | None:
    """None where the formula does not make the reference's own rows: then nothing can be said."""
    if "loss/logits" not in rows.plan or name not in rows.reference or name not in rows.port:
        return None
    formulas = criteria(given(rows, rows.reference[name].dtype == np.float64))
    if name not in formulas:
        return None
    right = formulas[name]
    sides = [_vector(side, name, right.given.logits.size) for side in (rows.port, rows.reference)]
    if sides[0] is None or sides[1] is None:
        return None
    port, reference = sides[0], sides[1]
    size = right.given.logits.size
    scale = np.ones_like(reference)
    for part in (slice(1), slice(1, 1 + size), slice(1 + size, None)):
        scale[part] = float(np.linalg.norm(reference[part])) or 1.0
    if own_error(right.vector() / scale, reference / scale) > LIMIT:
        return None
    return Case(name, right, port, reference, scale)


def _vector(side: object, name: str, size: int) -> np.ndarray | None:
    assert hasattr(side, "get")
    parts = [np.asarray(side.get(name), np.float64).reshape(-1)]
    for gradient in GRADIENTS:
        array = side.get(f"{name}/{gradient}")
        parts.append(np.zeros(size) if array is None else np.asarray(array, np.float64).reshape(-1))
    vector = np.concatenate(parts)
    return vector if vector.size == 1 + 2 * size and np.isfinite(vector).all() else None


# The same terms with other weights


def _fit(case: Case, part: slice = slice(None)) -> dict[str, float] | None:
    """The weights with which the loss's own terms make the port's rows, if any do."""
    columns = np.stack([vector[part] for vector in case.right.parts.values()], 1) / case.scale[part, None]
    wanted = case.port[part] / case.scale[part]
    weights = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    for _ in range(2):
        weights = weights + np.linalg.lstsq(columns, wanted - columns @ weights, rcond=None)[0]
    if own_error(columns @ weights, wanted) > LIMIT:
        return None
    return dict(zip(case.right.parts, map(float, weights), strict=True))


def _weighted(case: Case, code: str) -> Iterator[Hypothesis]:
    found = _fit(case)
    if found is None:
        return
    made = np.sum([weight * case.right.parts[name] for name, weight in found.items()], 0)
    name, text, change = _meaning(case.right, found)
    if abs(found.get("kl", 1.0)) < NEAR and "kl_div" in code:
        name, change = "log-target", "log_target=True"
        text = "log-probabilities are the target of a divergence that wants probabilities: it is 0 in the port"
    yield case.hypothesis(name, text, made, len(found), change)


def _meaning(right: Criterion, found: dict[str, float]) -> tuple[str, str, str]:
    """What other weights mean: id, sentence, change."""
    given = right.given
    ratios = {name: weight / right.terms[name].weight for name, weight in found.items()}
    ratio = next(iter(ratios.values()))
    if all(abs(other - ratio) <= NEAR * abs(ratio) for other in ratios.values()):
        return _reduction(given, ratio)
    distilled = next((name for name in ("kl", "hard") if name in found), None)
    changed = {name for name, other in ratios.items() if abs(other - 1) > NEAR}
    if "uniform" in changed and distilled not in changed:
        return _smoothing(right, found)
    listed = ", ".join(f"{name} {ratio:.12g}" for name, ratio in ratios.items())
    general = "loss-weights", f"the parts of the port's loss have other weights; times the reference's: {listed}", ""
    if distilled is None:
        return general
    if changed == {distilled}:
        return _distilled(given, distilled, ratios[distilled])
    alpha = given.alpha * ratios[distilled]
    base = (found["label"] + found["uniform"]) * given.batch
    if abs(base - (1 - alpha)) < NEAR and abs(ratios["label"] - ratios["uniform"]) < NEAR:
        swapped = " (the two weights are swapped)" if abs(alpha - (1 - given.alpha)) < NEAR else ""
        weights = f"weight of the distillation loss {told(alpha)} in the port, {told(given.alpha)} in the reference"
        return "loss-weights", weights + swapped, f"alpha {told(given.alpha)}"
    return general


def _numbers(given: Given) -> dict[str, float]:
    n, c = given.batch, given.classes
    return {
        "the number of classes": c,
        "the batch size": n,
        "the number of elements": n * c,
        "the temperature": given.tau,
        "the number of labels not ignored": int((given.ignored >= 0).sum()),
    }


def _reduction(given: Given, factor: float) -> tuple[str, str, str]:
    for base in (2, 10):
        if abs(factor * np.log(base) - 1) < NEAR:
            return "log-base", f"logarithm of base {base} in the port, natural in the reference", "natural logarithm"
    known = recognise(factor, _numbers(given))
    words = f"the port's loss is {known or f'{factor:.12g}'} times the reference's"
    if abs(factor - given.batch) < NEAR * factor:
        words += "; it is the sum over the samples, not the mean"
    elif abs(factor * given.classes - 1) < NEAR:
        words += "; it is the mean over samples and classes, not over samples"
    elif abs(factor * given.batch / int((given.ignored >= 0).sum()) - 1) < NEAR:
        words += "; ignored labels are counted in the mean"
    return "loss-reduction", words, "divide by the number of labels that count"


def _smoothing(right: Criterion, found: dict[str, float]) -> tuple[str, str, str]:
    given, whole = right.given, found["label"] + found["uniform"]
    right_whole = right.terms["label"].weight + right.terms["uniform"].weight
    share, classes = found["uniform"] / whole, given.classes
    change = f"1 - {told(given.smoothing)} on the label plus {told(given.smoothing)} / {classes} on every class"
    if abs(whole / right_whole - 1) > NEAR:
        label_part, other = (found[n] / right.terms[n].weight for n in ("label", "uniform"))
        text = f"label smoothing weighs the label {label_part:.12g} and all classes {other:.12g} times as the reference"
        return "label-smoothing", text, change
    if abs(share - given.smoothing * classes / (classes - 1)) < NEAR:
        text = f"label smoothing of {told(given.smoothing)} / {classes - 1} on the other classes in the port, "
        return (
            "label-smoothing",
            f"{text}of {told(given.smoothing)} / {classes} on every class in the reference",
            change,
        )
    text = f"label smoothing {told(short(share))} in the port, {told(given.smoothing)} in the reference"
    return "label-smoothing", text, change


def _distilled(given: Given, name: str, factor: float) -> tuple[str, str, str]:
    if name == "kl":
        for power, words in ((-2, "lacks the temperature squared"), (-1, "is times the temperature, not its square")):
            if abs(factor * given.tau**-power - 1) < NEAR:
                text = f"the port's distillation loss {words}; the temperature is {told(given.tau)}"
                return "temperature", text, "multiply by tau * tau"
    if abs(factor) < NEAR:
        return "loss-weights", "the distillation loss adds nothing in the port", "add the distillation loss"
    known = recognise(factor, _numbers(given))
    text = f"the port's distillation loss is {known or f'{factor:.12g}'} times the reference's"
    reduced = known is not None and " is the " in known and "temperature" not in known
    return ("loss-reduction" if reduced else "loss-weights"), text, f"divide by {known or f'{factor:.12g}'}"


def _of_gradient(case: Case) -> Iterator[Hypothesis]:
    """The value is right, and the gradient is not: a part of it is missing or counted otherwise."""
    if own_error(case.port[:1], case.reference[:1]) > LIMIT:
        return
    found = _fit(case, slice(1, None))
    if found is None:
        return
    made = np.sum([weight * case.right.parts[name] for name, weight in found.items()], 0)
    made[0] = case.reference[0]
    ratios = {name: weight / case.right.terms[name].weight for name, weight in found.items()}
    lost = [name for name, ratio in ratios.items() if abs(ratio) < NEAR]
    factor = next((ratio for ratio in ratios.values() if abs(ratio) >= NEAR), 0.0)
    if lost:
        parts = "all of it" if len(lost) == len(ratios) else f"its part {' and '.join(lost)}"
        text, name = f"no gradient flows through the port's loss, {parts}", "detached-gradient"
    else:
        known = recognise(factor, _numbers(case.right.given)) or f"{factor:.12g}"
        text = f"the value is the reference's, the gradient {known} times"
        name = "doubled-gradient" if abs(factor - 2) < NEAR else "scaled-gradient"
    yield case.hypothesis(name, text, made, len(found))


# Other functions


def _otherwise(case: Case) -> Iterator[tuple[str, str, str, Criterion]]:
    right = case.right
    for name, term in right.terms.items():
        for cause, text, change, function in substitutes(right.given, case.name, name, term.function):
            yield cause, text, change, right.changed(name, function)
    everywhere: list[tuple[str, str, str, Callable[[np.ndarray], np.ndarray]]] = [
        ("double-softmax", "the softmax is taken twice in the port", "give the logits", softmax),
    ]
    for cause, text, change, before in everywhere:
        yield cause, text, change, _all(right, partial(_before, before))
    if len(right.terms) > 2:
        yield "swapped-heads", "the two heads are swapped in the port", "swap them", _all(right, _swapped)


def _all(right: Criterion, wrap: Callable[[Function], Function]) -> Criterion:
    for name, term in right.terms.items():
        right = right.changed(name, wrap(term.function))
    return right


def _before(change: Callable[[np.ndarray], np.ndarray], function: Function) -> Function:
    return lambda x, x_kd: function(change(x), change(x_kd))


def _swapped(function: Function) -> Function:
    return lambda x, x_kd: function(x_kd, x)


# Another temperature, solved for


def _tempered(case: Case) -> Iterator[Hypothesis]:
    if "kl" not in case.right.terms:
        return
    right = case.right
    given, weight = right.given, right.terms["kl"].weight
    raw, tau = given.teacher, given.tau
    rest = right.vector() - weight * right.parts["kl"]

    def made(student: float, teacher: float, factor: float = 1.0) -> np.ndarray:
        target = log_softmax(raw / teacher)
        return rest + weight * factor * measured(given, lambda _, x: divergence(log_softmax(x / student), target))

    change = f"divide both logits by {told(tau)} and multiply by its square"
    for student, teacher, words in (
        (1.0, tau, "the student's logits are not divided by it"),
        (tau, 1.0, "the teacher's logits are not divided by it"),
        (1.0, 1.0, "no logits are divided by it"),
        (1 / tau, 1 / tau, "logits are multiplied by it"),
        (tau**2, tau**2, "logits are divided by its square"),
    ):
        for factor, more in ((1.0, ""), (tau**-2, ", and its square is missing")):
            text = f"temperature {told(tau)}: {words} in the port{more}"
            yield case.hypothesis("temperature", text, made(student, teacher, factor), change=change)
    forms: list[tuple[str, Callable[[float], np.ndarray]]] = [
        ("temperature", lambda t: made(t, t, t**2 / tau**2)),
        ("temperature inside the softmax", lambda t: made(t, t)),
        ("temperature of the student", lambda t: made(t, tau)),
        ("temperature of the teacher", lambda t: made(tau, t)),
    ]
    for words, form in forms:
        found = solved(lambda t, form=form: form(t) / case.scale, case.port / case.scale, tau)  # type: ignore[misc]
        if found is not None:
            text = f"{words} {told(short(found))} in the port, {told(tau)} in the reference"
            yield case.hypothesis("temperature", text, form(found), 1, change)
