"""Copies of a side's process, in real processes: each starts from the same state, and none reaches another."""

import pytest

from align.errors import EnvironmentFault, UsageError
from align.record.process import SideProcess


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with SideProcess("torch", tmp_path_factory.mktemp("copies") / "torch.log") as made:
        made.request("environment")
        made.request("follow")
        yield made


def loaded(process):
    return process.request("reached", package="own_of_a_copy")["modules"]


@pytest.fixture
def package(tmp_path):
    (tmp_path / "own_of_a_copy.py").write_text("WHO = 1")
    return tmp_path


def test_what_a_copy_imports_stays_its_own(process, package):
    with process.copied((package,)):
        process.request("preload", modules=["own_of_a_copy"])
        assert "own_of_a_copy" in loaded(process)
    assert "own_of_a_copy" not in loaded(process)
    assert "torch" in loaded(process)
    process.request("preload", modules=["own_of_a_copy"])  # its root is on no other path
    assert "own_of_a_copy" not in loaded(process)


def test_a_copy_that_dies_is_told_and_leaves_the_original(process):
    with process.copied():
        process.kill_copy()
        with pytest.raises(EnvironmentFault, match=r"torch process ended during reached \(status -9\)"):
            loaded(process)
    assert "torch" in loaded(process)


def test_an_error_does_not_end_a_copy(process):
    with process.copied():
        with pytest.raises(UsageError, match="torch side, forward: KeyError: 'no_such_run'"):
            process.request("step", run="no_such_run", step="forward")
        assert "torch" in loaded(process)
