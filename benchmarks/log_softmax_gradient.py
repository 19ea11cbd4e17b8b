"""What drives the largest ratio of a correct port: `python benchmarks/log_softmax_gradient.py`, on a CPU; prints JSON.

The gradient of label-smoothing cross entropy, on both sides, against the formula in extended precision. Its backward
sums one number a class; Paddle's kernel adds them one after the other, PyTorch's in vector lanes, which rounds less.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLASSES, SEEDS, BATCH, SMOOTHING = (64, 1000, 21841), 20, 8, float(np.float32(0.1))


def exact(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, C) gradient of the mean loss, as numpy's longdouble: 64 bits of significand on x86."""
    shifted = logits.astype(np.longdouble)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    wanted = np.full(logits.shape, np.longdouble(SMOOTHING) / logits.shape[1])
    wanted[np.arange(len(logits)), target] += 1 - np.longdouble(SMOOTHING)
    return (shifted / shifted.sum(1, keepdims=True) * wanted.sum(1, keepdims=True) - wanted) / len(logits)


def torch_gradient(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    import torch

    from torch_ref.losses import LabelSmoothingCrossEntropy

    tensor = torch.from_numpy(logits).requires_grad_()
    LabelSmoothingCrossEntropy(SMOOTHING)(tensor, torch.from_numpy(target)).backward()
    return tensor.grad.numpy()


def paddle_gradient(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    import paddle

    from paddle_impl.losses import LabelSmoothingCrossEntropy

    tensor = paddle.to_tensor(logits, stop_gradient=False)
    LabelSmoothingCrossEntropy(SMOOTHING)(tensor, paddle.to_tensor(target)).backward()
    return tensor.grad.numpy()


def errors(side: str) -> dict[str, float]:
    """By type and classes: the greatest error of a gradient, in the type's epsilon; median over the seeds."""
    gradient = {"torch": torch_gradient, "paddle": paddle_gradient}[side]
    found = {}
    for dtype in ("float32", "float64"):
        for classes in CLASSES:
            greatest = []
            for seed in range(SEEDS):
                rng = np.random.default_rng([seed, 2])
                logits = (3 * rng.standard_normal((BATCH, classes))).astype(np.float32).astype(dtype)
                target = rng.permutation(classes)[:BATCH]
                greatest.append(float(np.abs(gradient(logits, target) - exact(logits, target)).max()))
            found[f"{dtype}, {classes} classes"] = round(float(np.median(greatest) / np.finfo(dtype).eps), 3)
    return found


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(errors(sys.argv[1])))
        return
    both = {}
    for side in ("torch", "paddle"):  # in a process each: no process holds both frameworks
        done = subprocess.run([sys.executable, __file__, side], capture_output=True, text=True, check=True)
        both[side] = json.loads(done.stdout.splitlines()[-1])
    quotient = {name: round(both["paddle"][name] / both["torch"][name], 1) for name in both["torch"]}
    print(json.dumps({**both, "paddle / torch": quotient}, indent=2))


if __name__ == "__main__":
    main()
