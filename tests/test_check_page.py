"""docs/check.md carried out: its files written, its commands run one after another, the output held to the page."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/check.md"
BLOCK = re.compile(r"^```(python|toml|bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FAILS = "mine/port.py:Small --input 4,3,33,41"  # the first command of the page meets the mistake


def environment(path):
    """An interpreter of its own, which finds the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages = next(path.glob("lib/python*/site-packages"))
    (packages / "locked.pth").write_text(next(entry for entry in sys.path if entry.endswith("site-packages")) + "\n")


def blocks():
    return BLOCK.findall(PAGE.read_text())


def write(folder, text):
    """A block that begins with a file's name; with `:N` after it, the one line of that number."""
    name, number = re.match(r"# ([\w/.]+?)(?::(\d+))?\n", text).groups()
    path, content = folder / name, text.partition("\n")[2]
    path.parent.mkdir(exist_ok=True)
    if number:
        lines = (folder / name).read_text().splitlines(keepends=True)
        lines[int(number) - 1] = content
        content = "".join(lines)
    path.write_text(content)


def run(folder, line):
    """(exit code, what was printed, without the folder in paths)."""
    words = shlex.split(line)
    if words[0] == "cp":
        shutil.copytree(folder / words[2], folder / words[3])
        return 0, ""
    words[:1] = {".venv/bin/align": [sys.executable, "-m", "align"], ".venv/bin/python": [sys.executable]}[words[0]]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=settings)
    return result.returncode, (result.stdout + result.stderr).replace(f"{folder}/", "")


def carried_out(folder):
    """(command, exit code, output) of every command of the page, in its order."""
    for side in ("torch", "paddle"):
        environment(folder / "envs" / side)
    for language, text in blocks():
        if language in ("python", "toml"):
            write(folder, text)
        elif language == "bash":
            for line in text.splitlines():
                yield line, *run(folder, line)


def bare(line):
    """A line without its numbers, which machines and versions differ in, and without the frame of a table."""
    return re.sub(r"\d[\d.e+-]*", "#", " ".join(re.sub(r"[│┃]", " ", line).split()))


@pytest.mark.slow
def test_the_page_is_what_happens(tmp_path):
    done = list(carried_out(tmp_path))
    assert len(done) > 9
    for line, code, printed in done:
        assert code == (1 if line.endswith(FAILS) else 0), f"{line}\n{printed}"
    there = [bare(line) for _, _, printed in done for line in printed.splitlines()]
    there += [bare(line) for line in (tmp_path / "mine/names.toml").read_text().splitlines()]
    told = [line for language, text in blocks() if language == "text" for line in text.splitlines()]
    told = [line for line in told if re.search(r"\w", line) and line.strip() != "..."]
    assert len(told) > 20
    # The worst row of a table is the machine's; what decides is beside it.
    judged = [bare(line) for line in told if "│" not in line]
    assert [line for line in judged if not any(line in printed for printed in there)] == []


if __name__ == "__main__":  # prints what the page should hold
    for command in carried_out(Path(sys.argv[1])):
        print(*command, sep="\n", flush=True)
