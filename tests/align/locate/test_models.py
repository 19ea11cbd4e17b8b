"""Locating in models of every shape: small twins written here, each framework in a process of its own."""

import re

import pytest

from align.case import Case, Input, Loss
from align.errors import UsageError
from align.locate.search import replay_module, replayed
from align.pipeline import Options, Recorder
from align.record.process import SideProcess

# The same words for both frameworks, so that a twin is one text under two heads.
HEADS = {
    "torch": """
import torch as T
from torch import nn
from torch.nn import Module
from torch.nn.functional import gelu

def parameter(module, *shape):
    return nn.Parameter(T.zeros(shape))

def tie(module, other):
    module.weight = other.weight
""",
    "paddle": """
import paddle as T
from paddle import nn
from paddle.nn import Layer as Module
from paddle.nn.functional import gelu

def parameter(module, *shape):
    return module.create_parameter(shape)

def tie(module, other):
    module.weight = other.weight
""",
}

LOSSES = """
class LabelSmoothingCrossEntropy:
    def __init__(self, smoothing):
        pass

class DistillationLoss:
    def __init__(self, *settings):
        pass

    def __call__(self, inputs, outputs, labels):
        return sum((k + 1) * (t * t).mean() for k, t in enumerate(found(outputs)))

def found(value):
    if isinstance(value, dict):
        return [t for item in value.values() for t in found(item)]
    return [t for item in value for t in found(item)] if isinstance(value, (tuple, list)) else [value]
"""

MODELS = {
    "called_twice": """
class Half(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x, last):
        if last:
            return T.tanh(self.fc(x))
        return T.sin(self.fc(x))

class Net(Module):
    def __init__(self):
        super().__init__()
        self.both = Half()

    def forward(self, x):
        x = self.both(x, False)
        x = x + 1
        return self.both(x, True)
""",
    "dictionaries": """
class Inner(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 8)

    def forward(self, x):
        y = self.fc(x)
        left, right = y[:, :4], y[:, 4:]
        return {"left": T.tanh(left), "more": [right * 3, {"deep": T.sin(right)}]}

class Net(Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        y = self.inner(x)
        total = y["left"] + y["more"][0]
        deep = y["more"][1]["deep"]
        return {"logits": total * deep, "aux": deep}
""",
    "functions_only": """
def attend(x, w):
    scores = x @ w
    scores = scores / 2
    return T.tanh(scores)

class Net(Module):
    def __init__(self):
        super().__init__()
        self.w = parameter(self, 6, 6)
        self.b = parameter(self, 6)

    def forward(self, x):
        y = attend(x, self.w)
        y = y + self.b
        z = T.sin(y)
        return z * x
""",
    "tied": """
class Net(Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        tie(self.second, self.first)

    def forward(self, x):
        x = T.tanh(self.first(x))
        return self.second(x)
""",
    "in_place": """
class Shift(Module):
    def forward(self, x):
        x += 1
        x *= 2
        return x

class Net(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.shift = Shift()
        self.out = nn.Linear(6, 6)

    def forward(self, x):
        y = T.sin(self.fc(x))
        y = self.shift(y)
        return self.out(y)
""",
    "keywords": """
class Mix(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x, *, bias, scale=1):
        y = self.fc(x) * scale
        return y + bias

class Net(Module):
    def __init__(self):
        super().__init__()
        self.mix = Mix()

    def forward(self, x):
        bias = T.sin(x)
        return self.mix(x, bias=bias, scale=3)
""",
    "raising": """
class Picky(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        if len(x.shape) != 2:
            raise ValueError("two axes only")
        return self.fc(x)

class Net(Module):
    def __init__(self):
        super().__init__()
        self.picky = Picky()
        self.out = nn.Linear(6, 6)

    def forward(self, x):
        try:
            y = self.picky(x[0])
        except ValueError:
            y = self.picky(x)
        y = T.tanh(y)
        return self.out(y)
""",
    "dataclass_out": """
from dataclasses import dataclass

@dataclass
class Out:
    logits: object
    hidden: object

class Inner(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        y = self.fc(x)
        return Out(T.tanh(y), T.sin(y))

class Net(Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        y = self.inner(x)
        return y.logits + 2 * y.hidden
""",
}

