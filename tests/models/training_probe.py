"""What one side's training makes of given weights and batches, in float64: run as `__main__` with PACKAGE PART FOLDER.

PART "start": train from the first step to the last and leave FOLDER/<PACKAGE>-half.safetensors on the way and
<PACKAGE>-whole.safetensors at the end. PART "resume": take either side's half and go on from there. PART "facts": the
moving average and the faults. Each part writes FOLDER/<PACKAGE>-<PART>.json.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

PACKAGES = ("torch_ref", "paddle_impl")
STEPS, HALF = 6, 3
CLASSES = 3
# All of them numbers that float32 holds: Paddle's kernels keep some scalars in it.
PEAK, DECAY, CLIP, AVERAGE = 2**-7, 0.25, 0.5, 0.75


class Side:
    """One package, and its framework's words for what the parts below need."""

    def __init__(self, package):
        self.package = package
        for name in ("pit", "ema", "optim", "train", "losses", "resume", "weights"):
            setattr(self, name, importlib.import_module(f"{package}.{name}"))
        if package == "torch_ref":
            import torch as framework

            framework.set_default_dtype(framework.float64)
            self.tensor = framework.tensor
        else:
            import paddle as framework

            framework.set_default_dtype("float64")
            self.tensor = framework.to_tensor
        self.framework = framework

    def model(self):
        """A PiT with a square projection, a pool and, because nothing distils, a head without gradient."""
        model = self.pit.DistilledPoolingTransformer(12, 4, 4, (4, 4), (1, 1), (1, 2), 2, num_classes=CLASSES)
        if self.package == "torch_ref":
            for module in model.modules():
                if hasattr(module, "eps"):
                    module.eps = float(np.float32(module.eps))  # as Paddle's kernel has it
        return self.filled(model, 0)

    def teacher(self):
        name = self.package.partition("_")[0]
        return importlib.import_module(f"tests.models.teacher_{name}").small(CLASSES)

    def filled(self, model, seed):
        """The model with weights from a seed, the same for both sides."""
        state = self.weights.reference_state(model)
        self.weights.load_reference_state(model, {name: values(name, state[name], seed) for name in state})
        return model


def values(name, array, seed):
    rng = np.random.default_rng([seed, *name.encode()])
    if array.dtype.kind == "i":
        return np.full(array.shape, 10 + seed, array.dtype)
    return rng.standard_normal(array.shape) / 4 + (1.0 if "norm" in name else 0.0)


def micro_batches(side, step):
    rng = np.random.default_rng([7, step])
    return [
        (side.tensor(rng.standard_normal((4, 3, 12, 12))), side.tensor(rng.integers(0, CLASSES, 4))) for _ in range(2)
    ]


def parts(side):
    """(model, optimizer, schedule, average), new."""
    model = side.model()
    optimizer = side.optim.build_optimizer(model, "adamw", lr=PEAK, weight_decay=DECAY)
    schedule = side.optim.build_schedule(optimizer, PEAK, iterations=8, warmup_iterations=2)
    return model, optimizer, schedule, side.ema.build_ema(model, AVERAGE)


def steps(side, model, optimizer, schedule, ema, count):
    smooth = side.losses.LabelSmoothingCrossEntropy(0.125)
    criterion = side.losses.DistillationLoss(smooth, None, "none", 0.5, 1.0)
    model.train()
    return [
        side.train.train_step(model, micro_batches(side, schedule.iteration), criterion, optimizer, schedule, CLIP, ema)
        for _ in range(count)
    ]


def start(side, folder):
    model, optimizer, schedule, ema = parts(side)
    records = []
    for name, count in (("half", HALF), ("whole", STEPS - HALF)):
        records += steps(side, model, optimizer, schedule, ema, count)
        path = folder / f"{side.package}-{name}.safetensors"
        side.resume.save_training_state(path, model, optimizer, schedule, ema, {"epoch": 1, "best": 0.5})
    return {"records": records}


def resume(side, folder):
    answers = {}
    for origin in PACKAGES:
        model, optimizer, schedule, ema = parts(side)
        path = folder / f"{origin}-half.safetensors"
        facts = side.resume.load_training_state(path, model, optimizer, schedule, ema)
        answers[origin] = {
            "facts": facts,
            "header": side.resume.read_training_facts(path),
            "records": steps(side, model, optimizer, schedule, ema, STEPS - HALF),
        }
        path = folder / f"{origin}-then-{side.package}.safetensors"
        side.resume.save_training_state(path, model, optimizer, schedule, ema, facts)
    return answers


