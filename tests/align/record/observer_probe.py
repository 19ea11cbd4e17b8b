"""Records small models in a process of one framework: `observer_probe.py SIDE FOLDER`.

Every scenario leaves what it recorded as a store of its name in FOLDER; what else a test wants to know is the JSON on
standard output, by scenario.
"""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.cases import find
from align.plan import weights
from align.record.context import resolve
from align.record.observer import observe
from align.record.store import StoreWriter

SIDE, FOLDER = sys.argv[1:]
framework = importlib.import_module(SIDE)
nn, functional = framework.nn, framework.nn.functional
Base = nn.Module if SIDE == "torch" else nn.Layer
side = getattr(importlib.import_module(f"align.sides.{SIDE}"), f"{SIDE.capitalize()}Side")("cpu", 1, False)
side.set_precision("float64")

X = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
WEIGHT = np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 1.0]])  # (out, in)


def linear():
    layer = nn.Linear(3, 3)
    side.load(layer, {"weight": WEIGHT, "bias": np.array([0.5, -0.5, 0.0])})
    return layer


def x(gradient=True):
    return side.from_numpy(X, gradient=gradient)


class Model(Base):
    """A model of the given children, whose forward is the given function of it and its inputs."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self.function = forward

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def doubled(_, value):
    return value * 2


def relu_in_place(_, value):
    return functional.relu_(value)


def raising(_, value):
    raise ZeroDivisionError("in the model")


@dataclass
class Answer:
    logits: Any
    extra: Any


@dataclass(slots=True)
class Slots:
    logits: Any


def hooks(model):
    """How many hooks the modules of a model hold."""
    modules = model.modules() if SIDE == "torch" else model.sublayers(include_self=True)
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_forward_post_hooks", "_backward_hooks")
    return sum(len(getattr(module, kind, None) or ()) for module in modules for kind in kinds)


def record(scenario, model, *args, gradients=False, only=("*",), backward=1):
    with StoreWriter(Path(FOLDER), scenario) as writer, observe(side, model, writer, gradients=gradients, only=only):
        output = model(*args)
        if gradients:
            cotangent = side.from_numpy(np.arange(1.0, 7.0).reshape(2, 3))
            for _ in range(backward - 1):
                output.backward(cotangent, retain_graph=True)
            output.backward(cotangent)
    return {"hooks": hooks(model)}


def order():
    both = Model(lambda m, v: m.after(m.before(v)), before=linear(), after=linear())
    return record("order", Model(lambda m, v: m.act(m.both(v)) + 1, act=Model(doubled), both=both), x(), gradients=True)


def twice():
    return record("twice", Model(lambda m, v: m.fc(m.fc(m.fc(v))), fc=linear()), x(), gradients=True)


def nested():
    inner = Model(lambda m, a, *, table: ({"b": a, "deep": [a * 2, (a * 3,)]}, a * 4, None, "text", 7))
    outer = Model(lambda m, v: m.inner(v, table={"k": v * 5})[1], inner=inner, single=Model(lambda m, v: (v,)))
    return record("nested", Model(lambda m, v: m.single(m.outer(v)), outer=outer, single=Model(lambda m, v: (v,))), x())


def attributes():
    return record(
        "attributes", Model(lambda m, v: m.inner(v).logits, inner=Model(lambda m, v: Answer(v * 2, {"k": v * 3}))), x()
    )


def slots():
    return record("slots", Model(lambda m, v: m.inner(v).logits, inner=Model(lambda m, v: Slots(v * 2))), x())


def in_place():
    model = Model(lambda m, v: m.fc2(m.act(m.fc1(v))), fc1=linear(), act=Model(relu_in_place), fc2=linear())
    return record("in_place", model, x(), gradients=True)


def in_place_between():
    """The caller overwrites what a module gave it, and hands it on."""

    def forward(m, v):
        value = m.first(v)
        value.add_(framework.ones_like(value))
        return m.second(value)

    return record("in_place_between", Model(forward, first=Model(doubled), second=Model(doubled)), x(gradient=False))


def in_place_through_a_view():
    def forward(m, v):
        value = m.first(v)
        functional.relu_(value.reshape([-1]) if SIDE == "paddle" else value.view(-1))
        return m.second(value)

    return record(
        "in_place_through_a_view", Model(forward, first=Model(doubled), second=Model(doubled)), x(gradient=False)
    )


def raises():
    model = Model(lambda m, v: m.outer(v), outer=Model(lambda m, v: m.inner(v), inner=Model(raising)))
    try:
        record("raises", model, x())
    except ZeroDivisionError:
        return {"hooks": hooks(model)}


def raises_in_backward():
    class Failing(framework.autograd.Function if SIDE == "torch" else framework.autograd.PyLayer):
        @staticmethod
        def forward(ctx, value):
            return value * 2

        @staticmethod
        def backward(ctx, gradient):
            raise ZeroDivisionError("in the backward")

    model = Model(lambda m, v: m.second(m.first(v)), first=Model(lambda m, v: Failing.apply(v)), second=linear())
    try:
        record("raises_in_backward", model, x(), gradients=True)
    except Exception as error:
        return {"hooks": hooks(model), "error": str(error)}


def caught():
    def forward(m, v):
        try:
            m.fails(v)
        except ZeroDivisionError:
            return m.instead(v)

    chosen = Model(forward, fails=Model(lambda m, v: m.deeper(v), deeper=Model(raising)), instead=linear())
    return record("caught", Model(lambda m, v: m.last(m.chosen(v)), chosen=chosen, last=linear()), x())


def backward_twice():
    return record("backward_twice", Model(lambda m, v: m.fc(v), fc=linear()), x(), gradients=True, backward=2)


def odd_outputs():
    children = {
        "nothing": Model(lambda m, v: None),
        "text": Model(lambda m: "text"),
        "scalar": Model(lambda m, v: v.sum()),
        "integers": Model(lambda m, v: v.argmax(-1)),
        "booleans": Model(lambda m, v: v > 0),
        "empty": Model(lambda m, v: v[:0]),
        "unused": linear(),
    }

    def forward(m, v):
        m.nothing(v), m.text(), m.integers(v), m.booleans(v), m.empty(v)
        return m.scalar(v)

    return record("odd_outputs", Model(forward, **children), x(gradient=False))


def without_modules():
    return record("without_modules", Model(doubled), x(), gradients=True)


def only():
    block = Model(lambda m, v: m.norm(m.fc(v)), fc=linear(), norm=Model(doubled))
    model = Model(lambda m, v: m.second(m.first(v)), first=block, second=linear())
    return record("only", model, x(), gradients=True, only=("first.*", "second"))


def without_gradient():
    with side.no_gradient(), StoreWriter(Path(FOLDER), "without_gradient") as writer:
        model = Model(lambda m, v: m.fc(v), fc=linear())
        with observe(side, model, writer, gradients=True):
            model(x())


def inference_mode():
    def forward(m, v):
        value = m.first(v)
        value.add_(1)
        return m.second(value)

    if SIDE == "paddle":  # has none
        return None
    with framework.inference_mode():
        return record("inference_mode", Model(forward, first=Model(doubled), second=Model(doubled)), x(gradient=False))


def effect():
    """PiT with and without recording, in evaluation and in training, in both dtypes: the bits that came out."""
    case, told = find("pit_probe"), {}
    for dtype in ("float32", "float64"):
        for training in (False, True):
            runs = [_pit(case, dtype, training, recorded) for recorded in (False, True, False)]
            told[f"{dtype} {training}"] = [list(map(_equal, runs[0], run)) for run in runs[1:]]
    side.set_precision("float64")
    return told


def _pit(case, dtype, training, recorded):
    side.set_precision(dtype)
    model = side.build(resolve(case.builder(SIDE)), case.build)
    side.load(model, weights.probe(side.specs(model), case.seed))
    side.set_training(model, training)
    rng = np.random.default_rng(0)
    image = side.from_numpy(rng.standard_normal(case.inputs[0].shape), gradient=True)
    writer = StoreWriter(Path(FOLDER), f"{dtype}{training}")
    if recorded:
        with observe(side, model, writer, gradients=True):
            outputs = _there_and_back(model, image, rng)
    else:
        outputs = _there_and_back(model, image, rng)
    writer.close()
    gradients = side.gradients(model)
    assert all(np.abs(array).max() > 0 for array in gradients.values())
    return [*outputs, side.gradient(image), *gradients.values()]


def _there_and_back(model, image, rng):
    outputs = model(image)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    side.backward(outputs, [side.from_numpy(rng.standard_normal(output.shape)) for output in outputs])
    return [side.to_numpy(output) for output in outputs]


def _equal(one, other):
    return one.tobytes() == other.tobytes()


SCENARIOS = (
    *(order, twice, nested, attributes, slots, in_place, in_place_between, in_place_through_a_view, raises),
    *(raises_in_backward, caught, backward_twice, odd_outputs, without_modules, only, without_gradient),
    *(inference_mode, effect),
)
print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
