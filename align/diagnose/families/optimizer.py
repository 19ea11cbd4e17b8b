"""An optimizer: epsilon, betas, decay, groups, clipping, momentum; its updates are made again in numpy."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.fitting import short, solved
from align.diagnose.numbers import told
from align.diagnose.rows import Recorded, RowEvidence
from align.diagnose.updates import Rule, run, squares_of
from align.locate.modules import LIMIT, own_error
from align.steps.optim import BETAS, Scenario, gradients, roles, scenarios, shapes_of

RANK = 5
SLOTS = ("param", "exp_avg", "exp_avg_sq", "momentum_buffer", "grad_norm")
NAMES = 6  # parameters that are named
FIRST = 3  # updates from which a number is solved for, where the first does not show it


@dataclass(frozen=True)
class Run:
    """A scenario in which the port differs: the reference's rule, and what both sides recorded.

    `scales` are the norms of the reference's rows, by which both are divided, so that every row counts alike.
    """

    name: str
    rule: Rule
    parameters: Mapping[str, np.ndarray]
    gradients: list[dict[str, np.ndarray]]
    recorded: tuple[int, ...]
    rows: tuple[str, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)
    port: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)
    port_decayed: frozenset[str] = frozenset()

    def vector(self, arrays: Mapping[str, np.ndarray], last: int | None = None) -> np.ndarray:
        """Every compared row behind one another; `last`: up to that update only."""
        rows = [row for row in self.rows if last is None or int(row.rpartition("/")[2]) <= last]
        parts = [np.asarray(arrays.get(row, np.full(1, np.nan))).reshape(-1) / self.scales[row] for row in rows]
        return np.concatenate(parts) if parts else np.zeros(0)

    def made(self, rule: Rule, last: int | None = None) -> dict[str, np.ndarray]:
        recorded = [u for u in self.recorded if last is None or u <= last]
        return run(rule, self.parameters, self.gradients, recorded, self.squares)

    @cached_property
    def squares(self) -> list[dict[str, float]]:
        """Of every set of gradients."""
        return [squares_of(given) for given in self.gradients]

    def begins(self, rule: Rule) -> bool:
        """Whether a rule makes what the port has after the first recorded update: quick, before all are made."""
        first = min(self.recorded)
        made, wanted = self.vector(self.made(rule, first), first), self.vector(self.port, first)
        return made.shape == wanted.shape and own_error(made, wanted) <= LIMIT

    def holds(self, rule: Rule, side: Mapping[str, np.ndarray]) -> bool:
        made, wanted = self.vector(self.made(rule)), self.vector(side)
        return made.shape == wanted.shape and own_error(made, wanted) <= LIMIT


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.rows.step != "optim":
        return
    if evidence.name.startswith("default/"):
        yield from _default(evidence)
        return
    this = scenario_run(evidence.rows, evidence.name)
    if this is None:
        return
    port = this.vector(this.port)

    def hypothesis(name: str, text: str, rule: Rule, change: str, fitted: int = 0) -> Hypothesis:
        made = this.vector(this.made(rule))
        wanted = port if made.shape == port.shape else np.full(made.shape, np.nan)
        return Hypothesis(name, text, made, wanted, fitted=fitted, change=change)

    for name, text, change, rule in _structures(this):
        if this.begins(rule):
            yield hypothesis(name, text, rule, change)
    for name, text, change, rule in _numbers(this):
        if this.begins(rule):
            yield hypothesis(name, text, rule, change, 1)


def scenario_run(rows: Recorded, row: str) -> Run | None:
    """The scenario that a row belongs to; None where the rule does not make the reference's own rows."""
    if rows.case is None or not any(name.startswith("optim/parameter/") for name in rows.plan):
        return None
    table = scenarios(rows.case)
    shapes = shapes_of(rows.plan)
    first = row.partition("/")[0]
    name = first if first in table else ""
    if name == "long" or (not name and first not in shapes and first != "grad_norm"):
        return None
    scenario, prefix = table[name], f"{name}/" if name else ""
    exact = next(iter(rows.reference.values())).dtype == np.float64
    given = gradients(scenario, shapes, lambda tensor: np.asarray(rows.plan[tensor], np.float64))
    kept = set(shapes) if scenario.everything else {n.split("/")[1] for n in rows.reference if n.startswith(prefix)}
    parameters = {n: np.asarray(rows.plan[f"optim/parameter/{n}"]) for n in shapes if n in kept}
    rule = _rule(scenario, exact)
    if f"{prefix}lr" in rows.port and f"{prefix}lr" in rows.reference:
        rule = replace(rule, rates=tuple(map(float, np.asarray(rows.reference[f"{prefix}lr"]).reshape(-1))))
    this = Run(name, rule, parameters, given, tuple(sorted(scenario.updates)))
    this = _with_rows(this, rows, prefix)
    rule = replace(rule, decayed=_decayed(this, rule, this.reference))
    this = replace(this, rule=rule, port_decayed=_decayed(this, rule, this.port))
    if scenario.everything:  # a few parameters, beside the one that differs, tell as much as all
        few = {*roles(shapes), row.removeprefix(prefix).split("/")[0]}
        this = replace(this, parameters={n: array for n, array in parameters.items() if n in few})
        this = _with_rows(this, rows, prefix)
    return this if this.rows and this.holds(this.rule, this.reference) else None


