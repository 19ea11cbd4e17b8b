"""Fixtures for every test: a Python process of its own, because no test process may hold both frameworks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
