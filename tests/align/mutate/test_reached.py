"""What a change can touch: the functions that differ, and those that a run has entered."""

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest

from align.mutate.reached import changed_functions, touches

BEFORE = dedent(
    """
    RATE = 0.1


    def scaled(x, by=2):
        return [part * by for part in x]


    class Block:
        '''A block.'''

        width: int = 4

        def forward(self, x):
            def inner(y):
                return y + 1

            return inner(x) - 1

        @property
        def depth(self):
            return 1.0
    """
)


@pytest.mark.parametrize(
    ("find", "replace", "changed"),
    [
        ("\nRATE", "\n\n# a comment\nRATE", set()),
        ("return inner(x) - 1", "return (\n            inner(x) - 1)", set()),
        ("return inner(x) - 1", "return inner(x) + 1", {"Block.forward"}),
        ("return y + 1", "return y + 2", {"Block.forward.<locals>.inner"}),
        ("part * by", "part + by", {"scaled.<locals>.<listcomp>"}),
        ("return 1.0", "return 1", {"Block.depth"}),
        ("return 1.0", "return True", {"Block.depth"}),
        ("return y + 1", "return [z for z in y]", {"Block.forward.<locals>.inner"}),
        ("def forward(self, x)", "def forward(self, x, more=None)", {"Block"}),
        ("by=2", "by=3", {"<module>"}),
        ("RATE = 0.1", "RATE = 0.2", {"<module>"}),
        ("width: int = 4", "width: int = 8", {"Block"}),
        ("    @property\n", "", {"Block"}),
        ("by=2", "*, by=2", {"<module>"}),
        ("def scaled(x, by=2):", "def scaled(x, by=2)", {"<module>"}),
    ],
)
def test_the_functions_that_a_change_is_in(find, replace, changed):
    assert BEFORE.count(find) == 1
    found = changed_functions(BEFORE, BEFORE.replace(find, replace))
    assert found == changed


def test_what_was_not_seen_whole_is_touched():
    assert touches({"f"}, ["<module>", "f"])
    assert not touches({"f"}, ["<module>", "g"])
    assert touches({"f"}, None)


PROGRAM = """
import json, os, subprocess, sys
from align.record.followed import Followed
followed = Followed()
import port.model
port.model.Block().forward([1])
for act in {acts}:
    eval(act)
print(json.dumps(followed.entered("port")))
"""


@pytest.fixture
def entered(tmp_path):
    """What a process of its own that uses `port.model`, and does something besides, has entered."""
    for name, text in {
        "port/__init__.py": "",
        "port/model.py": BEFORE.replace("inner(x)", "sum(map(inner, x))"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(*acts):
        path = os.pathsep.join([str(tmp_path), os.getcwd()])
        command = [sys.executable, "-c", PROGRAM.format(acts=acts)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_what_a_process_enters_is_known_by_module(entered):
    assert entered() == {
        "port": ["<module>"],
        "port.model": ["<module>", "Block", "Block.forward", "Block.forward.<locals>.inner"],
    }


def test_other_threads_are_followed(entered):
    begin = "__import__('threading').Thread(target=lambda: port.model.scaled([1]))"
    assert "scaled" in entered(f"(lambda thread: (thread.start(), thread.join()))({begin})")["port.model"]


@pytest.mark.parametrize(
    "act",
    [
        "os.fork() or os._exit(0)",
        "subprocess.run([sys.executable, '-c', ''])",
        "sys.setprofile(None)",
    ],
)
def test_what_may_have_happened_unseen_is_not_claimed(entered, act):
    assert entered(act) is None


def test_programs_that_are_no_python_are_of_no_matter(entered):
    assert "port.model" in entered("subprocess.run(['true'])")
