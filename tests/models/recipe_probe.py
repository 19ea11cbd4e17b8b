"""What one side's recipe computes from inputs made in numpy: `python -m tests.models.recipe_probe PACKAGE PART OUT`.

Writes OUT, an .npz of float64 results; `test_recipe_pair.py` holds the sides to each other and to formulas.
"""

import sys
from pathlib import Path

import numpy as np

from tests.models.recipe_sides import CLASSES, TOKENS, WIDTH, open_side

SAMPLES = 6
SMOOTHING, ALPHA, TAU = 0.1, 0.3, 3.0
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum")
# Learning rate, weight decay, momentum, clip norm: the recipe's own; one where decay and clipping show in every
# parameter; and the same with a decay and a momentum that float32 can hold.
SETTINGS = {"recipe": (5e-4, 0.05, 0.9, None), "large": (0.1, 0.3, 0.9, 0.5), "representable": (0.1, 0.25, 0.875, 0.5)}
SNAPSHOTS = (1, 5, 20)
# Peak, iterations, warm-up iterations. At 2.8e-5 the cosine's value at iteration 0 is an ulp away from the peak.
SCHEDULES = {"warm": (5e-4, 150, 20), "cold": (2.8e-5, 77, 0), "short": (3e-4, 1, 3), "all_warm": (5e-4, 10, 30)}
SCHEDULE_STEPS = 200
ERRORS = (ValueError, FloatingPointError)


def loss_inputs():
    """Logits of two heads and of a teacher, a soft target (rows sum to 1) and hard labels."""
    rng = np.random.default_rng(2021)
    logits, logits_kd, teacher, soft = 2 * rng.standard_normal((4, SAMPLES, CLASSES))
    soft = np.exp(soft) / np.exp(soft).sum(1, keepdims=True)
    return {"logits": logits, "logits_kd": logits_kd, "teacher": teacher, "soft": soft, "labels": np.arange(SAMPLES)}


def losses(side, recipe):
    given = loss_inputs()
    labels = given["labels"]
    ignored = np.where(labels == 2, -100, labels)
    smooth = recipe.losses.LabelSmoothingCrossEntropy(SMOOTHING)
    teacher = side.tensor(given["teacher"])

    def distillation(kind):
        criterion = recipe.losses.DistillationLoss(smooth, lambda inputs: teacher, kind, ALPHA, TAU)
        return lambda logits, logits_kd: criterion(None, (logits, logits_kd), side.tensor(labels))

    cases = {
        "hard": lambda logits, _: recipe.losses.cross_entropy(logits, side.tensor(labels)),
        "ignored": lambda logits, _: recipe.losses.cross_entropy(logits, side.tensor(ignored)),
        "ignored_3": lambda logits, _: recipe.losses.cross_entropy(logits, side.tensor(labels), ignore_index=3),
        "smooth": lambda logits, _: smooth(logits, side.tensor(labels)),
        "soft": lambda logits, _: recipe.losses.SoftTargetCrossEntropy()(logits, side.tensor(given["soft"])),
        "kd_none": distillation("none"),
        "kd_soft": distillation("soft"),
        "kd_hard": distillation("hard"),
    }
    facts = {}
    for name, case in cases.items():
        heads = side.leaf(given["logits"]), side.leaf(given["logits_kd"])
        value = case(*heads)
        assert value.ndim == 0
        value.backward()
        facts[f"{name}/value"] = side.numpy(value)
        for head, key in zip(heads, ("grad", "grad_kd"), strict=True):
            facts[f"{name}/{key}"] = np.zeros(()) if head.grad is None else side.numpy(head.grad)
    everything = side.tensor(np.full(SAMPLES, -100))
    facts["all_ignored/value"] = side.numpy(recipe.losses.cross_entropy(side.tensor(given["logits"]), everything))
    return facts


