"""What ports compute in place of a term of a loss: another softmax, another target, the other head."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.criteria import Function, Given, divergence, label, log_softmax, softmax


def substitutes(given: Given, loss: str, term: str, own: Function) -> Iterator[tuple[str, str, str, Function]]:
    """Id, sentence, change and function of what may stand in place of a loss's term, whose own function is `own`."""
    target = given.ignored if loss.endswith("_ignored") else given.target
    tau, raw = given.tau, given.teacher
    teacher = log_softmax(raw / tau)
    if term in ("label", "hard"):
        head, index = (1, raw.argmax(1)) if term == "hard" else (0, target)
        yield (
            "missing-log",
            "no logarithm of the probabilities in the port",
            "log_softmax",
            lambda *x: label(softmax(x[head]), index),
        )
        yield "missing-softmax", "no softmax of the logits in the port", "log_softmax", lambda *x: label(x[head], index)
        yield (
            "double-softmax",
            "the softmax is taken twice in the port",
            "give the logits",
            lambda *x: label(log_softmax(softmax(x[head])), index),
        )
    if loss.endswith("_ignored"):
        shift = given.classes  # what is ignored counts as a class
        for other in (0, given.classes - 1, int(target.min()) % shift):
            index = np.where(target < 0, other, target)
            text = f"an ignored label counts as class {other} in the port"
            yield "ignored-label", text, "leave it out", lambda x, _, index=index: label(log_softmax(x), index)  # type: ignore[misc]
    if term == "soft":
        yield (
            "double-softmax",
            "a softmax of the targets, which are probabilities",
            "give the targets",
            lambda x, _: -(softmax(given.soft) * log_softmax(x)).sum(-1),
        )
        yield (
            "double-softmax",
            "the softmax is taken twice in the port",
            "give the logits",
            lambda x, _: -(given.soft * log_softmax(softmax(x))).sum(-1),
        )
        yield (
            "hard-targets",
            "only the greatest target counts in the port",
            "give all",
            lambda x, _: label(log_softmax(x), given.soft.argmax(1)),
        )
    if term == "hard":
        yield (
            "hard-targets",
            "the port's hard targets are the labels, not the teacher's",
            "argmax of the teacher's",
            (lambda _, x: label(log_softmax(x), given.target)),
        )
        for name, logits in (("the distillation head's", given.logits_kd), ("the class head's", given.logits)):
            text = f"the port's hard targets are {name} own decisions, not the teacher's"
            yield (
                "hard-targets",
                text,
                "argmax of the teacher's",
                lambda _, x, logits=logits: label(log_softmax(x), logits.argmax(1)),  # type: ignore[misc]
            )
        yield (
            "hard-targets",
            "the port's hard targets are the teacher's least",
            "argmax",
            lambda _, x: label(log_softmax(x), raw.argmin(1)),
        )
    if term == "kl":
        yield (
            "log-target",
            "probabilities as the target of a divergence that wants logarithms",
            "log_softmax",
            (lambda _, x: divergence(log_softmax(x / tau), np.exp(teacher))),
        )
        yield (
            "kl-order",
            "the two distributions of the divergence are swapped in the port",
            "swap them",
            (lambda _, x: divergence(teacher, log_softmax(x / tau))),
        )
        yield (
            "missing-log",
            "the divergence is given probabilities, not logarithms",
            "log_softmax",
            (lambda _, x: divergence(softmax(x / tau), teacher)),
        )
        yield (
            "double-softmax",
            "a softmax before the distillation loss's own",
            "give the logits",
            (lambda _, x: divergence(log_softmax(softmax(x) / tau), teacher)),
        )
        yield (
            "double-softmax",
            "a softmax of the teacher's logits before the distillation loss's own",
            ("give the logits"),
            lambda _, x: divergence(log_softmax(x / tau), log_softmax(softmax(raw) / tau)),
        )
        yield (
            "missing-entropy",
            "the cross entropy with the teacher in place of the divergence",
            "kl_div",
            (lambda _, x: -(np.exp(teacher) * log_softmax(x / tau)).sum(-1)),
        )
    if term in ("kl", "hard"):
        yield (
            "swapped-heads",
            "the class token's logits are distilled in the port",
            "give the distillation logits",
            (lambda x, _: own(x, x)),
        )
