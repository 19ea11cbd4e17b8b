"""One bug put in by hand at each of many places: the first divergence is the line that was changed."""

import pytest

from tests.align.locate.conftest import BUGS, meets

# The others are run with --slow.
QUICK = {"qkv-order", "scale-missing", "one-gelu-approximate", "stage-detached", "gradient-doubled"}


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_the_changed_line_is_named(bench, bug):
    found, changed = bench.locate(BUGS[bug]["step"], bug)
    assert found, "nothing was found"
    first = found[0]
    assert first.module == BUGS[bug]["expect"]["module"]
    assert first.port.file.endswith(BUGS[bug]["file"])
    assert meets(first.port, changed[bug]), f"{first.port} built {first.port.built}, changed {changed[bug]}"
    assert first.reference.file.endswith("torch_ref/pit.py")


def test_another_shape_is_told_once(bench):
    found, _ = bench.locate("forward", "pooling-without-padding")
    assert {divergence.module for divergence in found} == {"pools.0.conv", "pools.1.conv"}


def test_three_bugs_at_once(bench):
    """The second and third lie downstream of the first, which a comparison of free runs cannot see past."""
    bugs = ("position-embedding-missing", "late-norm-epsilon", "final-norm-epsilon-1e-5")
    found, changed = bench.locate("forward", *bugs)
    assert {d.module for d in found} == {BUGS[bug]["expect"]["module"] for bug in bugs}
    for bug in bugs:
        here = next(d for d in found if d.module == BUGS[bug]["expect"]["module"])
        assert meets(here.port, changed[bug]), bug


@pytest.mark.parametrize("step", ["forward", "bp_align"])
def test_a_clean_pair_has_no_divergence(bench, step):
    assert bench.locate(step) == ([], {})
