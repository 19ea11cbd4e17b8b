"""The pytest plugin as a user meets it: a test run of its own, in a folder of its own."""

import os
import subprocess
import sys
import textwrap
from xml.etree import ElementTree

import pytest

SIDES = {"torch": ("torch", "Module", "eps=1e-6"), "paddle": ("paddle", "Layer", "epsilon=1e-6")}
NET = """
from {framework} import nn


class Net(nn.{base}):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4, {epsilon})

    def forward(self, x):
        return self.norm(self.fc(x))
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a reference, a right and a wrong port, and a way to run pytest in it."""
    for side, (framework, base, epsilon) in SIDES.items():
        (tmp_path / f"{side}_net.py").write_text(NET.format(framework=framework, base=base, epsilon=epsilon))
    wrong = (tmp_path / "paddle_net.py").read_text().replace("epsilon=1e-6", "epsilon=1e-5")
    (tmp_path / "wrong_net.py").write_text(wrong)

    def run(test, *arguments):
        (tmp_path / "test_net.py").write_text(textwrap.dedent(test))
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "160", "OMP_NUM_THREADS": "1"},
        )

    run.folder = tmp_path
    return run


def test_the_fixture_and_a_test_a_row(project):
    """Rows that are right pass, the wrong module's fail, and the whole fails with the console's text."""
    result = project(
        """
        import numpy as np
        import pytest
        from align.testing import aligned

        test_wrong = aligned("torch_net.py:Net", "wrong_net.py:Net", "3,6", steps=["forward"])


        def test_right(assert_aligned):
            verdict = assert_aligned("torch_net.py:Net", "paddle_net.py:Net", {"x": np.eye(6)})
            assert verdict.weights.counts == {"name": 4}


        def test_red(assert_aligned):
            assert_aligned("torch_net.py:Net", "wrong_net.py:Net", ["3,6"])


        def test_unusable(assert_aligned):
            assert_aligned("torch_net.py:Nett", "wrong_net.py:Net", "3,6")
        """,
        "--junitxml",
        "junit.xml",
    )
    out = result.stdout
    assert result.returncode == 1, out + result.stderr
    assert "Net: misaligned, first in step forward" in out
    assert "LayerNorm epsilon 1e-05 in the port, 1e-06 in the reference" in out
    assert "wrong_net.py:9  self.norm = nn.LayerNorm(4, epsilon=1e-5)" in out
    assert "E       Failed: nothing could be compared: torch_net.py:Nett: torch_net.py has no 'Nett'; near: Net" in out
    root = ElementTree.parse(project.folder / "junit.xml").getroot()
    red = {case.get("name"): case.find("failure") is not None for case in root.iter("testcase")}
    assert [red[f"forward/activation/{module}/out"] for module in ("fc", "norm")] == [False, True]
    assert [red[name] for name in ("test_right", "test_red", "test_unusable", "verdict")] == [False, True, True, True]
    assert (project.folder / ".pytest_cache/d/align/test_net_py_test_red/report.html").is_file()


def test_rows_are_chosen_by_name_and_shared_by_workers(project):
    """`-k` chooses rows; workers of xdist collect the same ids from one run of the pair."""
    text = """
        from align.testing import aligned

        test_wrong = aligned("torch_net.py:Net", "wrong_net.py:Net", "3,6", steps=["forward"])
    """
    chosen = project(text, "-k", "fc", "--align-out", "reports")
    assert chosen.returncode == 0, chosen.stdout + chosen.stderr
    made = (project.folder / "reports/test_net_py_test_wrong/verdict.json").stat().st_mtime_ns
    shared = project(text, "-n", "2", "--align-out", "reports")
    assert shared.returncode == 1, shared.stdout + shared.stderr
    assert "FAILED test_net.py::test_wrong::forward/activation/norm/out" in shared.stdout
    assert (project.folder / "reports/test_net_py_test_wrong/verdict.json").stat().st_mtime_ns != made


def test_models_of_one_process(project):
    """Models, and functions that have no name elsewhere; the frameworks are left as they were."""
    result = project(
        """
        import paddle
        import torch

        import paddle_net
        import torch_net
        import wrong_net


        def test_right(assert_aligned):
            reference, port = torch_net.Net(), paddle_net.Net()
            held, mine = reference.fc.weight.detach().clone(), port.fc.weight.numpy()
            torch.manual_seed(5)
            expected = torch.rand(3)
            torch.manual_seed(5)
            assert_aligned(reference, port, torch.zeros(3, 6).numpy() + 0.5)
            assert torch.equal(torch.rand(3), expected)
            assert torch.equal(held, reference.fc.weight) and (mine == port.fc.weight.numpy()).all()
            assert torch.get_default_dtype() == torch.float32 and paddle.get_default_dtype() == "float32"
            assert not torch.are_deterministic_algorithms_enabled()


        def test_red(assert_aligned):
            assert_aligned(lambda: torch_net.Net(), lambda: wrong_net.Net(), "3,6", one_process=True)
        """,
        "-W",  # what a framework warns of while it is asked is no matter of the tests
        "error::FutureWarning",
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 1 passed" in result.stdout, result.stdout
    assert "LayerNorm epsilon 1e-05 in the port, 1e-06 in the reference" in result.stdout


def test_a_run_without_it_pays_nothing(project):
    """It is loaded by every run, with neither numpy nor a framework; and the check can see them."""
    text = """
        import sys

        def test_nothing_is_imported():
            assert "align.testing.plugin" in sys.modules
            assert not {"numpy", "numba", "rich", "torch", "paddle", "align.pipeline"} & set(sys.modules)
    """
    result = project(text)
    assert result.returncode == 0, result.stdout + result.stderr
    assert project("import align.testing.harness\n" + textwrap.dedent(text)).returncode == 1
