"""The shell scripts, run by a real bash with a real venv and pip; and the lock file held against pyproject.toml.

The set-up tests use a tiny project in a folder of its own: one locked wheel, a build backend inside the tree, and an
`align` that prints what it was given. So they need no network and no framework.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("scripts/*.sh"), ROOT / ".ci/run"])
STEPS = ["data", "weights", "init", "forward", "metric", "loss", "bp_align", "optim", "train_align"]

# ---- every script ----


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_stops_at_errors(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(script, os.X_OK), f"{script} is not executable"
    subprocess.run(["bash", "-n", script], check=True)


def test_every_step_has_its_script():
    assert {path.stem for path in ROOT.glob("scripts/step_*.sh")} == {f"step_{step}" for step in STEPS}


# ---- the lock file ----


def pins(lock: str) -> dict[str, str]:
    """Name to version; an AssertionError for anything in the text that is not `name==version` with sha256 hashes."""
    found = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        pin = re.fullmatch(r"([a-z0-9-]+)==([^\s@]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", entry)
        assert pin, f"not a pin with hashes: {entry[:80]!r}"
        found[pin[1]] = pin[2]
    return found


def disagreements(pyproject: dict, pinned: dict[str, str]) -> list[str]:
    project = pyproject["project"]
    wanted = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    wanted += [line for extra in project["optional-dependencies"].values() for line in extra]
    return [
        f"{line}: the lock has {pinned.get(canonicalize_name(requirement.name))}"
        for line in wanted
        for requirement in [Requirement(line)]
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name)) or "0")
    ]


def test_lock_is_pins_with_hashes_and_nothing_else():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = pins(lock)
    # A local version (2.13.0+cpu) exists only on some machine's own index.
    assert not [pin for pin in pinned.items() if "+" in pin[1]]
    assert not re.search(r"://|#|(?:^|\s)-(?!-hash=)|\s/", lock)


@pytest.mark.parametrize(
    "line", ["--extra-index-url https://example.org/simple", "numpy==2.0", "numpy @ file:///wheels/numpy.whl"]
)
def test_lock_check_can_fail(line):
    with pytest.raises(AssertionError, match="not a pin"):
        pins((ROOT / "requirements.lock").read_text() + line + "\n")


def test_lock_and_pyproject_agree():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = pins((ROOT / "requirements.lock").read_text())
    assert disagreements(pyproject, pinned) == []
    assert disagreements(pyproject, {**pinned, "timm": "1.0.24"}) == ["timm==1.0.31: the lock has 1.0.24"]
    del pinned["numpy"]
    assert disagreements(pyproject, pinned) == ["numpy>=2.0: the lock has None"]


# ---- set-up, and what starts it ----

BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny-0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 0\\n")
        wheel.writestr("tiny-0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
MAIN = """
import json, os, sys
import demo
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "demo": demo.VERSION}))
sys.exit(int(os.environ.get("ALIGN_EXIT", "0")))
"""


def wheel(folder: Path, version: str, value: str) -> str:
    """Write a wheel of `demo` whose VERSION is `value`; its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"demo-{version}-py3-none-any.whl"
    info = f"demo-{version}.dist-info"
    files = {
        "demo.py": f"VERSION = {value!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for name, text in files.items()
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Project:
    def __init__(self, folder: Path):
        self.root = folder / "a project"
        self.wheels = folder / "wheels"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "align").mkdir()
        (self.root / "align/__init__.py").write_text("")
        (self.root / "align/__main__.py").write_text(MAIN)
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        right = wheel(self.wheels, "1.0", "right")
        # What a machine's own pip settings may offer besides. (A file of the very same version there would win and then
        # fail its hash: pip knows no hashes of the files in a folder.)
        wheel(self.wheels, "0.9+cpu", "older")
        wheel(self.wheels, "2.0", "newer")
        self.lock(right)
        self.env = {**os.environ, "PYTHON": sys.executable, "CI": "true", "PIP_NO_INDEX": "1"}
        self.env["PIP_FIND_LINKS"] = str(self.wheels)

    def lock(self, digest: str) -> None:
        (self.root / "requirements.lock").write_text(f"demo==1.0 \\\n    --hash=sha256:{digest}\n")

    def start(self, script: str, *argv: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", self.root / "scripts" / script, *argv],
            cwd="/",
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *argv: str, **env: str) -> subprocess.CompletedProcess:
        process = self.start(script, *argv, **env)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @property
    def python(self) -> Path:
        return self.root / ".venv/bin/python"


@pytest.fixture
def project(tmp_path):
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the lock is for Python 3.11")
    return Project(tmp_path)


def test_a_script_sets_up_and_hands_its_arguments_on(project):
    (project.root / ".venv").mkdir()
    (project.root / ".venv/precious").write_text("mine")
    first = project.run("step_bp_align.sh", "--case", "pit_ti", "--out", "two words", ALIGN_EXIT="4")
    assert first.returncode == 4, first.stderr
    # Standard output belongs to align (it may be JSON); what set-up says goes to standard error.
    assert json.loads(first.stdout) == {
        "argv": ["run", "bp_align", "--case", "pit_ti", "--out", "two words"],
        "cwd": str(project.root),
        "demo": "right",
    }
    assert "setup: making .venv" in first.stderr
    # A .venv that set-up did not make is moved aside, not removed.
    (kept,) = project.root.glob(".venv.kept-*")
    assert (kept / "precious").read_text() == "mine"

    again = project.run("run_all_steps.sh")
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["argv"] == ["run"]

    # Every check runs, and each that fails is named; here all four, because none of the tools is in this environment.
    tests = project.run("test.sh")
    assert tests.returncode == 1
    assert tests.stdout.splitlines()[-1].startswith("test.sh: FAILED: ruff check, ruff format, mypy, pytest (")


@pytest.mark.slow  # each makes an environment or two
def test_only_what_changed_is_done_again(project):
    assert project.run("setup.sh").returncode == 0
    witness = project.root / ".venv/witness"
    witness.touch()
    (project.root / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    changed = project.run("setup.sh")
    assert changed.returncode == 0
    assert "adding the project" in changed.stdout
    assert witness.exists()

    # An interpreter that has gone, as after an upgrade of the system's Python: made again.
    project.python.unlink()
    project.python.symlink_to("/nonexistent/python")
    rebuilt = project.run("setup.sh")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "removing the old .venv" in rebuilt.stdout
    assert not witness.exists()
    assert subprocess.run([project.python, "-c", "import demo"]).returncode == 0


@pytest.mark.slow  # each makes an environment or two
def test_killed_halfway_then_two_at_once(project):
    killed = project.start("setup.sh")
    deadline = time.monotonic() + 60
    while not project.python.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (project.root / ".venv/.align-ready").exists()

    both = [project.start("setup.sh"), project.start("setup.sh")]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("removing the old .venv" in out for out, _ in said) == 1
    assert subprocess.run([project.python, "-c", "import demo"]).returncode == 0


@pytest.mark.slow  # each makes an environment or two
def test_wrong_hash_is_an_error_that_is_shown(project):
    project.lock("0" * 64)
    result = project.run("setup.sh")
    assert result.returncode == 3
    assert "DO NOT MATCH THE HASHES" in result.stderr
    assert "setup: error: pip could not install" in result.stderr
    assert not (project.root / ".venv/.align-ready").exists()


def test_no_python_says_what_to_do(project):
    result = project.run("run_all_steps.sh", PYTHON="/nonexistent/python")
    assert result.returncode == 3
    assert "PYTHON=/nonexistent/python is not a working Python 3.11" in result.stderr
    assert not (project.root / ".venv").exists()
