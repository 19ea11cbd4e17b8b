"""Fixtures for tests that call the command line: one finished run serves them all, in every test process."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from align.record.process import SideProcess


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


@pytest.fixture(scope="module")
def paddle(tmp_path_factory):
    """A Paddle process of which every port gets a copy of its own, by `copied`, so that Paddle is imported once.

    Not for a run that fails: it ends the process.
    """
    with SideProcess("paddle", tmp_path_factory.mktemp("paddle") / "paddle.log") as process:
        process.request("environment")
        yield process


@pytest.fixture(scope="session")
def ran(align, tmp_path_factory, worker_id):
    """Run steps of the probe case, and options: the folder, not to be written to, and what was printed.

    The first test process that asks for a run makes it, the others wait for it.
    """
    alone = worker_id == "master"
    shared = tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent

    def run(*steps):
        folder = shared / "-".join(("run", *steps))
        folder.mkdir(exist_ok=True)
        told = folder / "told.json"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not told.exists():
                result = align("run", *steps, "--case", "pit_probe", "--out", folder / "log")
                told.write_text(json.dumps([result.returncode, result.stdout, result.stderr]))
        code, stdout, stderr = json.loads(told.read_text())
        assert code == 0, stdout + stderr
        return folder / "log", subprocess.CompletedProcess(steps, code, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def finished(ran):
    """A whole run of the probe case without the long training step: its folder and what it printed."""
    return ran("data", "weights", "forward", "metric", "loss", "bp_align")


@pytest.fixture(scope="session")
def reference_alone(ran):
    """A run of the reference's side alone, for a port that comes later: its folder and what it printed."""
    return ran("weights", "forward", "--side", "torch")
