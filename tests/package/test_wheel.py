"""The wheel as a user gets it: built, installed into an environment of its own, and used there from another folder."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from align import __version__


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a command of a fresh environment that has the wheel and sees the locked packages, but not this tree."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    places = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    # A path in a .pth file is put on sys.path, and .pth files there (the editable install's) are not read.
    packages = sysconfig.get_path("purelib")
    with open(os.path.join(places.stdout.strip(), "locked.pth"), "w") as file:
        file.write(packages + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
    ]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    (folder / "elsewhere").mkdir()

    def run(*command):
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [folder / "venv" / "bin" / command[0], *map(str, command[1:])],
            cwd=folder / "elsewhere",
            env={**env, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


def test_every_file_of_the_package_is_in_it(wheel, root):
    """Templates, scripts and styles of the report, the schema, the catalogue: whatever is in the folders."""
    folders = (root / name for name in ("align", "paddle_impl", "torch_ref"))
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(root).as_posix() for path in paths if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
    assert {"align/report/templates/report.html", "align/mutate/catalogue.yaml"} <= files
    assert files - held == set()
    assert {name.partition("/")[0] for name in held} == {
        "align",
        "paddle_impl",
        "torch_ref",
        f"align_harness-{__version__}.dist-info",
    }


def test_it_is_the_wheel_that_runs(installed):
    result = installed("python", "-c", "import align, torch_ref; print(align.__file__, torch_ref.__file__)")
    assert result.stdout.count("site-packages") == 2, result.stdout + result.stderr
    assert "elsewhere" not in result.stdout


def test_the_entry_point(installed):
    result = installed("align", "--version")
    assert (result.returncode, result.stdout) == (0, f"align {__version__}\n"), result.stderr
    assert "pit_probe" in installed("align", "cases").stdout
    assert installed("python", "-m", "align", "--version").stdout == result.stdout


def test_a_run_and_its_reports(installed, tmp_path):
    result = installed("align", "run", "weights", "metric", "--case", "pit_probe", "--out", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verdict"] == "aligned"
    before = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    result = installed("align", "report", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "report.html").read_bytes() == before


def test_the_catalogue_of_mutants_is_there(installed):
    code = "from align.cli.mutate import SHIPPED, read_catalogue; print(len(read_catalogue(SHIPPED)))"
    result = installed("python", "-c", code)
    assert int(result.stdout) > 0, result.stderr
