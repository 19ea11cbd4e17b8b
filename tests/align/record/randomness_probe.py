"""Draws random numbers in a process of one framework, in and around a tape: `randomness_probe.py SIDE`.

Standard output is one JSON object: by function its values and what the tape logged, and what else a test asks about.
"""

import importlib
import json
import random
import sys
from types import SimpleNamespace

import numpy as np

from align.errors import UsageError
from align.record.context import Context

SIDE = sys.argv[1]
framework = importlib.import_module(SIDE)
nn, functional = framework.nn, framework.nn.functional
Base = nn.Module if SIDE == "torch" else nn.Layer
side = getattr(importlib.import_module(f"align.sides.{SIDE}"), f"{SIDE.capitalize()}Side")("cpu", 1, False)


def context(dtype="float32", perturbation=None, mapping=None):
    side.set_precision(dtype)
    case = SimpleNamespace(seed=7, port_names=None, mapping=mapping or {})
    return Context(side, case, None, dtype, None, None, None, perturbation)


def ones(*shape):
    return framework.ones(list(shape))


def full(value, *shape):
    return framework.full(list(shape), value)


DRAWS = {
    "rand": lambda: framework.rand([3]),
    "rand_like": lambda: framework.rand_like(ones(2, 2)),
    "uniform_": lambda: ones(3).uniform_(2, 5),
    "randn": lambda: framework.randn([3]),
    "normal": lambda: framework.normal(1.0, 2.0, [3]),
    "normal_": lambda: ones(3).normal_(1.0, 2.0),
    "randint": lambda: framework.randint(2, 9, [4]),
    "randint_like": lambda: framework.randint_like(ones(3), 0, 7),
    "random_": lambda: ones(3).random_(0, 10),
    "randperm": lambda: framework.randperm(6),
    "bernoulli": lambda: framework.bernoulli(full(0.25, 5)),
    "bernoulli_": lambda: ones(5).bernoulli_(0.25),
    "multinomial": lambda: framework.multinomial(ones(4), 3),
    "multinomial_replacing": lambda: framework.multinomial(ones(2, 4), 5, True),
    "exponential_": lambda: ones(3).exponential_(2.0),
    "dropout": lambda: functional.dropout(ones(4, 3), 0.25),
    "dropout2d": lambda: functional.dropout2d(ones(2, 3, 1, 2), 0.5),
    "alpha_dropout": lambda: functional.alpha_dropout(ones(4), 0.5, training=True),
    "rrelu": lambda: functional.rrelu(-ones(4), training=True),
    "dropout_off": lambda: functional.dropout(ones(4), 0.5, training=False),
    "dropout_of_nothing": lambda: functional.dropout(ones(4), 0.0),
    "kept_for_certain": lambda: framework.bernoulli(ones(4)),
    # One head, so that Paddle's order of axes (batch, tokens, heads) is no other.
    "attention": lambda: functional.scaled_dot_product_attention(*[_heads()] * 3, dropout_p=0.5).reshape([-1]),
    "numpy": lambda: np.random.rand(3),
    "python": lambda: np.array([random.random(), random.uniform(1, 2)]),
}
UNANSWERED = {
    "poisson": lambda: framework.poisson(ones(3)),
    "binomial": lambda: framework.binomial(8 * ones(3), ones(3) / 2),
}


def _heads():
    return ones(1, 2, 1, 2) if SIDE == "paddle" else ones(1, 1, 2, 2)


def told(value):
    return value.tolist() if isinstance(value, np.ndarray) else side.to_numpy(value).astype(np.float64).tolist()


def log(tape):
    return [[draw.module, draw.index, draw.kind, list(draw.shape), dict(draw.settings)] for draw in tape.log]


def drawn():
    answer = {}
    for name, function in DRAWS.items():
        with context().randomness(name) as tape:
            answer[name] = {"values": told(function()), "draws": log(tape)}
    return answer


def states():
    """Of every generator that a block touches or leaves alone."""
    if SIDE == "paddle":  # the fourth word is an address
        own = [[*words[:3], *words[4:]] for words in (str(state).split() for state in framework.get_rng_state())]
    else:
        own = framework.get_rng_state().tolist()
    return json.dumps([own, random.getstate(), [np.asarray(part).tolist() for part in np.random.get_state()]])


def kernels():
    """What is put in the place of something while a tape answers."""
    if SIDE == "torch":
        return [framework.rand, framework.Tensor.bernoulli_, framework.bernoulli]
    return [*vars(framework._C_ops).values(), *vars(framework._legacy_C_ops).values(), framework.Tensor.bernoulli_]


