"""The kernels' cache: made when it can be, done without when not, mended when damaged; and imported only when used."""

import os
import shutil
import subprocess

import pytest

COMPARE = """
import numpy as np
from align.compare.statistics import compare
from align.compare import jit
result = compare(np.array([1.0, 2.0], np.float32), np.array([1.0, 4.0], np.float32))
assert (result.max_abs, result.index, result.rel) == (2.0, (1,), 2.0 / 17.0**0.5), result
print(jit.CACHE)
"""


def cached(folder):
    return sorted(path for path in folder.rglob("*.nbc"))


def test_numba_is_imported_when_arrays_are_compared_and_not_before(run_python):
    code = (
        "import sys, align.compare.statistics as s, align.compare.bare, align.compare.strict\n"
        "print('numba' in sys.modules)\n"
        "import numpy as np; s.compare(np.ones(2), np.ones(2))\n"
        "print('numba' in sys.modules)\n"
    )
    assert run_python(code).stdout.split() == ["False", "True"]


def test_the_code_is_kept_and_found_again(run_python, tmp_path):
    env = {"NUMBA_CACHE_DIR": str(tmp_path)}
    folder = run_python(COMPARE, env=env).stdout.strip()
    assert folder.startswith(str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in cached(tmp_path)}
    assert before
    run_python(COMPARE, env=env)
    assert {path: path.stat().st_mtime_ns for path in cached(tmp_path)} == before


@pytest.mark.parametrize(
    "damage",
    [b"\x80\x05garbage", pytest.param(b"", marks=pytest.mark.slow), pytest.param(None, marks=pytest.mark.slow)],
    ids=["overwritten", "empty", "half of each file"],
)
def test_a_damaged_cache_is_made_anew(run_python, tmp_path, damage):
    env = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run_python(COMPARE, env=env)
    files = [*tmp_path.rglob("*.nbc"), *tmp_path.rglob("*.nbi")]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage is None else damage)
    run_python(COMPARE, env=env)
    assert cached(tmp_path)
    assert all(path.stat().st_size > 1000 for path in cached(tmp_path))


def test_without_any_folder_to_write_to_the_code_is_compiled_in_memory(run_python, root, tmp_path):
    # A copy of the package whose cache folder's name is taken by a file, and no home: also root cannot write there.
    shutil.copytree(root / "align", tmp_path / "align", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "align" / "compare" / "__pycache__").write_text("")
    (tmp_path / "taken").write_text("")
    env = {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "taken"), "XDG_CACHE_HOME": str(tmp_path / "taken")}
    run_python(COMPARE, env=env | {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": ""}, cwd=tmp_path)
    assert not cached(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_does_not_stop_a_comparison(run_python, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        result = run_python(COMPARE, env={"NUMBA_CACHE_DIR": str(tmp_path)}, check=False)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert result.returncode == 0, result.stderr


def test_a_kernel_that_answers_wrongly_is_not_trusted(run_python):
    code = """
import numpy as np
from align.compare import kernels
from align.compare.statistics import compare
from align.errors import EnvironmentFault
right = kernels.measure_floats
kernels.measure_floats = lambda a, b: (*right(a, b)[:8], 0.0, *right(a, b)[9:])
try:
    compare(np.ones(2), np.ones(2))
except EnvironmentFault as error:
    print(error)
"""
    assert "measure_floats(float64, float64) does not work here: it answers" in run_python(code).stdout
