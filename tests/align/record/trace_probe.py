"""Traces small blocks in a process of one framework: `trace_probe.py SIDE FOLDER`.

Every scenario leaves the store and the trace of its name in FOLDER; what else a test wants to know is the JSON on
standard output, by scenario.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from align.cases import find
from align.plan import weights
from align.record.context import resolve
from align.record.store import StoreWriter
from align.record.trace import UntracedProducer

SIDE, FOLDER = sys.argv[1:]
TORCH = SIDE == "torch"
framework = importlib.import_module(SIDE)
nn, functional = framework.nn, framework.nn.functional
Base = nn.Module if TORCH else nn.Layer
side = getattr(importlib.import_module(f"align.sides.{SIDE}"), f"{SIDE.capitalize()}Side")("cpu", 1, False)
side.set_precision("float64")

X = np.array([[1.0, -2.0, 3.0, 0.5], [-4.0, 5.0, -6.0, 0.25], [0.125, 7.0, -8.0, 1.5]])


def x(gradient=True):
    return side.from_numpy(X, gradient=gradient)


def tensor(values):
    return framework.tensor(values) if TORCH else framework.to_tensor(values)


class Model(Base):
    """A model of the given children, whose forward is the given function of it and its inputs."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self.function = forward

    def forward(self, *args):
        return self.function(self, *args)


def trace(scenario, block, model=None, inputs=(), gradients=True):
    with StoreWriter(Path(FOLDER), scenario) as writer:
        with side.trace(writer, model, inputs=inputs, gradients=gradients) as tracer:
            result = block()
        tracer.trace.write(Path(FOLDER), scenario)
    return result


def numbering():
    """In-place operations, views of what they write to, and views of other parts of the same memory."""

    def block(value):
        y = value + value
        rest, first = y[1:], y[:1]
        rest.add_(rest)
        z = y * y
        y.add_(y)
        y[0] = first[0] * first[0]
        return z[1:] * rest + y[1:]

    value = x(gradient=False)
    trace("numbering", lambda: block(value), inputs=value)


def lines():
    value = x()

    def inner(v):
        return (
            v
            + v * 2
        )  # fmt: skip

    trace("lines", lambda: inner(value), inputs=[value])
    return inner.__code__.co_firstlineno