def errors(side, recipe):
    """The messages of everything that must be refused."""
    logits = side.tensor(loss_inputs()["logits"])
    too_big, negative, column = np.array([0, 1, 2, 3, 4, 7]), np.array([0, 1, -1, 3, 4, 5]), np.arange(6)[:, None]
    smooth = recipe.losses.LabelSmoothingCrossEntropy()
    batch = (side.tensor(images(1, 4)), side.tensor(np.arange(4)))

    def step(criterion, **options):
        network = side.network()
        optimizer = recipe.optim.build_optimizer(network)
        recipe.train.train_step(network, [batch, batch], criterion, optimizer, **options)

    attempts = {
        "label_too_big": lambda: recipe.losses.cross_entropy(logits, side.tensor(too_big)),
        "label_negative": lambda: smooth(logits, side.tensor(negative)),
        "label_column": lambda: recipe.losses.cross_entropy(logits, side.tensor(column)),
        "accuracy_label": lambda: recipe.metrics.accuracy(logits, side.tensor(too_big)),
        "accuracy_column": lambda: recipe.metrics.accuracy(logits, side.tensor(column)),
        "accuracy_empty": lambda: recipe.metrics.accuracy(logits[:0], side.tensor(np.arange(0))),
        "kd_type": lambda: recipe.losses.DistillationLoss(smooth, None, "warm", ALPHA, TAU),
        "kd_teacher": lambda: recipe.losses.DistillationLoss(smooth, None, "soft", ALPHA, TAU),
        "kd_one_head": lambda: recipe.losses.DistillationLoss(smooth, lambda x: logits, "hard", ALPHA, TAU)(
            None, logits, side.tensor(np.arange(6))
        ),
        "optimizer": lambda: recipe.optim.build_optimizer(side.network(), "lion"),
        "schedule": lambda: recipe.optim.build_schedule(recipe.optim.build_optimizer(side.network()), 1e-3, 0),
        "vector_loss": lambda: step(lambda images, outputs, targets: outputs.sum(1)),
        "nan_loss": lambda: step(lambda images, outputs, targets: outputs.mean() * float("nan"), iteration=17),
        "no_micro_batch": lambda: recipe.train.train_step(side.network(), [], None, None),
        "no_batches": lambda: recipe.train.evaluate(side.network(), []),
        "accumulation": lambda: recipe.train.fit(side.network(), [], None, None, accumulation=0),
    }
    facts = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            facts[name] = np.array("nothing was raised")
        except ERRORS as error:
            facts[name] = np.array(f"{type(error).__name__}: {error}")
    return facts


def accuracies(side, recipe):
    """Fractions for a table with hits of every rank, exact ties, and k beyond the classes."""
    rng = np.random.default_rng(5)
    logits, labels = rng.standard_normal((37, CLASSES)), rng.integers(0, CLASSES, 37)
    few = np.tile([0.0, 1.0, 1.0], (4, 1))
    return {
        "logits": logits,
        "labels": labels,
        "top_1_5": np.array(recipe.metrics.accuracy(side.tensor(logits), side.tensor(labels))),
        "top_3_2": np.array(recipe.metrics.accuracy(side.tensor(logits), side.tensor(labels), topk=(3, 2))),
        "few_classes": np.array(recipe.metrics.accuracy(side.tensor(few), side.tensor(np.array([0, 1, 2, 0])), (1, 5))),
    }


def optimizers(side, recipe):
    """Parameters after some steps on given gradients, and the gradient norm of every step."""
    facts = {}
    for name in OPTIMIZERS:
        for setting, (lr, weight_decay, momentum, clip_norm) in SETTINGS.items():
            network = side.network()
            optimizer = recipe.optim.build_optimizer(network, name, lr=lr, weight_decay=weight_decay, momentum=momentum)
            norms = []
            for step in range(1, max(SNAPSHOTS) + 1):
                side.set_gradients(network, step)
                norms.append(recipe.optim.update(optimizer, network, clip_norm))
                if step in SNAPSHOTS:
                    values = side.parameters(network).items()
                    facts.update({f"{name}/{setting}/{step}/{parameter}": value for parameter, value in values})
            facts[f"{name}/{setting}/norms"] = np.array(norms, dtype="float64")  # None becomes NaN
    return facts


def groups(side, recipe):
    """Sizes of the parameters in the groups: with decay, without, and for a decay of zero."""
    network = side.network()
    facts = {}
    for decay in (0.05, 0.0):
        for group in recipe.optim.param_groups(network, decay):
            shapes = [sorted(parameter.shape) for parameter in group["params"]]
            facts[f"{decay}/{group['weight_decay']}"] = np.array(repr([[int(n) for n in shape] for shape in shapes]))
    return facts


def schedules(side, recipe):
    """The learning rate before each update: the schedule's word and the optimizer's."""
    facts = {}
    for name, (peak, iterations, warmup) in SCHEDULES.items():
        optimizer = recipe.optim.build_optimizer(side.network(), lr=0.7)
        schedule = recipe.optim.build_schedule(optimizer, peak, iterations, warmup)
        said, used, counted = [], [], []
        for _ in range(SCHEDULE_STEPS):
            said.append(schedule.lr)
            used.append(recipe.optim.learning_rate(optimizer))
            counted.append(schedule.iteration)
            schedule.step()
        facts.update({f"{name}/said": said, f"{name}/used": used, f"{name}/iteration": counted})
    return facts


