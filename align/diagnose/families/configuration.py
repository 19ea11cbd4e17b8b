"""Settings in which two matched modules differ: the port's module is set as the reference's and replayed."""

from collections.abc import Iterator
from typing import Any

from align.diagnose.canonical import Difference, differences
from align.diagnose.cause import Hypothesis, Treatment
from align.diagnose.evidence import Evidence
from align.diagnose.modules import ModuleEvidence
from align.diagnose.numbers import told
from align.locate.divergence import Where

RANK = 0


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or not evidence.name:
        return
    port, reference = evidence.settings["paddle"], evidence.settings["torch"]
    found = sorted(differences(port, reference), key=lambda d: not _definition(port, d).get("given", False))
    for difference in found:
        yield _hypothesis(evidence, port, [difference])
    if len(found) > 1:
        yield _hypothesis(evidence, port, found)


def _hypothesis(evidence: ModuleEvidence, port: Any, found: list[Difference]) -> Hypothesis:
    name = port["class"]
    values = [f"{d.word} {told(d.port)} in the port, {told(d.reference)} in the reference" for d in found]
    attributes = {key: value for difference in found for key, value in difference.attributes.items()}
    definition = _definition(port, found[0])
    line = None
    if definition and not definition["given"]:
        line = Where(definition["file"], definition["line"], definition["end_line"], definition["code"], evidence.built)
    elif evidence.built:
        built = evidence.built
        line = Where(built["file"], built["line"], built["end_line"], built["code"], built)
    return Hypothesis(
        found[0].id,
        f"{name} {', '.join(values)}",
        treatment=Treatment(evidence.module, attributes),
        change=", ".join(f"{d.word.replace(' ', '_')}={told(d.reference)}" for d in found),
        line=line,
    )


def _definition(port: Any, difference: Difference) -> dict[str, Any]:
    return port.get("definitions", {}).get(difference.own, {})