def _rule(scenario: Scenario, exact: bool) -> Rule:
    """As the step asks both sides for it; in float64 runs the numbers are what float32 holds."""
    asked: dict[str, Any] = {"lr": 5e-4, "weight_decay": 0.05, "eps": 1e-8, "momentum": 0.9, "name": "adamw"}
    numbers: dict[str, Any] = dict(scenario.optimizer)
    clip = scenario.clip_norm
    if exact:
        numbers = {n: float(np.float32(v)) if isinstance(v, float) else v for n, v in numbers.items()}
        clip = None if clip is None else float(np.float32(clip))
    asked |= numbers
    kind = asked["name"]
    return Rule(
        kind in ("adam", "adamw"),
        asked["lr"],
        asked["weight_decay"],
        *BETAS,
        asked["eps"],
        asked["momentum"] if kind == "momentum" else 0.0,
        decay="decoupled" if kind == "adamw" else "coupled",
        max_norm=clip,
    )


def _with_rows(this: Run, rows: Recorded, prefix: str) -> Run:
    """With every row that the rule can make and the reference recorded."""
    names = [name for name in this.made(this.rule) if f"{prefix}{name}" in rows.reference]
    sides = [
        {name: np.asarray(side[f"{prefix}{name}"], np.float64) for name in names if f"{prefix}{name}" in side}
        for side in (rows.port, rows.reference)
    ]
    scales = {name: float(np.linalg.norm(sides[1][name])) or 1.0 for name in names}
    return replace(this, rows=tuple(names), scales=scales, port=sides[0], reference=sides[1])


def _decayed(this: Run, rule: Rule, side: Mapping[str, np.ndarray]) -> frozenset[str]:
    """The parameters that a side decays: told by what it made of each, with and without."""
    first = min(this.recorded)
    both = [
        run(replace(rule, decayed=d), this.parameters, this.gradients, [first])
        for d in (frozenset(), frozenset(this.parameters))
    ]
    chosen = set()
    for name in this.parameters:
        row = f"{name}/param/{first}"
        if row in side and side[row].shape == both[0][row].shape:
            off = [float(np.linalg.norm(made[row] - side[row])) for made in both]
            if off[1] < off[0]:
                chosen.add(name)
    return frozenset(chosen)


Choice = tuple[str, str, str, Rule]  # id, sentence, change, rule


def _structures(this: Run) -> Iterator[Choice]:
    rule = this.rule
    yield from _of_decay(this)
    if rule.adaptive:
        for place, words in (
            ("inside", "inside the square root"),
            ("uncorrected", "added before the bias correction"),
        ):
            text = f"epsilon is {words} in the port, outside and after it in the reference"
            yield "adam-epsilon", text, "sqrt(v / (1 - beta2 ** t)) + epsilon", replace(rule, epsilon=place)
        yield (
            "bias-correction",
            "no bias correction in the port",
            "divide by 1 - beta ** t",
            replace(rule, corrected=False),
        )
    else:
        held = rule.momentum or 0.9
        forms: list[tuple[str, Rule]] = [
            ("Nesterov's momentum in the port, the heavy ball", replace(rule, momentum=held, nesterov=True)),
            (f"momentum {told(held)} in the port, none", replace(rule, momentum=held)),
            ("no momentum in the port, some", replace(rule, momentum=0.0)),
            ("the gradient is dampened by the momentum in the port, not", replace(rule, dampening=rule.momentum)),
        ]
        for text, changed in forms:
            yield "momentum", f"{text} in the reference", f"momentum {told(rule.momentum)}", changed
    if rule.max_norm is not None:
        for words, changed in (
            ("no clipping", replace(rule, max_norm=None)),
            ("clipping by value", replace(rule, clip="value")),
            ("clipping by each group's own norm", replace(rule, clip="group")),
            ("clipping by each parameter's own norm", replace(rule, clip="parameter")),
            ("clipping without the 1e-6 on the norm", replace(rule, added=0.0)),
        ):
            yield (
                "clipping",
                f"{words} in the port; by the norm of all gradients in the reference",
                "clip_grad_norm_",
                changed,
            )
    text = "parameters without a gradient are updated in the port, left alone in the reference"
    touched = replace(rule, unused=True)
    yield (
        "unused-parameter",
        text,
        "leave out what has no gradient",
        replace(touched, decayed=_decayed(this, touched, this.port)),
    )


