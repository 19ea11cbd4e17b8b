"""Gradients that do not arrive: the port is replayed with what stops them taken away."""

from collections.abc import Iterator

from align.diagnose.cause import Hypothesis, Treatment
from align.diagnose.evidence import Evidence
from align.diagnose.modules import ModuleEvidence
from align.diagnose.traced import value_name

RANK = 25  # what is left of a gradient may be a multiple, which says more


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or not evidence.gradient:
        return
    frozen = sorted(_frozen(evidence))
    if frozen:
        yield Hypothesis(
            "frozen-parameter",
            f"not trainable in the port: {', '.join(frozen)}",
            treatment=Treatment(evidence.module, attached="parameters"),
            change="leave them trainable",
            line=evidence.constructor,
        )
    cuts = ", ".join(dict.fromkeys(_cuts(evidence)))
    # A no_grad or a stop_gradient is no operation that a trace could show.
    through = f"through {cuts}" if cuts else "where no_grad or stop_gradient holds it"
    if evidence.gradients:
        yield Hypothesis(
            "detached-gradient",
            f"no gradient flows back {through} in the port, in the reference one does",
            treatment=Treatment(evidence.module, attached="operations"),
            change="let the gradient through",
        )


def _frozen(evidence: ModuleEvidence) -> set[str]:
    """Parameters of the port to which no gradient may flow, and to which one flows in the reference."""
    trainable = {}
    for side, values in (("port", evidence.port_values), ("reference", evidence.reference_values)):
        found = values.trace.values if values else ()
        trainable[side] = {v.name.partition("/")[2]: v.gradient for v in found if v.origin == "parameter"}
    return {name for name, open in trainable["port"].items() if not open and trainable["reference"].get(name, True)}


def _cuts(evidence: ModuleEvidence) -> Iterator[str]:
    """The port's operations that take something with a gradient and give floating values without one."""
    values = evidence.port_values
    if values is None:
        return
    trace = values.trace
    for operation in trace.operations:
        read = [trace.values[n] for n in operation.inputs]
        made = [trace.values[n] for n in operation.outputs if trace.values[n].dtype.startswith(("float", "bfloat"))]
        if operation.module not in evidence.modules or not made:
            continue
        if any(value.gradient for value in read) and not any(value.gradient for value in made):
            yield value_name(values, operation.outputs[0])