def bypassing():
    """Operators, methods and constructors that reach no kernel by name."""

    def block(v):
        w = v @ (v.T if TORCH else v.t())
        _ = (1 - v, 2 / (v * v + 1), v**2, -v, abs(v), v < 0, v == v, v % 2, v // 2, v[:, 1], v[v > 0], v[0, 1:])
        w[0] = 1.0
        w[:, 1] = v[:, 0]
        made = [framework.zeros([3]), framework.arange(3.0), tensor([1.0, 2.0, 3.0])]
        made.append(framework.from_numpy(np.ones(3)) if TORCH else framework.Tensor(np.ones(3)))
        total = w.clone() + sum(made)
        rows = [row + 1 for row in v.detach()]
        layer = nn.Linear(4, 3)
        return layer(v) + total, rows

    value = x(gradient=False)
    trace("bypassing", lambda: block(value), inputs=value)


def hole():
    hidden = x(gradient=False) * 3
    value = x()
    try:
        with (
            StoreWriter(Path(FOLDER), "hole") as writer,
            side.trace(writer, inputs=value) as tracer,
        ):
            _ = value - hidden
        tracer.trace.check()
    except UntracedProducer as error:
        return {"text": str(error), "file": __file__}


def not_wrapped():
    """With one entry point left alone, what comes through it is a hole where it is read."""
    module, value = importlib.import_module(f"align.sides.{SIDE}_trace"), x()
    table, name = ("_UNASKED", "from_numpy") if TORCH else ("_BYPASSING", "__matmul__")
    every = getattr(module, table)
    setattr(module, table, [entry for entry in every if name not in entry])
    try:
        with StoreWriter(Path(FOLDER), "not_wrapped") as writer, side.trace(writer, inputs=value) as tracer:
            made = framework.from_numpy(X) if TORCH else value @ value.t()
            _ = made / 7
    finally:
        setattr(module, table, every)
    return [hole.text for hole in tracer.trace.holes]


def gradients():
    def block(v):
        kept = v * 3
        stopped = kept.detach() * 2
        return side.backward([(kept * kept + stopped).sum()])

    value = x()
    trace("gradients", lambda: block(value), inputs=value)
    twice = x()

    def again():
        result = (twice * 3).sum()
        result.backward(retain_graph=True)
        result.backward()

    trace("backward_twice", again, inputs=twice)


def late_gradient():
    """An output of an autograd function is made where no gradient can flow yet."""

    class Square(framework.autograd.Function if TORCH else framework.autograd.PyLayer):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return v * v

        @staticmethod
        def backward(ctx, gradient):
            (v,) = ctx.saved_tensors if TORCH else ctx.saved_tensor()
            return gradient * 2 * v

    value = x()
    trace("late_gradient", lambda: side.backward([(Square.apply(value) + 1).sum()]), inputs=value)


def labels():
    fc = nn.Linear(4, 4)

    def caught(m, v):
        try:
            m.fails(v)
        except ZeroDivisionError:
            return v * 5

    def fail(m, v):
        raise ZeroDivisionError

    chosen = Model(caught, fails=Model(lambda m, v: m.deeper(v), deeper=Model(fail)))
    model = Model(lambda m, v: {"a": m.fc(m.fc(v)) + 1, "b": [m.chosen(v) - 1]}, fc=fc, chosen=chosen)
    value = x()
    trace("labels", lambda: model(value)["a"] * 7, model)


def attributes():
    """Tensors that a module holds without having registered them."""
    model = Model(lambda m, v: v * m.plain + m.several[1])
    object.__setattr__(model, "plain", tensor(2.0))
    object.__setattr__(model, "several", [tensor(1.0), tensor(4.0)])
    value = x()
    trace("attributes", lambda: model(value), model)


def optimizer():
    """Two updates; the second trace finds the optimizer's state in place."""
    layer = nn.Linear(4, 2)
    if TORCH:
        made = framework.optim.AdamW(layer.parameters(), 0.1)
        clip = framework.nn.utils.clip_grad_norm_
    else:
        norm = nn.ClipGradByGlobalNorm(1.0)
        made = framework.optimizer.AdamW(0.1, parameters=layer.parameters(), grad_clip=norm)

    def update():
        side.backward([(layer(x()) ** 2).sum()])
        if TORCH:
            clip(layer.parameters(), 1.0)
        made.step()
        side.clear_gradients(layer)

    trace("optimizer", lambda: (update(), layer(x())), layer)
    trace("optimizer_again", update, layer, inputs=vars(made))
    return {name: array.tolist() for name, (_, array) in side.state(layer).items()}


def running_statistics():
    layer = (nn.BatchNorm1d if TORCH else nn.BatchNorm1D)(4)
    layer.train()
    trace("running_statistics", lambda: (layer(x()), layer(x())), layer)
    return {name: array.tolist() for name, (_, array) in side.state(layer).items()}


class Bert(Base):
    """Embeddings, an encoder with a padding mask, and a pooler; the frameworks' own layers."""

    def __init__(self, width=16, heads=2, layers=2):
        super().__init__()
        self.word, self.position, self.kind = nn.Embedding(30, width), nn.Embedding(12, width), nn.Embedding(2, width)
        epsilon = {"eps" if TORCH else "epsilon": 2.0**-20}
        self.norm = nn.LayerNorm(width, **epsilon)
        if TORCH:
            layer = nn.TransformerEncoderLayer(width, heads, 32, 0.1, "gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        else:
            layer = nn.TransformerEncoderLayer(width, heads, 32, 0.1, "gelu")
            self.encoder = nn.TransformerEncoder(layer, layers)
        self.pooler = nn.Linear(width, width)

    def forward(self, tokens, kinds, mask):
        places = framework.arange(tokens.shape[1])
        hidden = self.norm(self.word(tokens) + self.position(places) + self.kind(kinds))
        if TORCH:
            hidden = self.encoder(hidden, src_key_padding_mask=mask == 0)
        else:
            blocked = (mask == 0).astype(hidden.dtype).unsqueeze([1, 2])
            hidden = self.encoder(hidden, framework.where(blocked > 0, blocked * -float("inf"), blocked))
        return framework.tanh(self.pooler(hidden[:, 0]))


def bert():
    model = Bert()
    state = _bert_weights({spec.name: spec.shape for spec in side.specs(model)})
    side.load(model, state)
    rng = np.random.default_rng(0)
    mask = np.ones((2, 7))
    mask[1, 4:] = 0
    inputs = [rng.integers(0, 30, (2, 7)), rng.integers(0, 2, (2, 7)), mask]
    tensors = [side.from_numpy(array) for array in inputs]
    side.set_training(model, False)
    trace("bert", lambda: side.backward([model(*tensors).sum()]), model)
    side.set_training(model, True)
    trace("bert_training", lambda: side.backward([model(*tensors).sum()]), model)


def _bert_weights(shapes):
    """The same values on both sides: PyTorch packs what Paddle has in three layers, q, k, v."""

    def values(name, shape):
        return np.random.default_rng(list(name.encode())).standard_normal(shape) * 0.5

    state = {}
    for name, shape in shapes.items():
        if "in_proj_" in name:
            stem, kind = name.split("in_proj_")
            part = (shape[0] // 3, *shape[1:])
            state[name] = np.concatenate([values(f"{stem}{p}_proj.{kind}", part) for p in "qkv"])
        else:
            state[name] = values(name, shape)
    return state


def pit():
    """PiT, with and without a trace, in evaluation and in training: whether the bits are the same."""
    case, told = find("pit_probe"), {}
    for dtype in ("float32", "float64"):
        for training in (False, True):
            name = f"pit_{dtype}_{'training' if training else 'evaluation'}"
            bare, traced = _pit(case, dtype, training), _pit(case, dtype, training, name)
            told[name] = [one.tobytes() == other.tobytes() for one, other in zip(bare, traced, strict=True)]
    side.set_precision("float64")
    return told


def _pit(case, dtype, training, name=None):
    side.set_precision(dtype)
    model = side.build(resolve(case.builder(SIDE)), case.build)
    side.load(model, weights.probe(side.specs(model), case.seed))
    side.set_training(model, training)
    image = side.from_numpy(np.random.default_rng(0).standard_normal(case.inputs[0].shape), gradient=True)

    def there_and_back():
        outputs = model(image)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        side.backward([(output * output).sum() for output in outputs])
        return outputs

    outputs = trace(name, there_and_back, model) if name else there_and_back()
    gradients = side.gradients(model)
    assert all(np.abs(array).max() > 0 for array in gradients.values())
    return [*map(side.to_numpy, outputs), side.gradient(image), *gradients.values()]


def restored():
    """Everything that a trace replaces, before and after one that fails."""
    before = _replaced()
    try:
        with StoreWriter(Path(FOLDER), "restored") as writer, side.trace(writer):
            meanwhile = _replaced()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    after = _replaced()
    return {"changed": sum(meanwhile[key] is not before[key] for key in before), "same": before == after}


def _replaced():
    if TORCH:
        held = {"torch": framework, "functional": functional, "tensor": framework.Tensor}
        fast = {"fast path": framework.backends.mha.get_fastpath_enabled()}
    else:
        fast = {}
        linalg = sys.modules["paddle.tensor.linalg"]
        held = {"kernels": framework._C_ops, "tensor": framework.Tensor, "linalg": linalg}
        held["eager"] = framework.base.core.eager
    found = {(kind, name): value for kind, owner in held.items() for name, value in vars(owner).items()}
    return {**found, **fast}


def attention():
    """PyTorch's fused attention: what its textbook sequence gives, against what the framework computes itself."""
    if not TORCH:
        return None
    rng, told = np.random.default_rng(0), {}
    q, k, v = (side.from_numpy(rng.standard_normal((2, 4, 5, 3)), gradient=True) for _ in range(3))
    grouped = [side.from_numpy(rng.standard_normal((2, 2, 5, 3)), gradient=True) for _ in range(2)]
    seen = side.from_numpy(rng.standard_normal((5, 5)) > 0)
    seen[2] = False  # this query may look at nothing
    for name, args, options in (
        ("plain", (q, k, v), {}),
        ("causal", (q, k, v), {"is_causal": True}),
        ("boolean", (q, k, v), {"attn_mask": seen}),
        ("added", (q, k, v), {"attn_mask": side.from_numpy(rng.standard_normal((2, 1, 5, 5)))}),
        ("scaled", (q, k, v), {"scale": 0.3}),
        ("grouped", (q, *grouped), {"enable_gqa": True}),
    ):
        results = []
        for traced in (False, True):

            def block(args=args, options=options):
                return functional.scaled_dot_product_attention(*args, **options)

            output = trace(f"attention_{name}", block, inputs=(args, options)) if traced else block()
            side.backward([(output * output).sum()])
            results.append([side.to_numpy(output), *(side.gradient(tensor) for tensor in args)])
            for tensor in args:
                tensor.grad = None
        told[name] = max(float(np.abs(a - b).max()) for a, b in zip(*results, strict=True))
    return told


def without_gradient():
    value = x()
    with side.no_gradient():
        trace("without_gradient", lambda: value * 2, inputs=value)


SCENARIOS = (
    *(numbering, lines, bypassing, hole, not_wrapped, gradients, late_gradient, labels, attributes, optimizer),
    *(running_statistics, bert, pit, restored, attention, without_gradient),
)
print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