def _of_decay(this: Run) -> Iterator[Choice]:
    rule = this.rule
    forms = {"decoupled": "times the rate", "coupled": "added to the gradient", "unscaled": "not times the rate"}
    forms["after"] = "of the updated parameter"
    for form, words in forms.items():
        if form != rule.decay:
            text = f"weight decay is {words} in the port, {forms[rule.decay]} in the reference"
            yield "weight-decay-coupling", text, f"decay {forms[rule.decay]}", replace(rule, decay=form)
    own = this.port_decayed
    if own != rule.decayed:
        parts = []
        for names, words in (
            (own - rule.decayed, "decayed only in the port"),
            (rule.decayed - own, "only in the reference"),
        ):
            if names:
                listed = sorted(names)
                more = f" and {len(listed) - NAMES} more" if len(listed) > NAMES else ""
                parts.append(f"{words}: {', '.join(listed[:NAMES])}{more}")
        yield "weight-decay-groups", "; ".join(parts), "decay the same parameters", replace(rule, decayed=own)
    rates = list(rule.rates)
    if rates:
        for words, stale in (
            ("the rate of the update before", [rates[0], *rates[:-1]]),
            ("the rate of the next update", [*rates[1:], rates[-1]]),
            ("the peak rate", [rule.lr] * len(rates)),
        ):
            text = f"weight decay is scaled by {words} in the port, by the update's own in the reference"
            yield "weight-decay-rate", text, "decay by the present rate", replace(rule, decay_rates=tuple(stale))
        for words, stale in (
            ("of the update before", [rates[0], *rates[:-1]]),
            ("of the next update", [*rates[1:], rates[-1]]),
        ):
            text = f"the port updates by the rate {words}"
            yield "schedule-shift", text, "step the schedule after the update", replace(rule, rates=tuple(stale))


def _numbers(this: Run) -> Iterator[Choice]:
    """Choices with one number that is solved for."""
    rule = this.rule
    settings: list[tuple[str, str, float, Callable[[float], Rule]]] = []
    if rule.adaptive:
        settings = [
            ("adam-epsilon", "epsilon", rule.eps, lambda x: replace(rule, eps=x)),
            ("adam-beta1", "beta1", 1 - rule.beta1, lambda x: replace(rule, beta1=1 - x)),
            ("adam-beta2", "beta2", 1 - rule.beta2, lambda x: replace(rule, beta2=1 - x)),
            (
                "adam-epsilon",
                "epsilon inside the square root",
                rule.eps,
                lambda x: replace(rule, eps=x, epsilon="inside"),
            ),
        ]
    elif rule.momentum:
        settings = [("momentum", "momentum", rule.momentum, lambda x: replace(rule, momentum=x))]
    everyone, decayed = frozenset(this.parameters), rule.decayed
    settings += [
        ("weight-decay", "weight decay", rule.weight_decay, lambda x: replace(rule, weight_decay=x)),
        ("learning-rate", "learning rate factor", 1.0, lambda x: replace(rule, factor=x, factored=everyone)),
        (
            "learning-rate",
            "learning rate factor of what is decayed",
            1.0,
            lambda x: replace(rule, factor=x, factored=decayed),
        ),
        (
            "learning-rate",
            "learning rate factor of what is not decayed",
            1.0,
            lambda x: replace(rule, factor=x, factored=everyone - decayed),
        ),
    ]
    if rule.max_norm is not None:
        settings += [("clipping", "greatest norm", rule.max_norm, lambda x: replace(rule, max_norm=x))]
    for name, words, expected, changed in settings:
        found = _solved(this, changed, expected)
        if found is None:
            continue
        value, right = (1 - found, 1 - expected) if words.startswith("beta") else (found, expected)
        text = f"{words} {told(short(value))} in the port, {told(short(right))} in the reference"
        yield name, text, f"{words} {told(short(right))}", changed(found)


def _solved(this: Run, changed: Callable[[float], Rule], expected: float) -> float | None:
    most = FIRST if this.rule.momentum else 1  # the first update of the heavy ball is none of its momentum's
    last = next((u for u in reversed(this.recorded) if u <= most), min(this.recorded))
    wanted = this.vector(this.port, last)
    seen = np.isfinite(wanted)
    if not seen.any():
        return None

    def formula(value: float) -> np.ndarray:
        made = this.vector(this.made(changed(value), last), last)
        return made[seen] if made.shape == wanted.shape else np.full(int(seen.sum()), np.nan)

    return solved(formula, wanted[seen], expected)


def _default(evidence: RowEvidence) -> Iterator[Hypothesis]:
    """A default is read: its row holds the number itself."""
    if evidence.port is None or evidence.reference is None or evidence.port.shape != evidence.reference.shape:
        return
    _, where, name = evidence.name.split("/", 2)
    ours, theirs = (told([float(v) for v in side.reshape(-1)]) for side in (evidence.port, evidence.reference))
    text = f"default {name} of {where} {ours} in the port, {theirs} in the reference"
    yield Hypothesis("default-value", text, evidence.port, evidence.port, change=f"{name}={theirs}", read=True)
