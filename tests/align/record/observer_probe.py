"""Records small models in a process of one framework: `observer_probe.py SIDE FOLDER`.

Every scenario leaves what it recorded as a store of its name in FOLDER, and in `<name>.views` what was recorded without
copies by a writer that wrote nothing before all was over. What else a test wants to know is the JSON on standard
output, by scenario.
"""

import copy
import gc
import importlib
import json
import os
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.cases import find
from align.plan import weights
from align.record.context import resolve
from align.record.observer import observe
from align.record.store import Overwritten, StoreWriter

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


def record(scenario, model, value, gradients=False, only=("*",), backward=1, afterwards=None):
    fresh = copy.deepcopy(model)
    with StoreWriter(Path(FOLDER), scenario) as writer:
        with observe(side, model, writer, gradients=gradients, only=only):
            there_and_back(model, value, gradients, backward)
        if afterwards:
            afterwards(model)
    told = {"hooks": hooks(model), "overwritten": None}
    value = side.from_numpy(X, gradient=side.has_history(value))
    try:
        with late_writer(f"{scenario}.views") as writer:
            with observe(side, fresh, writer, gradients=gradients, only=only, copy=False):
                there_and_back(fresh, value, gradients, backward)
            if afterwards:
                afterwards(fresh)
    except Overwritten as error:
        told["overwritten"] = str(error).split()[0]
    return told


def there_and_back(model, value, gradients, backward):
    output = model(value)
    if gradients:
        cotangent = side.from_numpy(np.arange(1.0, 7.0).reshape(2, 3))
        for _ in range(backward - 1):
            output.backward(cotangent, retain_graph=True)
        output.backward(cotangent)


@contextmanager
def late_writer(name):
    """A writer whose thread is held up, as by a slow disk, until the block is left: its file is a pipe that is full."""
    pipe, content = Path(FOLDER, f"{name}.tensors"), bytearray()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def drain():
        while chunk := os.read(reader, 1 << 20):
            content.extend(chunk)

    thread = threading.Thread(target=drain)
    try:
        with StoreWriter(Path(FOLDER), name) as writer:
            writer.add("plug", np.zeros(1 << 20, np.uint8), "input")
            try:
                yield writer
            finally:
                os.set_blocking(reader, True)
                thread.start()
    finally:
        thread.join()
        os.close(reader)
        pipe.unlink()
        pipe.write_bytes(content)


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


def let_go():
    """A pass that ends in the middle because a value was written to: whether its model is freed with it."""
    told = []

    def attempt():
        written = threading.Event()

        def forward(m, v):
            value = m.first(v)
            functional.relu_(value)
            written.set()
            while not writer._error:
                time.sleep(0.001)
            return m.second(value)

        model = Model(forward, first=linear(), second=linear())
        told.append(weakref.ref(model))
        with StoreWriter(Path(FOLDER), "let_go") as writer:
            write = writer._write
            writer._write = lambda entry, array: written.wait() and write(entry, array)
            with observe(side, model, writer, gradients=True, copy=False):
                there_and_back(model, x(), True, 1)

    try:
        attempt()
    except Exception as error:
        told.append(type(error).__name__)
    gc.collect()
    return {"error": told[1], "alive": told[0]() is not None}


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


def parameter(make):
    """A model with a module that hands out a parameter, or a view of it."""
    inner = Model(lambda m: make(m.fc.weight), fc=linear())
    return Model(lambda m, v: m.fc(v) @ m.inner().reshape([3, 3]), fc=linear(), inner=inner)


def optimized(model):
    parameters = list(model.parameters())
    if SIDE == "torch":
        framework.optim.AdamW(parameters, lr=0.1).step()
    else:
        framework.optimizer.AdamW(parameters=parameters, learning_rate=0.1).step()


def cleared(model):
    for tensor in model.parameters():
        if tensor.grad is not None:
            tensor.grad.zero_() if SIDE == "torch" else tensor.clear_gradient(True)


def parameters_optimized():
    return record("parameters_optimized", parameter(lambda p: p), x(), gradients=True, afterwards=optimized)


def views_optimized():
    made = parameter(lambda p: p.reshape([9])[:])
    return record("views_optimized", made, x(), gradients=True, afterwards=optimized)


def gradients_cleared():
    return record("gradients_cleared", parameter(lambda p: p.reshape([9])), x(), gradients=True, afterwards=cleared)


def gradients_accumulated():
    return record("gradients_accumulated", parameter(lambda p: p.reshape([9])), x(), gradients=True, backward=2)


def input_accumulated():
    model = Model(lambda m, v: m.same(v) * 2, same=Model(lambda m, v: v.reshape([2, 3])))
    return record("input_accumulated", model, x(), gradients=True, backward=2)


def statistics():
    """A module that hands out the running variance, which the next call of batch normalisation changes."""
    norm = nn.BatchNorm1d(3) if SIDE == "torch" else nn.BatchNorm1D(3)

    def forward(m, v):
        return m.norm(v) * m.told(m.norm) * m.norm(v + 1) * m.told(m.norm)

    told = Model(lambda m, norm: norm.running_var if SIDE == "torch" else norm._variance)
    model = Model(forward, norm=norm, told=told)
    return record("statistics", model, x())


def boundaries():
    """Inputs that are no module's output: a sum, a concatenation, a reshaped tensor, a parameter."""
    norm = nn.LayerNorm(3)
    side.load(norm, {"weight": np.array([1.0, 2.0, 3.0]), "bias": np.zeros(3)})

    def forward(m, v):
        h = m.first(v) + m.norm.weight
        k = m.second(m.same(framework.concat([h, v])))
        return m.last(k.reshape([2, 2, 3]), scale=m.norm.weight)

    last = Model(lambda m, v, scale: v.sum(0) * scale)
    children = {"first": linear(), "same": Model(lambda m, v: v * 1), "second": linear(), "norm": norm, "last": last}
    return record("boundaries", Model(forward, **children), x(), gradients=True)


def one_of_two():
    """A module that gives two tensors, one of which nothing is computed from."""
    inner = Model(lambda m, v: (v * 2).unbind(0))

    def forward(m, v):
        used = m.inner(v)[0]
        return used + framework.zeros_like(v)

    return record("one_of_two", Model(forward, inner=inner), x(), gradients=True)


def further_backward():
    """Of what lasts longer than a pass, nothing is told once recording is over."""
    model, value = Model(lambda m, v: m.sum(m.fc.weight, m.fc(v)), fc=linear(), sum=Model(lambda m, w, v: v @ w)), x()
    with StoreWriter(Path(FOLDER), "further_backward") as writer:
        with observe(side, model, writer, gradients=True):
            model(value).sum().backward()
        model(value).sum().backward()


def residual():
    """Gradients that are added up where branches meet again."""

    def forward(m, v):
        h = m.first(v)
        k = m.shape(h).reshape([2, 3]) + m.second(h) + h
        return m.sum(k, m.sum(h, k)) * 2 + h

    children = {"first": linear(), "second": linear(), "shape": Model(lambda m, v: v.reshape([6]))}
    return record("residual", Model(forward, sum=Model(lambda m, a, b: a + b), **children), x(), gradients=True)


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
    *(let_go, raises_in_backward, caught, backward_twice, odd_outputs, without_modules, only, without_gradient),
    *(parameters_optimized, views_optimized, gradients_cleared, gradients_accumulated, input_accumulated, statistics),
    *(residual, boundaries, one_of_two, further_backward, inference_mode, effect),
)
print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
