"""What optimizers keep, by the reference's names and in its layout; saved by one side and gone on with by either."""

import numpy as np
import pytest

from tests.models.optim_probe import HALF, LATE, OPTIMIZERS, RUN, UPDATED, part

SIDES = ("torch_ref", "paddle_impl")
START = "import runpy; runpy.run_module('tests.models.optim_probe', run_name='__main__')"
SLOTS = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "sgd": set(),
    "momentum": {"momentum_buffer"},
}
# Greatest observed: 6e-16, relative to the greatest element; the room is for other processors and versions.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    """{package: {key: array}}; the second package is also given the first one's states."""
    folder, result = tmp_path_factory.mktemp("optim"), {}
    for package, other in zip(SIDES, SIDES[::-1], strict=True):
        given = [folder / f"{other}.npz"] if (folder / f"{other}.npz").exists() else []
        run_python(START, package, folder / f"{package}.npz", *given)
        result[package] = dict(np.load(folder / f"{package}.npz"))
    run_python(START, SIDES[0], folder / "again.npz", folder / f"{SIDES[1]}.npz")
    result[SIDES[0]] = dict(np.load(folder / "again.npz"))
    return result


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert ours[key].shape == theirs[key].shape, key
        assert ours[key].dtype == theirs[key].dtype, key
        scale = max(np.abs(theirs[key]).max(), 1e-300)
        assert np.abs(ours[key] - theirs[key]).max() <= ROUNDING * scale, key


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("when", ["half", "end"])
def test_both_keep_the_same(facts, name, when):
    ours, theirs = (part(facts[package], f"{name}/{when}/") for package in SIDES[::-1])
    assert_close(ours, theirs)


@pytest.mark.parametrize("package", SIDES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_slots_of_what_was_updated(facts, package, name):
    """A parameter without a gradient is in no state before it gets one."""
    half, end = (part(facts[package], f"{name}/{when}/state/") for when in ("half", "end"))
    updated = set(UPDATED)
    assert half.keys() == {f"{parameter}/{slot}" for parameter in updated for slot in SLOTS[name]}
    assert end.keys() == {f"{parameter}/{slot}" for parameter in updated | {LATE} for slot in SLOTS[name]}
    for key, array in end.items():
        if key.endswith("/step"):
            assert array == (RUN - HALF if key.startswith(LATE) else RUN)
            assert (array.dtype, array.shape) == (np.int64, ())
    if SLOTS[name]:
        matrix = end[f"fc.weight/{'momentum_buffer' if name == 'momentum' else 'exp_avg'}"]
        assert matrix.shape == (7, 6)  # (out, in), on both sides


@pytest.mark.parametrize("package", SIDES)
@pytest.mark.parametrize("origin", ["own", "other"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_ends_as_if_it_had_not_stopped(facts, package, origin, name):
    """From this side's state to the last bit, but for the sums of another order that a machine may choose."""
    assert_close(part(facts[package], f"{origin}/{name}/end/"), part(facts[package], f"{name}/end/"))


@pytest.mark.parametrize("package", SIDES)
def test_the_state_matters(facts, package):
    """What the tests above compare is not the same anyway: half-way and end are far apart."""
    half, end = (part(facts[package], f"adamw/{when}/state/") for when in ("half", "end"))
    assert np.abs(half["fc.weight/exp_avg"] - end["fc.weight/exp_avg"]).max() > 0.01


@pytest.mark.parametrize("package", SIDES)
@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("unknown", "optimizer state 'head.bias/exp_avg': the model has no parameter 'head.bias'"),
        ("slot", "optimizer state 'fc.bias/momentum_buffer': this optimizer keeps step, exp_avg, exp_avg_sq"),
        ("shape", "optimizer state 'fc.bias/exp_avg': shape (6,), where the model needs (7,)"),
        ("lacking", "optimizer state of 'fc.bias': lacks step, exp_avg_sq"),
    ],
)
def test_a_state_that_does_not_fit(facts, package, label, told):
    assert str(facts[package][f"error/{label}"]) == told
