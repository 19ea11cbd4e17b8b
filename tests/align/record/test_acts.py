"""A training loop's acts on both frameworks, and that nothing of the watching stays."""

import json

import pytest

SETUP = {
    "torch": """
import torch as framework
from align.sides.torch import TorchSide as Side
layer, optimizers = framework.nn.Linear, framework.optim
def optimizer_of(model): return framework.optim.SGD(model.parameters(), 0.1)
def clear(optimizer): optimizer.zero_grad()
def fill(optimizer): optimizer.zero_grad(set_to_none=False)
base, module = framework.optim.Optimizer, framework.nn.Module
""",
    "paddle": """
import paddle as framework
from align.sides.paddle import PaddleSide as Side
layer = framework.nn.Linear
def optimizer_of(model): return framework.optimizer.SGD(0.1, model.parameters())
def clear(optimizer): optimizer.clear_grad(set_to_zero=False)
def fill(optimizer): optimizer.clear_grad()
base, module = framework.optimizer.Optimizer, framework.nn.Layer
""",
}
LOOP = """
import json, sys
import numpy as np
from align.record.acts import watched

class Average:
    def update(self, model): pass

side = Side("cpu", 1, False)
side.set_precision("float32")
model = layer(2, 1)
optimizer, average, acts, emitted = optimizer_of(model), Average(), [], []
before = [getattr(owner, name) for owner, name, _ in side.loop_points()]
try:
    with watched(side, model, [(average, "update", "average")], acts, lambda row, loss: emitted.append(row)):
        model.train()
        for value in (1.0, 2.0):
            model(side.from_numpy(np.full((3, 2), value))).sum().backward()
        optimizer.step(); average.update(model); clear(optimizer)
        model.eval()
        with side.no_gradient():
            model(side.from_numpy(np.ones((3, 2))))
        model.training = True
        model(side.from_numpy(np.ones((3, 2)))).sum().backward()
        fill(optimizer)
        raise KeyError
except KeyError:
    pass
after = [getattr(owner, name) for owner, name, _ in side.loop_points()]
told = [f"{act.kind} {act.detail}".strip() for act in acts]
inputs = [act.print.moments[0] for act in acts if act.kind == "forward"]
places = {act.place is not None for act in acts}
print(json.dumps([told, inputs, emitted, before == after, "update" in vars(average), model.training]))
"""


@pytest.fixture(scope="module", params=["torch", "paddle"])
def watched(request, run_python, tmp_path_factory):
    script = tmp_path_factory.mktemp("acts") / "loop.py"
    script.write_text(SETUP[request.param] + LOOP)
    result = run_python("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", script)
    return json.loads(result.stdout.splitlines()[-1])


def test_every_act_in_order(watched):
    loop = ["forward training", "backward"] * 2
    assert watched[0] == [
        *("mode training", *loop, "step", "average", "clear none"),
        *("mode evaluation", "forward evaluation", "mode training", *loop[:2], "clear zero"),
    ]


def test_which_batch_a_pass_was_given(watched):
    assert watched[1] == [1.0, 2.0, 1.0, 1.0]


def test_the_loss_of_each_backward_pass_and_the_rate_of_each_update_are_handed_on(watched):
    assert watched[2] == ["backward/0", "backward/1", "step/0", "backward/2"]


def test_nothing_stays_when_the_loop_raises(watched):
    assert watched[3:] == [True, False, True]
