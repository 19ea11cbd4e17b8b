"""Where Paddle's own parts would have trained another recipe: each trap, and that the port is out of it."""

import json

import pytest

TRAPS = """
import json, sys
import numpy as np
from tests.models.recipe_sides import gradient_value, open_side

side, recipe = open_side("paddle_impl", sys.argv[1])
paddle, facts = side.framework, {}

# ignored labels
logits = np.random.default_rng(0).standard_normal((4, 5))
labels = np.array([0, 1, -100, 3])
ours = recipe.losses.cross_entropy(side.tensor(logits), side.tensor(labels))
theirs = paddle.nn.functional.cross_entropy(side.tensor(logits), side.tensor(labels))
facts["ignored"] = [float(ours), float(theirs)]

# labels are left as they were, in int32 too
narrow = side.tensor(np.array([0, 1, 2, 3], dtype="int32"))
smooth = recipe.losses.LabelSmoothingCrossEntropy()
facts["int32"] = [float(f(side.tensor(logits), narrow)) for f in (smooth, recipe.losses.cross_entropy)]
facts["int64"] = [float(f(side.tensor(logits), narrow.astype("int64"))) for f in (smooth, recipe.losses.cross_entropy)]
facts["int32_accuracy"] = recipe.metrics.accuracy(side.tensor(logits), narrow)
facts["int64_accuracy"] = recipe.metrics.accuracy(side.tensor(logits), narrow.astype("int64"))
facts["label_shape"], facts["label_dtype"] = list(narrow.shape), str(narrow.dtype)

# building an optimizer leaves no mark on the parameters
network = side.network()
for name in ("momentum", "adam", "sgd", "adamw"):
    optimizer = recipe.optim.build_optimizer(network, name)
    side.set_gradients(network, 1)
    recipe.optim.update(optimizer, network)
facts["regularizers"] = [getattr(p, "regularizer", None) is None for p in network.parameters()]
facts["factors"] = [p.optimize_attr["learning_rate"] for p in network.parameters()]
facts["decayed"] = {n: optimizer._apply_decay_param_fun(p.name) for n, p in network.named_parameters()}
facts["dtypes"] = sorted({str(p.dtype) for p in network.parameters()})

# a pure decay: zero gradients move only what decays, by lr * weight decay
network = side.network()
before = side.parameters(network)
optimizer = recipe.optim.build_optimizer(network, "adamw", lr=0.5, weight_decay=0.5)
for parameter in network.parameters():
    if not parameter.stop_gradient:
        parameter.grad = paddle.zeros_like(parameter)
recipe.optim.update(optimizer, network)
after = side.parameters(network)
facts["shrunk"] = {n: float(np.abs(after[n] / before[n] - 0.75).max()) < 1e-6 for n in before}
facts["moved"] = {n: not np.array_equal(after[n], before[n]) for n in before}

# the last step's gradients are gone, not zero
facts["cleared"] = []
batch = (side.tensor(np.ones((2, 3, 6), paddle.get_default_dtype())), side.tensor(np.array([1, 2])))
recipe.train.train_step(network, [batch], lambda x, out, y: smooth(out, y), optimizer)
facts["cleared"] = [parameter.grad is None for parameter in network.parameters()]
facts["foreign"] = [n for n in sys.modules if n.split(".")[0] in ("torch", "torch_ref", "torchvision", "timm")]
print(json.dumps(facts))
"""

DECAYED = {"square.weight", "fc.weight", "unused.weight"}


@pytest.fixture(scope="module", params=["float32", "float64"])
def facts(request, run_python):
    facts = json.loads(run_python(TRAPS, request.param).stdout.splitlines()[-1])
    return {**facts, "dtype": request.param}


def test_mean_is_over_the_labels_that_count(facts):
    """Paddle's own mean divides by all four labels; if this fails for it, the port's workaround can go."""
    ours, theirs = facts["ignored"]
    assert ours == pytest.approx(theirs * 4 / 3, rel=1e-6)


def test_narrow_labels_count_as_wide_ones_and_stay_as_they_were(facts):
    assert facts["int32"] == facts["int64"]
    assert facts["int32_accuracy"] == facts["int64_accuracy"]
    assert facts["label_shape"] == [4]
    assert facts["label_dtype"] == "paddle.int32"


def test_no_regularizer_and_no_learning_rate_factor_is_left_on_a_parameter(facts):
    count = len(facts["decayed"])
    assert count > len(DECAYED)
    assert facts["regularizers"] == [True] * count
    assert facts["factors"] == [1.0] * count


def test_decay_is_decided_by_the_names_that_the_optimizer_knows(facts):
    assert {name for name, decays in facts["decayed"].items() if decays} == DECAYED


def test_zero_gradients_shrink_what_decays_and_move_nothing_else(facts):
    assert {name for name, shrunk in facts["shrunk"].items() if shrunk} == DECAYED
    assert {name for name, moved in facts["moved"].items() if moved} == DECAYED


def test_parameters_keep_the_default_dtype(facts):
    assert facts["dtypes"] == [f"paddle.{facts['dtype']}"]


def test_gradients_are_cleared_to_none(facts):
    assert facts["cleared"] == [True] * len(facts["decayed"])


def test_port_does_not_import_torch(facts):
    assert facts["foreign"] == []
