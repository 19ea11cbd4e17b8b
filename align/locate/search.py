"""Asking both sides' processes, after a red verdict, where the difference is."""

import difflib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from align import steps as step_modules
from align.compare.runs import RAISED
from align.compare.verdict import Verdict
from align.diagnose.cause import Treatment
from align.diagnose.functions import ACTIVATIONS
from align.diagnose.modules import Look, with_causes
from align.errors import UsageError
from align.locate.buffers import UPDATE, buffer_divergences
from align.locate.construction import at_its_making, wrongly_built
from align.locate.divergence import Divergence, Where
from align.locate.initial import initial_divergences
from align.locate.lines import line_divergences
from align.locate.match import Values
from align.locate.modules import LIMIT, Finding, divergence, locate, made_by, own_error
from align.locate.operations import refine
from align.locate.pairs import Pairs, alike, pair, same
from align.pipeline import TWIN, Recorder
from align.record import line_trace, manifest
from align.record.calls import ROOT_MODULE
from align.record.store import Store
from align.record.trace import read
from align.sides import SIDES

TRACED = 40  # wrong modules of which the operation is looked for: more is one bug in many places


def divergences(recorder: Recorder, result: Verdict) -> list[Divergence]:
    """Every independent difference of the red steps, in the order of dependence."""
    answer: list[Divergence] = []
    seen: set[str] = set()
    alone = recorder.options.case.alone
    for step in result.steps:
        bad = [row.name for row in step.rows if row.bad]
        if bad and step.step in step_modules.STATISTICAL and RAISED not in bad:
            answer += initialised(recorder, bad)
        # What looks for the place runs in float64.
        if step or step.step in result.no_twin or step.step not in (*step_modules.REPLAYABLE, *step_modules.LINED):
            continue
        here: list[Divergence] = []
        explained = False
        if step.step in step_modules.REPLAYABLE and RAISED not in bad:
            # What is wrong in evaluation is wrong in training too, and is told once.
            for part in step_modules.replays(step.step, alone):
                found = replayed(recorder, part) if not here else []
                explained = explained or bool(found)
                here = here or [divergence for divergence in found if divergence.module not in seen]
        if step.step in step_modules.REPLAYABLE and RAISED in bad and alone and not answer:
            here = _until_it_raises(recorder, step_modules.replays(step.step, alone))
        if here:
            here = [replace(divergence, step=step.step) for divergence in here]
            seen.update(divergence.module for divergence in here)
        # Beside the modules there is the code of the step: what it calls them in, and what it does with the answer.
        # Where modules that were told before are wrong again, what it makes of their values is wrong too.
        # Models that stand alone have none.
        answer += here
        if alone and not here and step.step == "forward":
            answer += _of_buffers(recorder, step.step, bad)
        if alone and step.step == "forward":
            names = recorder.options.case.mapping.get("parameters", {})
            answer += wrongly_built(step.step, bad, partial(constructions, recorder), names)
        if not alone:
            answer += [] if here or explained else lined(recorder, step.step, bad)
            answer += backwards(recorder, step.step, bad)
    return answer


def _until_it_raises(recorder: Recorder, parts: Sequence[str]) -> list[Divergence]:
    for part in parts:
        with suppress(UsageError):
            if found := replayed(recorder, part, unfinished=True):
                return found
    return []


def _of_buffers(recorder: Recorder, step: str, bad: Collection[str]) -> list[Divergence]:
    if not any(row.startswith(UPDATE) for row in bad):
        return []
    recorder.open_twins()
    with tempfile.TemporaryDirectory(dir=recorder.options.folder, prefix=".partial-replay-") as folder:
        answers = {
            side: recorder.process(side).request(
                "replay", run=f"{side}-{TWIN}", step=f"{step}:training", folder=folder, pairs={}
            )
            for side in SIDES
        }
    return list(buffer_divergences(step, bad, answers))


def backwards(recorder: Recorder, step: str, bad: Collection[str]) -> list[Divergence]:
    """Where the way back goes wrong in a step without a model, whose values are all right; a line is told once."""
    found: dict[object, list[tuple[str, Divergence]]] = {}
    parts = step_modules.backward_parts(step, bad)
    if parts:
        recorder.open_twins()
    for part in parts:
        for one in replayed(recorder, part):
            place = one.port and (one.port.file, one.port.line)
            found.setdefault(place, []).append((part.partition(":")[2], one))
    return [_of_the_step(step, seen) for seen in found.values()]


def _of_the_step(step: str, parts: Sequence[tuple[str, Divergence]]) -> Divergence:
    """One line of a step, from the parts that showed it: functions, which have no module."""
    (name, first), more = parts[0], len(parts) - 1
    also = f" and {more} more" if more else ""
    return replace(first, step=step, module="", what=f"{name}{also}: {first.what.replace(f' of {ROOT_MODULE}', '')}")


