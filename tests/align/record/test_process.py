"""How a side's interpreter is started."""

import os
import subprocess
import sys

import pytest

from align.record import process


@pytest.mark.parametrize("named", [True, False])
def test_an_installed_project_does_not_hide_another_interpreters_packages(tmp_path, monkeypatch, named):
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "numpy.py").write_text("")  # the harness's own, which would not do there
    (installed / "asks.py").write_text("import sys, numpy\nprint(numpy.__file__, sys.argv[1])\n")
    monkeypatch.setattr(process, "ROOT", installed)
    command, path = process.module_command("asks", sys.executable if named else None)
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(map(str, path))}
    printed = subprocess.run([*command, "torch"], env=env, capture_output=True, text=True, check=True).stdout
    found, argument = printed.split()
    assert argument == "torch"
    assert (found == str(installed / "numpy.py")) == (not named)
