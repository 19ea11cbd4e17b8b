"""What cannot be used is refused before a framework is started: one message, the right exit code, nothing written."""

import os
import subprocess
import sys

import numpy as np
import pytest

from align.cli import main
from align.errors import UsageError
from align.plan.photographs import in_folder

PAIR = ["mine.py:Net", "mine.py:Net", "--input", "2,3"]
CASE = """
[[case]]
name = {name}
reference = "mine.py:Net"
port = "mine.py:Net"
inputs = ["2,3"]
"""


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The command line called with arguments that cannot be used, in an empty folder: exit code and message."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        code = main([*arguments])
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        told = capsys.readouterr()
        assert not told.out
        return code, told.err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "loss", "--case", "pit_ti_timm"], "case pit_ti_timm has no step 'loss'; it has forward bp_align"),
        (["record", "loss", "--case", "pit_ti_timm", "--side", "torch"], "has no step 'loss'"),
        (["run", "--case", "pit_probe", "--seed", "-1"], "the seed is -1; give 0 or more"),
        (["run", "--data", "nowhere"], "--data nowhere: no such"),
        (["run", "--weights", "nowhere.pth"], "--weights nowhere.pth: no such"),
        (["check", *PAIR, "--name", ".."], "a case called '..': it is the name of a folder too"),
        (["check", *PAIR, "--name", "../mine"], "a case called '../mine'"),
        (["check", *PAIR, "--seed", "-3"], "the seed is -3"),
        (["check", *PAIR, "--input", "ids=2:int64<100000000000000000000"], "say below which number they are"),
        (["check", *PAIR, "--input", "ids=2:int32<5000000000"], "say below which number they are"),
        (["check", *PAIR, "--write-map", "map.toml", "--side", "torch"], "--write-map: the port's parameters are not"),
        (["check", *PAIR, "--write-map", "no/map.toml"], "--write-map no/map.toml: cannot write there"),
        (["zoo", "--markdown", "no/page.md"], "--markdown no/page.md: cannot write there"),
        (["mutate", "--markdown", "no/page.md"], "--markdown no/page.md: cannot write there"),
        (["freeze", "--from", ".", "--seed", "3"], "--seed: goes with a recording made anew, not with --from"),
        (["freeze", "--out", "."], "--out .: is a folder; name a file in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unusable_arguments(refused, arguments, message):
    code, told = refused(*arguments)
    assert code == 2, told
    assert told.count("\n") == 1, told
    assert message in told


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("mine.toml", CASE.format(name='"../mine"'), "a case called '../mine'"),
        ("mine.toml", CASE.format(name='""'), "a case called ''"),
        ("mine.toml", CASE.format(name='"mine"\nseed = -1'), "case mine: the seed is -1"),
        ("mine.toml", CASE.format(name='"mine"\nbuild = { day = 2020-01-01 }'), "what it holds must be plain values"),
        ("mine.py", "import sys\nsys.exit(0)\n", "mine.py: it raised SystemExit: 0"),
        (
            "mine.py",
            "from align.case import Case\n"
            "MINE = Case('mine', 'a.py:Net', 'b.py:Net', inputs=('2,3',), build={'norm': Case})\n",
            "what it holds must be plain values",
        ),
    ],
    ids=["a path", "no name", "seed", "a date", "it exits", "a class"],
)
def test_unusable_cases(refused, tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    code, told = refused("run", "--case", file)
    assert code == 2, told
    assert told.count("\n") == 1, told
    assert message in told


def test_photographs_whose_names_no_report_can_hold(tmp_path):
    folder = tmp_path / "photographs" / "cats"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    with pytest.raises(UsageError, match="is a name that no report can hold; rename the file"):
        in_folder(tmp_path / "photographs")


def test_arrays_of_an_archive_that_was_cut_short(refused, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04" + bytes(40))
    code, told = refused("check", "a.py:Net", "b.py:Net", "--input", "@x.npz")
    assert code == 2
    assert f"--input @{tmp_path / 'x.npz'}: cannot read it" in told


@pytest.mark.parametrize("side", ["torch", "paddle"])
def test_an_interpreter_that_is_none(tmp_path, monkeypatch, capsys, side):
    """What answers is named, not taken for a fault of the harness."""
    stranger = tmp_path / "python"
    stranger.write_text("#!/bin/sh\necho welcome\n")
    stranger.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    code = main(["check", *PAIR, f"--{side}-python", str(stranger), "--side", "both"])
    told = capsys.readouterr().err
    assert code == 3, told
    assert f"the {side} process ({stranger}) said 'welcome' instead of an answer" in told


def _shell(command, tmp_path, root):
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("align", f"{sys.executable} -m align")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


def test_an_answer_that_cannot_be_written(tmp_path, root):
    result = _shell("align cases --json >/dev/full", tmp_path, root)
    assert result.returncode == 3, result.stderr
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_package_that_is_not_installed(tmp_path, root):
    """3, the environment; not 1, which is a verdict."""
    blocked = "import sys; sys.modules['rich'] = None\nfrom align.cli import main\nsys.exit(main(['run']))"
    result = subprocess.run([sys.executable, "-c", blocked], cwd=root, capture_output=True, text=True)
    assert result.returncode == 3, result.stderr
    assert result.stderr.startswith(f"align: error: {sys.executable} has no package 'rich")


@pytest.mark.parametrize("options", ["", "--json"])
def test_nobody_reads_on(tmp_path, root, options):
    """The verdict stays the exit code: 0 and 1, as without a pipe."""
    for name, value in (("a.npy", 1.0), ("same.npy", 1.0), ("other.npy", 2.0)):
        np.save(tmp_path / name, {"x": np.full(12, value)})
    for port, code in (("same", 0), ("other", 1)):
        result = _shell(f"align diff a.npy {port}.npy {options} | true", tmp_path, root)
        assert (result.returncode, result.stderr) == (code, "")