def lined(recorder: Recorder, step: str, rows: Collection[str] | None = None) -> list[Divergence]:
    """The lines that made rows of a step wrong (these, or all), by the values of both sides' source lines."""
    traces = line_traces(recorder, step, step_modules.narrowed(step, rows, recorder.options.case))
    return line_divergences(step, traces["paddle"], traces["torch"], rows)


def line_traces(
    recorder: Recorder, step: str, part: list[str] | None = None, dtype: str | None = None
) -> dict[str, line_trace.LineTrace]:
    """Of both sides, in float64 or another type; `part` is what of the step is run."""
    options = recorder.options
    working = manifest.latest(options.reference or options.folder, options.prefix("torch", options.dtype))
    recorder.open_twins()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".partial-lines-") as name:
        for side in SIDES:
            recorder.process(side).request(
                "lines",
                run=f"{side}-{TWIN}",
                step=step,
                folder=name,
                reference=str(working or options.folder),
                part=part,
                dtype=dtype,
            )
        return {side: line_trace.read(Path(name, f"{step}-{side}-lines.json")) for side in SIDES}


def initialised(recorder: Recorder, rows: Collection[str]) -> list[Divergence]:
    """The lines that gave the parameters of these rows their first values."""
    recorder.open_twins()
    port, reference = (
        recorder.process(side).request("origins", run=f"{side}-{TWIN}")["origins"] for side in ("paddle", "torch")
    )
    return initial_divergences(rows, port, reference)


@dataclass(frozen=True)
class Replayed:
    """One tensor that a module's own code makes of the reference's values, and how far the port's is off."""

    name: str
    shape: tuple[int, ...]
    error: float


def replay_module(recorder: Recorder, step: str, module: str) -> tuple[list[Replayed], list[Divergence]]:
    """What one module's own code makes, with the port's own error, and the divergence if it is wrong.

    That is its outputs and what it hands to its children, and backwards the gradients of its inputs, of its children's
    outputs and of its parameters. A module without a counterpart is looked at with the one around it that has one.

    Raises UsageError for a module that neither side ever calls.
    """
    tensors: list[Replayed] = []
    alone: list[str] = []

    def look(replays: Mapping[str, Mapping[str, np.ndarray]], pairs: Pairs) -> None:
        owner = pairs.owner(module)
        if owner is None:
            near = difflib.get_close_matches(module, {**pairs.calls["torch"], **pairs.calls["paddle"]}, 3)
            raise UsageError(f"--replay {module}: no such module call; near: {', '.join(near) or 'none'}")
        alone.extend(pairs.own("paddle", [owner]))
        for name, array in replays["torch"].items():
            if name in replays["paddle"] and made_by(name, pairs.places["torch"]) == owner:
                tensors.append(Replayed(name, array.shape, own_error(replays["paddle"][name], array)))

    found = replayed(recorder, step, look)
    return tensors, [divergence for divergence in found if divergence.module in alone]