def average(side, updates=4):
    """What the average of a network with every kind of buffer holds after updates, and whether it moved in place."""
    network = side.filled(side.teacher(), 0)
    ema = side.ema.build_ema(network, 0.9375)
    before = {name: tensor.data_ptr() for name, tensor in ema.module.state_dict().items()}
    for seed in range(1, updates + 1):
        ema.update(side.filled(network, seed))
    in_place = before == {name: tensor.data_ptr() for name, tensor in ema.module.state_dict().items()}
    state = side.weights.reference_state(ema.module)
    start_again = side.weights.reference_state(side.filled(network, 9))
    ema.set(network)
    again = side.weights.reference_state(ema.module)
    return {
        "state": {name: array.tolist() for name, array in state.items()},
        "in_place": in_place,
        "training": ema.module.training,
        "set": all(np.array_equal(again[name], start_again[name]) for name in again),
    }


def faults(side):
    """How a step tells of each thing that can be not finite, and whether it left the weights alone."""
    answers = {}
    for what in ("image", "parameter", "logits", "all_logits", "target", "gradient"):
        model, optimizer, _, _ = parts(side)
        model.train()
        batches = [[tensor.numpy().copy() for tensor in batch] for batch in micro_batches(side, 0)]
        if what == "image":
            batches[1][0][2, 0, 5, 5] = np.nan
        if what == "parameter":
            state = side.weights.reference_state(model)
            state["transformers.1.blocks.0.mlp.fc1.weight"][3, 4] = np.inf
            side.weights.load_reference_state(model, state)
        before = side.weights.reference_state(model)

        def criterion(images, outputs, targets, what=what):
            logits = outputs[0]
            if what == "target":
                return (logits * float("nan")).mean()
            if what == "gradient":  # of value 0, and of infinite slope there
                return (logits - logits.detach()).sum() ** 0.5
            return side.losses.cross_entropy(logits, targets)

        if what in ("logits", "all_logits"):
            spoil = np.zeros((4, CLASSES))
            spoil[1 if what == "logits" else slice(None), 2] = np.nan
            forward, spoil = model.forward, side.tensor(spoil)
            model.forward = lambda x, forward=forward, spoil=spoil: tuple(head + spoil for head in forward(x))
        try:
            tensors = [tuple(map(side.tensor, batch)) for batch in batches]
            side.train.train_step(model, tensors, criterion, optimizer, clip_norm=CLIP, iteration=5)
            answers[what] = {"message": "nothing was raised"}
        except side.train.TrainingFault as fault:
            answers[what] = {"message": str(fault), "micro_batch": fault.micro_batch, "sample": fault.sample}
        after = side.weights.reference_state(model)
        answers[what]["unchanged"] = all(np.array_equal(before[k], after[k], equal_nan=True) for k in before)
        answers[what]["gradients_left"] = sum(parameter.grad is not None for parameter in model.parameters())
    return answers


def refused(side, folder):
    """What is said of a training state that does not fit, and whether the model stayed as it was."""
    half = folder / f"{side.package}-half.safetensors"
    cut = folder / f"{side.package}-cut.safetensors"
    cut.write_bytes(half.read_bytes()[:-100])
    weights = folder / f"{side.package}-weights.safetensors"
    model, optimizer, schedule, ema = parts(side)
    side.weights.write_weights(weights, side.weights.reference_state(model), model)
    teacher = side.teacher()
    momentum = side.optim.build_optimizer(model, "momentum")
    attempts = {
        "cut": (cut, model, optimizer, schedule, ema),
        "weights": (weights, model, optimizer, schedule, ema),
        "missing": (folder / "none.safetensors", model, optimizer, schedule, ema),
        "no_average": (half, model, optimizer, schedule, None),
        "other_model": (half, teacher, side.optim.build_optimizer(teacher), schedule, side.ema.build_ema(teacher)),
        "other_optimizer": (half, model, momentum, schedule, ema),
    }
    before, answers = side.weights.reference_state(model), {}
    for name, attempt in attempts.items():
        try:
            side.resume.load_training_state(*attempt)
            answers[name] = "nothing was raised"
        except side.weights.WeightsError as error:
            answers[name] = str(error)
    after = side.weights.reference_state(model)
    answers["unchanged"] = all(np.array_equal(before[key], after[key]) for key in before)
    try:
        side.resume.save_training_state(folder / "state.pth", model, optimizer, schedule)
    except side.weights.WeightsError as error:
        answers["suffix"] = str(error)
    return answers


def facts(side, folder):
    return {"average": average(side), "faults": faults(side), "refused": refused(side, folder)}


if __name__ == "__main__":
    package, part, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    answer = {"start": start, "resume": resume, "facts": facts}[part](Side(package), folder)
    (folder / f"{package}-{part}.json").write_text(json.dumps(answer))
    other = {"torch_ref": "paddle", "paddle_impl": "torch"}[package]
    assert other not in sys.modules, f"{package} imported {other}"