def images(seed, samples):
    return np.random.default_rng(seed).standard_normal((samples, TOKENS, WIDTH))


def training(side, recipe):
    """A short run with accumulation, clipping and a schedule; modes, EMA, records and evaluation around it."""
    network = side.network()
    optimizer = recipe.optim.build_optimizer(network, lr=1e-2)
    schedule = recipe.optim.build_schedule(optimizer, 1e-2, iterations=4, warmup_iterations=2, warmup_lr=1e-4)
    smooth = recipe.losses.LabelSmoothingCrossEntropy()
    facts, events = {}, []

    class Average:
        def update(self, model):
            events.append(("ema", schedule.iteration, float(np.abs(side.parameters(model)["fc.bias"]).sum())))

    def criterion(images, outputs, targets):
        assert network.training
        return smooth(outputs, targets)

    def on_iteration(iteration, record):
        events.append(("iteration", iteration))
        for key, value in record.items():
            facts.setdefault(key, []).append(value)
        network.norm.eval()  # a module with a mode of its own, which evaluation must give back
        result = recipe.train.evaluate(network, [batches[0], (batches[1][0][:2], batches[1][1][:2])])
        facts.setdefault("modes", []).append([network.training, network.norm.training, network.fc.training])
        network.train()
        for key, value in result.items():
            facts.setdefault(f"evaluate/{key}", []).append(value)
        gradients = [parameter.grad for parameter in network.parameters()]
        facts.setdefault("gradients_left", []).append(sum(gradient is not None for gradient in gradients))

    batches = [(side.tensor(images(10 + i, 5)), side.tensor((np.arange(5) + i) % CLASSES)) for i in range(5)]
    network.eval()
    facts["iterations"] = recipe.train.fit(
        network, batches, criterion, optimizer, schedule, 0.5, accumulation=2, ema=Average(), on_iteration=on_iteration
    )
    facts["events"] = np.array(repr([event[:2] for event in events]))
    facts["outputs"] = side.numpy(network(batches[0][0]))
    facts.update({f"parameter/{name}": value for name, value in side.parameters(network).items()})
    facts.update(_failed_step(side, recipe, batches[0]))
    return facts


def _failed_step(side, recipe, batch):
    """A loss that turns NaN in the second micro-batch: nothing of the first may stay behind."""
    network = side.network()
    calls = []

    def criterion(images, outputs, targets):
        calls.append(1)
        return outputs.mean() * (1.0 if len(calls) == 1 else float("nan"))

    try:
        recipe.train.train_step(network, [batch, batch], criterion, recipe.optim.build_optimizer(network, lr=1.0))
        message = "nothing was raised"
    except FloatingPointError as error:
        message = str(error)
    left = sum(parameter.grad is not None for parameter in network.parameters())
    values = {f"failed/{name}": value for name, value in side.parameters(network).items()}
    return {"failed": np.array(message), "failed_gradients_left": left, **values}


def ragged_evaluation(side, recipe):
    """Batches of 4, 3 and 1 samples, and the same eight in one batch."""
    network = side.network()
    x, labels = images(3, 8), np.array([0, 3, 1, 6, 2, 5, 4, 3])
    cuts = [(0, 4), (4, 7), (7, 8)]
    ragged = [(side.tensor(x[a:b]), side.tensor(labels[a:b])) for a, b in cuts]
    whole = [(side.tensor(x), side.tensor(labels))]
    smooth = recipe.losses.LabelSmoothingCrossEntropy()
    facts = {"logits": side.numpy(network(side.tensor(x))), "labels": labels}
    for name, batches in (("ragged", ragged), ("whole", whole)):
        facts.update({f"{name}/{k}": v for k, v in recipe.train.evaluate(network, batches).items()})
    result = recipe.train.evaluate(network, ragged, criterion=lambda images, outputs, targets: smooth(outputs, targets))
    return {**facts, "smooth/loss": result["loss"]}


PARTS = {
    part.__name__: part
    for part in (losses, errors, accuracies, optimizers, groups, schedules, training, ragged_evaluation)
}

if __name__ == "__main__":
    package, out = sys.argv[1], Path(sys.argv[2])
    words, modules = open_side(package)
    for part_name, part in PARTS.items():
        np.savez(out / f"{part_name}.npz", **part(words, modules))
    other = {"torch_ref": "paddle", "paddle_impl": "torch"}[package]
    assert other not in sys.modules, f"{package} imported {other}"