# (model, step, text in the port, what it becomes, module to blame)
BUGS = [
    ("called_twice", "forward", "T.tanh(self.fc(x))", "T.tanh(1.5 * self.fc(x))", "both#1"),
    ("called_twice", "forward", "x = x + 1", "x = x + 2", "(model)"),
    ("called_twice", "bp_align", "T.tanh(self.fc(x))", "T.tanh(self.fc(x).detach())", "both#1"),
    ("dictionaries", "forward", "right * 3", "right * 2", "inner"),
    ("dictionaries", "forward", "total * deep", "total - deep", "(model)"),
    ("dictionaries", "bp_align", 'y["left"]', 'y["left"].detach()', "(model)"),
    ("functions_only", "forward", "scores = scores / 2", "scores = scores / 3", "(model)"),
    ("functions_only", "forward", "z = T.sin(y)", "z = T.cos(y)", "(model)"),
    ("functions_only", "bp_align", "y = y + self.b", "y = y.detach() + self.b", "(model)"),
    ("tied", "forward", "T.tanh(self.first(x))", "T.sin(self.first(x))", "(model)"),
    ("tied", "forward", "return self.second(x)", "return self.first(x)", "(model)"),
    ("in_place", "forward", "x *= 2", "x *= 3", "shift"),
    ("in_place", "bp_align", "T.sin(self.fc(x))", "T.sin(self.fc(x).detach())", "(model)"),
    ("keywords", "forward", "y + bias", "y - bias", "mix"),
    ("keywords", "forward", "bias = T.sin(x)", "bias = T.tanh(x)", "(model)"),
    ("raising", "forward", "y = T.tanh(y)", "y = T.sin(y)", "(model)"),
    ("dataclass_out", "forward", "T.sin(y)", "T.cos(y)", "inner"),
    ("dataclass_out", "forward", "2 * y.hidden", "3 * y.hidden", "(model)"),
]


class Twins:
    """Writes pairs of models and locates what differs; both processes are kept for all of them."""

    def __init__(self, folder):
        self._folder, self._count = folder, 0
        (folder / "twins").mkdir()
        (folder / "twins/__init__.py").touch()
        (folder / "twins/losses.py").write_text(LOSSES)
        self._processes = {s: SideProcess(s, folder / f"{s}.log", roots=(folder,)) for s in HEADS}

    def recorder(self, step, reference, port):
        self._count += 1
        paths = {}
        for side, body in (("torch", reference), ("paddle", port)):
            name = f"{side}_{self._count}"
            (self._folder / f"twins/{name}.py").write_text(HEADS[side] + body)
            paths[side] = f"twins.{name}:Net"
        inputs = (Input("x", (4, 6), fill="normal"),)
        case = Case(
            f"twins{self._count}", paths["torch"], paths["paddle"], {}, inputs, classes=8, loss=Loss(), iterations=1
        )
        options = Options(case, self._folder / "out", (step,))
        options.folder.mkdir(parents=True)
        recorder = Recorder(options, lambda *_: None, self._processes)
        recorder.open_twins()
        return recorder

    def locate(self, step, reference, port):
        return replayed(self.recorder(step, reference, port), step)

    def line(self, text):
        """The line, from 1, on which a text stands in the last port."""
        lines = (self._folder / f"twins/paddle_{self._count}.py").read_text().splitlines()
        (number,) = (n for n, line in enumerate(lines, 1) if text in line)
        return number

    def close(self):
        for process in self._processes.values():
            process.kill()


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    made = Twins(tmp_path_factory.mktemp("models"))
    yield made
    made.close()


def changed(body, before, after):
    assert body.count(before) == 1, before
    return body.replace(before, after)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("step", ["forward", "bp_align"])
def test_a_clean_pair_has_no_divergence(twins, model, step):
    assert twins.locate(step, MODELS[model], MODELS[model]) == []


@pytest.mark.parametrize(("model", "step", "before", "after", "module"), BUGS)
def test_one_bug_is_found_on_its_line(twins, model, step, before, after, module):
    found = twins.locate(step, MODELS[model], changed(MODELS[model], before, after))
    assert [d.module for d in found] == [module]
    assert found[0].port.line <= twins.line(after) <= found[0].port.end_line, found[0]
    # Where a gradient does not reach a child's output, the reference's line is that child's call.
    expected = "self.inner(x)" if "output of inner" in found[0].what else before
    assert expected in found[0].reference.code


