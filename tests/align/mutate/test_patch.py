"""A catalogue is read strictly, and a copy of the port holds the bug and nothing else new."""

import hashlib

import pytest

from align.errors import UsageError
from align.mutate.patch import Mutant, changed_text, patch, read_catalogue

GOOD = """
- id: wrong-epsilon
  step: forward
  file: port/model.py
  find: "epsilon=1e-6"
  replace: "epsilon=1e-5"
"""


@pytest.fixture
def tree(tmp_path):
    """A tree with a port of two modules, bytecode, and another package beside it."""
    root = tmp_path / "tree"
    for name, text in {
        "port/model.py": "epsilon=1e-6\nother = 2  # µ\nepsilon=1e-6\n",
        "port/__init__.py": "",
        "port/part/losses.py": "loss = 1\r\n",
        "port/__pycache__/model.cpython-311.pyc": "old",
        "reference/model.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def mutant(**changes):
    return Mutant(
        **{"id": "m", "step": "forward", "file": "port/model.py", "find": "other = 2", "replace": "x", **changes}
    )


def catalogue(tmp_path, text):
    path = tmp_path / "bugs.yaml"
    path.write_text(text)
    return read_catalogue(path)


def test_a_mutant_is_read_with_its_defaults(tmp_path):
    (found,) = catalogue(tmp_path, GOOD)
    assert (found.id, found.step, found.count, found.equivalent, found.expect) == (
        "wrong-epsilon",
        "forward",
        1,
        False,
        {},
    )
    assert (found.package, found.module) == ("port", "port.model")


def test_every_key_of_the_format_is_read(tmp_path):
    keys = '  count: all\n  equivalent: true\n  expect: {module: "a.b", line: true, cause: epsilon}\n  source: seen\n'
    (found,) = catalogue(tmp_path, GOOD + keys)
    assert (found.count, found.equivalent, found.source) == ("all", True, "seen")
    assert found.expect == {"module": "a.b", "line": True, "cause": "epsilon"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a list"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        ("- 3", "expected a mapping"),
        (GOOD.replace("  step: forward\n", ""), "lacks step"),
        (GOOD.replace("forward", "forwards"), "unknown step 'forwards'"),
        (GOOD + "  cuont: 2\n", "unknown key cuont"),
        (GOOD + "  count: 0\n", "positive number"),
        (GOOD + "  count: true\n", "positive number"),
        (GOOD + "  equivalent: 1\n", "must be a bool"),
        (GOOD.replace('"epsilon=1e-5"', "1"), "must be text"),
        (GOOD.replace("1e-5", "1e-6"), "changes nothing"),
        (GOOD.replace("port/model.py", "../port/model.py"), "inside the tree"),
        (GOOD.replace("port/model.py", "/port/model.py"), "inside the tree"),
        (GOOD.replace("port/model.py", "model.py"), "inside the tree"),
        (GOOD + GOOD, "two mutants are called 'wrong-epsilon'"),
    ],
)
def test_what_is_no_catalogue_is_told(tmp_path, text, told):
    with pytest.raises(UsageError, match=told):
        catalogue(tmp_path, text)


def test_a_catalogue_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: cannot read it"):
        read_catalogue(tmp_path / "none.yaml")


@pytest.mark.parametrize(("count", "found"), [(1, 2), (3, 2)])
def test_another_number_of_places_is_an_error(tree, tmp_path, count, found):
    with pytest.raises(UsageError, match=rf"port/model\.py holds the text to find {found} times, not {count}"):
        patch(mutant(find="epsilon=1e-6", count=count), tree, tmp_path / "root")


@pytest.mark.parametrize("count", [1, "all"])
def test_text_that_is_not_there_is_an_error(tree, tmp_path, count):
    with pytest.raises(UsageError, match=f"holds the text to find 0 times, not {count}: 'absent'"):
        patch(mutant(find="absent", count=count), tree, tmp_path / "root")


def test_a_file_that_is_not_there_is_an_error(tree, tmp_path):
    with pytest.raises(UsageError, match=r"none\.py: cannot read it"):
        patch(mutant(file="port/none.py"), tree, tmp_path / "root")


@pytest.mark.parametrize("count", [2, "all"])
def test_every_place_is_replaced(count):
    assert changed_text(mutant(find="a", replace="b", count=count), "a.a") == "b.b"


def test_the_copy_holds_the_bug_and_nothing_else_new(tree, tmp_path):
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    patched = patch(mutant(replace="other = 3"), tree, tmp_path / "root")
    copied = {
        str(path.relative_to(patched.root)): path.read_bytes() for path in patched.root.rglob("*") if path.is_file()
    }
    assert copied == {
        "port/model.py": "epsilon=1e-6\nother = 3  # µ\nepsilon=1e-6\n".encode(),
        "port/__init__.py": b"",
        "port/part/losses.py": b"loss = 1\r\n",
    }
    assert patched.sha256 == hashlib.sha256(patched.file.read_bytes()).hexdigest()
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_notes_of_a_catalogues_own_are_welcome(tmp_path):
    (found,) = catalogue(tmp_path, GOOD + '  effect: "1.4e-3"\n')
    assert found.id == "wrong-epsilon"


def test_an_equivalent_change_needs_no_step(tmp_path):
    (found,) = catalogue(tmp_path, GOOD.replace("  step: forward\n", "  equivalent: true\n"))
    assert (found.step, found.equivalent) == ("", True)


def test_the_replaced_lines_are_those_of_the_changed_file(tree, tmp_path):
    changes = {"count": 2, "find": "epsilon=1e-6", "replace": "epsilon = (\n    1e-5\n)"}
    made = patch(mutant(**changes), tree, tmp_path / "root")
    assert made.lines == ((1, 3), (5, 7))
    assert made.file.read_text().splitlines()[4] == "epsilon = ("


def test_where_text_was_taken_out_its_line_counts(tree, tmp_path):
    made = patch(mutant(find="other = 2  # µ\n", replace=""), tree, tmp_path / "root")
    assert made.lines == ((2, 2),)
