"""The proof: a hypothesis is applied, the error is measured again, and only what brings it down to noise is a cause."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.compare.distributions import one_distribution
from align.diagnose.cause import Cause, Hypothesis, Treatment
from align.diagnose.evidence import Evidence
from align.diagnose.families import families
from align.locate.modules import own_error

ENOUGH = 0.99  # of the error; what leaves more is part of the truth at best
SPARE = 4  # elements that a match must have beyond the numbers fitted to it

# Replays the port with these treatments; the answer holds its tensors by name, None if it raised.
Treat = Callable[[Sequence[Treatment]], Mapping[str, np.ndarray] | None]


def diagnose(
    cases: Sequence[Sequence[Evidence]], treat: Treat | None = None, only: Sequence[str] = ()
) -> list[Cause | None]:
    """The proven cause of each case, or None. A case is one difference, told by one or more pieces of evidence.

    The families propose, the simplest first; the first hypothesis that holds is the cause. All cases are treated in
    common, one hypothesis each in a replay, because modules are replayed independently of each other. `only` names, for
    each case, the family to ask.
    """
    found: list[Cause | None] = [None] * len(cases)
    todo = {number: _hypotheses(case, only[number] if only else "") for number, case in enumerate(cases)}
    waiting: dict[int, tuple[Evidence, Hypothesis]] = {}
    while todo:
        for number in list(todo):
            if number in waiting:
                continue
            for evidence, hypothesis in todo[number]:
                if hypothesis.treatment is not None:
                    if treat:
                        waiting[number] = evidence, hypothesis
                        break
                elif cause := proven(evidence, hypothesis):
                    found[number] = cause
                    del todo[number]
                    break
            else:
                del todo[number]
        if not waiting:
            break
        assert treat
        now = {number: waiting.pop(number) for number in _apart(waiting)}
        for number, cause in _after_treatment(now, treat):
            if cause:
                found[number] = cause
                del todo[number]
    return found


def _hypotheses(case: Sequence[Evidence], only: str) -> Iterator[tuple[Evidence, Hypothesis]]:
    for family in families():
        if only and family.__name__ != only:
            continue
        for evidence in case:
            for hypothesis in _proposed(family, evidence):
                yield evidence, replace(hypothesis, family=family.__name__)


def _proposed(family: Any, evidence: Evidence) -> Iterator[Hypothesis]:
    """What a family proposes. Where it meets values that it was not written for, the others are asked all the same."""
    try:
        yield from family.propose(evidence)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        warnings.warn(f"{family.__name__} gave up: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)


def _after_treatment(
    now: Mapping[int, tuple[Evidence, Hypothesis]], treat: Treat
) -> Iterator[tuple[int, Cause | None]]:
    replay = treat([hypothesis.treatment for _, hypothesis in now.values() if hypothesis.treatment])
    if replay is None and len(now) > 1:  # one of them is impossible: each alone
        for number, case in now.items():
            yield from _after_treatment({number: case}, treat)
        return
    for number, (evidence, hypothesis) in now.items():
        yield number, _cause(evidence, hypothesis, evidence.untreated(), evidence.after(replay or {}))


def _apart(waiting: Mapping[int, tuple[Evidence, Hypothesis]]) -> list[int]:
    """Cases whose treatments do not touch one module in different ways, nor any but their own module."""
    chosen: dict[str, Treatment] = {}
    answer: list[int] = []
    for number, (_, hypothesis) in waiting.items():
        treatment = hypothesis.treatment
        assert treatment
        if chosen and next(iter(chosen.values())).attached != treatment.attached:
            continue
        if chosen.setdefault(treatment.module, treatment) == treatment:
            answer.append(number)
    return answer


def proven(evidence: Evidence, hypothesis: Hypothesis) -> Cause | None:
    """The cause, if what the hypothesis makes of the tensors is equal but for noise."""
    made, wanted = hypothesis.made, hypothesis.wanted
    if made is None or wanted is None or made.size < SPARE * min(hypothesis.fitted, 1) + hypothesis.fitted:
        return None
    if hypothesis.alike:
        after = 0.0 if one_distribution(made, wanted) else float("inf")
    else:
        after = own_error(made, wanted)
    return _cause(evidence, hypothesis, evidence.before(), after)


def _cause(evidence: Evidence, hypothesis: Hypothesis, before: float, after: float) -> Cause | None:
    if not after <= evidence.limit or before <= evidence.limit:
        return None
    explained = 1 - after / before
    if explained < ENOUGH:
        return None
    if hypothesis.read:
        text = f"{hypothesis.text} (read from both recordings)"
        return Cause(hypothesis.id, text, None, hypothesis.change, hypothesis.line, hypothesis.family)
    text = f"{hypothesis.text}: explains {_percent(explained)}"
    return Cause(hypothesis.id, text, explained, hypothesis.change, hypothesis.line, hypothesis.family)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