def test_unlike_trees_are_matched_by_value(twins):
    """A port without modules beside a reference that has some: parameters of the same names, calls of none."""
    reference = """
class Inner(Module):
    def forward(self, x, w):
        scores = x @ w
        return T.tanh(scores / 2)

class Net(Module):
    def __init__(self):
        super().__init__()
        self.w = parameter(self, 6, 6)
        self.b = parameter(self, 6)
        self.inner = Inner()

    def forward(self, x):
        return T.sin(self.inner(x, self.w) + self.b) * x
"""
    port = MODELS["functions_only"]
    assert twins.locate("forward", reference, port) == []
    (found,) = twins.locate("forward", reference, changed(port, "scores / 2", "scores / 3"))
    assert found.port.line == twins.line("scores / 3")
    assert "scores / 2" in found.reference.code


PLAIN = """
class Net(Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.gain = parameter(self, 6)

    def forward(self, x):
        y = self.fc(x)
        y = y * self.gain
        return T.sin(y)
"""


@pytest.mark.parametrize(
    ("side", "after", "told"),
    [
        ("port", "y = y * self.gain.detach()", "parameter gain gets no gradient"),
        ("reference", "y = y * self.gain.detach()", "parameter gain gets a gradient, in the reference it has none"),
        ("port", "y = y * (3 * self.gain - 2 * self.gain.detach())", "3 times the reference's"),
    ],
)
def test_what_is_wrong_with_a_gradient_is_said(twins, side, after, told):
    bodies = {"reference": PLAIN, "port": PLAIN}
    bodies[side] = changed(PLAIN, "y = y * self.gain", after)
    (found,) = twins.locate("bp_align", bodies["reference"], bodies["port"])
    assert found.module == "(model)"
    assert told in found.what
    assert found.port.line == twins.line(after if side == "port" else "y = y * self.gain")


def test_a_model_that_raises_is_a_usage_error_with_its_line(twins):
    port = changed(PLAIN, "y = y * self.gain", "raise RuntimeError('not today')")
    with pytest.raises(UsageError, match=r"paddle side, forward: RuntimeError: not today at .*paddle_\d+\.py:\d+"):
        twins.locate("forward", PLAIN, port)
    # The process goes on.
    assert twins.locate("forward", PLAIN, PLAIN) == []


def test_one_module_alone(twins):
    port = changed(MODELS["keywords"], "y + bias", "y - bias")
    tensors, (found,) = replay_module(twins.recorder("forward", MODELS["keywords"], port), "forward", "mix")
    assert found.module == "mix"
    assert {t.name: t.error < 1e-12 for t in tensors} == {"mix.fc/in": True, "mix/out": False}
    with pytest.raises(UsageError, match=re.escape("no such module call; near: mix")):
        replay_module(twins.recorder("forward", MODELS["keywords"], port), "forward", "mixx")


PROBE = """
import importlib, sys
import numpy as np
import align
from align.record.observer import observe
name = sys.argv[1]
side = getattr(importlib.import_module(f"align.sides.{name}"), f"{name.capitalize()}Side")("cpu", 1, False)
side.set_precision("float64")
class Sink:
    held = {}
    def add(self, name, array, kind, **_):
        self.held[name] = array
    def alias(self, name, existing, kind):
        self.held[name] = self.held[existing]
x = side.from_numpy(np.arange(3.0), gradient=True)
def run():
    y = align.probe("y", x * 2)
    z = align.probe("y", y * y)
    side.backward([z.sum()])
assert align.probe("outside", x) is x
run()
model = side.as_model(lambda inputs: inputs)
with observe(side, model, Sink(), gradients=True):
    run()
run()
for key, array in Sink.held.items():
    print(key, array.tolist())
"""


@pytest.mark.parametrize("side", HEADS)
def test_probes_note_value_and_gradient(run_python, side):
    lines = dict(line.split(" ", 1) for line in run_python(PROBE, side).stdout.splitlines())
    assert lines == {
        "probe/y": "[0.0, 2.0, 4.0]",
        "probe/y#1": "[0.0, 4.0, 16.0]",
        "probe_grad/y": "[0.0, 4.0, 8.0]",
        "probe_grad/y#1": "[1.0, 1.0, 1.0]",
    }
