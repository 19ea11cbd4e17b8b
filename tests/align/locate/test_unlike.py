"""Module trees of another structure: what is wrong is found forwards and backwards, also downstream of another bug."""

import pytest

from align.errors import UsageError
from tests.align.locate.conftest import BUGS, meets

QUICK = {"final-norm-missing", "gradient-doubled"}


@pytest.mark.parametrize("step", ["forward", "bp_align"])
def test_a_clean_pair_has_no_divergence(unlike, step):
    assert unlike.locate(step) == ([], {})


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_the_changed_line_is_named(unlike, bug):
    found, changed = unlike.locate(BUGS[bug]["step"], bug)
    assert found, "nothing was found"
    assert found[0].port.file.endswith(BUGS[bug]["file"])
    assert meets(found[0].port, changed[bug]), f"{found[0]} changed {changed[bug]}"
    assert "/timm/" in found[0].reference.file


@pytest.mark.slow
def test_three_bugs_at_once(unlike):
    """Each downstream of the one before it; nothing else is blamed."""
    bugs = ("position-embedding-missing", "late-norm-epsilon", "final-norm-epsilon-1e-5")
    found, changed = unlike.locate("forward", *bugs)
    assert [d.module for d in found] == [BUGS[bug]["expect"]["module"] for bug in bugs]
    for divergence, bug in zip(found, bugs, strict=True):
        assert meets(divergence.port, changed[bug]), bug


def test_a_mapping_wins(unlike):
    """Two norms exchanged by a user: nothing else would pair them, and each now has the other's weights."""
    block = "transformers.0.blocks.0"
    names = {f"{block}.norm1": f"{block}.norm2", f"{block}.norm2": f"{block}.norm1"}
    found, _ = unlike.locate("forward", mapping={"modules": names})
    assert {d.module for d in found} >= {f"{block}.norm1", f"{block}.norm2"}
    right = {"modules": {"transformers.1.pool": "pools.0"}}
    assert unlike.locate("forward", mapping=right) == ([], {})


def test_names_of_the_mapping_that_nobody_has(unlike):
    with pytest.raises(UsageError, match=r"'pools.7', which the port does not have; near: pools"):
        unlike.locate("forward", mapping={"modules": {"transformers.1.pool": "pools.7"}})
