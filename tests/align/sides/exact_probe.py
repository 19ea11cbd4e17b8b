"""Each kernel that `paddle_exact` completes, on one side: outputs and gradients in float64, as JSON.

`python exact_probe.py torch` or `python exact_probe.py paddle [plain]`; `plain` leaves Paddle's kernels as they are.
"""

import json
import sys
from contextlib import nullcontext

import numpy as np

SHAPES = {"plane": (2, 3, 9, 11), "row": (4, 6)}


def values(name: str) -> np.ndarray:
    # Positive, so that powers that are no whole numbers are defined.
    return np.random.default_rng(7).uniform(0.1, 2.0, SHAPES[name])


def torch_calls():
    import torch
    import torch.nn.functional as F

    # `lp_pool` of positive values; the slope of `hardsigmoid` is written out, as PyTorch means it.
    calls = {
        "avg_pool": ("plane", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
        "adaptive_avg_pool": ("plane", lambda x: F.adaptive_avg_pool2d(x, (4, 5))),
        "lp_pool": ("plane", lambda x: F.lp_pool2d(x, 3.0, 3)),
        "pow": ("row", lambda x: x**0.1),
        "selu": ("row", lambda x: F.selu(x - 1)),
        "hardsigmoid": ("row", lambda x: F.relu6(3 * x) / 6),
        "rrelu": ("row", lambda x: F.rrelu(x - 1, 0.1, 0.3, training=False)),
        "bilinear": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear")),
        "bilinear_corners": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True)),
        "bicubic": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bicubic")),
        "label_smooth": ("row", lambda x: 0.9 * x + 0.1 / 6),
    }
    for name, (shape, call) in calls.items():
        x = torch.tensor(values(shape), requires_grad=True)
        made = call(x)
        made.backward(torch.tensor(cotangent(tuple(made.shape))))
        yield name, made.detach().numpy(), x.grad.numpy()


def paddle_calls(plain: bool):
    import paddle
    import paddle.nn.functional as F

    from align.sides.paddle_exact import exact

    calls = {
        "avg_pool": ("plane", lambda x: F.avg_pool2d(x, 3, 2, 1)),
        "adaptive_avg_pool": ("plane", lambda x: F.adaptive_avg_pool2d(x, (4, 5))),
        "lp_pool": ("plane", lambda x: F.lp_pool2d(x, 3.0, 3)),
        "pow": ("row", lambda x: x**0.1),
        "selu": ("row", lambda x: F.selu(x - 1)),
        "hardsigmoid": ("row", lambda x: F.hardsigmoid(3 * x - 3, slope=1 / 6)),
        "rrelu": ("row", lambda x: F.rrelu(x - 1, 0.1, 0.3, training=False)),
        "bilinear": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear")),
        "bilinear_corners": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True)),
        "bicubic": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="bicubic")),
        "label_smooth": ("row", lambda x: F.label_smooth(x, epsilon=0.1)),
        # Otherwise set: what stands in must not be taken for these.
        "other_hardsigmoid": ("row", lambda x: F.hardsigmoid(3 * x - 3)),
        "other_nearest": ("plane", lambda x: F.interpolate(x, size=(5, 7), mode="nearest")),
        "other_max_pool": ("plane", lambda x: F.max_pool2d(x, 3, 2, 1)),
        "other_float32": ("row", lambda x: (x.astype("float32") ** 0.1).astype("float64")),
    }
    with nullcontext() if plain else exact():
        for name, (shape, call) in calls.items():
            x = paddle.to_tensor(values(shape), stop_gradient=False)
            made = call(x)
            made.backward(paddle.to_tensor(cotangent(tuple(made.shape))))
            yield name, made.detach().numpy(), x.grad.numpy()


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(8).standard_normal(shape)


if __name__ == "__main__":
    side, *how = sys.argv[1:]
    found = torch_calls() if side == "torch" else paddle_calls(bool(how))
    print(json.dumps({name: [made.tolist(), gradient.tolist()] for name, made, gradient in found}))