def replayed(
    recorder: Recorder, step: str, look: Callable[..., None] | None = None, unfinished: bool = False
) -> list[Divergence]:
    """Every wrong module of a step; `look` is shown both sides' replays and paired calls before they are gone.

    If `unfinished`, up to where the port raises; that line itself, where nothing is wrong before.
    """
    with tempfile.TemporaryDirectory(dir=recorder.options.folder, prefix=".partial-replay-") as name:
        folder = Path(name)

        def ask(side: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
            return recorder.process(side).request(operation, run=f"{side}-{TWIN}", step=step, folder=name, **arguments)

        # The reference first: the port's replay reads what it leaves.
        answers = {"torch": ask("torch", "replay")}
        given: dict[str, Any] = {"any_shape": True, "partial": unfinished}
        try:
            answers["paddle"] = ask("paddle", "replay", **given)
        except UsageError:  # the port's layout, perhaps, is another throughout
            given.pop("any_shape")
            answers["paddle"] = ask("paddle", "replay", **given)
        places = {side: answer["places"] for side, answer in answers.items()}
        parameters = {side: answer["parameters"] for side, answer in answers.items()}
        settings, held = ({side: answer[told] for side, answer in answers.items()} for told in ("settings", "held"))
        mapping = recorder.options.case.mapping
        if alike(places, parameters) and not mapping.get("modules"):
            pairs = same(places, parameters)
        else:
            stored = {side: Store(folder, f"{step}-{side}").entries for side in places}
            shapes = {side: {n: entry.shape for n, entry in entries.items()} for side, entries in stored.items()}
            fused: list[str] = []
            while True:
                pairs = pair(places, shapes, parameters, mapping, fused)
                given |= {"pairs": {port: label for label, port in pairs.ported.items()}, "any_shape": True}
                try:
                    ask("paddle", "replay", **given)
                except UsageError:
                    given.pop("any_shape")
                    ask("paddle", "replay", **given)
                if fused or not (fused := _fused(pairs, *(Store(folder, f"{step}-{side}") for side in SIDES))):
                    break
        port = Store(folder, f"{step}-paddle")
        replays = {"torch": pairs.boundaries(Store(folder, f"{step}-torch")), "paddle": port}
        if look:
            look(replays, pairs)
        findings = locate(replays["torch"], port, pairs.places, every=not pairs.alike)
        if unfinished:  # no pass came back
            findings = [finding for finding in findings if not finding.backward]
        if not findings:
            return _raised(step, places["paddle"])
        wanted = [call for finding in findings[:TRACED] for call in (finding.owner, finding.uncalled) if call]
        for side, more in (("torch", {}), ("paddle", given)):
            ask(side, "trace", modules=pairs.own(side, wanted), **more)
        values = {
            side: Values(read(folder, f"{step}-{side}-trace"), Store(folder, f"{step}-{side}-trace")) for side in places
        }

        def treat(treatments: Sequence[Treatment]) -> Store | None:
            try:
                ask("paddle", "replay", treatments=[treatment.as_json() for treatment in treatments], **given)
            except UsageError:  # the port raised
                return None
            return Store(folder, f"{step}-paddle-treated")

        found = _refined(step, findings, values, replays, pairs)
        answer = with_causes(found, Look(step, values, replays, pairs, settings), treat)
    return at_its_making(answer, settings, held, partial(constructions, recorder))


def constructions(recorder: Recorder) -> dict[str, line_trace.LineTrace]:
    """Of both sides' constructors, in the type in which models are made."""
    return line_traces(recorder, "construction", dtype="float32")


def _raised(step: str, calls: Mapping[str, Mapping[str, Any]]) -> list[Divergence]:
    """Where the port raised, told of the innermost call; nothing where it did not."""
    for label, place in reversed(list(calls.items())):
        if place.get("raised"):
            where = Where(**place["raised"], built=place["built"])
            return [Divergence(step, label, "the port raises here", float("inf"), where, None)]
    return []


def _fused(pairs: Pairs, reference: Store, port: Store) -> list[str]:
    """Paired calls of which the port's goes on with what the reference's makes: they are no counterparts.

    So does a normalisation that is told its activation, where the reference has a module or function for that, or a
    layer that joins what it made to what it was given, where the reference's caller does.
    """
    names = {label: f"{label}/out" for label in pairs.ported}
    both = [label for label, name in names.items() if name in reference and name in port]
    return [label for label in both if _goes_on(port[names[label]], reference[names[label]])]


def _goes_on(made: np.ndarray, expected: np.ndarray) -> bool:
    """Whether it is an activation of what is expected, or that is one end of it along an axis."""
    if made.shape == expected.shape:
        wrong = own_error(made, expected) > LIMIT
        return wrong and any(own_error(made, form.apply(expected)) <= LIMIT for form in ACTIVATIONS)
    other = [axis for axis, (m, e) in enumerate(zip(made.shape, expected.shape, strict=False)) if m != e]
    if made.ndim != expected.ndim or len(other) != 1 or made.shape[other[0]] < expected.shape[other[0]]:
        return False
    size = expected.shape[other[0]]
    ends = (np.take(made, places, other[0]) for places in (range(size), range(-size, 0)))
    return any(own_error(end, expected) <= LIMIT for end in ends)


def _refined(
    step: str,
    findings: list[Finding],
    values: Mapping[str, Values],
    replays: Mapping[str, Mapping[str, np.ndarray]],
    pairs: Pairs,
) -> list[tuple[Finding, Divergence]]:
    """The findings and divergences that are told; several of one paired call only where several calls are wrong inside.

    Two findings in the code of one module may be one bug, seen where its value forks.
    """
    answer: list[tuple[Finding, Divergence]] = []
    blamed: dict[str, set[str | None]] = {}
    for number, finding in enumerate(findings):
        others = blamed.setdefault(finding.owner, set())
        found, operation = divergence(step, finding, pairs.places), None
        if number < TRACED:
            found, operation = refine(found, finding, values, replays, pairs)
        module = operation.module if operation else None
        if others and (module is None or {module, None} & others):
            continue
        others.add(module)
        module = module or pairs.ported.get(finding.owner, finding.owner)
        found = replace(found, module=module, what=pairs.in_port_words(found.what, finding.near))
        answer.append((finding, found))
    return answer
