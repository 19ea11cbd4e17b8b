"""Fixtures for every test: Python processes of their own, because no test process may hold both frameworks."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align.cli import check
from align.compare import waivers
from align.gate import reported
from align.running import Running

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the heavy models and the long matrices too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs --slow"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def run_python():
    """Run Python source in a fresh interpreter from the project's root, with one thread."""

    def run(code, *argv, check=True, env=None, cwd=None):
        result = subprocess.run(
            [sys.executable, "-c", code, *map(str, argv)],
            cwd=cwd or ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
        )
        if check and result.returncode:
            raise AssertionError(f"exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    return run


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A function that gives the verdict of `align check` with these words.

    The sides' processes stay for the module's tests, so that each imports its framework once. They keep what else they
    have imported, too: a model that a test changes needs a file name of its own.
    """
    out = tmp_path_factory.mktemp("checked")
    with Running() as running:

        def verdict(*words):
            parser = argparse.ArgumentParser()
            check.configure(parser)
            options = check.options_of(parser.parse_args([*map(str, words), "--out", str(out)]))
            return reported(options, waivers.read(None, None), processes=running.of(options), logs=False)

        yield verdict
