"""How much faster is the shipped port than a straightforward one? `python benchmarks/port_speed.py`, on a CPU.

Prints JSON: milliseconds and ratios of PiT-Ti, forward, and forward with backward, and of the one operation that makes
the difference. Both models hold the same weights, and must agree, or the exit code is 1. Measurements of the two
alternate; a ratio is the median of the ratios of neighbours, so that a busy machine harms it little.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import paddle

from paddle_impl import pit

# Relative. Seen with Paddle 3.3.1: 0 with AVX-512, 6e-7 with AVX2; 2.3 with the heads laid out wrongly.
AGREEMENT = 1e-5


class StraightforwardAttention(pit.Attention):
    """`torch_ref.pit.Attention.forward`, translated call by call. It is the only part in which the two ports differ."""

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape([B, N, 3, self.num_heads, self.head_dim]).transpose([2, 0, 3, 1, 4])
        q, k, v = qkv.unbind(0)  # each (B, heads, N, head_dim)
        q = q * self.scale
        attn = q @ k.transpose([0, 1, 3, 2])  # (B, heads, N, N)
        attn = paddle.nn.functional.softmax(attn, axis=-1)
        attn = self.attn_drop(attn)
        x = (attn @ v).transpose([0, 2, 1, 3]).reshape([B, N, C])  # (B, heads, N, head_dim) -> (B, N, C)
        return self.proj_drop(self.proj(x))


def build_pair():
    """The straightforward and the shipped PiT-Ti, with the same weights."""
    straightforward, shipped = pit.pit_ti(), pit.pit_ti()
    straightforward.set_state_dict(shipped.state_dict())
    for layer in straightforward.sublayers():
        if isinstance(layer, pit.Attention):
            layer.__class__ = StraightforwardAttention
    return straightforward, shipped


def difference(straightforward, shipped, images):
    """Greatest difference of logits and of any gradient, relative to the greatest of each tensor."""
    tensors = []
    for model in (straightforward, shipped):
        logits = model(images)
        (logits * logits).sum().backward()
        tensors.append([logits, *(parameter.grad.clone() for parameter in model.parameters())])
        model.clear_gradients()
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*tensors, strict=True))


def forward(model, images):
    with paddle.no_grad():
        model(images)


def forward_backward(model, images):
    model(images).sum().backward()
    model.clear_gradients()


def permute_by_transpose(tensor):
    return tensor.transpose([2, 0, 3, 1, 4]).contiguous()


def permute_by_einsum(tensor):
    return paddle.einsum("bnthd->tbhnd", tensor)


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(straightforward, shipped, rounds):
    """Times both calls in turn, after one unmeasured round; the order changes from round to round."""
    straightforward(), shipped()
    times = []
    for index in range(rounds):
        if index % 2:
            second, first = seconds(shipped), seconds(straightforward)
        else:
            first, second = seconds(straightforward), seconds(shipped)
        times.append((first, second))
    return {
        "straightforward_ms": round(1e3 * statistics.median(first for first, _ in times), 2),
        "shipped_ms": round(1e3 * statistics.median(second for _, second in times), 2),
        "ratio": round(statistics.median(first / second for first, second in times), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()

    paddle.seed(0)
    straightforward, shipped = build_pair()
    images = paddle.randn([arguments.batch, 3, 224, 224])
    error = difference(straightforward, shipped, images)
    tokens = paddle.randn([arguments.batch, 27 * 27 + 1, 3, 2, 32])  # the qkv of the first stage
    switches = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "FLAGS_use_stride_kernel", "MALLOC_TRIM_THRESHOLD_")
    result = {
        "model": "pit_ti",
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "paddle": paddle.__version__,
        "environment": {name: os.environ.get(name) for name in switches},
        "difference": error,
        "forward": alternate(
            lambda: forward(straightforward, images), lambda: forward(shipped, images), arguments.rounds
        ),
        "forward_backward": alternate(
            lambda: forward_backward(straightforward, images),
            lambda: forward_backward(shipped, images),
            arguments.rounds,
        ),
        "permutation": alternate(
            lambda: permute_by_transpose(tokens), lambda: permute_by_einsum(tokens), arguments.rounds
        ),
    }
    print(json.dumps(result, indent=2))
    return 0 if error <= AGREEMENT else 1


if __name__ == "__main__":
    sys.exit(main())
