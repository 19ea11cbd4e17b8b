"""What one side's PiT does: `python -m tests.models.pit_probe PACKAGE OUT`.

Writes OUT/arrays.npz, outputs and gradients in float64 of models with the same weights on both sides, and
OUT/facts.json, everything else that the tests ask about.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.models.pit_sides import open_side

ODD = {"image_size": (47, 61), "patch_size": 8, "stride": 5, "base_dims": (8, 8, 8), "depth": (1, 2, 1)}
ODD |= {"heads": (2, 4, 8), "num_classes": 13}
# Name: (function, keyword arguments). Odd and non-square; one stage, one channel, one patch; features; the real thing.
MODELS = {
    "odd": ("pit_ti", ODD),
    "odd_distilled": ("pit_ti_distilled", ODD),
    "one_stage": (
        "pit_ti",
        ODD | {"image_size": 8, "base_dims": (6,), "depth": (2,), "heads": (1,), "in_chans": 1, "mlp_ratio": 2.5},
    ),
    "features": ("pit_ti", ODD | {"num_classes": 0}),
    "features_distilled": ("pit_ti_distilled", ODD | {"num_classes": 0}),
    "pit_ti": ("pit_ti", {}),
    "pit_ti_distilled": ("pit_ti_distilled", {}),
}


def probe_weights(state):
    """Weights that let a mistake be seen: norms far from (1, 0), tokens and biases far from zero."""
    weights = {}
    for index, (name, value) in enumerate(state.items()):
        draw = np.random.default_rng(index).standard_normal(value.shape)
        if value.ndim > 1 and name not in ("pos_embed", "cls_token"):
            weights[name] = draw * 1.5 / np.sqrt(np.prod(value.shape[1:]))
        else:
            weights[name] = 0.5 * draw + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return weights


def outputs_and_gradients(side, model, label):
    """Logits in both modes, and every gradient in training mode, with fixed cotangents."""
    arrays = {}
    channels = model.patch_embed.conv.weight.shape[1]
    images = np.random.default_rng(99).standard_normal((3, channels, *model.image_size))
    model.eval()
    with side.no_grad():
        arrays[f"{label}/eval"] = side.numpy(model(side.tensor(images)))
        arrays[f"{label}/features"] = side.numpy(model.forward_features(side.tensor(images)))
    model.train()
    outputs = model(side.tensor(images))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = 0.0
    for index, output in enumerate(outputs):
        cotangent = np.random.default_rng((100, index)).standard_normal(tuple(output.shape))
        total = total + (output * side.tensor(cotangent)).sum()
        arrays[f"{label}/train/{index}"] = side.numpy(output)
    total.backward()
    arrays |= {f"{label}/grad/{name}": value for name, value in side.gradients(model).items()}
    return arrays


def pair_arrays(side, pit):
    arrays = {}
    for label, (function, kwargs) in MODELS.items():
        model = getattr(pit, function)(**kwargs)
        side.load(model, probe_weights(side.state(model)))
        arrays |= outputs_and_gradients(side, model, label)
    # The mistake of one epsilon must be seen by the same measure.
    model = pit.pit_ti(**ODD)
    side.load(model, probe_weights(side.state(model)))
    for name, module in side.modules(model).items():
        if name == "transformers.2.blocks.0.norm2":
            module.eps = module._epsilon = 1e-5
    arrays |= {
        key: value for key, value in outputs_and_gradients(side, model, "wrong_epsilon").items() if "grad" not in key
    }
    return arrays


def messages(side, pit):
    """The ValueError of each bad use."""
    tried = {}
    model = pit.pit_ti(**ODD)
    uses = {
        "input_size": lambda: model(side.tensor(np.zeros((1, 3, 61, 47)))),
        "features_size": lambda: model.forward_features(side.tensor(np.zeros((1, 3, 48, 61)))),
        "image_below_patch": lambda: pit.pit_ti(image_size=(15, 224)),
        "uneven_stages": lambda: pit.pit_ti(depth=(2, 6)),
    }
    for name, use in uses.items():
        try:
            use()
            tried[name] = None
        except ValueError as error:
            tried[name] = str(error)
    return tried


def drop_path(side, pit):
    """What DropPath makes of ones, (512, 3, 2), in each setting."""
    ones = side.tensor(np.ones((512, 3, 2)))
    result = {}
    settings = {"off": (0.0,), "quarter": (0.25,), "unscaled": (0.25, False), "always": (1.0,)}
    for name, arguments in settings.items():
        module = pit.DropPath(*arguments)
        module.train()
        result[f"{name}/train"] = side.numpy(module(ones)).tolist()
        module.eval()
        result[f"{name}/eval"] = side.numpy(module(ones)).tolist()
    return result


def heads(side, pit):
    """Head shapes (out, in) and their dtype after a cast and each reset."""

    def shapes(model):
        state = side.state(model)
        return {name: [list(v.shape), str(v.dtype)] for name, v in state.items() if name.startswith("head")}

    result = {}
    for label in ("odd", "odd_distilled"):
        function, kwargs = MODELS[label]
        model = getattr(pit, function)(**kwargs)
        images = side.tensor(np.zeros((2, 3, *model.image_size), "float32"))
        model.to(dtype=side.float32)  # not Paddle's astype: it changes nothing in 3.3.1 (PaddlePaddle/Paddle#76614)
        model.reset_classifier(5)
        result[f"{label}/reset"] = shapes(model)
        model.eval()
        result[f"{label}/logits"] = list(model(images).shape)
        result[f"{label}/is_head"] = model.get_classifier() is model.head
        model.reset_classifier(0)
        result[f"{label}/none"] = shapes(model)
        result[f"{label}/features"] = list(model(images).shape)
        result[f"{label}/num_classes"] = model.num_classes
    return result


def initial(side, pit):
    """For each parameter of a fresh PiT-Ti: size, mean, variance, largest magnitude, owner, fan-in of the owner."""
    model = pit.pit_ti_distilled()
    state, modules = side.state(model), side.modules(model)
    result = {}
    for name, value in state.items():
        owner = modules[name.rpartition(".")[0]]
        kind = {side.linear: "linear", side.conv: "conv"}.get(type(owner), "other")
        fan_in = int(np.prod(state[f"{name.rpartition('.')[0]}.weight"].shape[1:])) if kind != "other" else None
        numbers = {"mean": value.mean(), "variance": value.var(), "largest": np.abs(value).max()}
        result[name] = {"size": value.size, "kind": kind, "fan_in": fan_in} | {k: float(v) for k, v in numbers.items()}
    return result


def facts_of(side, pit):
    dropped = pit.pit_ti_distilled(drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.12)
    modules = side.modules(dropped)
    with side.skeleton():
        shapes = {variant: side.shapes(getattr(pit, variant)()) for variant in pit.VARIANTS}
    return {
        "shapes": shapes,
        "hyper_parameters": pit.VARIANTS,
        "dropout": {name: module.p for name, module in modules.items() if isinstance(module, side.dropout)},
        "drop_path_rates": [
            [name, module.drop_prob] for name, module in modules.items() if isinstance(module, pit.DropPath)
        ],
        "drop_path": drop_path(side, pit),
        "no_weight_decay": sorted(dropped.no_weight_decay()),
        "heads": heads(side, pit),
        "initial": initial(side, pit),
        "messages": messages(side, pit),
        "modules": list(modules),
        "dtypes": sorted({str(value.dtype) for value in side.state(dropped).values()}),
        "foreign": sorted({"torch", "timm", "torchvision", "paddle", "reprod_log"} & set(sys.modules)),
    }


if __name__ == "__main__":
    package, out = sys.argv[1], Path(sys.argv[2])
    side, pit = open_side(package)
    np.savez(out / "arrays.npz", **pair_arrays(side, pit))
    (out / "facts.json").write_text(json.dumps(facts_of(side, pit)))
