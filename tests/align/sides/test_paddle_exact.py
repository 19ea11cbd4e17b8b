"""Paddle's kernels that round to float32 are exact in the twin, and only they: what is set otherwise stays as it is."""

import json
from pathlib import Path

import numpy as np
import pytest

PROBE = Path(__file__).with_name("exact_probe.py")
# A float64 kernel and its counterpart differ by a few ulp; a float32 constant by 1e-8.
LIMIT = 2.0**-44


@pytest.fixture(scope="module")
def probed(run_python):
    """Outputs and gradients by kernel, of PyTorch, and of Paddle as the twin has it and as it is."""
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"

    def one(*how):
        told = json.loads(run_python(code, PROBE, *how).stdout.splitlines()[-1])
        return {name: [np.array(array) for array in arrays] for name, arrays in told.items()}

    return {"torch": one("torch"), "exact": one("paddle"), "plain": one("paddle", "plain")}


def off(one, other):
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(one, other, strict=True))


KERNELS = [
    "avg_pool",
    "adaptive_avg_pool",
    "lp_pool",
    "pow",
    "selu",
    "hardsigmoid",
    "rrelu",
    "bilinear",
    "bilinear_corners",
    "bicubic",
    "label_smooth",
]


@pytest.mark.parametrize("name", KERNELS)
def test_a_completed_kernel_agrees_with_torch_in_float64(probed, name):
    assert off(probed["exact"][name], probed["torch"][name]) <= LIMIT


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_itself_does_not(probed, name):
    """Fails for a Paddle that computes in float64: then the kernel's stand-in can go."""
    assert LIMIT < off(probed["plain"][name], probed["torch"][name]) < 2.0**-16


@pytest.mark.parametrize("name", ["other_hardsigmoid", "other_nearest", "other_max_pool", "other_float32"])
def test_what_is_set_otherwise_is_the_kernels_own(probed, name):
    """0.1666667 for 1 / 6 is a port's difference, and no rounding: it stays visible."""
    assert off(probed["exact"][name], probed["plain"][name]) < 2.0**-22
    if name == "other_hardsigmoid":
        assert off(probed["exact"][name], probed["torch"]["hardsigmoid"]) > 1e-8