def restored():
    """Whether everything is as before: after a good block, one whose body raises, one with a draw nobody answers."""
    before, state = kernels(), states()
    answer = {}

    def compare(name):
        answer[name] = [all(a is b for a, b in zip(before, kernels(), strict=True)), states() == state]

    with context().randomness("good"):
        framework.rand([3]), random.random(), np.random.rand()
    compare("good")
    try:
        with context().randomness("raising"):
            framework.rand([3])
            raise ZeroDivisionError
    except ZeroDivisionError:
        compare("raising")
    try:
        with context().randomness("unanswered"):
            framework.poisson(ones(3))
    except UsageError:
        compare("unanswered")
    return answer


def own_afterwards():
    """The framework's own numbers, with and without a tape having answered before; and twice in `own_randomness`."""
    seed = framework.manual_seed if SIDE == "torch" else framework.seed
    seed(3)
    plain = told(framework.rand([4]))
    seed(3)
    with context().randomness("between"):
        taped = told(framework.rand([4]))
    after = told(framework.rand([4]))
    seed(3)
    with side.own_randomness(5):
        first = told(framework.rand([4]))
    with side.own_randomness(5):
        second = told(framework.rand([4]))
    return {
        "plain": plain,
        "taped": taped,
        "after": after,
        "seeded": [first, second],
        "going_on": told(framework.rand([4])),
    }


class Twice(Base):
    """Drops with one module twice, with a child that may be left out, by a function of its own, and ones at last."""

    def __init__(self, child):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.child = child
        self.last = nn.Dropout(0.5)

    def forward(self, value):
        value = self.drop(self.drop(value))
        if self.child is not None:
            value = self.child(value)
        return self.last(functional.dropout(value, 0.5) * 0 + 1)


def modules():
    """The draws of a model by module call, and whether leaving out a module shifts those of the next."""
    answer = {}
    for name, child in (("whole", nn.Dropout(0.5)), ("without", None)):
        model, outputs = Twice(child), {}

        def after(module, value, outputs=outputs):
            outputs[module] = told(value)

        ctx = context()
        with ctx.randomness("modules", model) as tape, side.hooked(model.last, lambda *_: None, after):
            functional.dropout(ones(2), 0.5)
            model(ones(64))
        answer[name] = {"draws": log(tape), "last": [value != 0 for value in outputs[""]]}
    return answer


def unlike():
    """With a mapping of names the module call does not count, only the order."""
    model = Twice(None)
    with context(mapping={"modules": {"a": "b"}}).randomness("modules", model) as tape:
        model(ones(2))
    return log(tape)


def dtypes():
    """Masks and uniform numbers of each type, and in a perturbed run."""
    answer = {}
    for name, arguments in {"float32": ("float32",), "float64": ("float64",), "perturbed": ("float32", 1)}.items():
        with context(*arguments).randomness("dtypes"):
            value = side.from_numpy(np.ones(256))
            answer[name] = [told(functional.dropout(value, 0.1) != 0), told(framework.rand([256]))]
    return answer


def unanswered():
    answer = {}
    for name, function in UNANSWERED.items():
        model = nn.Sequential(nn.Identity(), side.as_model(lambda _, function=function: function()))
        try:
            with context().randomness(name, model):
                model(ones(3))
        except UsageError as error:
            answer[name] = str(error)
    return answer


def gradients():
    """The gradient of a dropped input, out of place and through what was overwritten."""
    value = side.from_numpy(np.ones((4, 4)), gradient=True)
    with context().randomness("gradients"):
        side.backward([functional.dropout(value, 0.5).sum()])
        through = told(side.gradient(value))
        other = side.from_numpy(np.ones(3), gradient=True)
        product = other * 2
        product.uniform_(0, 1)
        side.backward([product.sum() + other.sum()])
    answer = {"dropped": through, "overwritten": told(side.gradient(other))}
    if SIDE == "torch":  # the kernel of GPUs, which has a backward of its own
        value = side.from_numpy(np.ones((4, 4)), gradient=True)
        with context().randomness("gradients"):
            side.backward([framework.native_dropout(value, 0.5, True)[0].sum()])
        answer["fused"] = told(side.gradient(value))
    return answer


ANSWERS = {
    function.__name__: function()
    for function in (drawn, restored, own_afterwards, modules, unlike, dtypes, unanswered, gradients)
}
if SIDE == "paddle":
    with context().randomness("paddle") as tape:
        ANSWERS["only_here"] = {
            "axis": told(functional.dropout(ones(64, 3), 0.5, axis=0)),
            "downscale_in_infer": told(functional.dropout(ones(64), 0.5, mode="downscale_in_infer")),
            "downscaled": told(functional.dropout(ones(2, 2), 0.25, training=False, mode="downscale_in_infer")),
        }
print(json.dumps(ANSWERS))
