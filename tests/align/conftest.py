"""Fixtures for tests that call the command line: one finished run serves them all."""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def align(root):
    """Run the command line in a process; returns the CompletedProcess."""

    def call(*arguments, cwd=root, env=None):
        return subprocess.run(
            [sys.executable, "-m", "align", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root), **(env or {})},
        )

    return call


@pytest.fixture(scope="session")
def finished(align, tmp_path_factory):
    """A whole run of the probe case without the long training step: its folder and what it printed."""
    out = tmp_path_factory.mktemp("run") / "log"
    result = align(
        "run", "data", "weights", "forward", "metric", "loss", "bp_align", "--case", "pit_probe", "--out", out
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out, result
